//! Sockets that came with the process: systemd's `LISTEN_FDS`, a numbered descriptor, inetd's
//! descriptor 0, or what a predecessor of ours had bound. Each is probed for domain, type and state
//! before it is believed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::stat::fstat;
use socket2::Socket;

use super::{Bound, Charge, ListenError, Shape, UnixFile};
use crate::endpoint::{Endpoint, Transport};
use crate::exit::{Exit, Fatal};
use crate::fdpass::{Kind, SocketType};
use crate::sys;

/// The sockets passed to this process that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    passed: Vec<Passed>,
    /// Why none were passed, for error messages.
    absent: String,
    /// What an earlier process of ours had the service manager keep, by name.
    stored: Vec<(String, OwnedFd)>,
    /// What a predecessor had bound.
    handed: Vec<Handed>,
    charge: Charge,
}

/// A socket that a predecessor had bound.
#[derive(Debug)]
pub struct Handed {
    /// What it was bound by, as the configuration spells it.
    pub endpoint: String,
    /// The label of its listener.
    pub label: String,
    /// Which sockets were opened together: they are of one endpoint and belong to one listener.
    pub opening: u64,
    /// The socket.
    pub socket: Socket,
}

#[derive(Debug)]
struct Passed {
    name: String,
    socket: Socket,
}

/// The peer's name as a UCSPI program (tcpserver, s6-tcpserver) or systemd put it into the
/// environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UcspiPeer {
    /// Address, and port where it is known.
    pub address: SocketAddr,
}

impl Inherited {
    /// Nothing was passed.
    pub fn none() -> Self {
        Self {
            absent: "LISTEN_FDS is not set".into(),
            ..Self::default()
        }
    }

    /// Takes what `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` announce (sd_listen_fds(3)) and
    /// removes these variables. To be called before any thread is started.
    ///
    /// Variables meant for another process (`LISTEN_PID`) are ignored, as the interface demands.
    pub fn from_environment() -> Result<Self, Fatal> {
        let variables: HashMap<&str, String> = VARIABLES
            .iter()
            .filter_map(|name| Some((*name, std::env::var(name).ok()?)))
            .collect();
        sys::forget_variables(&VARIABLES);
        let Some(count) = variables.get("LISTEN_FDS") else {
            return Ok(Self::none());
        };
        let wrong = |what: String| Fatal::new(Exit::Config, what);
        let count: u16 = count.parse().map_err(|_| {
            wrong(format!(
                "LISTEN_FDS is '{count}', which is not a number of descriptors"
            ))
        })?;
        if let Some(pid) = variables
            .get("LISTEN_PID")
            .filter(|pid| !is_this_process(pid))
        {
            let absent = format!("LISTEN_FDS is meant for process {pid}, not for this one");
            return Ok(Self {
                absent,
                ..Self::default()
            });
        }
        if !variables.contains_key("LISTEN_PID") {
            return Err(wrong(
                "LISTEN_FDS is set without LISTEN_PID; unset it or set both".into(),
            ));
        }
        let names: Vec<String> = match variables.get("LISTEN_FDNAMES") {
            Some(names) => names.split(':').map(Into::into).collect(),
            None => vec![UNNAMED.into(); count.into()],
        };
        if names.len() != usize::from(count) {
            return Err(wrong(format!(
                "LISTEN_FDNAMES has {} names for {count} descriptors",
                names.len()
            )));
        }
        let (mut passed, mut stored) = (Vec::new(), Vec::new());
        for (number, name) in (FIRST..).zip(names) {
            let unusable = |e: io::Error| {
                wrong(format!(
                    "LISTEN_FDS announces descriptor {number}, which is not a usable socket: {e}"
                ))
            };
            if name.starts_with(STORED) {
                stored.push((name, sys::adopt(number).map_err(unusable)?));
            } else {
                let socket = adopt_socket(number).map_err(unusable)?;
                passed.push(Passed { name, socket });
            }
        }
        Ok(Self {
            passed,
            absent: "LISTEN_FDS passed no socket of that name".into(),
            stored,
            ..Self::default()
        })
    }

    /// Takes what an earlier process of this daemon had the service manager keep, with the names,
    /// which begin with [`STORED`].
    pub fn take_stored(&mut self) -> Vec<(String, OwnedFd)> {
        std::mem::take(&mut self.stored)
    }

    /// Adds a socket that a predecessor had bound.
    pub fn hand(&mut self, handed: Handed) {
        self.handed.push(handed);
    }

    /// From here on the sockets that a predecessor had bound are ours, and so are their files.
    pub fn take_charge(&self) {
        self.charge.take();
    }

    /// Takes what no listener wanted of what a predecessor had bound.
    pub fn take_handed(&mut self) -> Vec<Handed> {
        std::mem::take(&mut self.handed)
    }

    /// Takes the sockets that a predecessor had bound for this endpoint, if there are any: those of a
    /// listener with this label, else those of the first one.
    pub fn take_bound(
        &mut self,
        endpoint: &Endpoint,
        label: &str,
        transport: Transport,
    ) -> Result<Vec<Bound>, ListenError> {
        let bound = self.take_bound_as_is(endpoint, label, transport)?;
        for one in &bound {
            let unblocked = one.socket.set_nonblocking(true);
            unblocked.map_err(|error| super::kernel_error(endpoint, error))?;
        }
        Ok(bound)
    }

    /// The same for sockets that another process may wait in: whether they block stays as it is, because
    /// that is the sockets', not ours.
    pub fn take_bound_as_is(
        &mut self,
        endpoint: &Endpoint,
        label: &str,
        transport: Transport,
    ) -> Result<Vec<Bound>, ListenError> {
        let text = endpoint.to_string();
        let fits = |handed: &&Handed| handed.endpoint == text;
        let found = self.handed.iter().filter(fits);
        let named = found.clone().find(|handed| handed.label == label);
        let Some((opening, label)) = named
            .or_else(|| found.clone().next())
            .map(|handed| (handed.opening, handed.label.clone()))
        else {
            return Ok(Vec::new());
        };
        let ours = |handed: &Handed| {
            handed.opening == opening && handed.endpoint == text && handed.label == label
        };
        let (taken, rest) = self.handed.drain(..).partition(ours);
        self.handed = rest;
        let mut bound = Vec::new();
        for handed in Vec::<Handed>::into_iter(taken) {
            let mut one = look(endpoint, handed.socket, transport)?;
            one.inherited = endpoint.is_inherited();
            if let Endpoint::Unix(path) = endpoint {
                // Whoever has removed the file has made the socket unreachable: bind another.
                match UnixFile::find(path, &self.charge) {
                    Some(file) => one.file = Some(file),
                    None => continue,
                }
            }
            bound.push(one);
        }
        Ok(bound)
    }

    /// The names of the sockets nobody has taken yet, in the order they were passed.
    pub fn names(&self) -> Vec<String> {
        self.passed
            .iter()
            .map(|passed| passed.name.clone())
            .collect()
    }

    /// Takes back a socket whose listener is gone.
    pub fn give_back(&mut self, name: String, socket: Socket) {
        self.passed.push(Passed { name, socket });
    }

    /// Takes the sockets of an inherited endpoint.
    pub(super) fn take(
        &mut self,
        endpoint: &Endpoint,
        transport: Transport,
    ) -> Result<Vec<Bound>, ListenError> {
        let not_passed = |why| ListenError::NotPassed {
            endpoint: endpoint.clone(),
            why,
        };
        let sockets: Vec<Socket> = match endpoint {
            Endpoint::Systemd(name) => {
                let wanted = |p: &Passed| name.as_ref().is_none_or(|name| *name == p.name);
                let (taken, rest) = self.passed.drain(..).partition(wanted);
                self.passed = rest;
                Vec::into_iter(taken).map(|passed| passed.socket).collect()
            }
            Endpoint::Fd(number) => {
                vec![adopt_socket(*number).map_err(|e| not_passed(e.to_string()))?]
            }
            _ => vec![adopt_socket(0).map_err(|e| {
                not_passed(format!(
                    "descriptor 0 is not a socket ({e}); start us from an inetd"
                ))
            })?],
        };
        if sockets.is_empty() {
            return Err(not_passed(format!(
                "{}; passed: {:?}",
                self.absent,
                self.names()
            )));
        }
        sockets
            .into_iter()
            .map(|socket| probe(endpoint, socket, transport))
            .collect()
    }
}

/// Who is at the other end of descriptor 0 when the socket itself cannot tell.
///
/// UCSPI's `TCPREMOTEIP`/`TCPREMOTEPORT`, then systemd's `REMOTE_ADDR`/`REMOTE_PORT`.
pub fn ucspi_peer() -> Option<UcspiPeer> {
    let read = |ip: &str, port: &str| {
        let ip: IpAddr = std::env::var(ip).ok()?.parse().ok()?;
        let port = std::env::var(port)
            .ok()
            .and_then(|port| port.parse().ok())
            .unwrap_or(0);
        Some(UcspiPeer {
            address: SocketAddr::new(ip.to_canonical(), port),
        })
    };
    read("TCPREMOTEIP", "TCPREMOTEPORT").or_else(|| read("REMOTE_ADDR", "REMOTE_PORT"))
}

fn adopt_socket(number: i32) -> io::Result<Socket> {
    let fd = sys::adopt(number)?;
    let is_socket = fstat(&fd)?.st_mode & libc::S_IFMT == libc::S_IFSOCK;
    if is_socket {
        Ok(fd.into())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENOTSOCK))
    }
}

/// Believes nothing: asks the socket what it is, and refuses what the daemon cannot serve.
pub(super) fn probe(
    endpoint: &Endpoint,
    socket: Socket,
    transport: Transport,
) -> Result<Bound, ListenError> {
    let bound = look(endpoint, socket, transport)?;
    let unblocked = bound.socket.set_nonblocking(true);
    unblocked.map_err(|error| super::kernel_error(endpoint, error))?;
    Ok(bound)
}

/// Finds out what a socket is.
fn look(endpoint: &Endpoint, socket: Socket, transport: Transport) -> Result<Bound, ListenError> {
    let kernel = |error| super::kernel_error(endpoint, error);
    let kind = Kind::of(&socket).map_err(kernel)?;
    let shape = match (kind, transport) {
        (Kind::Listener(SocketType::Stream), Transport::Stream)
        | (Kind::Listener(SocketType::SeqPacket), Transport::SeqPacket) => Shape::Listening,
        (Kind::Connection(SocketType::Stream), Transport::Stream)
        | (Kind::Connection(SocketType::SeqPacket), Transport::SeqPacket) => Shape::Connected,
        (Kind::Datagram, Transport::Datagram) => Shape::Datagram,
        _ => return Err(unfit(endpoint, kind, transport)),
    };
    if shape == Shape::Datagram {
        let local = socket.local_addr().map_err(kernel)?.as_socket();
        if let Some(local) = local.filter(|local| local.ip().is_unspecified()) {
            super::options::packet_info(&socket, local).map_err(kernel)?;
        }
    }
    Ok(Bound {
        endpoint: real_endpoint(endpoint, &socket, transport),
        socket,
        shape,
        inherited: true,
        file: None,
    })
}

fn unfit(endpoint: &Endpoint, kind: Kind, transport: Transport) -> ListenError {
    let (wanted, remedy) = match transport {
        Transport::Stream => (
            "streams",
            "use ListenStream= (systemd) or socket_type = stream (inetd)",
        ),
        Transport::SeqPacket => (
            "messages over Unix sockets",
            "use ListenSequentialPacket= (systemd)",
        ),
        Transport::Datagram => (
            "datagrams",
            "use ListenDatagram= (systemd) or socket_type = dgram (inetd)",
        ),
    };
    let remedy = match endpoint {
        Endpoint::Broker { .. } => "hold another socket under that name, or use another name",
        _ => remedy,
    };
    ListenError::Unfit {
        endpoint: endpoint.clone(),
        found: kind.describe(),
        wanted,
        remedy,
    }
}

/// The address an inherited socket is bound to, which says more in a log than `systemd:echo`.
fn real_endpoint(endpoint: &Endpoint, socket: &Socket, transport: Transport) -> Endpoint {
    local_endpoint(socket, transport).unwrap_or_else(|| endpoint.clone())
}

/// Where a socket is bound; `None` where it has no address, or one that no endpoint spells.
pub fn local_endpoint(socket: &Socket, transport: Transport) -> Option<Endpoint> {
    let local = socket.local_addr().ok()?;
    if let Some(address) = local.as_socket() {
        Some(match transport {
            Transport::Stream | Transport::SeqPacket => Endpoint::Tcp(address.into()),
            Transport::Datagram => Endpoint::Udp(address.into()),
        })
    } else if let Some(path) = local.as_pathname() {
        Some(Endpoint::Unix(path.into()))
    } else {
        let name = local.as_abstract_namespace()?;
        Some(Endpoint::Abstract(
            String::from_utf8_lossy(name).into_owned(),
        ))
    }
}

/// Whether `LISTEN_PID` means us. `LISTEN_PIDFDID`, which newer systemds add against reused process
/// ids, only repeats it for a process that was started directly, and is not compared.
fn is_this_process(pid: &str) -> bool {
    pid.parse::<u32>()
        .is_ok_and(|pid| pid == std::process::id())
}

/// What the names of descriptors begin with that a daemon of ours has the service manager keep.
pub const STORED: &str = "portyard-";
/// SD_LISTEN_FDS_START.
const FIRST: i32 = 3;
/// What sd_listen_fds_with_names(3) calls a socket without a name.
const UNNAMED: &str = "unknown";
const VARIABLES: [&str; 4] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];
