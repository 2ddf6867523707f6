//! Which sources are never answered, because an answer would start or feed a loop, or reach
//! somebody who never asked.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use socket2::Socket;

use crate::listen::is_loopback;
use crate::observe::metrics::Drop;

/// How a service recognises an answer, to stay silent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Its answers can be recognised by their payload.
    pub signature: bool,
    /// Its answers can only be recognised by the mark on the packet.
    pub mark: bool,
    /// The protocol itself tells requests from answers, so the source port 123 may be answered.
    pub ntp: bool,
}

/// What this machine calls its own: addresses, broadcast addresses, and the ports we listen on.
#[derive(Debug, Default)]
pub struct Own(ArcSwap<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    ports: Vec<u16>,
    local: HashSet<IpAddr>,
    /// A handful; looking through them is quicker than hashing.
    broadcast: Vec<IpAddr>,
}

impl Guard {
    /// For answers that start with our own text.
    pub const SIGNATURE: Self = Self {
        signature: true,
        mark: false,
        ntp: false,
    };
    /// For answers that are the request itself.
    pub const MARK: Self = Self {
        signature: false,
        mark: true,
        ntp: false,
    };
    /// For answers of which only some start with our own text.
    pub const SIGNATURE_AND_MARK: Self = Self {
        signature: true,
        mark: true,
        ntp: false,
    };
    /// For protocols with a direction of their own (NTP's mode field), which still must not take the
    /// text of another service's answer for a request.
    pub const DIRECTION: Self = Self {
        signature: true,
        mark: false,
        ntp: true,
    };
    /// For services that answer nothing.
    pub const SILENT: Self = Self {
        signature: false,
        mark: false,
        ntp: false,
    };
}

impl Own {
    /// Reads the machine's addresses again; `listening` are the addresses of our own listeners.
    pub fn refresh(&self, listening: &[SocketAddr]) {
        let mut own = Addresses {
            ports: listening.iter().map(SocketAddr::port).collect(),
            local: listening
                .iter()
                .map(|address| address.ip().to_canonical())
                .collect(),
            broadcast: Vec::new(),
        };
        // Without /proc or netlink there is no list; loopback and the bound addresses remain.
        for interface in getifaddrs().into_iter().flatten() {
            own.local.extend(interface.address.as_ref().and_then(ip_of));
            own.broadcast
                .extend(interface.broadcast.as_ref().and_then(ip_of));
        }
        self.0.store(Arc::new(own));
    }

    /// Whether a datagram from `source` may be answered at all.
    ///
    /// Port 0 cannot be answered; ports below `min_port` belong to servers (echo 7, chargen 19,
    /// ...), which would answer the answer; 2049 is NFS, the one server above 1024 that inetds
    /// have always left alone. A broadcast, multicast or unspecified source is forged.
    pub fn check(&self, source: SocketAddr, min_port: u16, ntp: bool) -> Result<(), Drop> {
        let port = source.port();
        let ntp = ntp && port == NTP;
        if port == 0 || port == NFS || (port < min_port && !ntp) {
            return Err(Drop::SourcePort);
        }
        let own = self.0.load();
        let ip = source.ip().to_canonical();
        let forged = match ip {
            IpAddr::V4(v4) => {
                v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast() || v4.octets()[0] == 0
            }
            IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
        };
        if forged || own.broadcast.contains(&ip) {
            return Err(Drop::SourceAddress);
        }
        if own.ports.contains(&port) && (is_loopback(ip) || own.local.contains(&ip)) {
            return Err(Drop::OwnListener);
        }
        Ok(())
    }
}

/// Makes the kernel tell the type of service of what is received.
pub(super) fn report_mark(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    match local {
        SocketAddr::V4(_) => socket.set_recv_tos_v4(true),
        SocketAddr::V6(_) => {
            // A dual-stack socket receives IPv4 as well; an IPv6-only one may refuse this.
            let _ = socket.set_recv_tos_v4(true);
            socket.set_recv_tclass_v6(true)
        }
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

const NTP: u16 = 123;
const NFS: u16 = 2049;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_must_not_be_answered() {
        let own = Own::default();
        own.refresh(&[
            "127.0.0.1:3737".parse().unwrap(),
            "0.0.0.0:3713".parse().unwrap(),
        ]);
        let check = |source: &str| own.check(source.parse().unwrap(), 1024, false);
        for (source, reason) in [
            ("192.0.2.1:0", Drop::SourcePort),
            ("192.0.2.1:7", Drop::SourcePort),
            ("192.0.2.1:123", Drop::SourcePort),
            ("192.0.2.1:2049", Drop::SourcePort),
            ("255.255.255.255:5000", Drop::SourceAddress),
            ("224.0.0.1:5000", Drop::SourceAddress),
            ("0.0.0.0:5000", Drop::SourceAddress),
            ("[ff02::1]:5000", Drop::SourceAddress),
            ("[::ffff:224.0.0.1]:5000", Drop::SourceAddress),
            ("127.0.0.1:3737", Drop::OwnListener),
            ("127.0.0.9:3713", Drop::OwnListener),
        ] {
            assert_eq!(check(source), Err(reason), "{source}");
        }
        for source in ["127.0.0.1:50000", "192.0.2.1:3737", "[2001:db8::1]:5000"] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
        assert_eq!(
            own.check("192.0.2.1:123".parse().unwrap(), 1024, true),
            Ok(())
        );
    }
}
