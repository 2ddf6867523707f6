//! From an endpoint to a connected socket, with a deadline and an error that says what to do.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portyard_core::endpoint::{Endpoint, Host, HostPort, Transport};
use portyard_core::exit::{Exit, Fatal};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::lookup::{self, Family};
use crate::trust::tls_failure;

/// An endpoint that a client can use, and the addresses it stands for.
#[derive(Debug)]
pub struct Target {
    /// What the user wrote, with its scheme; for messages.
    pub endpoint: Endpoint,
    /// Streams or datagrams.
    pub transport: Transport,
    addresses: Vec<SockAddr>,
}

impl Target {
    /// The same, called otherwise in messages: by who is behind it.
    pub fn called(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Resolves `endpoint`. One that says neither (a bare `HOST:PORT`, a Unix socket) is used with
    /// `transport`. Waits at most `deadline` for the resolver.
    pub fn new(
        endpoint: Endpoint,
        transport: Transport,
        deadline: Duration,
    ) -> Result<Self, Fatal> {
        let endpoint = endpoint.with_transport(transport);
        let unix = |name: String| {
            SockAddr::unix(name).map_err(|error| {
                Fatal::new(Exit::Usage, format!("{endpoint} is not usable: {error}"))
            })
        };
        let (transport, addresses) = match &endpoint {
            Endpoint::Tcp(at) => (Transport::Stream, internet(at, deadline)?),
            Endpoint::Udp(at) => (Transport::Datagram, internet(at, deadline)?),
            Endpoint::Unix(path) => (transport, vec![unix(path.to_string_lossy().into())?]),
            Endpoint::Abstract(name) => (transport, vec![unix(format!("\0{name}"))?]),
            _ => {
                return Err(Fatal::new(
                    Exit::Usage,
                    format!(
                        "{endpoint} is for daemons; a client connects to tcp://HOST:PORT, \
                         udp://HOST:PORT, unix:/PATH or unix:@NAME"
                    ),
                ));
            }
        };
        Ok(Self {
            endpoint,
            transport,
            addresses,
        })
    }

    /// The Internet addresses, none for a Unix socket.
    pub fn internet_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().filter_map(SockAddr::as_socket)
    }

    /// A stream to the first address that takes it. Each gets `deadline`.
    pub fn stream(&self, deadline: Duration) -> Result<Socket, Fatal> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &self.addresses {
            match connect(address, deadline) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(self.failure(&last))
    }

    /// How many addresses there are; at least one.
    pub fn address_count(&self) -> usize {
        self.addresses.len().max(1)
    }

    /// A new datagram socket, non-blocking, with an address of its own, connected to the address of
    /// that number (modulo their count): the kernel drops what comes from elsewhere.
    pub fn datagrams(&self, number: usize) -> Result<Socket, Fatal> {
        let address = self
            .addresses
            .get(number % self.address_count())
            .ok_or_else(|| self.failure(&io::ErrorKind::AddrNotAvailable.into()))?;
        let open = || {
            let socket = Socket::new(address.domain(), Type::DGRAM.nonblocking(), None)?;
            socket.bind(&own_address(address)?)?;
            socket.connect(address)?;
            Ok(socket)
        };
        open().map_err(|error: io::Error| self.failure(&error))
    }

    /// What to tell when this target cannot be reached or does not go on.
    pub fn failure(&self, error: &io::Error) -> Fatal {
        let endpoint = &self.endpoint;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(error) = inner {
            return tls_failure(endpoint, error);
        }
        let message = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => format!(
                "nothing answers at {endpoint} ({error}); start the server there (the yard with \
                 'portyard up'), or name another endpoint"
            ),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                format!("{endpoint} does not answer in time; try again, or with a longer --timeout")
            }
            io::ErrorKind::PermissionDenied => {
                format!("may not connect to {endpoint}: {error}; check the mode of the socket file")
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("{endpoint} broke the connection ({error})")
            }
            io::ErrorKind::UnexpectedEof => format!(
                "{endpoint} closed without ending the TLS session, so what came may have been cut \
                 short on the way"
            ),
            _ => format!("cannot use {endpoint}: {error}"),
        };
        Fatal::new(Exit::from_io(error), message)
    }
}

fn internet(at: &HostPort, deadline: Duration) -> Result<Vec<SockAddr>, Fatal> {
    let ips = match &at.host {
        Host::Ip(ip) => vec![*ip],
        Host::Name(name) => lookup::addresses(name, Family::Any, deadline)?,
    };
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, at.port).into())
        .collect())
}

fn connect(address: &SockAddr, deadline: Duration) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect_timeout(address, deadline)?;
    if address.domain() != Domain::UNIX {
        // A line typed should leave at once.
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// A fresh port, or for a Unix socket a name the kernel makes up (unix(7), "autobind"), without
/// which nobody could answer.
fn own_address(peer: &SockAddr) -> io::Result<SockAddr> {
    match peer.as_socket() {
        Some(SocketAddr::V4(_)) => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()),
        Some(SocketAddr::V6(_)) => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()),
        None => SockAddr::unix(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn an_endpoint_for_daemons_is_refused() {
        let error = Target::new(Endpoint::Inetd, Transport::Stream, SOON).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
    }

    #[test]
    fn nobody_there_says_how_to_start_somebody() {
        let missing = "unix:/nonexistent/socket".parse().unwrap();
        let target = Target::new(missing, Transport::Stream, SOON).unwrap();
        let error = target.stream(SOON).unwrap_err();
        assert_eq!(error.exit, Exit::Unavailable);
        assert!(error.to_string().contains("portyard up"), "{error}");
    }

    #[test]
    fn a_unix_datagram_socket_can_be_answered() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("portyard-connect-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let server = UnixDatagram::bind_addr(&address).unwrap();
        let target = Target::new(Endpoint::Abstract(name), Transport::Datagram, SOON).unwrap();
        let client: UnixDatagram = target.datagrams(0).unwrap().into();
        client.send(b"hi").unwrap();
        let mut buffer = [0; 8];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hi");
        server.send_to_addr(b"ho", &from).unwrap();
        client.set_nonblocking(false).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 2);
    }
}
