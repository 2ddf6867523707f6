//! Real peers prove keys and speak TLS: multiprocessing and ssl of every Python, openssl, socat, and
//! a scanner that looks for what is weak.

mod common;

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use portyard_testkit::{Certificates, Daemon, Pair, finish, peer, python, pythons};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore};

use common::{BINARY, key_file};

#[test]
fn multiprocessing_of_every_python_gets_in_with_its_key_alone() {
    let builder = Daemon::build(BINARY);
    let keys = key_file(builder.dir(), &["old", "new"]);
    let listener = |digest: &str| {
        format!(
            "{}auth = \"python\"\nauth_keys = \"{}\"\nmin_digest = \"{digest}\"\n\
             [listener.limits]\npenalty_max = \"0s\"\n",
            listener("message", digest),
            keys.display()
        )
    };
    let config = format!("{}{}", listener("md5"), listener("sha256"));
    let daemon = builder.config(&config).start();
    for python in pythons() {
        for (digest, key, enters) in [
            ("md5", "new", true),
            ("md5", "old", true),
            ("md5", "wrong", false),
            ("sha256", "new", python.version >= (3, 12)),
            ("sha256", "wrong", false),
        ] {
            let port = daemon.address(digest).port().to_string();
            let done = python.run(MULTIPROCESSING, &[&port, key]);
            let expected = if enters {
                "served"
            } else {
                "AuthenticationError"
            };
            assert_eq!(
                done.stdout, expected,
                "{python:?} with {key}, {digest}: {}",
                done.stderr
            );
        }
    }
}

#[test]
fn ssl_of_every_python_is_served_and_shows_its_certificate_where_one_is_wanted() {
    let yard = Yard::new();
    let ca = yard.certificates.ca().display().to_string();
    let other = Certificates::new();
    let stranger = other.client("stranger");
    let open = yard.daemon.address("echo").port().to_string();
    let closed = yard.daemon.address("required").port().to_string();
    for python in pythons() {
        let run = |port: &str, ca: &str, own: Option<&Pair>| {
            let files = own.map(|pair| [&pair.chain, &pair.key].map(|path| text(path)));
            let mut arguments = vec![port, ca];
            arguments.extend(files.iter().flatten().map(String::as_str));
            let done = python.run(SSL, &arguments);
            assert_eq!(done.code, Some(0), "{python:?}: {}", done.stderr);
            done.stdout
        };
        assert_eq!(run(&open, &ca, None), "served TLSv1.3", "{python:?}");
        assert_eq!(run(&closed, &ca, Some(&yard.client)), "served TLSv1.3");
        for own in [None, Some(&stranger), Some(&yard.revoked)] {
            assert_eq!(run(&closed, &ca, own), "refused", "{python:?}, {own:?}");
        }
        assert_eq!(run(&open, &text(other.ca()), None), "not trusted");
    }
}

#[test]
fn openssl_agrees_on_version_group_protocol_and_resumes() {
    let yard = Yard::new();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = yard.s_client("command", &[version]);
        assert!(said.contains(&format!("New, {name}, Cipher is ")), "{said}");
        assert!(said.contains("Verification: OK"), "{said}");

        let ticket = text(&yard.daemon.dir().join(name));
        yard.s_client("command", &[version, "-sess_out", &ticket]);
        let said = yard.s_client("command", &[version, "-sess_in", &ticket]);
        assert!(said.contains(&format!("Reused, {name}, ")), "{said}");

        let said = yard.s_client("command", &[version, "-alpn", "other,portyard"]);
        assert!(said.contains("ALPN protocol: portyard"), "{said}");

        let [chain, key] = [&yard.client.chain, &yard.client.key].map(|path| text(path));
        yard.s_client("required", &[version, "-cert", &chain, "-key", &key]);
    }
}

#[test]
fn a_group_is_agreed_on_and_the_hybrid_one_preferred() {
    let yard = Yard::new();
    // In TLS 1.2 the curve of the certificate must be among them.
    for groups in ["X25519:P-256", "P-256", "P-384:P-256"] {
        yard.s_client("command", &["-tls1_2", "-groups", groups]);
    }
    let known = finish(
        Command::new(peer("openssl")).args(["list", "-tls-groups"]),
        b"",
    )
    .stdout;
    let hybrid = known.contains("X25519MLKEM768").then_some("X25519MLKEM768");
    for group in ["X25519", "P-256", "P-384"].into_iter().chain(hybrid) {
        yard.s_client("command", &["-tls1_3", "-groups", group]);
    }

    // Before 3.5 openssl does not know it, so rustls shows it in any case.
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(yard.certificates.ca()).unwrap();
    roots.add(ca).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = Arc::new(config.with_no_client_auth());
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(config, name).unwrap();
    let mut socket = TcpStream::connect(yard.daemon.address("echo")).unwrap();
    session.complete_io(&mut socket).unwrap();
    let group = session.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn openssl_is_refused_what_is_old_or_foreign() {
    let yard = Yard::new();
    for (arguments, alert) in [
        // Debian's openssl does not even offer the old ones without the level.
        (
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
            "handshake failure",
        ),
        (
            &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
            "handshake failure",
        ),
        (
            &["-tls1_2", "-cipher", "AES128-SHA:AES256-GCM-SHA384"],
            "handshake failure",
        ),
        (&["-alpn", "other"], "no application protocol"),
        (&["-groups", "P-521"], "handshake failure"),
    ] {
        let (code, said) = yard.ask("command", arguments);
        assert_eq!(code, Some(1), "{arguments:?}\n{said}");
        assert!(
            said.contains(&format!("alert {alert}")),
            "{arguments:?}\n{said}"
        );
    }
}

#[test]
fn a_session_that_cannot_be_bound_is_refused() {
    let yard = Yard::new();
    let port = yard.daemon.address("echo").port().to_string();
    let ca = text(yard.certificates.ca());
    let said = |without| python(UNBOUND, &[&port, &ca, without]).success();
    assert_eq!(said("0"), "served TLSv1.2");
    assert_eq!(said("1"), "refused");
}

#[test]
fn socat_gets_its_bytes_back_over_tls() {
    let yard = Yard::new();
    let input = "socat says hello\n".repeat(10_000);
    for (label, own, served) in [
        ("echo", None, true),
        ("required", Some(&yard.client), true),
        ("required", None, false),
    ] {
        let own = own.map(|Pair { chain, key, .. }| {
            format!(",certificate={},key={}", chain.display(), key.display())
        });
        let place = format!(
            "OPENSSL:{},commonname=localhost,cafile={}{}",
            yard.daemon.address(label),
            yard.certificates.ca().display(),
            own.unwrap_or_default()
        );
        let done = finish(
            Command::new(peer("socat")).args(["-t", "20", "-", &place]),
            input.as_bytes(),
        );
        assert_eq!(done.stdout == input, served, "{label}: {}", done.stderr);
        assert!(served || done.stdout.is_empty(), "{label}");
    }
}

#[test]
fn a_scanner_finds_nothing_weak() {
    let yard = Yard::new();
    let address = yard.daemon.address("echo").to_string();
    let mut scanner = Command::new(peer("sslscan"));
    let scanned = finish(
        scanner.args(["--xml=-", "--sni-name=localhost", &address]),
        b"",
    );
    let report = scanned.success();
    let found = |start: &str| {
        let lines = report.lines().map(str::trim);
        let lines: Vec<_> = lines.filter(|line| line.starts_with(start)).collect();
        assert!(!lines.is_empty(), "no {start} in\n{report}");
        lines
    };
    // It cannot see TLS 1.2 here: it does not offer the extended master secret, which we demand.
    for line in found("<protocol ") {
        let on = line.contains("enabled=\"1\"");
        let good = line.contains("version=\"1.3\"") || line.contains("version=\"1.2\"");
        assert!(good || !on, "{line}");
        assert!(on || !line.contains("version=\"1.3\""), "{line}");
    }
    for line in found("<cipher ") {
        let strength = ["acceptable", "strong"].map(|name| format!("strength=\"{name}\""));
        assert!(strength.iter().any(|good| line.contains(good)), "{line}");
    }
    for line in found("<heartbleed ") {
        assert!(line.contains("vulnerable=\"0\""), "{line}");
    }
    for line in found("<renegotiation ") {
        let none = line.contains("supported=\"0\"");
        assert!(none || line.contains("secure=\"1\""), "{line}");
    }
    assert!(!report.contains("<compression supported=\"1\""), "{report}");
}

/// The daemon behind TLS: `echo` and `command` for everybody, `required` for those with a
/// certificate that has not been revoked.
struct Yard {
    daemon: Daemon,
    certificates: Certificates,
    client: Pair,
    revoked: Pair,
}

impl Yard {
    fn new() -> Self {
        let certificates = Certificates::new();
        let server = certificates.server(&["localhost", "127.0.0.1"]);
        let client = certificates.client("friend");
        let revoked = certificates.client("former friend");
        let crl = certificates.crl(&[&revoked]);
        let tls = |service: &str, name: &str, more: &str| {
            format!(
                "{}[listener.limits]\npenalty_max = \"0s\"\n[listener.tls]\nalpn = [\"portyard\"]\n\
                 certificates = [{{ chain = \"{}\", key = \"{}\" }}]\n{more}",
                listener(service, name),
                server.chain.display(),
                server.key.display()
            )
        };
        let required = format!(
            "client = \"required\"\nclient_ca = \"{}\"\ncrls = [\"{}\"]\n",
            certificates.ca().display(),
            crl.display()
        );
        let config = [
            tls("echo", "echo", ""),
            tls("command", "command", ""),
            tls("echo", "required", &required),
        ];
        let daemon = Daemon::build(BINARY).config(&config.concat()).start();
        Self {
            daemon,
            certificates,
            client,
            revoked,
        }
    }

    /// What openssl says of a session that must be in order.
    fn s_client(&self, label: &str, arguments: &[&str]) -> String {
        let (code, said) = self.ask(label, arguments);
        assert_eq!(code, Some(0), "{arguments:?}\n{said}");
        said
    }

    /// The exit code of a session in which openssl types one line, and what it says of it.
    fn ask(&self, label: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let mut openssl = Command::new(peer("openssl"));
        openssl
            .args(["s_client", "-verify_return_error", "-servername"])
            .args(["localhost", "-connect"])
            .arg(self.daemon.address(label).to_string())
            .arg("-CAfile")
            .arg(self.certificates.ca())
            .args(arguments);
        // It goes on until the service ends the session.
        let typed: &[u8] = if label == "command" {
            openssl.arg("-ign_eof");
            b"quit\n"
        } else {
            b""
        };
        let done = finish(&mut openssl, typed);
        (done.code, done.stdout + &done.stderr)
    }
}

fn listener(service: &str, name: &str) -> String {
    format!(
        "[[listener]]\nservice = \"{service}\"\nname = \"{name}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n"
    )
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

const MULTIPROCESSING: &str = r"
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
try:
    connection = Client(('127.0.0.1', int(sys.argv[1])), authkey=sys.argv[2].encode('ascii'))
    for size in (0, 1, 16384, 16385, 100000):
        connection.send_bytes(b'x' * size)
        assert connection.recv_bytes() == b'x' * size
    connection.send({'an': ['object', None]})
    assert connection.recv() == {'an': ['object', None]}
    connection.close()
    sys.stdout.write('served')
except AuthenticationError:
    sys.stdout.write('AuthenticationError')
";

const SSL: &str = r"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
if len(sys.argv) > 3:
    context.load_cert_chain(sys.argv[3], sys.argv[4])
plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20)
try:
    stream = context.wrap_socket(plain, server_hostname='localhost')
    # In TLS 1.3 a refusal comes after the handshake.
    stream.sendall(b'hello\n')
    if stream.recv(100) == b'hello\n':
        version = stream.version()
        # Both ends say the last word.
        stream.unwrap()
        sys.stdout.write('served ' + version)
    else:
        sys.stdout.write('refused')
except (ssl.SSLError, socket.error) as error:
    mistrust = 'CERTIFICATE_VERIFY_FAILED' in str(error)
    sys.stdout.write('not trusted' if mistrust else 'refused')
";

/// TLS 1.2 without the extended master secret (RFC 7627): SSL_OP_NO_EXTENDED_MASTER_SECRET is 1.
const UNBOUND: &str = r"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
context.maximum_version = ssl.TLSVersion.TLSv1_2
context.options |= int(sys.argv[3])
plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20)
try:
    stream = context.wrap_socket(plain, server_hostname='localhost')
    stream.sendall(b'hello')
    assert stream.recv(100) == b'hello'
    sys.stdout.write('served ' + stream.version())
except ssl.SSLError as error:
    assert 'HANDSHAKE_FAILURE' in str(error), error
    sys.stdout.write('refused')
";
