//! Descriptors to and from Python's own ways of passing them, and what is lost on the way.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portyard_core::fdpass::{Channel, DESCRIPTORS_MAX, Kind, Message, ReceiveError};
use portyard_testkit::{Python, pythons};

use super::PATIENCE;

/// A Python that runs a script with our socket as its descriptor 0.
struct Peer {
    child: Child,
    channel: Channel,
}

impl Peer {
    fn start(python: &Path, script: &str, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(python), script, arguments)
    }

    fn start_by(mut command: Command, script: &str, arguments: &[&str]) -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let child = command
            .args(["-c", script])
            .args(arguments)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child,
            channel: Channel::new(ours).unwrap(),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<Message, ReceiveError> {
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        let mut polled = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut polled, timeout).unwrap(), 1, "nothing comes");
        self.channel.receive(buffer)
    }

    /// What it has printed when it ends, which must be well.
    fn printed(mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text.trim().into()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn since(version: (u8, u8)) -> Vec<Python> {
    let found: Vec<_> = pythons()
        .into_iter()
        .filter(|python| python.version >= version)
        .collect();
    assert!(!found.is_empty(), "no Python from {version:?} on");
    found
}

/// A file that holds `text`.
fn file(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn text(descriptor: OwnedFd) -> String {
    let mut file = File::from(descriptor);
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn sockets_recv_fds_takes_what_we_send() {
    let script = "import os, socket\n\
                  s = socket.socket(fileno=0)\n\
                  data, fds, flags, _ = socket.recv_fds(s, 10, 5)\n\
                  print(data, [os.read(fd, 10) for fd in fds], int(flags & socket.MSG_CTRUNC))";
    for python in since((3, 9)) {
        let peer = Peer::start(&python.path, script, &[]);
        let (one, two) = (file("one"), file("two"));
        peer.channel
            .send(b"hi", &[one.as_fd(), two.as_fd()])
            .unwrap();
        assert_eq!(peer.printed(), "b'hi' [b'one', b'two'] 0");
    }
}

#[test]
fn we_take_what_sockets_send_fds_sends() {
    let script = "import os, socket, tempfile\n\
                  s = socket.socket(fileno=0)\n\
                  files = [tempfile.TemporaryFile() for _ in range(3)]\n\
                  for n, f in enumerate(files): f.write(b'%d' % n); f.flush()\n\
                  socket.send_fds(s, [b'he', b'llo'], [f.fileno() for f in files])";
    for python in since((3, 9)) {
        let peer = Peer::start(&python.path, script, &[]);
        let mut buffer = [0; 16];
        let message = peer.receive(&mut buffer).unwrap();
        assert_eq!(&buffer[..message.length], b"hello");
        let came = message.expect(3).unwrap();
        let texts: Vec<String> = came.into_iter().map(text).collect();
        assert_eq!(texts, ["0", "1", "2"]);
    }
}

#[test]
fn multiprocessings_recv_handle_takes_what_we_send() {
    let script = "import os, sys\n\
                  from multiprocessing.connection import Connection\n\
                  from multiprocessing.reduction import recv_handle\n\
                  c = Connection(os.dup(0))\n\
                  for _ in range(3): print(os.read(recv_handle(c), 10).decode())";
    for python in since((3, 6)) {
        let peer = Peer::start(&python.path, script, &[]);
        for text in ["one", "two", "three"] {
            let file = file(text);
            // One byte, which says how many.
            peer.channel.send(&[1], &[file.as_fd()]).unwrap();
        }
        assert_eq!(peer.printed(), "one\ntwo\nthree");
    }
}

#[test]
fn we_take_what_multiprocessings_send_handle_sends() {
    let script = "import os, tempfile\n\
                  from multiprocessing.connection import Connection\n\
                  from multiprocessing.reduction import send_handle\n\
                  c = Connection(os.dup(0))\n\
                  for n in range(2):\n\
                  \x20   f = tempfile.TemporaryFile(); f.write(b'%d' % n); f.flush()\n\
                  \x20   send_handle(c, f.fileno(), os.getppid())";
    for python in since((3, 6)) {
        let peer = Peer::start(&python.path, script, &[]);
        for number in ["0", "1"] {
            let mut buffer = [0; 1];
            let message = peer.receive(&mut buffer).unwrap();
            assert_eq!((message.length, buffer), (1, [1]));
            let came = message.expect(1).unwrap();
            assert_eq!(came.into_iter().map(text).collect::<String>(), number);
        }
    }
}

#[test]
fn what_does_not_fit_under_the_descriptor_limit_is_an_error_and_closes_the_rest() {
    // The limit is of the whole process, so another one receives: this test itself, as a child.
    if std::env::var_os(LIMITED).is_some() {
        return receive_under_a_limit();
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours).unwrap();
    let (watched, passed) = UnixStream::pair().unwrap();
    let all = vec![passed.as_fd(); DESCRIPTORS_MAX];
    channel.send(b"many", &all).unwrap();
    channel.send(b"one", &[passed.as_fd()]).unwrap();
    drop(passed);
    let name =
        "python::what_does_not_fit_under_the_descriptor_limit_is_an_error_and_closes_the_rest";
    let child = Command::new("prlimit")
        .arg("--nofile=64")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(LIMITED, "1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}");
    // Every copy is closed, those that had arrived before the limit was met too.
    watched.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&watched).read(&mut [0; 1]).unwrap(), 0);
}

fn receive_under_a_limit() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let channel = Channel::new(socket).unwrap();
    let error = channel.receive(&mut [0; 16]).unwrap_err();
    assert!(matches!(error, ReceiveError::Cut), "{error}");
    assert!(error.to_string().contains("LimitNOFILE"), "{error}");
    // It goes on with the next, for which there is room again.
    let message = channel.receive(&mut [0; 16]).unwrap();
    assert_eq!(message.length, 3);
    let came = message.expect(1).unwrap();
    assert!(matches!(Kind::of(&came[0]).unwrap(), Kind::Connection(_)));
}

#[test]
fn a_child_inherits_nothing_that_came() {
    let python = pythons().remove(0);
    let script = "import os, socket\n\
                  s = socket.socket(fileno=0)\n\
                  s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, 'little'))])";
    let peer = Peer::start(&python.path, script, &[]);
    let came = peer.receive(&mut [0; 1]).unwrap().expect(1).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&came[0]);
    let list = Command::new("readlink")
        .arg(format!("/proc/self/fd/{number}"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&list.stdout), "");
}

const LIMITED: &str = "PORTYARD_TEST_LIMITED";
