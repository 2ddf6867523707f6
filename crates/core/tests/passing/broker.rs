//! A broker that does what a test says, and nothing by itself.

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portyard_core::fdpass::Channel;
use portyard_wire::broker::{
    FromWorker, MESSAGE_MAX, Mode, Offer, Offers, Report, ToWorker, VERSION, Verdict, Welcome,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use super::PATIENCE;

pub struct Broker {
    listener: Socket,
    path: PathBuf,
    _directory: TempDir,
}

/// A worker, from the broker's end.
pub struct Session {
    channel: Channel<Socket>,
}

/// What a HELLO said.
pub struct Said {
    pub capacity: u32,
    pub name: String,
    pub pool: String,
}

impl Broker {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("native.sock");
        Self {
            listener: listen(&path),
            path,
            _directory: directory,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As a broker that has ended and is started again.
    pub fn restart(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
        self.listener = listen(&self.path);
    }

    pub fn accept(&self) -> Session {
        wait(self.listener.as_fd(), PollFlags::POLLIN);
        let (socket, _) = self.listener.accept().unwrap();
        Session {
            channel: Channel::new(socket).unwrap(),
        }
    }

    /// A worker that has been welcomed, and what it said.
    pub fn welcome(&self) -> (Session, Said) {
        let session = self.accept();
        let said = session.hear(|message| match message {
            FromWorker::Hello(hello) => Said {
                capacity: hello.capacity,
                name: hello.name.into(),
                pool: hello.pool.into(),
            },
            other => panic!("{other:?} instead of HELLO"),
        });
        session.say(&ToWorker::Welcome(Welcome {
            version: VERSION,
            mode: Mode::Connections,
            pool: "test",
        }));
        (session, said)
    }
}

fn listen(path: &Path) -> Socket {
    let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    listener.bind(&SockAddr::unix(path).unwrap()).unwrap();
    listener.listen(16).unwrap();
    listener
}

impl Session {
    pub fn say(&self, message: &ToWorker<'_>) {
        self.channel.send(&message.encode(), &[]).unwrap();
    }

    pub fn lend(&self, name: &str, listener: BorrowedFd<'_>) {
        let packet = ToWorker::Listener { name }.encode();
        self.channel.send(&packet, &[listener]).unwrap();
    }

    /// Offers connections, numbered from `first` on, in one packet. Our copies are the caller's.
    pub fn offer(&self, first: u64, connections: &[&TcpStream]) {
        let mut offers = Offers::new();
        for (number, connection) in (first..).zip(connections) {
            assert!(offers.push(&Offer {
                connection: number,
                arrival: 1,
                listener: "front",
                peer: Some(connection.peer_addr().unwrap()),
                ..Offer::default()
            }));
        }
        let sockets: Vec<_> = connections.iter().map(|socket| socket.as_fd()).collect();
        self.channel.send(&offers.take(), &sockets).unwrap();
    }

    /// The next message.
    pub fn hear<T>(&self, understand: impl FnOnce(FromWorker<'_>) -> T) -> T {
        wait(self.channel.as_fd(), PollFlags::POLLIN);
        let mut buffer = vec![0; MESSAGE_MAX];
        let message = self.channel.receive(&mut buffer).unwrap();
        assert_ne!(message.length, 0, "the worker has left");
        let packet = &buffer[..message.length];
        understand(FromWorker::decode(packet, message.descriptors.len()).unwrap())
    }

    /// So many reports, over as many packets as they take.
    pub fn reports(&self, count: usize) -> Vec<(u64, Verdict)> {
        let mut all: Vec<Report> = Vec::new();
        while all.len() < count {
            self.hear(|message| match message {
                FromWorker::Report(reports) => all.extend(reports),
                other => panic!("{other:?} instead of a report"),
            });
        }
        let mut all: Vec<_> = all.iter().map(|r| (r.connection, r.verdict)).collect();
        all.sort_by_key(|(connection, _)| *connection);
        all
    }

    /// Waits until the worker has closed.
    pub fn expect_end(&self) {
        wait(self.channel.as_fd(), PollFlags::POLLIN);
        let message = self.channel.receive(&mut [0; 64]).unwrap();
        assert_eq!(message.length, 0, "more instead of the end");
    }
}

fn wait(socket: BorrowedFd<'_>, flags: PollFlags) {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    let mut polled = [PollFd::new(socket, flags)];
    assert_eq!(poll(&mut polled, timeout).unwrap(), 1, "nothing comes");
}
