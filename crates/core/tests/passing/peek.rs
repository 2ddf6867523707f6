//! Looking at the first bytes of a connection, which real clients have sent, and leaving them there.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use portyard_core::event_loop::EventLoop;
use portyard_core::serve::{Accepted, Connection, Ended, Peeked, Serving, StreamService};
use portyard_testkit::{peer, pythons};
use portyard_wire::client_hello::{self, ClientHello, HELLO_MAX, HelloError};
use tokio::time::Instant;

use super::server::{Plan, Server};
use super::{PATIENCE, is_watched};

type Seen = (Accepted, Peeked<Result<ClientHello, HelloError>>);

/// Looks for a client hello and gives what it saw to the test.
struct Looker {
    seen: Mutex<mpsc::Sender<Seen>>,
    patience: Duration,
}

impl StreamService for Looker {
    fn serve(&self, _: Connection) -> Serving {
        Box::pin(std::future::ready(Ended::Broken))
    }

    fn takes_sockets(&self) -> bool {
        true
    }

    fn take(&self, home: &Rc<EventLoop>, accepted: Accepted) {
        let home = home.clone();
        let seen = self.seen.lock().unwrap().clone();
        let deadline = Instant::now() + self.patience;
        tokio::task::spawn_local(async move {
            let look = |bytes: &[u8]| client_hello::parse(bytes).transpose();
            let peeked = accepted.peek(&home, HELLO_MAX, deadline, look).await;
            seen.send(peeked).ok();
        });
    }
}

struct Looking {
    server: Server,
    seen: mpsc::Receiver<Seen>,
}

impl Looking {
    fn start(patience: Duration) -> Self {
        let (send, seen) = mpsc::channel();
        let service = Looker {
            seen: Mutex::new(send),
            patience,
        };
        Self {
            server: Server::listening(Plan::new(service)),
            seen,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn connect(&self) -> TcpStream {
        self.server.connect()
    }

    fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }

    /// What a client has said whose hello must be good; its bytes must still be there.
    fn hello(&self) -> ClientHello {
        let (accepted, peeked) = self.seen();
        assert!(!is_watched(accepted.socket.as_raw_fd()));
        let Peeked::Seen(Ok(hello)) = peeked else {
            panic!("{peeked:?}");
        };
        let socket = TcpStream::from(accepted.socket);
        socket.set_nonblocking(false).unwrap();
        let mut first = [0; 3];
        (&socket).read_exact(&mut first).unwrap();
        assert_eq!(&first[..2], &[22, 3]);
        hello
    }
}

/// Runs a client, which fails because nobody answers it, and returns what its hello said.
fn client(server: &Looking, program: &Path, arguments: &[&str]) -> ClientHello {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hello = server.hello();
    child.kill().unwrap();
    child.wait().unwrap();
    hello
}

fn protocols(hello: &ClientHello) -> Vec<&str> {
    let names = hello.alpn.iter();
    names
        .map(|name| std::str::from_utf8(name).unwrap())
        .collect()
}

#[test]
fn the_hello_of_openssl_is_read() {
    let server = Looking::start(PATIENCE);
    let at = server.address().to_string();
    let name = [
        "s_client",
        "-connect",
        &at,
        "-servername",
        "Shop.Example.org",
    ];
    let hello = client(
        &server,
        &peer("openssl"),
        &[&name[..], &["-alpn", "h2,http/1.1"]].concat(),
    );
    assert_eq!(hello.server_name.as_deref(), Some("shop.example.org"));
    assert_eq!(protocols(&hello), ["h2", "http/1.1"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let hello = client(&server, &peer("openssl"), &[&name[..], &[version]].concat());
        assert_eq!(hello.server_name.as_deref(), Some("shop.example.org"));
    }
    let nameless = ["s_client", "-connect", &at, "-noservername"];
    let hello = client(&server, &peer("openssl"), &nameless);
    assert_eq!(hello, ClientHello::default());
}

#[test]
fn the_hello_of_curl_is_read() {
    let server = Looking::start(PATIENCE);
    let port = server.address().port();
    let resolve = format!("shop.example.org:{port}:127.0.0.1");
    let url = format!("https://shop.example.org:{port}/");
    let hello = client(&server, &peer("curl"), &["-s", "--resolve", &resolve, &url]);
    assert_eq!(hello.server_name.as_deref(), Some("shop.example.org"));
    assert!(protocols(&hello).contains(&"http/1.1"), "{hello:?}");
}

#[test]
fn the_hello_of_every_python_is_read() {
    let server = Looking::start(PATIENCE);
    let port = server.address().port().to_string();
    let program = "import socket, ssl, sys\n\
                   c = ssl.SSLContext(getattr(ssl, 'PROTOCOL_TLS_CLIENT', ssl.PROTOCOL_TLS))\n\
                   c.set_alpn_protocols(['x'])\n\
                   s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
                   c.wrap_socket(s, server_hostname='py.example.org')\n";
    for python in pythons() {
        let path = python.path.display();
        let hello = client(&server, &python.path, &["-c", program, &port]);
        assert_eq!(
            hello.server_name.as_deref(),
            Some("py.example.org"),
            "{path}"
        );
        assert_eq!(protocols(&hello), ["x"], "{path}");
    }
}

#[test]
fn a_hello_in_pieces_is_waited_for() {
    let server = Looking::start(PATIENCE);
    let mut client = server.connect();
    // A whole hello without extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    for byte in &hello {
        assert!(server.seen.try_recv().is_err(), "seen before it was whole");
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(server.hello(), ClientHello::default());
}

#[test]
fn what_is_no_hello_is_told_at_once_and_an_early_end_too() {
    let server = Looking::start(PATIENCE);
    server.connect().write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let (_, peeked) = server.seen();
    assert!(
        matches!(peeked, Peeked::Seen(Err(HelloError::NotTls))),
        "{peeked:?}"
    );
    for bytes in [&b""[..], &[22, 3, 1, 0]] {
        let mut client = server.connect();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (accepted, peeked) = server.seen();
        assert!(matches!(peeked, Peeked::Short), "{peeked:?}");
        let mut socket = TcpStream::from(accepted.socket);
        socket.set_nonblocking(false).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        assert_eq!(all, bytes);
    }
}

#[test]
fn a_client_that_says_nothing_meets_the_deadline() {
    let server = Looking::start(Duration::from_millis(50));
    let _client = server.connect();
    let (accepted, peeked) = server.seen();
    assert!(matches!(peeked, Peeked::Late), "{peeked:?}");
    assert!(!is_watched(accepted.socket.as_raw_fd()));
}
