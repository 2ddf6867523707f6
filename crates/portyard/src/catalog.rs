//! The services of the yard: where each listens by default, and what to type to use it.

use portyard_core::endpoint::{Endpoint, Host, HostPort, Transport};

/// One service of one daemon.
#[derive(Debug)]
pub struct Service {
    /// The daemon that offers it.
    pub daemon: &'static str,
    /// Its name in the daemon's table.
    pub name: &'static str,
    /// Streams or datagrams.
    pub transport: Transport,
    /// The port on loopback when nothing is configured.
    pub port: u16,
    /// A shell command with `{endpoint}`, `{host}`, `{port}` and `{family}` to be filled in.
    try_it: &'static str,
}

/// Every service with a default port.
pub const SERVICES: &[Service] = &[
    tcp("echo", 7007, "portyard echo {endpoint}"),
    tcp("discard", 7009, "echo hi | portyard echo {endpoint}"),
    tcp(
        "chargen",
        7019,
        "portyard echo {endpoint} </dev/null | head -n 3",
    ),
    tcp("daytime", 7013, TIME_DAYTIME),
    tcp("time", 7037, TIME_TIME),
    tcp("timestamp", 7014, "echo hi | portyard echo {endpoint}"),
    tcp(
        "command",
        7015,
        "printf 'date\\nos\\n' | portyard echo {endpoint}",
    ),
    tcp("sleep", 7016, "echo 0.5 | portyard echo {endpoint}"),
    tcp("message", 7020, PYTHON_MESSAGE),
    tcp("array-source", 7021, PYTHON_SOURCE),
    tcp("array-sink", 7022, PYTHON_SINK),
    udp("ctime", 3737, PYTHON_EMPTY),
    udp("daytime", 3713, TIME_DAYTIME),
    udp("time", 3738, TIME_TIME),
    udp("timestamp", 3714, PYTHON_HI),
    udp("echo", 3707, "echo hi | portyard echo {endpoint}"),
    udp(
        "discard",
        3709,
        "echo hi | portyard echo {endpoint} --tries 1",
    ),
    udp("sntp", 3723, "portyard time {endpoint} --service sntp"),
    udp("fib", 3715, "echo 90 | portyard echo {endpoint}"),
    kv("xml-rpc", 15000, "portyard kv --door xml {endpoint} size"),
    kv(
        "json-rpc",
        15001,
        "portyard kv --door json {endpoint} set hi 1",
    ),
    kv(
        "python-rpc",
        17000,
        "portyard kv --door python {endpoint} scan",
    ),
    rest("http", 18080, "curl 'http://{host}:{port}/hello?name=you'"),
    rest("httpbin", 18081, "curl http://{host}:{port}/get"),
    rest("yard", 18082, "portyard yard {endpoint}"),
    Service {
        daemon: "fd-broker",
        name: "hand-off",
        transport: Transport::Stream,
        port: 17500,
        try_it: HAND_OFF,
    },
];

/// Services of fd-broker on Unix sockets, with the socket of each kind and what to type.
const ON_SOCKETS: &[(&str, Transport, &str)] = &[
    (
        "control",
        Transport::SeqPacket,
        "portyard broker --socket {path} workers",
    ),
    (
        "native",
        Transport::SeqPacket,
        "echo-tcp --listen 'broker:{path}#default'",
    ),
    ("python", Transport::Stream, PYTHON_WORKER),
    ("raw", Transport::Stream, ""),
];

/// The daemons that `up` looks for, in the order of its table.
pub const DAEMONS: &[Daemon] = &[
    Daemon::new("echo-tcp", Transport::Stream),
    Daemon::new("time-udp", Transport::Datagram),
    Daemon::new("kv-rpc", Transport::Stream),
    Daemon::new("rest-api", Transport::Stream),
    Daemon::new("fd-broker", Transport::Stream),
];

/// One daemon of the yard.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// Its name: crate, binary, configuration file and unit.
    pub name: &'static str,
    /// The transport of endpoints that do not say theirs.
    pub transport: Transport,
}

impl Daemon {
    const fn new(name: &'static str, transport: Transport) -> Self {
        Self { name, transport }
    }
}

impl Daemon {
    /// The kind of a Unix socket for this service.
    pub fn transport_of(&self, service: &str) -> Transport {
        let known = ON_SOCKETS.iter().find(|(name, ..)| *name == service);
        match known {
            Some((_, transport, _)) if self.name == "fd-broker" => *transport,
            _ => self.transport,
        }
    }
}

impl Service {
    /// Where the service listens when nothing is configured.
    pub fn endpoint(&self) -> Endpoint {
        match self.transport {
            Transport::Stream | Transport::SeqPacket => Endpoint::tcp_loopback(self.port),
            Transport::Datagram => Endpoint::udp_loopback(self.port),
        }
    }
}

/// The service of that name and transport.
pub fn find(transport: Transport, name: &str) -> Option<&'static Service> {
    SERVICES
        .iter()
        .find(|service| service.transport == transport && service.name == name)
}

/// The service whose default port, or whose port at IANA, this is.
pub fn by_port(transport: Transport, port: u16) -> Option<&'static str> {
    let iana = match port {
        7 => Some("echo"),
        9 => Some("discard"),
        13 => Some("daytime"),
        19 => Some("chargen"),
        37 => Some("time"),
        123 => Some("sntp"),
        _ => None,
    };
    iana.or_else(|| {
        SERVICES
            .iter()
            .find(|service| service.transport == transport && service.port == port)
            .map(|service| service.name)
    })
}

/// What to type to use a service at this endpoint; `None` where we know no such service.
pub fn try_line(daemon: &str, service: &str, endpoint: &Endpoint) -> Option<String> {
    if let (Endpoint::Unix(path), "fd-broker") = (endpoint, daemon) {
        let (_, _, line) = ON_SOCKETS.iter().find(|(name, ..)| *name == service)?;
        return Some(line.replace("{path}", &path.display().to_string()));
    }
    let row = SERVICES
        .iter()
        .find(|row| row.daemon == daemon && row.name == service)?;
    let (Endpoint::Tcp(at) | Endpoint::Udp(at) | Endpoint::Bare(at)) = endpoint else {
        // The other lines need a host and a port; this one works for every byte stream.
        return Some(match row.transport {
            Transport::Stream | Transport::SeqPacket => format!("portyard echo {endpoint}"),
            Transport::Datagram => format!("echo hi | portyard echo --datagram {endpoint}"),
        });
    };
    let at = reachable(at);
    let family = match at.host {
        Host::Ip(ip) if ip.is_ipv6() => "AF_INET6",
        _ => "AF_INET",
    };
    let scheme = match row.transport {
        Transport::Stream | Transport::SeqPacket => "tcp",
        Transport::Datagram => "udp",
    };
    let line = row
        .try_it
        .replace("{endpoint}", &format!("{scheme}://{at}"))
        .replace("{host}", &at.host.to_string())
        .replace("{port}", &at.port.to_string())
        .replace("{family}", family);
    Some(line)
}

/// The wildcard address is for listening; a client on this machine uses loopback.
fn reachable(at: &HostPort) -> HostPort {
    let host = match &at.host {
        Host::Ip(ip) if ip.is_unspecified() => match ip {
            std::net::IpAddr::V4(_) => Host::Ip(std::net::Ipv4Addr::LOCALHOST.into()),
            std::net::IpAddr::V6(_) => Host::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
        },
        host => host.clone(),
    };
    HostPort {
        host,
        port: at.port,
    }
}

const fn tcp(name: &'static str, port: u16, try_it: &'static str) -> Service {
    Service {
        daemon: "echo-tcp",
        name,
        transport: Transport::Stream,
        port,
        try_it,
    }
}

const fn kv(name: &'static str, port: u16, try_it: &'static str) -> Service {
    Service {
        daemon: "kv-rpc",
        name,
        transport: Transport::Stream,
        port,
        try_it,
    }
}

const fn rest(name: &'static str, port: u16, try_it: &'static str) -> Service {
    Service {
        daemon: "rest-api",
        name,
        transport: Transport::Stream,
        port,
        try_it,
    }
}

const fn udp(name: &'static str, port: u16, try_it: &'static str) -> Service {
    Service {
        daemon: "time-udp",
        name,
        transport: Transport::Datagram,
        port,
        try_it,
    }
}

/// Connections wait for a worker; echo-tcp is one with the line of `native`.
const HAND_OFF: &str = "portyard echo {endpoint}    (once a worker is there)";
/// The worker of the tutorials.
const PYTHON_WORKER: &str = "python3 -c \"import os, socket; \
     from multiprocessing.connection import Client; \
     from multiprocessing.reduction import recv_handle; c = Client('{path}'); c.send(os.getpid()); \
     [s.close() for s in iter(lambda: socket.socket(fileno=recv_handle(c)), None) if s.sendall(s.recv(9)) is None]\"";
const TIME_DAYTIME: &str = "portyard time {endpoint} --service daytime";
const TIME_TIME: &str = "portyard time {endpoint} --service time";
const PYTHON_EMPTY: &str = "python3 -c \"from socket import *; s = socket({family}, SOCK_DGRAM); \
     s.sendto(b'', ('{host}', {port})); print(s.recv(64))\"";
const PYTHON_HI: &str = "python3 -c \"from socket import *; s = socket({family}, SOCK_DGRAM); \
     s.sendto(b'hi', ('{host}', {port})); print(s.recv(64))\"";

const PYTHON_MESSAGE: &str = "python3 -c \"from multiprocessing.connection import Client; \
     c = Client(('{host}', {port})); c.send(['hi', 1]); print(c.recv())\"";
const PYTHON_SOURCE: &str = "python3 -c \"from socket import *; from array import array; \
     f = create_connection(('{host}', {port})).makefile('rb'); print(array('d', f.read(80)))\"";
const PYTHON_SINK: &str = "python3 -c \"from socket import *; from struct import *; \
     s = create_connection(('{host}', {port})); s.sendall(pack('>Q', 5) + b'hello'); \
     print(unpack('>QI', s.recv(12)))\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_services_share_a_port() {
        for (at, service) in SERVICES.iter().enumerate() {
            for other in &SERVICES[..at] {
                assert!(
                    service.transport != other.transport || service.port != other.port,
                    "{service:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn a_line_to_type_has_nothing_left_to_fill_in() {
        for service in SERVICES {
            let line = try_line(service.daemon, service.name, &service.endpoint()).unwrap();
            assert!(
                !line.contains('{') && line.contains(&service.port.to_string()),
                "{line}"
            );
        }
        assert_eq!(try_line("kv-rpc", "resp", &Endpoint::tcp_loopback(1)), None);
    }

    #[test]
    fn sockets_of_the_broker_are_of_the_kind_that_it_serves() {
        let broker = DAEMONS
            .iter()
            .find(|daemon| daemon.name == "fd-broker")
            .unwrap();
        for (service, transport, _) in ON_SOCKETS {
            assert_eq!(broker.transport_of(service), *transport);
            let endpoint = Endpoint::Unix("/run/x.sock".into());
            let line = try_line("fd-broker", service, &endpoint).unwrap();
            assert!(!line.contains('{'), "{line}");
        }
        assert_eq!(broker.transport_of("hand-off"), Transport::Stream);
        assert_eq!(DAEMONS[0].transport_of("native"), Transport::Stream);
    }

    #[test]
    fn a_wildcard_is_reached_by_loopback() {
        let line = |text: &str| try_line("time-udp", "ctime", &text.parse().unwrap()).unwrap();
        assert!(line("udp://0.0.0.0:9").contains("'127.0.0.1', 9"));
        assert!(line("udp://[::]:9").contains("AF_INET6"));
        assert!(line("udp://[::]:9").contains("'::1', 9"));
    }

    #[test]
    fn a_port_tells_the_service() {
        assert_eq!(by_port(Transport::Datagram, 123), Some("sntp"));
        assert_eq!(by_port(Transport::Datagram, 3723), Some("sntp"));
        assert_eq!(by_port(Transport::Stream, 7013), Some("daytime"));
        assert_eq!(by_port(Transport::Stream, 3723), None);
    }
}
