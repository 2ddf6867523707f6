//! What a daemon's shared state does with the daemon as a whole: hand its sockets to a successor,
//! stop and go on accepting, leave.

use std::os::fd::AsFd;

use socket2::Socket;
use tokio::sync::{mpsc, oneshot};

use super::Daemon;
use super::control::Control;
use crate::listen::{Handed, Shape, UnixFile};
use crate::listener::{Flavour, Permit};
use crate::serve::Bequest;

/// The way to the control thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Helm {
    asks: mpsc::UnboundedSender<Ask>,
}

/// A socket that the daemon listens on.
#[derive(Debug, Clone, Copy)]
pub struct Listening<'a> {
    /// The listener's label.
    pub label: &'a str,
    /// What it was opened by, as the configuration spells it.
    pub endpoint: &'a str,
    /// Which sockets were opened together.
    pub opening: u64,
    /// Whether it came from whoever started us, who keeps it.
    pub inherited: bool,
    /// The socket.
    pub socket: &'a Socket,
}

/// What can be asked of the control thread.
pub(super) enum Ask {
    Sockets(oneshot::Sender<Vec<Handed>>),
    Pause(oneshot::Sender<()>),
    Resume,
    Accept(String, Socket),
    GoOn(String, Bequest),
    Places(String, usize, oneshot::Sender<Vec<Permit>>),
    Leave,
}

impl Helm {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Ask>) {
        let (asks, asked) = mpsc::unbounded_channel();
        (Self { asks }, asked)
    }

    /// Duplicates of all sockets that the daemon listens on, for a successor: its admin endpoint's
    /// too. Empty when the daemon is leaving.
    pub async fn sockets(&self) -> Vec<Handed> {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::Sockets(answer));
        answered.await.unwrap_or_default()
    }

    /// Stops accepting everywhere, and leaves what comes to whoever has the same sockets.
    pub async fn pause(&self) {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::Pause(answer));
        let _ = answered.await;
    }

    /// Serves a connection that a predecessor had accepted, as if the listener of that name had. Where
    /// there is none any more, the connection is reset.
    pub fn accept(&self, listener: String, connection: Socket) {
        let _ = self.asks.send(Ask::Accept(listener, connection));
    }

    /// Goes on with a connection that a predecessor had served, by the service of the listener of that
    /// name. Where there is none any more, the connection is closed.
    pub fn go_on(&self, listener: String, bequest: Bequest) {
        let _ = self.asks.send(Ask::GoOn(listener, bequest));
    }

    /// Places under the limits of the listener of that name, for so many connections that it had accepted
    /// in a predecessor and that are in other processes; fewer where there is no room, or no such listener.
    pub async fn places(&self, listener: String, count: usize) -> Vec<Permit> {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::Places(listener, count, answer));
        answered.await.unwrap_or_default()
    }

    /// Accepts again.
    pub fn resume(&self) {
        let _ = self.asks.send(Ask::Resume);
    }

    /// Ends the daemon as a signal would, but for its sockets, which a successor has.
    pub fn leave(&self) {
        let _ = self.asks.send(Ask::Leave);
    }
}

/// The sockets of the admin endpoint, which is served elsewhere.
#[derive(Debug, Default)]
pub(super) struct AdminSockets {
    pub endpoint: String,
    pub sockets: Vec<Socket>,
    /// Removed with the daemon, unless a successor has them.
    pub files: Vec<UnixFile>,
}

impl<D: Daemon> Control<'_, D> {
    /// Does what was asked, but for leaving.
    pub(super) fn obey(&self, ask: Ask) {
        match ask {
            Ask::Sockets(answer) => {
                let _ = answer.send(self.duplicates());
            }
            Ask::Pause(answer) => {
                for active in &self.active {
                    active.listener.hand_over();
                }
                let _ = answer.send(());
            }
            Ask::Resume => self.accept_again(),
            Ask::Accept(name, connection) => self.accept(&name, connection),
            Ask::GoOn(name, bequest) => self.go_on(&name, bequest),
            Ask::Places(name, count, answer) => {
                let active = self
                    .active
                    .iter()
                    .find(|active| active.listener.name == name);
                let places =
                    active.map(|active| <D::Flavour as Flavour>::places(&active.listener, count));
                let _ = answer.send(places.unwrap_or_default());
            }
            Ask::Leave => {}
        }
    }

    /// All sockets that we listen on, each with what it was opened by.
    pub(super) fn with_listening<T>(&self, use_them: impl FnOnce(&[Listening<'_>]) -> T) -> T {
        let endpoints: Vec<String> = self
            .active
            .iter()
            .map(|active| active.endpoint.to_string())
            .collect();
        let mut all: Vec<Listening<'_>> = Vec::new();
        for (active, endpoint) in self.active.iter().zip(&endpoints) {
            let sockets = active.bound.iter();
            let sockets = sockets.filter(|bound| bound.shape != Shape::Pool);
            all.extend(sockets.map(|bound| Listening {
                label: &active.listener.name,
                endpoint,
                opening: active.opening,
                inherited: bound.inherited,
                socket: &bound.socket,
            }));
        }
        for socket in &self.admin_sockets.sockets {
            all.push(Listening {
                label: ADMIN,
                endpoint: &self.admin_sockets.endpoint,
                opening: ADMIN_OPENING,
                inherited: false,
                socket,
            });
        }
        use_them(&all)
    }

    fn duplicates(&self) -> Vec<Handed> {
        self.with_listening(|all| {
            let duplicate = |one: &Listening<'_>| {
                Some(Handed {
                    endpoint: one.endpoint.into(),
                    label: one.label.into(),
                    opening: one.opening,
                    socket: one.socket.as_fd().try_clone_to_owned().ok()?.into(),
                })
            };
            all.iter().filter_map(duplicate).collect()
        })
    }
}

/// The label of the admin endpoint's sockets.
pub(super) const ADMIN: &str = "admin";
/// Openings of listeners are counted from 1 on.
const ADMIN_OPENING: u64 = 0;
