//! Somebody in between who passes a handshake on: with CPython, and with ours as far as nothing is
//! bound to a TLS session, that works. Where it is bound, it must not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use portyard_core::wire::auth::python::MinDigest;
use portyard_core::wire::auth::{Handshake, mutual, python};
use portyard_testkit::{Certificates, Daemon, Pair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::stream::{random, speak};
use crate::table::{Row, Table};
use crate::victim::{Client, Dialect, SECRET, Server, key, key_file};
use crate::{CONTROLS, CPYTHONS, TRIES, chances, comes_off};

#[test]
fn nobody_gets_through_a_second_tls_session() {
    let yard = Yard::new();
    let meddling = [
        Meddling::None,
        Meddling::UnboundToServer,
        Meddling::UnboundBoth,
    ];
    let passed = |number: &usize| yard.passed(Dialect::Mutual, meddling[number % 3]);
    let mut table = Table::default();
    table.add(Row {
        attack: "mutual in TLS: passed on to a second session".into(),
        cpython: CPYTHONS.map(cpython_passed).into(),
        cpython_falls: true,
        ours: (0..TRIES).filter(passed).count(),
    });
    table.judge();
    // The same attacker with the dialogue of Python, which nothing binds to a session.
    assert!((0..CONTROLS).all(|_| yard.passed(Dialect::Python, Meddling::None)));
}

/// How often two ends of CPython are taken in, which know no binding, in TLS or out of it.
fn cpython_passed(version: (u8, u8)) -> usize {
    let (client, server) = (Client::cpython(version), Server::cpython(version));
    let made = || {
        let mut victim = client.tcp_connection();
        let mut onward = TcpStream::connect(server.address)?;
        let seen = relay(&mut victim, &mut onward, true, Meddling::None)?;
        Ok(client.is_canary_in(&seen))
    };
    let passed = |_: &usize| comes_off(chances(true), made);
    (0..CONTROLS).filter(passed).count()
}

/// What is changed on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meddling {
    None,
    /// The client's messages say that they are bound to nothing.
    UnboundToServer,
    /// And the server's that they are bound.
    UnboundBoth,
}

/// Passes on what both say, in turns, and then all that the client says. Returns the latter.
fn relay(
    client: &mut (impl Read + Write),
    server: &mut (impl Read + Write),
    server_begins: bool,
    meddling: Meddling,
) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 512];
    // Six messages of Python, three of ours.
    let turns: &[bool] = if server_begins {
        &[true, false, true, false, true, false]
    } else {
        &[false, true]
    };
    let mut seen = Vec::new();
    for from_server in turns {
        let len = if *from_server {
            server.read(&mut buffer)?
        } else {
            client.read(&mut buffer)?
        };
        if len > 3 && meddling != Meddling::None && !from_server {
            buffer[3] = 0;
        }
        if len > 3 && meddling == Meddling::UnboundBoth && *from_server {
            buffer[3] = 1;
        }
        if *from_server {
            client.write_all(&buffer[..len])?;
        } else {
            server.write_all(&buffer[..len])?;
            seen.extend_from_slice(&buffer[..len]);
        }
    }
    loop {
        // An end without a word of TLS is an end, too.
        let len = client.read(&mut buffer).unwrap_or(0);
        if len == 0 {
            return Ok(seen);
        }
        seen.extend_from_slice(&buffer[..len]);
    }
}

/// The daemon behind TLS, a client that trusts its authority, and an attacker who has got a
/// certificate from that authority.
struct Yard {
    daemon: Daemon,
    trusting: Arc<ClientConfig>,
    attacking: Arc<ServerConfig>,
    listener: TcpListener,
    _certificates: Certificates,
}

impl Yard {
    fn new() -> Self {
        let certificates = Certificates::new();
        let builder = Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"));
        let keys = key_file(builder.dir());
        let Pair { chain, key, .. } = certificates.server(&["localhost"]);
        let listener = |auth: &str| {
            format!(
                "[[listener]]\nservice = \"echo\"\nname = \"{auth}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
                 auth = \"{auth}\"\nauth_keys = \"{keys}\"\n[listener.limits]\npenalty_max = \"0s\"\n\
                 [listener.tls]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\n",
                chain.display(),
                key.display()
            )
        };
        let config = format!("{}{}", listener("mutual"), listener("python"));
        Self {
            daemon: builder.config(&config).start(),
            trusting: trusting(certificates.ca()),
            attacking: showing(&certificates.server(&["localhost"])),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            _certificates: certificates,
        }
    }

    /// One try: whether the attacker in between sees what the client says to its server.
    fn passed(&self, dialect: Dialect, meddling: Meddling) -> bool {
        let canary: [u8; 16] = random();
        let address = self.listener.local_addr().unwrap();
        let config = self.trusting.clone();
        let victim = thread::spawn(move || visit(&config, address, dialect, canary));

        let (socket, _) = self.listener.accept().unwrap();
        let mut session = ServerConnection::new(self.attacking.clone()).unwrap();
        let mut socket = socket;
        session.complete_io(&mut socket).unwrap();
        let mut from = rustls::StreamOwned::new(session, socket);
        let mut onward = connect(&self.trusting, self.daemon.address(dialect.name())).unwrap();
        let seen = relay(&mut from, &mut onward, dialect == Dialect::Python, meddling);
        drop((from, onward));
        let believed = victim.join().unwrap().is_ok();
        let seen = seen.unwrap_or_default();
        let passed = seen.windows(16).any(|window| window == canary);
        assert_eq!(passed, believed);
        passed
    }
}

/// The victim: our client's end, in a TLS session that is in order.
fn visit(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    dialect: Dialect,
    canary: [u8; 16],
) -> io::Result<()> {
    let mut stream = connect(config, address)?;
    let exporter = stream
        .conn
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]))
        .unwrap();
    let mut machine: Box<dyn Handshake> = match dialect {
        Dialect::Mutual => Box::new(mutual::Client::new(key(SECRET), random(), Some(exporter))),
        _ => Box::new(python::Client::new(
            key(SECRET),
            MinDigest::Sha256,
            random(),
        )),
    };
    speak(&mut stream, &mut *machine, ControlFlow::Continue)?;
    stream.write_all(&canary)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> io::Result<rustls::StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(config.clone(), name).unwrap();
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    session.complete_io(&mut socket)?;
    Ok(rustls::StreamOwned::new(session, socket))
}

fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}

fn showing(pair: &Pair) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(&pair.chain).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap())
}
