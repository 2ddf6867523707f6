//! The dialogue of `multiprocessing.connection` with every Python that can be found here.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the peer is a program behind a socket; the crate under test sees only bytes"
)]

use portyard_wire::auth::python::{Client, Listener, MinDigest};
use portyard_wire::auth::{AuthError, Digest, Handshake, Key, Keys, Outcome, Secret};
use portyard_wire::framing::{Decoder, Framing, python_message};
use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const CLIENT: &str = "
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
try:
    connection = Client(sys.argv[1], authkey=sys.argv[2].encode('ascii'))
    connection.send_bytes(b'ping')
    print(connection.recv_bytes().decode('ascii'))
except (AuthenticationError, EOFError) as error:
    print(type(error).__name__)
";

const LISTENER: &str = "
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener
listener = Listener(sys.argv[1], authkey=sys.argv[2].encode('ascii'))
print('listening')
sys.stdout.flush()
try:
    connection = listener.accept()
    connection.send_bytes(b'pong' + connection.recv_bytes())
    print('served')
except (AuthenticationError, EOFError) as error:
    print(type(error).__name__)
";

#[test]
fn clients_of_every_python_are_told_apart_by_their_key() -> Result {
    for python in pythons()? {
        for (secret, min) in [
            ("new", MinDigest::Md5),
            ("old", MinDigest::Md5),
            ("new", MinDigest::Sha256),
            ("wrong", MinDigest::Md5),
        ] {
            let (end, said) = serve(&python, secret, min)?;
            let about = format!("{} with {secret}, {min:?}", python.path.display());
            if secret == "wrong" {
                assert_eq!(end, Err(AuthError::WrongKey), "{about}");
                assert_eq!(said, "AuthenticationError", "{about}");
            } else if min.allows(python.digest) {
                assert_eq!(end, Ok(outcome(secret, python.digest)), "{about}");
                assert_eq!(said, "ping", "{about}");
            } else {
                let refused = Err(AuthError::DigestRefused(Digest::Md5));
                assert_eq!((end, &*said), (refused, "AuthenticationError"), "{about}");
            }
        }
    }
    Ok(())
}

#[test]
fn listeners_of_every_python_are_told_apart_by_their_key() -> Result {
    for python in pythons()? {
        for (secret, min) in [
            ("new", MinDigest::Md5),
            ("new", MinDigest::Sha256),
            ("wrong", MinDigest::Md5),
        ] {
            let (end, said) = connect(&python, secret, min)?;
            let about = format!("{} with {secret}, {min:?}", python.path.display());
            if !min.allows(python.digest) {
                let refused = Err(AuthError::DigestRefused(Digest::Md5));
                assert_eq!((end, &*said), (refused, "EOFError"), "{about}");
            } else if secret == "wrong" {
                assert_eq!(end, Err(AuthError::Refused), "{about}");
                assert_eq!(said, "AuthenticationError", "{about}");
            } else {
                assert_eq!(end, Ok(outcome("new", python.digest)), "{about}");
                assert_eq!(said, "served", "{about}");
            }
        }
    }
    Ok(())
}

/// Our listener, Python's client.
fn serve(python: &Python, secret: &str, min: MinDigest) -> Result<(Ended, String)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let mut child = python.run(CLIENT, &path, secret)?;
    let (mut stream, _) = listener.accept()?;
    let keys = Keys::new([key("new")?, key("old")?])?;
    let (end, early) = shake(&mut stream, &mut Listener::new(keys, min, random()?))?;
    if end.is_ok() {
        let ping = message(&mut stream, &early)?;
        stream.write_all(&python_message(&ping))?;
    }
    drop(stream);
    Ok((end, last_line(&mut child)?))
}

/// Python's listener, our client with the key `new`.
fn connect(python: &Python, secret: &str, min: MinDigest) -> Result<(Ended, String)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let mut child = python.run(LISTENER, &path, secret)?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    assert_eq!(line.trim(), "listening");
    let mut stream = UnixStream::connect(&path)?;
    let (end, early) = shake(&mut stream, &mut Client::new(key("new")?, min, random()?))?;
    if end.is_ok() {
        stream.write_all(&python_message(b"ping"))?;
        assert_eq!(message(&mut stream, &early)?, b"pongping");
    }
    drop(stream);
    let mut said = String::new();
    stdout.read_to_string(&mut said)?;
    child.wait()?;
    Ok((end, said.trim().to_owned()))
}

type Ended = Result<Outcome, AuthError>;

/// The loop of a shell. Returns how it ended and what arrived behind the dialogue.
fn shake(stream: &mut UnixStream, machine: &mut impl Handshake) -> Result<(Ended, Vec<u8>)> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut buffer = [0; 512];
    loop {
        if let Some(bytes) = machine.output() {
            stream.write_all(&bytes)?;
        }
        if let Some(outcome) = machine.outcome() {
            return Ok((Ok(outcome), Vec::new()));
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err("the peer hung up".into());
        }
        match machine.handle(&buffer[..read]) {
            Ok(taken) if taken < read => {
                let outcome = machine
                    .outcome()
                    .ok_or("bytes were left without an outcome")?;
                return Ok((Ok(outcome), buffer[taken..read].to_vec()));
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(bytes) = machine.output() {
                    stream.write_all(&bytes)?;
                }
                return Ok((Err(error), Vec::new()));
            }
        }
    }
}

fn message(stream: &mut UnixStream, early: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = Decoder::new(Framing::Python, 100);
    decoder.feed(early);
    let mut buffer = [0; 512];
    loop {
        if let Some(message) = decoder.next()? {
            return Ok(message);
        }
        match stream.read(&mut buffer)? {
            0 => return Err("the peer hung up".into()),
            read => decoder.feed(&buffer[..read]),
        }
    }
}

struct Python {
    path: PathBuf,
    /// What it proves with.
    digest: Digest,
}

impl Python {
    fn run(&self, script: &str, socket: &Path, secret: &str) -> Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(["-c", script]).arg(socket).arg(secret);
        Ok(command.stdout(Stdio::piped()).spawn()?)
    }
}

/// Those below `~/.pyenv/versions`, and the system's.
fn pythons() -> Result<Vec<Python>> {
    let mut paths = vec![PathBuf::from("/usr/bin/python3")];
    if let Some(home) = std::env::var_os("HOME")
        && let Ok(versions) = std::fs::read_dir(Path::new(&home).join(".pyenv/versions"))
    {
        for version in versions {
            paths.push(version?.path().join("bin/python"));
        }
    }
    let mut found = Vec::new();
    for path in paths.into_iter().filter(|path| path.exists()) {
        let modern = "import sys; sys.exit(sys.version_info < (3, 12))";
        let modern = Command::new(&path).args(["-c", modern]).status()?.success();
        let digest = if modern { Digest::Sha256 } else { Digest::Md5 };
        found.push(Python { path, digest });
    }
    assert!(!found.is_empty(), "no Python to test against was found");
    Ok(found)
}

fn last_line(child: &mut Child) -> Result<String> {
    let mut said = String::new();
    child
        .stdout
        .take()
        .ok_or("no stdout")?
        .read_to_string(&mut said)?;
    child.wait()?;
    Ok(said.trim().to_owned())
}

fn key(secret: &str) -> Result<Key> {
    Ok(Key::new(secret, Secret::new(secret.into())?))
}

fn outcome(key: &str, digest: Digest) -> Outcome {
    Outcome {
        key: key.into(),
        digest,
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
