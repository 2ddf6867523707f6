//! What the configuration holds: its sockets and their files.

use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::listen::{Bound, Inherited, UnixFile, open};
use portyard_core::wire::hold::{self as wire, Kind, Name};

use super::config::HoldConfig;
use super::socket::HeldSocket;
use super::table::Held;

/// A `[[hold]]` table whose sockets are held.
#[derive(Debug)]
pub(super) struct Configured {
    /// The table.
    pub config: HoldConfig,
    /// The files of its Unix sockets.
    pub files: Vec<UnixFile>,
}

/// A `[[hold]]` table that is about to be.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its name.
    pub name: Name,
    /// The table, and files of new sockets.
    pub configured: Configured,
    /// New sockets; none where those that are held already stay.
    pub sockets: Vec<(Kind, HeldSocket)>,
}

impl Configured {
    /// The sockets that are held for an endpoint of the table.
    fn sockets_of(
        &self,
        held: &Held<HeldSocket>,
        endpoint: &Endpoint,
        transport: Transport,
    ) -> Vec<(Kind, HeldSocket)> {
        let places = self.places(held.sockets.len()).into_iter();
        let all = places.zip(&held.sockets);
        all.filter(|((place, kind), _)| place == endpoint && *kind == transport)
            .map(|(_, socket)| socket.clone())
            .collect()
    }

    /// The endpoint of each of so many sockets.
    fn places(&self, count: usize) -> Vec<(Endpoint, Transport)> {
        let mut places: Vec<_> = self.config.endpoints().collect();
        // A host name may have stood for several sockets; then the last endpoint stands for the rest.
        if let Some(last) = places.last().cloned() {
            while places.len() < count {
                places.push(last.clone());
            }
        }
        places
    }

    /// Keeps the files of Unix sockets that another table at the same places had.
    pub fn keep_files(&mut self, before: Configured) {
        let kept = |file: &UnixFile| {
            let mut places = self.config.endpoints();
            places.any(|(place, _)| matches!(place, Endpoint::Unix(path) if path == file.path()))
        };
        let (kept, gone): (Vec<_>, Vec<_>) = before.files.into_iter().partition(kept);
        drop(gone);
        self.files.extend(kept);
    }

    /// Its sockets, as a successor finds them by its own table.
    pub fn bound<'a>(
        &self,
        name: &'a Name,
        held: &'a Held<HeldSocket>,
    ) -> impl Iterator<Item = (wire::Bound, HeldSocket)> + use<'a> {
        let places = self.places(held.sockets.len());
        let sockets = held.sockets.iter().map(|(_, socket)| socket.clone());
        places
            .into_iter()
            .zip(sockets)
            .map(|((endpoint, _), socket)| {
                let bound = wire::Bound {
                    endpoint: endpoint.to_string(),
                    listener: label(name),
                    opening: 0,
                };
                (bound, socket)
            })
    }
}

/// Opens all endpoints of a `[[hold]]` table, but for those whose sockets are held already.
pub(super) fn open_all(
    name: Name,
    config: &HoldConfig,
    present: Option<(&Configured, &Held<HeldSocket>)>,
    inherited: &mut Inherited,
) -> Result<Opened, Fatal> {
    let (mut files, mut sockets) = (Vec::new(), Vec::new());
    for (endpoint, transport) in config.endpoints() {
        if let Some((configured, held)) = present {
            let kept = configured.sockets_of(held, &endpoint, transport);
            if !kept.is_empty() {
                sockets.extend(kept);
                continue;
            }
        }
        let mut bound = inherited.take_bound(&endpoint, &label(&name), transport)?;
        if bound.is_empty() {
            bound = open(&endpoint, transport, &config.socket, inherited, 1, None)?;
        }
        for Bound { socket, file, .. } in bound {
            files.extend(file);
            let held = HeldSocket::new(socket.into()).map_err(|why| {
                Fatal::new(Exit::Config, format!("[[hold]] {name}: {endpoint}: {why}"))
            })?;
            sockets.push(held);
        }
    }
    let config = config.clone();
    Ok(Opened {
        name,
        configured: Configured { config, files },
        sockets,
    })
}

/// Whether two tables hold the same sockets, whatever their options.
pub(super) fn same_places(one: &HoldConfig, other: &HoldConfig) -> bool {
    one.endpoints().eq(other.endpoints())
}

/// The label of the sockets of a `[[hold]]`, which no listener's name is like.
fn label(name: &Name) -> String {
    format!("[[hold]] {name}")
}
