//! What the tests of rest-api share: a daemon, and HTTP/1.1 by hand.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(dead_code, reason = "each test file uses a part")]

pub mod browser;
pub mod nginx;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use portyard_testkit::{Client, Daemon, DaemonBuilder, finish, peer};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field, in whatever case its name is.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub fn builder() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_rest-api"))
}

/// A configuration with a listener of service `http`, its options, and what stands in other tables.
pub fn config(builder: &DaemonBuilder, options: &str, rest: &str) -> String {
    format!(
        "loops = 1\nadmin.listen = \"unix:{}\"\n[[listener]]\nservice = \"http\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n[listener.options]\n{options}\n{rest}\n",
        builder.dir().join("admin").display()
    )
}

/// A daemon with such a configuration.
#[track_caller]
pub fn start(options: &str, rest: &str) -> Daemon {
    let builder = builder();
    let config = config(&builder, options, rest);
    builder.config(&config).start()
}

/// Reads an answer to a request that was no HEAD.
#[track_caller]
pub fn answer(client: &Client) -> Answer {
    read(client, false)
}

#[track_caller]
pub fn read(client: &Client, is_head: bool) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let line = client.receive_line();
        assert!(!line.is_empty(), "the end came within {head:?}");
        head += &line;
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
    };
    if is_head || matches!(status, 204 | 304) {
        return answer;
    }
    if answer.field("transfer-encoding") == Some("chunked") {
        loop {
            let line = client.receive_line();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let piece = client.receive(size + 2);
            answer.body.extend_from_slice(&piece[..size]);
            if size == 0 {
                return answer;
            }
        }
    }
    let length = answer
        .field("content-length")
        .map_or(0, |length| length.parse().unwrap());
    answer.body = client.receive(length);
    answer
}

/// One request on a connection of its own, with these lines of fields.
#[track_caller]
pub fn ask(daemon: &Daemon, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    let client = Client::connect(&daemon.endpoint("http"));
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n{body}"
    ));
    read(&client, method == "HEAD")
}

#[track_caller]
pub fn get(daemon: &Daemon, target: &str) -> Answer {
    ask(daemon, "GET", target, "", "")
}

/// The URL of a path.
pub fn url(daemon: &Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.address("http"))
}

/// What curl writes.
#[track_caller]
pub fn curl(arguments: &[&str]) -> String {
    finish(
        Command::new(peer("curl"))
            .args(["-sS", "--max-time", "20"])
            .args(arguments),
        b"",
    )
    .success()
}

/// A child that ends with the test, and what it printed first.
pub struct Behind(std::process::Child, pub String);

impl Behind {
    #[track_caller]
    pub fn start(script: &str, arguments: &[&str]) -> Self {
        use std::io::BufRead as _;
        let mut child = Command::new(peer("python3"))
            .args(["-c", script])
            .args(arguments)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        Self(child, line.trim().into())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another daemon of the workspace, with this configuration below an admin endpoint with actions.
#[track_caller]
pub fn neighbour(program: &str, config: &str) -> Daemon {
    let binary = Path::new(env!("CARGO_BIN_EXE_rest-api")).with_file_name(program);
    assert!(
        binary.is_file(),
        "{} is missing: cargo build -p {program}",
        binary.display()
    );
    let builder = Daemon::build(&binary);
    let admin = format!("unix:{}", builder.dir().join("admin").display());
    // A test that has its own ideas of the endpoint says so.
    let config = match config.strip_prefix("[admin]\n") {
        Some(rest) => format!("[admin]\nlisten = \"{admin}\"\n{rest}"),
        None => format!("admin = {{ listen = \"{admin}\", actions = true }}\n{config}"),
    };
    builder.config(&config).start()
}

/// A rest-api with one listener of service `yard`, and a key file, whose key is [`KEY`].
#[track_caller]
pub fn yard(options: &str, members: &[(&str, &Daemon)]) -> Daemon {
    let builder = builder();
    let keys = builder.dir().join("keys");
    fs::write(&keys, format!("ada:text:{KEY}\n")).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    let options = options.replace("KEYS", &keys.display().to_string());
    // What stands before is the listener's own.
    let (listener, options) = options.split_once("[options]\n").unwrap_or(("", &options));
    let mut config = format!(
        "loops = 1\nadmin.listen = \"unix:{}\"\n[[listener]]\nservice = \"yard\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n{listener}\n[listener.options]\n{options}\n",
        builder.dir().join("admin").display()
    );
    for (name, daemon) in members {
        let _ = write!(
            config,
            "[[yard]]\nname = \"{name}\"\nadmin = \"{}\"\nevery = \"200ms\"\n",
            daemon.endpoint("admin")
        );
        if !daemon.addresses("json-rpc").is_empty() {
            let _ = writeln!(config, "keys = \"{}\"", daemon.endpoint("json-rpc"));
        }
    }
    builder.config(&config).start()
}

/// An fd-broker with a pool "web" and a worker in it; connections to `hand-off` go there.
#[track_caller]
pub fn broker_with_worker() -> (Daemon, Daemon) {
    let builder =
        Daemon::build(Path::new(env!("CARGO_BIN_EXE_rest-api")).with_file_name("fd-broker"));
    let place = builder.dir().display().to_string();
    let config = format!(
        "admin = {{ listen = \"unix:{place}/admin\", actions = true }}\n[[pool]]\nname = \"web\"\n\
         [[listener]]\nservice = \"hand-off\"\nlisten = [\"tcp://127.0.0.1:0\"]\noptions = {{ pool = \"web\" }}\n\
         [[listener]]\nservice = \"native\"\nlisten = [\"unix:{place}/native.sock\"]\noptions = {{ pool = \"web\" }}\n"
    );
    let broker = builder.config(&config).start();
    // Each loop is a worker.
    let echo = format!(
        "loops = 1\n[[listener]]\nservice = \"echo\"\nlisten = [\"broker:{place}/native.sock#web\"]\n"
    );
    let worker = neighbour("echo-tcp", &echo);
    (broker, worker)
}

/// One request to service yard, on a connection of its own.
#[track_caller]
pub fn ask_yard(daemon: &Daemon, method: &str, path: &str, fields: &str) -> Answer {
    let client = Client::connect(&daemon.endpoint("yard"));
    let host = if fields.contains("Host: ") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    client.send(format!("{method} {path} HTTP/1.1\r\n{host}{fields}\r\n"));
    read(&client, method == "HEAD")
}

pub fn with_key() -> String {
    format!("Authorization: Bearer {KEY}\r\n")
}

pub const KEY: &str = "a key that is long enough for anybody";

/// A file of the keys of alice and bob, readable for nobody else; its path.
pub fn key_file(directory: &Path) -> String {
    let path = directory.join("keys");
    fs::write(
        &path,
        "alice:text:open sesame 1234\nbob:text:another secret 99\n",
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}
