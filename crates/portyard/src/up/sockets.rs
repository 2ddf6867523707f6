//! The sockets of a daemon, opened before it starts and kept open across its restarts.

use std::io;

use portyard_core::config::SocketOptions;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::listen::{self, Bound, Inherited, ListenError};

use super::roster::{Plan, others};

/// A daemon and the sockets that wait for it.
#[derive(Debug)]
pub struct Berth {
    /// The daemon's name.
    pub daemon: &'static str,
    /// Its binary.
    pub program: std::path::PathBuf,
    /// Its built-in configuration.
    pub defaults: toml::Table,
    /// What it gets on descriptors 3, 4, and so on.
    pub sockets: Vec<Passed>,
}

/// A socket to be passed.
#[derive(Debug)]
pub struct Passed {
    /// Its name in `LISTEN_FDNAMES`: the listener's.
    pub name: String,
    /// The service that the listener offers.
    pub service: String,
    /// The socket.
    pub bound: Bound,
}

/// Opens every socket of a plan.
pub fn open(plan: Plan) -> Result<Berth, Fatal> {
    let daemon = plan.daemon.name;
    let mut sockets = Vec::new();
    for listener in &plan.listeners {
        let name = listener.label();
        if !passable(name) {
            return Err(Fatal::new(
                Exit::Config,
                format!(
                    "{daemon}: the listener name '{}' cannot be passed; names are 1 to 255 \
                     printable ASCII characters without a colon (sd_listen_fds(3))",
                    portyard_wire::escape::escape(name.as_bytes(), 80)
                ),
            ));
        }
        for endpoint in &listener.listen {
            let transport = match endpoint {
                Endpoint::Tcp(_) => Transport::Stream,
                Endpoint::Udp(_) => Transport::Datagram,
                _ => plan.daemon.transport_of(&listener.service),
            };
            let options = SocketOptions::default();
            let bound = listen::open(
                endpoint,
                transport,
                &options,
                &mut Inherited::none(),
                1,
                None,
            )
            .map_err(|error| cannot_open(daemon, name, transport, &error))?;
            sockets.extend(bound.into_iter().map(|bound| Passed {
                name: name.into(),
                service: listener.service.clone(),
                bound,
            }));
        }
    }
    Ok(Berth {
        daemon,
        program: plan.program,
        defaults: plan.defaults,
        sockets,
    })
}

fn cannot_open(daemon: &str, name: &str, transport: Transport, error: &ListenError) -> Fatal {
    let message = match error {
        ListenError::Kernel {
            endpoint,
            error: cause,
            ..
        } if cause.kind() == io::ErrorKind::AddrInUse => format!(
            "nothing was started: {endpoint} ({name} of {daemon}) is taken by another program; \
             {} shows which. Stop it, or start the others with --only {}",
            who_has(endpoint, transport),
            others(daemon)
        ),
        _ => format!("nothing was started: {name} of {daemon}: {error}"),
    };
    Fatal::new(error.exit(), message)
}

/// The command that tells who has a port (iproute2).
fn who_has(endpoint: &Endpoint, transport: Transport) -> String {
    let protocol = match transport {
        Transport::Stream | Transport::SeqPacket => 't',
        Transport::Datagram => 'u',
    };
    match endpoint {
        Endpoint::Tcp(at) | Endpoint::Udp(at) | Endpoint::Bare(at) => {
            format!("'ss -Hl{protocol}np sport = :{}'", at.port)
        }
        _ => "'ss -Hlxp'".into(),
    }
}

/// What `sd_listen_fds_with_names(3)` allows.
fn passable(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte) && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::super::roster::Listener;
    use super::*;
    use crate::catalog::DAEMONS;

    fn plan(name: &str, listen: &str) -> Plan {
        Plan {
            daemon: DAEMONS[1],
            program: "/bin/true".into(),
            listeners: vec![Listener {
                service: "ctime".into(),
                name: Some(name.into()),
                listen: vec![listen.parse().unwrap()],
            }],
            defaults: toml::Table::new(),
        }
    }

    #[test]
    fn a_taken_port_is_named_with_a_way_out() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = open(plan("clock", &format!("udp://127.0.0.1:{port}"))).unwrap_err();
        assert_eq!(error.exit, Exit::Unavailable);
        let message = error.to_string();
        assert!(
            message.contains(&format!("udp://127.0.0.1:{port} (clock of time-udp)")),
            "{message}"
        );
        assert!(
            message.contains(&format!("'ss -Hlunp sport = :{port}'")),
            "{message}"
        );
        assert!(
            message.ends_with("--only echo-tcp,kv-rpc,rest-api,fd-broker"),
            "{message}"
        );
    }

    #[test]
    fn names_that_systemd_cannot_pass_are_refused() {
        for name in ["", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            let error = open(plan(name, "udp://127.0.0.1:0")).unwrap_err();
            assert_eq!(error.exit, Exit::Config, "{name}");
        }
    }

    #[test]
    fn an_endpoint_without_scheme_takes_the_daemons_transport() {
        let berth = open(plan("clock", "127.0.0.1:0")).unwrap();
        assert!(matches!(berth.sockets[0].bound.endpoint, Endpoint::Udp(_)));
    }
}
