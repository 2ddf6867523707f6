//! The socket units: what systemd would pass by them, the broker serves.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use portyard_core::holding::{Holder, PATIENCE};
use portyard_testkit::{Client, Daemon, peer};
use socket2::{Domain, SockAddr, Socket, Type};

use common::{BINARY, NATIVE, TUTORIAL, TUTORIAL_RAW, Worker};

/// A unit, as far as it says what is passed.
struct Unit {
    file: String,
    /// Each with its directive.
    listen: Vec<(String, String)>,
    name: String,
}

fn units() -> Vec<Unit> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd");
    let mut units = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !file.starts_with("fd-broker") || !file.ends_with(".socket") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let all: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let one = |key| all.iter().find(|(found, _)| *found == key).unwrap().1;
        assert_eq!(one("Service"), "fd-broker.service", "{file}");
        let listen = all.iter().filter(|(key, _)| key.starts_with("Listen"));
        units.push(Unit {
            listen: listen
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            name: one("FileDescriptorName").into(),
            file,
        });
    }
    units
}

/// The socket that systemd makes of a directive, at another place.
fn socket(directory: &Path, directive: &str, value: &str) -> OwnedFd {
    let kind = match directive {
        "ListenStream" => Type::STREAM,
        "ListenSequentialPacket" => Type::SEQPACKET,
        other => panic!("{other}"),
    };
    let (domain, address) = if value.starts_with('/') {
        let place = at(directory, value);
        (Domain::UNIX, SockAddr::unix(place).unwrap())
    } else {
        let mut address: std::net::SocketAddr = value.parse().unwrap();
        address.set_port(0);
        (Domain::for_address(address), address.into())
    };
    let socket = Socket::new(domain, kind, None).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

fn at(directory: &Path, path: &str) -> PathBuf {
    directory.join(Path::new(path).file_name().unwrap())
}

/// A broker that gets all its sockets by the units, and has no other.
fn broker(directory: &Path) -> Daemon {
    let mut builder = Daemon::build(BINARY);
    let mut config = String::from("[admin]\nlisten = \"tcp://127.0.0.1:0\"\n");
    for Unit { file, listen, name } in units() {
        config += "[[listener]]\n";
        config += &[
            "service = \"",
            &name,
            "\"\nlisten = [\"systemd:",
            &name,
            "\"]\n",
        ]
        .concat();
        assert!(!listen.is_empty(), "{file}");
        for (directive, value) in listen {
            builder = builder.pass(socket(directory, &directive, &value), &name);
        }
    }
    builder.config(&config).start()
}

#[test]
fn what_the_socket_units_pass_is_served_for_clients_and_workers_of_every_kind() {
    let names: Vec<String> = units().into_iter().map(|unit| unit.name).collect();
    for name in ["hand-off", "control", "native", "python", "raw"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path());
    let python = peer("python3");
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // The tutorial's, which here has no key to prove.
    let keyless = TUTORIAL.replace(", authkey=b'peekaboo'", "");
    for (script, file) in [
        (NATIVE, "native.sock"),
        (&keyless, "python.sock"),
        (TUTORIAL_RAW, "raw.sock"),
    ] {
        let _worker = Worker::python(&python, script, &[&place(file)]);
        // Both addresses of the unit.
        for address in broker.addresses("hand-off") {
            let client = Client::try_connect(address).unwrap();
            assert!(client.is_echoed(), "{file}");
        }
    }
    assert_eq!(broker.addresses("hand-off").len(), 2);
    let control = Holder::connect(place("control.sock").as_ref(), PATIENCE).unwrap();
    assert_eq!(control.list().unwrap(), []);
}
