//! How a program is told of its peer, in the words of those who started programs before us.

use std::net::SocketAddr;

use portyard_core::access::Identity;
use portyard_core::serve::Peer;

use super::config::Style;

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Who is at the other end.
    pub peer: Peer,
    /// Where the peer has connected to; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The user at the other end of a Unix socket.
    pub user: Option<(u32, u32)>,
}

impl Facts {
    /// User and group of an identity that is one of this machine.
    pub fn user_of(identity: &Identity<'_>) -> Option<(u32, u32)> {
        match identity {
            Identity::User { uid, gid, .. } => Some((*uid, *gid)),
            _ => None,
        }
    }

    /// The variables of a style, but for the program's own number.
    pub fn variables(&self, style: Style) -> Vec<(&'static str, String)> {
        let remote = match self.peer {
            Peer::Internet(address) => Some(canonical(address)),
            Peer::Local => None,
        };
        let local = self.local.map(canonical);
        let mut all = Vec::new();
        match (style, remote) {
            (Style::Inetd, _) | (Style::Xinetd, None) => {}
            (Style::Xinetd, Some(remote)) => all.push(("REMOTE_HOST", remote.ip().to_string())),
            (Style::Ucspi, Some(remote)) => {
                all.push(("PROTO", "TCP".into()));
                if let Some(local) = local {
                    all.push(("TCPLOCALIP", local.ip().to_string()));
                    all.push(("TCPLOCALPORT", local.port().to_string()));
                }
                all.push(("TCPREMOTEIP", remote.ip().to_string()));
                all.push(("TCPREMOTEPORT", remote.port().to_string()));
            }
            (Style::Ucspi, None) => {
                all.push(("PROTO", "IPC".into()));
                if let Some((uid, gid)) = self.user {
                    all.push(("IPCREMOTEEUID", uid.to_string()));
                    all.push(("IPCREMOTEEGID", gid.to_string()));
                }
            }
            (Style::Systemd, remote) => {
                all.push(("LISTEN_FDS", "1".into()));
                all.push(("LISTEN_FDNAMES", "connection".into()));
                if let Some(remote) = remote {
                    all.push(("REMOTE_ADDR", remote.ip().to_string()));
                    all.push(("REMOTE_PORT", remote.port().to_string()));
                }
            }
        }
        all
    }
}

/// An IPv4 address that came mapped into IPv6 is an IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(style: Style, peer: Peer) -> Vec<String> {
        let facts = Facts {
            peer,
            local: Some("[::ffff:192.0.2.7]:79".parse().unwrap()),
            user: Some((5, 6)),
        };
        let variables = facts.variables(style).into_iter();
        variables
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn each_style_has_its_own_words() {
        let peer = Peer::Internet("[2001:db8::1]:4000".parse().unwrap());
        assert!(told(Style::Inetd, peer).is_empty());
        assert_eq!(told(Style::Xinetd, peer), ["REMOTE_HOST=2001:db8::1"]);
        assert_eq!(
            told(Style::Ucspi, peer),
            [
                "PROTO=TCP",
                "TCPLOCALIP=192.0.2.7",
                "TCPLOCALPORT=79",
                "TCPREMOTEIP=2001:db8::1",
                "TCPREMOTEPORT=4000"
            ]
        );
        assert_eq!(
            told(Style::Systemd, peer),
            [
                "LISTEN_FDS=1",
                "LISTEN_FDNAMES=connection",
                "REMOTE_ADDR=2001:db8::1",
                "REMOTE_PORT=4000"
            ]
        );
        assert_eq!(
            told(Style::Ucspi, Peer::Local),
            ["PROTO=IPC", "IPCREMOTEEUID=5", "IPCREMOTEEGID=6"]
        );
    }
}
