//! One spelling for where to listen or connect, used by configuration, command line and client.
//!
//! `tcp://127.0.0.1:7`, `tcp://[::1]:7`, `udp://host:37`, `unix:/run/x.sock`, `unix:@abstract`,
//! `systemd:NAME`, `systemd`, `fd:3`, `inetd`, `broker:/run/broker.sock#NAME`; and the bare
//! `HOST:PORT`, which takes the transport of the program that reads it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use portyard_wire::hold::Name;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where to listen or connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(HostPort),
    /// A UDP address.
    Udp(HostPort),
    /// A `HOST:PORT` without scheme; [`Endpoint::with_transport`] decides.
    Bare(HostPort),
    /// A Unix socket in the file system. Stream or datagram is the program's kind.
    Unix(PathBuf),
    /// A Unix socket in Linux's abstract namespace (no file, no permissions).
    Abstract(String),
    /// A socket passed by systemd under this name (`FileDescriptorName=`); `None` stands for every
    /// passed socket that no other listener names.
    Systemd(Option<String>),
    /// A socket inherited on this descriptor number.
    Fd(i32),
    /// The socket that an inetd left on descriptor 0.
    Inetd,
    /// What fd-broker has under this name: a listener it holds, or the connections of a pool.
    Broker {
        /// The broker's socket.
        path: PathBuf,
        /// What to ask it for.
        name: Name,
    },
}

/// The transport that a bare `HOST:PORT` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Byte streams: TCP, or Unix stream sockets.
    Stream,
    /// Connections of whole messages: Unix sockets of type `SOCK_SEQPACKET`.
    SeqPacket,
    /// Messages: UDP, or Unix datagram sockets.
    Datagram,
}

/// A host, by address or by name, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port; 0 asks the kernel for a free one when listening.
    pub port: u16,
}

/// A host by address or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A name to be resolved when it is used.
    Name(String),
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text is empty.
    #[error("an endpoint is missing; write one such as tcp://127.0.0.1:7007 or unix:/run/x.sock")]
    Empty,
    /// The scheme is none of ours.
    #[error(
        "'{0}' is not a known endpoint scheme; use tcp://, udp://, unix:, systemd:, fd:, inetd or \
         broker:"
    )]
    Scheme(String),
    /// The port is missing or not a number.
    #[error("'{0}' needs a port from 0 to 65535, as in 127.0.0.1:7007 or [::1]:7007")]
    Port(String),
    /// An IPv6 address stands without brackets.
    #[error("write the IPv6 address in brackets, as in [{0}]:7007")]
    Brackets(String),
    /// The host is not an address and cannot be a name.
    #[error("'{0}' is neither an IP address nor a host name")]
    Host(String),
    /// A path or name is missing, too long or holds a forbidden byte.
    #[error("'{0}' is not a usable socket path or name: {1}")]
    Name(String, &'static str),
    /// The descriptor number is not usable.
    #[error("'fd:{0}' is not a descriptor number from 0 to 65535")]
    Fd(String),
}

impl Endpoint {
    /// Gives a bare `HOST:PORT` the transport of the program; every other endpoint stays.
    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        match (self, transport) {
            (Self::Bare(at), Transport::Stream | Transport::SeqPacket) => Self::Tcp(at),
            (Self::Bare(at), Transport::Datagram) => Self::Udp(at),
            (other, _) => other,
        }
    }

    /// Whether somebody else opened the socket (who started us, or a broker), instead of us.
    pub fn is_inherited(&self) -> bool {
        matches!(
            self,
            Self::Systemd(_) | Self::Fd(_) | Self::Inetd | Self::Broker { .. }
        )
    }

    /// Whether a program of this transport can use the endpoint at all.
    pub fn fits(&self, transport: Transport) -> bool {
        !matches!(
            (self, transport),
            (Self::Tcp(_), Transport::Datagram | Transport::SeqPacket)
                | (Self::Udp(_), Transport::Stream | Transport::SeqPacket)
        )
    }

    /// A TCP endpoint on the IPv4 loopback address, the default of every daemon.
    pub fn tcp_loopback(port: u16) -> Self {
        Self::Tcp(HostPort {
            host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port,
        })
    }

    /// A UDP endpoint on the IPv4 loopback address.
    pub fn udp_loopback(port: u16) -> Self {
        Self::Udp(HostPort {
            host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port,
        })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "tcp" => Ok(Self::Tcp(rest.parse()?)),
                "udp" => Ok(Self::Udp(rest.parse()?)),
                "unix" => unix(rest),
                _ => Err(EndpointError::Scheme(scheme.into())),
            };
        }
        match text {
            "inetd" => return Ok(Self::Inetd),
            "systemd" => return Ok(Self::Systemd(None)),
            _ => {}
        }
        match text.split_once(':') {
            Some(("unix", rest)) => unix(rest),
            Some(("systemd", name)) => systemd(name),
            Some(("broker", rest)) => broker(rest),
            Some(("fd", number)) => match number.parse::<u16>() {
                Ok(number) => Ok(Self::Fd(number.into())),
                Err(_) => Err(EndpointError::Fd(number.into())),
            },
            Some((scheme @ ("tcp" | "udp"), rest)) => {
                let at = rest.parse()?;
                Ok(if scheme == "tcp" {
                    Self::Tcp(at)
                } else {
                    Self::Udp(at)
                })
            }
            _ => Ok(Self::Bare(text.parse()?)),
        }
    }
}

fn unix(name: &str) -> Result<Endpoint, EndpointError> {
    let wrong = |why| Err(EndpointError::Name(format!("unix:{name}"), why));
    // sun_path holds 108 bytes, one of them for the NUL or the abstract mark.
    if name.len() > SUN_PATH_MAX {
        return wrong("it is longer than the 107 bytes that a Unix socket address holds");
    }
    if name.contains('\0') {
        return wrong("it holds a NUL byte");
    }
    match name.strip_prefix('@') {
        Some("") => wrong("the abstract name is empty"),
        Some(abstract_name) => Ok(Endpoint::Abstract(abstract_name.into())),
        None if name.starts_with('/') || name.starts_with("./") => {
            Ok(Endpoint::Unix(PathBuf::from(name)))
        }
        None => wrong("a path starts with / or ./ and an abstract name with @"),
    }
}

/// The first `#` ends the path: a name may hold one, and few paths do.
fn broker(text: &str) -> Result<Endpoint, EndpointError> {
    let wrong = |why| EndpointError::Name(format!("broker:{text}"), why);
    let (path, name) = text.split_once('#').ok_or_else(|| {
        wrong("write the broker's socket and a name, as in broker:/run/x.sock#web")
    })?;
    let name = name
        .parse()
        .map_err(|_| wrong("a name is 1 to 255 printable ASCII characters without spaces"))?;
    match unix(path) {
        Ok(Endpoint::Unix(path)) => Ok(Endpoint::Broker { path, name }),
        // Whoever comes first has an abstract name, so it proves no broker.
        Ok(_) => Err(wrong(
            "the broker's socket is a path that starts with / or ./",
        )),
        Err(EndpointError::Name(_, why)) => Err(wrong(why)),
        Err(error) => Err(error),
    }
}

fn systemd(name: &str) -> Result<Endpoint, EndpointError> {
    // sd_listen_fds_with_names(3): ASCII without ':' and control characters, up to 255 bytes.
    let good = !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b':');
    if good {
        Ok(Endpoint::Systemd(Some(name.into())))
    } else {
        Err(EndpointError::Name(
            format!("systemd:{name}"),
            "a descriptor name is 1 to 255 printable ASCII characters without a colon",
        ))
    }
}

impl FromStr for HostPort {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(EndpointError::Brackets(text.into()));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(EndpointError::Port(text.into()));
        };
        let port = port.parse().map_err(|_| EndpointError::Port(text.into()))?;
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }
}

impl FromStr for Host {
    type Err = EndpointError;

    /// `*` stands for every IPv4 address; use `[::]` for every IPv6 address.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        if text == "*" {
            return Ok(Self::Ip(Ipv4Addr::UNSPECIFIED.into()));
        }
        // RFC 1123 names plus the underscore that real zones hold. A last label of digits only
        // would be a mistyped address.
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        let digits = name
            .rsplit('.')
            .next()
            .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if name.len() <= 253 && name.split('.').all(label) && !digits {
            Ok(Self::Name(text.into()))
        } else {
            Err(EndpointError::Host(text.into()))
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Udp(at) => write!(f, "udp://{at}"),
            Self::Bare(at) => at.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Fd(number) => write!(f, "fd:{number}"),
            Self::Inetd => f.write_str("inetd"),
            Self::Broker { path, name } => write!(f, "broker:{}#{name}", path.display()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

const SUN_PATH_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }

    #[test]
    fn wrong_endpoints_name_the_remedy() {
        assert_eq!(parse(" "), Err(EndpointError::Empty));
        assert_eq!(
            parse("sctp://1.2.3.4:7"),
            Err(EndpointError::Scheme("sctp".into()))
        );
        assert_eq!(
            parse("tcp://127.0.0.1"),
            Err(EndpointError::Port("127.0.0.1".into()))
        );
        assert_eq!(
            parse("127.0.0.1:70000"),
            Err(EndpointError::Port("127.0.0.1:70000".into()))
        );
        assert_eq!(
            parse("tcp://::1"),
            Err(EndpointError::Brackets("::1".into()))
        );
        assert_eq!(
            parse("tcp://300.1.1.1:7"),
            Err(EndpointError::Host("300.1.1.1".into()))
        );
        assert_eq!(parse("tcp://a b:7"), Err(EndpointError::Host("a b".into())));
        assert!(matches!(
            parse("unix:relative"),
            Err(EndpointError::Name(..))
        ));
        assert!(matches!(parse("unix:@"), Err(EndpointError::Name(..))));
        assert!(matches!(
            parse(&format!("unix:/{}", "x".repeat(107))),
            Err(EndpointError::Name(..))
        ));
        assert!(matches!(parse("systemd:a:b"), Err(EndpointError::Name(..))));
        assert_eq!(parse("fd:-1"), Err(EndpointError::Fd("-1".into())));
        for (text, why) in [
            ("broker:/run/x.sock", "a name"),
            ("broker:/run/x.sock#", "1 to 255"),
            ("broker:/run/x.sock#a b", "1 to 255"),
            ("broker:@x#web", "starts with /"),
            ("broker:x.sock#web", "starts with /"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn every_spelling_survives_a_round_trip() {
        for text in [
            "tcp://127.0.0.1:7",
            "tcp://[::]:7",
            "udp://0.0.0.0:37",
            "tcp://example.org:7",
            "unix:/run/x.sock",
            "unix:@name",
            "systemd:echo",
            "systemd",
            "fd:3",
            "inetd",
            "broker:/run/x.sock#web",
            "broker:/run/x.sock#tcp:80#b",
            "127.0.0.1:7007",
            "localhost:7007",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bare_addresses_take_the_programs_transport() {
        let bare = parse("127.0.0.1:9").unwrap();
        assert_eq!(
            bare.clone().with_transport(Transport::Stream),
            Endpoint::tcp_loopback(9)
        );
        assert_eq!(
            bare.with_transport(Transport::Datagram),
            Endpoint::udp_loopback(9)
        );
        let unix = parse("unix:/x").unwrap();
        assert_eq!(unix.clone().with_transport(Transport::Datagram), unix);
    }

    #[test]
    fn a_transport_refuses_the_other_ones_endpoint() {
        assert!(!Endpoint::tcp_loopback(1).fits(Transport::Datagram));
        assert!(!Endpoint::udp_loopback(1).fits(Transport::Stream));
        assert!(!Endpoint::tcp_loopback(1).fits(Transport::SeqPacket));
        assert!(parse("unix:/x").unwrap().fits(Transport::Datagram));
        assert!(parse("unix:@x").unwrap().fits(Transport::SeqPacket));
    }
}
