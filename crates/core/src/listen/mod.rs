//! From an endpoint to a socket: bound by us with the options a server wants, or inherited and
//! probed before it is believed.

mod broker;
mod inherit;
mod options;
mod unix;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

pub use inherit::{Handed, Inherited, STORED, UcspiPeer, local_endpoint, ucspi_peer};
pub(crate) use options::set_tos;
pub use unix::{Charge, UnixFile};

use crate::auth::Prover;
use crate::config::SocketOptions;
use crate::endpoint::{Endpoint, Host, HostPort, Transport};
use crate::exit::{Exit, Fatal};
use crate::holding::HoldingError;
use crate::sandbox;

/// A socket ready to be served.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens: the real port where 0 was asked for, the real address of an inherited one.
    pub endpoint: Endpoint,
    /// The socket, close-on-exec and non-blocking.
    pub socket: Socket,
    /// What kind of socket it is.
    pub shape: Shape,
    /// Whether it came from whoever started us.
    pub inherited: bool,
    /// The file of a Unix socket that we bound, removed when this is dropped.
    pub file: Option<UnixFile>,
}

/// What a socket is, as its options tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A stream or message socket that accepts connections.
    Listening,
    /// One connection.
    Connected,
    /// A datagram socket.
    Datagram,
    /// No socket of ours: a broker's pool, whose connections come over links of their own. The socket
    /// only keeps the place.
    Pool,
}

/// Why there is no socket for an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The kernel refused.
    #[error("cannot listen on {endpoint}: {error}{hint}")]
    Kernel {
        /// The endpoint.
        endpoint: Endpoint,
        /// What the kernel said.
        error: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// A host name has no address.
    #[error(
        "cannot listen on {0}: the name has no address; write an address, or add it to /etc/hosts"
    )]
    NoAddress(Endpoint),
    /// The path of a Unix socket is taken.
    #[error("cannot listen on {0}: {1}")]
    Taken(Endpoint, &'static str),
    /// Nothing was passed under that name or number.
    #[error("no socket for {endpoint}: {why}")]
    NotPassed {
        /// The endpoint.
        endpoint: Endpoint,
        /// What was looked at, and what to do.
        why: String,
    },
    /// A broker has no socket for us.
    #[error("no socket for {endpoint}: {error}")]
    Broker {
        /// The endpoint.
        endpoint: Endpoint,
        /// What the broker said, or why it said nothing.
        error: HoldingError,
    },
    /// An inherited descriptor is not what the daemon serves.
    #[error("{endpoint} is {found}, but this daemon serves {wanted}; {remedy}")]
    Unfit {
        /// The endpoint.
        endpoint: Endpoint,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// What to change.
        remedy: &'static str,
    },
}

/// Opens what `endpoint` says, once for each of `copies` loops.
///
/// A TCP or UDP socket is bound `copies` times with `SO_REUSEPORT`, so that the kernel spreads the
/// load; a Unix socket is bound once. Inherited sockets come from `inherited`; a name may stand for
/// several. `prover` proves a key to a broker that demands one.
pub fn open(
    endpoint: &Endpoint,
    transport: Transport,
    options: &SocketOptions,
    inherited: &mut Inherited,
    copies: usize,
    prover: Option<&Prover>,
) -> Result<Vec<Bound>, ListenError> {
    match endpoint {
        // Nothing on the Internet keeps messages whole.
        _ if !endpoint.fits(transport) => Err(ListenError::Unfit {
            endpoint: endpoint.clone(),
            found: "an Internet address of another kind",
            wanted: match transport {
                Transport::Stream => "streams",
                Transport::SeqPacket => "messages over Unix sockets",
                Transport::Datagram => "datagrams",
            },
            remedy: "use unix:, or the scheme that fits",
        }),
        Endpoint::Tcp(at) | Endpoint::Udp(at) | Endpoint::Bare(at) => {
            internet(endpoint, at, transport, options, copies)
        }
        Endpoint::Unix(path) => unix::bind_path(endpoint, path, transport, options),
        Endpoint::Abstract(name) => unix::bind_abstract(endpoint, name, transport, options),
        Endpoint::Systemd(_) | Endpoint::Fd(_) | Endpoint::Inetd => {
            inherited.take(endpoint, transport)
        }
        Endpoint::Broker { path, name } => {
            broker::retrieve(endpoint, path, name, transport, prover)
        }
    }
}

fn internet(
    endpoint: &Endpoint,
    at: &HostPort,
    transport: Transport,
    options: &SocketOptions,
    copies: usize,
) -> Result<Vec<Bound>, ListenError> {
    let kernel = |error| kernel_error(endpoint, error);
    let mut bound = Vec::new();
    for address in addresses(endpoint, at)? {
        // SO_REUSEPORT lets two daemons of one user share a port without a word. A bind without it
        // comes first, so that a port in use is an error.
        if copies > 1 && address.port() != 0 {
            bind(address, transport, options, false).map_err(kernel)?;
        }
        let mut address = address;
        for _ in 0..copies {
            let socket = bind(address, transport, options, copies > 1).map_err(kernel)?;
            if transport != Transport::Datagram {
                let backlog = i32::try_from(options.backlog.get()).unwrap_or(i32::MAX);
                socket.listen(backlog).map_err(kernel)?;
            }
            let local = socket.local_addr().map_err(kernel)?;
            address = local.as_socket().unwrap_or(address);
            bound.push(Bound {
                endpoint: match transport {
                    Transport::Stream | Transport::SeqPacket => Endpoint::Tcp(address.into()),
                    Transport::Datagram => Endpoint::Udp(address.into()),
                },
                socket,
                shape: match transport {
                    Transport::Stream | Transport::SeqPacket => Shape::Listening,
                    Transport::Datagram => Shape::Datagram,
                },
                inherited: false,
                file: None,
            });
        }
    }
    Ok(bound)
}

/// The addresses of a host: one for a literal, all for a name (a loopback name may have two).
fn addresses(endpoint: &Endpoint, at: &HostPort) -> Result<Vec<SocketAddr>, ListenError> {
    match &at.host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, at.port)]),
        Host::Name(name) => {
            let mut found: Vec<SocketAddr> = (name.as_str(), at.port)
                .to_socket_addrs()
                .map_err(|_| ListenError::NoAddress(endpoint.clone()))?
                .collect();
            found.sort_unstable();
            found.dedup();
            if found.is_empty() {
                Err(ListenError::NoAddress(endpoint.clone()))
            } else {
                Ok(found)
            }
        }
    }
}

fn bind(
    address: SocketAddr,
    transport: Transport,
    options: &SocketOptions,
    share: bool,
) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Stream | Transport::SeqPacket => (Type::STREAM, Protocol::TCP),
        Transport::Datagram => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(
        Domain::for_address(address),
        kind.nonblocking(),
        Some(protocol),
    )?;
    // Of a port that is shared beforehand the kernel thinks that anybody's may be chosen whose socket is shared
    // too: another listener of ours, or another daemon's.
    let is_chosen = address.port() == 0;
    options::before_bind(&socket, address, transport, options, share && !is_chosen)?;
    socket.bind(&address.into())?;
    if share && is_chosen {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

impl Bound {
    /// A second handle to the same socket, for another loop.
    pub fn share(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }

    /// The Internet address, for sockets that have one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ListenError {
    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Kernel { error, .. } => Exit::from_io(error),
            Self::NoAddress(_) => Exit::NoHost,
            Self::Taken(..) => Exit::Unavailable,
            Self::NotPassed { .. } | Self::Unfit { .. } => Exit::Config,
            Self::Broker { error, .. } => error.exit(),
        }
    }
}

impl From<ListenError> for Fatal {
    fn from(error: ListenError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

fn kernel_error(endpoint: &Endpoint, error: io::Error) -> ListenError {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it: stop that one, or choose another port with --listen"
        }
        io::ErrorKind::PermissionDenied if matches!(endpoint, Endpoint::Unix(_)) => {
            sandbox::hint(&error)
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need systemd or an inetd to pass the socket, or another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; the machine does not have the address: check it, or set freebind = true"
        }
        _ => "",
    };
    ListenError::Kernel {
        endpoint: endpoint.clone(),
        error,
        hint,
    }
}

/// Whether nobody but this machine can reach the address.
pub fn is_loopback(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_one(text: &str, copies: usize) -> Result<Vec<Bound>, ListenError> {
        let options = SocketOptions::default();
        let endpoint: Endpoint = text.parse().unwrap();
        open(
            &endpoint,
            Transport::Stream,
            &options,
            &mut Inherited::none(),
            copies,
            None,
        )
    }

    #[test]
    fn a_port_in_use_is_an_error_even_with_reuseport() {
        let first = open_one("tcp://127.0.0.1:0", 2).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(first[0].endpoint, first[1].endpoint);
        let error = open_one(&first[0].endpoint.to_string(), 2).unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable);
        assert!(
            error.to_string().contains("another program has it"),
            "{error}"
        );
    }

    #[test]
    fn ipv6_and_ipv4_share_a_port_when_v6only() {
        // A port that is free for IPv6 may be somebody else's for IPv4, so several are tried.
        let shares = |_| {
            let v6 = open_one("tcp://[::]:0", 1).unwrap();
            let port = v6[0].address().unwrap().port();
            open_one(&format!("tcp://0.0.0.0:{port}"), 1).is_ok()
        };
        assert!((0..20).any(shares));
    }

    #[test]
    fn nothing_passed_is_a_configuration_error() {
        for text in ["systemd:echo", "systemd"] {
            let error = open_one(text, 1).unwrap_err();
            assert_eq!(error.exit(), Exit::Config);
            assert!(error.to_string().contains("LISTEN_FDS"), "{error}");
        }
    }
}
