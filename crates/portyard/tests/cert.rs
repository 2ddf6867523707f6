//! `portyard cert`, judged by openssl and every Python.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod yard;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, ChildStdout, Command, Stdio};

use portyard_testkit::{finish, peer, pythons};
use yard::{Yard, mode, text};

#[test]
fn openssl_believes_what_is_made() {
    for key_type in ["ec", "rsa:2048"] {
        let yard = Yard::furnished(key_type);
        let verify = "verify -x509_strict -check_ss_sig -CAfile ca/ca.pem";
        for name in [
            "-verify_hostname localhost",
            "-verify_hostname a.example.org",
            "-verify_ip 127.0.0.1",
            "-verify_ip ::1",
        ] {
            let words = format!("{verify} -purpose sslserver {name} server.pem");
            yard.openssl(&words).success();
        }
        for (words, because) in [
            (
                "-purpose sslclient server.pem",
                "unsuitable certificate purpose",
            ),
            (
                "-verify_hostname example.org server.pem",
                "hostname mismatch",
            ),
            ("-verify_ip 127.0.0.2 server.pem", "IP address mismatch"),
            (
                "-purpose sslserver client.pem",
                "unsuitable certificate purpose",
            ),
        ] {
            let run = yard.openssl(&format!("{verify} {words}"));
            assert!(run.stderr.contains(because), "{words}: {run:?}");
        }
        let email = "-purpose sslclient -verify_email alice@example.org client.pem";
        yard.openssl(&format!("{verify} {email}")).success();

        let shown = yard.openssl("x509 -in server.pem -noout -text").success();
        for part in [
            "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:*.example.org",
            "TLS Web Server Authentication",
            "X509v3 Key Usage: critical",
            "CA:FALSE",
            "X509v3 Authority Key Identifier",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let shown = yard.openssl("x509 -in ca/ca.pem -noout -text").success();
        for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        for key in ["ca/ca.key", "server.key", "client.key"] {
            yard.openssl(&format!("pkey -check -noout -in {key}"))
                .success();
            assert_eq!(mode(&yard.path(key)), 0o600, "{key}");
        }
        assert!(
            yard.fails("ca/ca.pem ca/ca.key client.pem --ca ca/ca.pem")
                .is_empty()
        );
        assert!(
            yard.fails("server.pem --ca ca/ca.pem --name ::1 --key server.key")
                .is_empty()
        );
    }
}

/// Both ends of a handshake in one program, each with its certificate, each checking the other's.
const BOTH_ENDS: &str = "\
import socket, ssl, sys, threading
ca, chain, key, client_chain, client_key, host = sys.argv[1:]
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
server.verify_mode = ssl.CERT_REQUIRED
server.load_cert_chain(chain, key)
client = ssl.create_default_context(cafile=ca)
client.load_cert_chain(client_chain, client_key)
for context in (server, client):
    context.verify_flags |= ssl.VERIFY_X509_STRICT
ours, theirs = socket.socketpair()
def serve():
    try:
        stream = server.wrap_socket(theirs, server_side=True)
        stream.sendall(repr(stream.getpeercert()['subjectAltName']).encode())
        stream.close()
    except (OSError, ssl.SSLError):
        theirs.close()
thread = threading.Thread(target=serve)
thread.start()
try:
    stream = client.wrap_socket(ours, server_hostname=host)
    sys.stdout.write(stream.recv(1000).decode())
except (ssl.SSLError, ssl.CertificateError) as error:
    sys.stdout.write('refused: %s' % error)
finally:
    ours.close()
thread.join()";

#[test]
fn every_python_shakes_hands_and_checks_the_name() {
    let yard = Yard::furnished("ec");
    let files = [
        "ca/ca.pem",
        "server.pem",
        "server.key",
        "client.pem",
        "client.key",
    ];
    let files = files.map(|name| yard.path(name));
    let files: Vec<_> = files.iter().map(|path| text(path)).collect();
    let mut tried = 0;
    for python in pythons() {
        if python.version < (3, 6) {
            continue;
        }
        tried += 1;
        let met = |host| {
            python
                .run(BOTH_ENDS, &[&files[..], &[host]].concat())
                .success()
        };
        for host in ["localhost", "127.0.0.1", "www.example.org"] {
            let said = met(host);
            assert!(
                said.contains("'alice@example.org'"),
                "{python:?} {host}: {said}"
            );
        }
        let said = met("example.net");
        assert!(said.starts_with("refused: "), "{python:?}: {said}");
    }
    assert!(tried > 0);
}

#[test]
fn every_python_believes_a_certificate_signed_by_itself() {
    let yard = Yard::new();
    yard.made("cert server localhost --self-signed", &[]);
    yard.made("cert ca --out ca", &[]);
    yard.made("cert client bob@example.org --ca ca --out client", &[]);
    // The server trusts both, so that the client's certificate is asked for as above.
    let both = fs::read_to_string(yard.path("localhost.pem")).unwrap()
        + &fs::read_to_string(yard.path("ca/ca.pem")).unwrap();
    fs::write(yard.path("both.pem"), both).unwrap();
    let files = [
        "both.pem",
        "localhost.pem",
        "localhost.key",
        "client.pem",
        "client.key",
    ];
    let files = files.map(|name| yard.path(name));
    let files: Vec<_> = files.iter().map(|path| text(path)).collect();
    for python in pythons() {
        if python.version >= (3, 6) {
            let said = python.run(BOTH_ENDS, &[&files[..], &["localhost"]].concat());
            assert!(
                said.stdout.contains("bob@example.org"),
                "{python:?}: {said:?}"
            );
        }
    }
    assert!(
        yard.fails("localhost.pem --ca localhost.pem --name localhost")
            .is_empty()
    );
    yard.fails_once("localhost.pem", "signed by itself");
    yard.fails_once("localhost.pem --ca ca/ca.pem", "signed by itself");
}

/// `openssl s_server` on a port of its own, until it is dropped.
struct Server {
    child: Child,
    at: String,
    /// Kept open, or what it prints would end it.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(yard: &Yard, words: &str) -> Self {
        let mut child = Command::new(peer("openssl"))
            .args("s_server -accept 127.0.0.1:0 -verify_return_error".split(' '))
            .args(words.split(' '))
            .current_dir(yard.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let at = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(String::from));
        Self {
            child,
            at: at.unwrap(),
            _lines: lines,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openssl_lets_a_client_in_until_it_is_revoked() {
    let yard = Yard::furnished("ec");
    let connect = |server: &Server| {
        let words = format!(
            "s_client -connect {} -CAfile ca/ca.pem -cert client.pem -key client.key \
             -verify_return_error -verify_hostname localhost -ign_eof",
            server.at
        );
        let mut command = Command::new(peer("openssl"));
        let command = command.args(words.split_whitespace());
        finish(command.current_dir(yard.dir()), b"GET / HTTP/1.0\r\n\r\n")
    };
    let words = "-www -cert server.pem -key server.key -CAfile ca/ca.pem -Verify 1";
    yard.made("cert crl --ca ca", &[]);
    let checking = format!("{words} -crl_check -CRL ca/ca.crl.pem");
    let run = connect(&Server::start(&yard, &checking));
    assert!(run.stdout.contains("Verify return code: 0"), "{run:?}");
    assert!(run.stdout.contains("HTTP/1.0 200"), "{run:?}");
    yard.made("cert crl --ca ca --revoke client.pem", &[]);
    let run = connect(&Server::start(&yard, &checking));
    assert!(run.stderr.contains("certificate revoked"), "{run:?}");
    assert!(!run.stdout.contains("HTTP/1.0 200"), "{run:?}");
}

#[test]
fn a_list_keeps_what_it_has_and_its_number_goes_up() {
    let yard = Yard::furnished("ec");
    let said = yard.made("cert crl --ca ca --revoke client.pem", &[]);
    assert!(said.contains("list 1 with 1 revoked"), "{said}");
    let said = yard.made(
        "cert crl --ca ca --revoke server.pem --revoke client.pem",
        &[],
    );
    assert!(said.contains("client.pem: revoked already"), "{said}");
    assert!(said.contains("list 2 with 2 revoked"), "{said}");
    let said = yard.made("cert crl --ca ca --days 90 --revoke-serial 4a:0F", &[]);
    assert!(said.contains("list 3 with 3 revoked"), "{said}");
    let shown = yard.openssl("crl -in ca/ca.crl.pem -noout -text -CAfile ca/ca.pem");
    assert!(shown.stderr.contains("verify OK"), "{shown:?}");
    assert!(shown.stdout.contains("Serial Number: 4A0F"), "{shown:?}");
    assert_eq!(
        shown.stdout.matches("Serial Number:").count(),
        3,
        "{shown:?}"
    );
    assert!(yard.fails("ca/ca.crl.pem --ca ca/ca.pem").is_empty());

    let before = fs::read(yard.path("ca/ca.crl.pem")).unwrap();
    yard.made("cert ca --out other", &[]);
    yard.made("cert client mallory --ca other", &[]);
    yard.refused(
        "cert crl --ca ca --revoke mallory.pem",
        78,
        "not signed by ca/ca.pem",
    );
    yard.refused(
        "cert crl --ca ca --revoke ca/ca.pem",
        78,
        "cannot take itself back",
    );
    yard.refused("cert crl --ca ca --revoke client.key", 78, "no certificate");
    yard.refused(
        "cert crl --ca ca --revoke-serial xyz",
        64,
        "not a serial number",
    );
    assert_eq!(fs::read(yard.path("ca/ca.crl.pem")).unwrap(), before);
    fs::copy(yard.path("ca/ca.crl.pem"), yard.path("other/ca.crl.pem")).unwrap();
    yard.refused("cert crl --ca other", 78, "not signed by other/ca.pem");
    yard.fails_once("ca/ca.crl.pem --ca other/ca.pem", "not signed by --ca");
}

#[test]
fn an_authority_that_openssl_made_signs_too() {
    let yard = Yard::new();
    fs::create_dir(yard.path("ca")).unwrap();
    // Its key identifier is SHA-1's, not ours.
    yard.openssl(
        "req -new -x509 -nodes -newkey rsa:2048 -keyout ca/ca.key -out ca/ca.pem -days 20 \
         -subj /C=DE/O=Example/CN=Old -addext keyUsage=critical,keyCertSign,cRLSign",
    )
    .success();
    fs::set_permissions(yard.path("ca/ca.key"), Permissions::from_mode(0o644)).unwrap();
    yard.refused("cert server localhost --ca ca", 78, "chmod 600 ca/ca.key");
    fs::set_permissions(yard.path("ca/ca.key"), Permissions::from_mode(0o600)).unwrap();
    let said = yard.made("cert server localhost --ca ca", &[]);
    assert!(said.contains("its authority ends then"), "{said}");
    let end = |name: &str| {
        yard.openssl(&format!("x509 -noout -enddate -in {name}"))
            .success()
    };
    assert_eq!(end("localhost.pem"), end("ca/ca.pem"));
    yard.made("cert client alice --ca ca", &[]);
    yard.made("cert crl --ca ca --revoke alice.pem", &[]);
    let verify = "verify -x509_strict -CAfile ca/ca.pem -crl_check -CRLfile ca/ca.crl.pem";
    yard.openssl(&format!("{verify} localhost.pem")).success();
    let revoked = yard.openssl(&format!("{verify} alice.pem"));
    assert!(
        revoked.stderr.contains("certificate revoked"),
        "{revoked:?}"
    );
}

#[test]
fn authorities_with_any_key_that_tls_knows_sign_and_revoke() {
    let yard = Yard::new();
    for key in [
        "ec -pkeyopt ec_paramgen_curve:P-384",
        "ec -pkeyopt ec_paramgen_curve:P-521",
        "ed25519",
        "rsa:3072",
    ] {
        let _ = fs::remove_dir_all(yard.path("ca"));
        fs::create_dir(yard.path("ca")).unwrap();
        yard.openssl(&format!(
            "req -new -x509 -nodes -newkey {key} -keyout ca/ca.key -out ca/ca.pem -days 1000 \
             -subj /CN=Authority -addext keyUsage=critical,keyCertSign,cRLSign"
        ))
        .success();
        yard.made("cert server localhost --ca ca --force", &[]);
        yard.made("cert client alice --ca ca --force", &[]);
        for _ in 0..2 {
            yard.made("cert crl --ca ca --revoke alice.pem", &[]);
        }
        let verify = "verify -x509_strict -CAfile ca/ca.pem -crl_check -CRLfile ca/ca.crl.pem";
        yard.openssl(&format!("{verify} localhost.pem")).success();
        let revoked = yard.openssl(&format!("{verify} alice.pem"));
        assert!(
            revoked.stderr.contains("certificate revoked"),
            "{key}: {revoked:?}"
        );
        let files = "localhost.pem ca/ca.pem ca/ca.key ca/ca.crl.pem";
        assert_eq!(
            yard.fails(&format!("{files} --ca ca/ca.pem")),
            [""; 0],
            "{key}"
        );
    }
}

#[test]
fn what_an_intermediate_authority_signs_has_it_in_the_chain() {
    let yard = Yard::new();
    yard.made("cert ca --out root --name Root", &[]);
    // Ours sign no further authorities, so openssl makes both.
    for words in [
        "req -new -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=Root \
         -keyout root.key -out root.pem -addext keyUsage=critical,keyCertSign,cRLSign",
        "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-384 -subj /CN=Middle \
         -keyout ca.key -out ca.csr -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
         -addext keyUsage=critical,keyCertSign,cRLSign",
        "x509 -req -in ca.csr -copy_extensions copy -CA root.pem -CAkey root.key -CAcreateserial \
         -days 100 -out ca.pem",
    ] {
        yard.openssl(words).success();
    }
    yard.made("cert server localhost", &[]);
    yard.openssl("verify -CAfile root.pem -untrusted localhost.pem localhost.pem")
        .success();
    assert!(
        yard.fails("localhost.pem --ca root.pem --name localhost")
            .is_empty()
    );
    assert!(
        yard.fails("localhost.pem --ca ca.pem --name localhost")
            .is_empty()
    );
    yard.fails_once(
        "localhost.pem --ca root/ca.pem",
        "another authority of the same name",
    );

    let chain = fs::read_to_string(yard.path("localhost.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let parts: Vec<_> = chain.split_inclusive(end).collect();
    assert_eq!(parts.len(), 2);
    fs::write(yard.path("short.pem"), parts[0]).unwrap();
    yard.fails_once(
        "short.pem --ca root.pem",
        "an intermediate certificate is missing",
    );
    let root = fs::read_to_string(yard.path("root.pem")).unwrap();
    fs::write(yard.path("order.pem"), [parts[0], &root, parts[1]].concat()).unwrap();
    yard.fails_once("order.pem", "certificate 3 signed certificate 1");
    fs::write(yard.path("gap.pem"), [parts[0], &root].concat()).unwrap();
    yard.fails_once("gap.pem", "certificate 2 did not sign certificate 1");
    fs::write(yard.path("backwards.pem"), [parts[1], parts[0]].concat()).unwrap();
    yard.fails_once("backwards.pem", "comes first in its file");
    fs::write(yard.path("whole.pem"), [&chain, root.as_str()].concat()).unwrap();
    assert!(yard.fails("whole.pem --ca root.pem").is_empty());
}

#[test]
fn nothing_is_overwritten_without_force_and_nothing_is_left_behind() {
    let yard = Yard::furnished("ec");
    let read = || ["server.pem", "server.key"].map(|name| fs::read(yard.path(name)).unwrap());
    let (before, names) = (read(), yard.names());
    let again = "cert server localhost --ca ca --out server";
    yard.refused(again, 64, "--force");
    yard.refused("cert ca --out ca", 64, "--force");
    fs::remove_file(yard.path("server.pem")).unwrap();
    yard.refused(again, 64, "server.key is there already");
    assert!(!yard.path("server.pem").exists());
    fs::write(yard.path("server.pem"), &before[0]).unwrap();
    assert_eq!(read(), before);

    fs::set_permissions(yard.path("server.key"), Permissions::from_mode(0o644)).unwrap();
    yard.made(again, &["--force"]);
    assert_ne!(read()[0], before[0]);
    assert_ne!(read()[1], before[1]);
    assert_eq!(mode(&yard.path("server.key")), 0o600);
    assert!(
        yard.fails("server.pem --key server.key --ca ca/ca.pem")
            .is_empty()
    );
    // What is no plain file was meant for something else.
    fs::rename(yard.path("server.key"), yard.path("elsewhere")).unwrap();
    symlink("elsewhere", yard.path("server.key")).unwrap();
    yard.refused(&format!("{again} --force"), 64, "not a regular file");
    fs::remove_file(yard.path("server.key")).unwrap();
    fs::rename(yard.path("elsewhere"), yard.path("server.key")).unwrap();
    yard.refused(
        "cert client ca --ca ca --out ca/ca --force",
        64,
        "authority itself",
    );
    assert_eq!(yard.names(), names);
}

#[test]
fn mistakes_are_named_with_the_remedy() {
    let yard = Yard::furnished("ec");
    for (words, code, because) in [
        ("cert server https://host/ --ca ca", 64, "without scheme"),
        ("cert server host:443 --ca ca", 64, "without a port"),
        ("cert server *.org --ca ca", 64, "single label"),
        ("cert server localhost", 78, "portyard cert ca --out ."),
        (
            "cert server localhost --ca ca --self-signed",
            64,
            "cannot be used with",
        ),
        (
            "cert server localhost --ca ca --key-type rsa:1024",
            64,
            "rsa:2048",
        ),
        ("cert server localhost --ca ca --days 0", 64, "--days"),
        ("cert server", 64, "NAME"),
        (
            "cert client a --ca ca --email b",
            64,
            "not an email address",
        ),
        ("cert show none.pem", 78, "none.pem"),
        (
            "cert show server.pem --name https://host",
            64,
            "without scheme",
        ),
        ("cert show server.pem --ca client.key", 78, "no certificate"),
        ("cert", 64, "portyard cert"),
    ] {
        yard.refused(words, code, because);
    }
    // An authority's certificate beside another's key, and a certificate that is no authority's.
    yard.made("cert ca --out other", &[]);
    fs::copy(yard.path("ca/ca.pem"), yard.path("other/ca.pem")).unwrap();
    yard.refused(
        "cert server localhost --ca other",
        78,
        "not the key of other/ca.pem",
    );
    fs::copy(yard.path("server.pem"), yard.path("other/ca.pem")).unwrap();
    fs::copy(yard.path("server.key"), yard.path("other/ca.key")).unwrap();
    yard.refused(
        "cert server localhost --ca other",
        78,
        "no authority's certificate",
    );
}
