//! The asking end of a broker's control socket: sockets that are held under a name.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portyard_wire::hold::{Entry, HoldError, MESSAGE_MAX, Mode, Name, Reason, Reply, Request};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::auth::{ProveError, Prover};
use crate::exit::Exit;
use crate::fdpass::{Channel, Message, ReceiveError};

/// How long a broker that is just being started again is waited for, and how long it has for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a broker's control socket. Every call blocks, for at most its patience.
#[derive(Debug)]
pub struct Holder {
    packets: Packets<Socket>,
    path: PathBuf,
}

/// Whole messages with descriptors over a socket that does not block, waited for all the same: for
/// threads that have nothing else to do.
#[derive(Debug)]
pub struct Packets<S> {
    channel: Channel<S>,
    patience: Duration,
}

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The patience is over.
    #[error("no answer in {0:?}")]
    Silent(Duration),
    /// The other end has closed.
    #[error("the other end has closed the connection")]
    Closed,
    /// What came, or came with it, got lost.
    #[error(transparent)]
    Lost(ReceiveError),
    /// The kernel refused.
    #[error(transparent)]
    Io(io::Error),
}

/// What is behind a name.
#[derive(Debug)]
pub enum Retrieved {
    /// Sockets, one at least.
    Sockets(Vec<OwnedFd>),
    /// A pool: whoever says hello on this connection is its worker.
    Pool(Mode),
}

/// Why a broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HoldingError {
    /// Nobody is there.
    #[error("no broker answers on {}: {error}; start fd-broker first, with a listener of the service control there", .path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The way to it is barred.
    #[error("{}: {error}; let this user through its directory and its mode", .path.display())]
    Forbidden {
        /// Its socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Something is there that is no control socket.
    #[error("{} is not a broker's control socket: {error}", .path.display())]
    Stranger {
        /// Its socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It takes longer than it may.
    #[error("the broker on {} has not answered for {patience:?}; is it stopped or overloaded?", .path.display())]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// How long it had.
        patience: Duration,
    },
    /// It closed the connection.
    #[error("the broker on {} closed the connection: its access rules may not let this user in, or it demands a key", .path.display())]
    Closed {
        /// Its socket.
        path: PathBuf,
    },
    /// It demands another key, another dialogue, or none.
    #[error("the key is not proved: {0}")]
    Key(ProveError),
    /// It refuses.
    #[error("the broker refuses: {text}")]
    Refused {
        /// For programs.
        reason: Reason,
        /// For people.
        text: String,
    },
    /// The name is that of a pool.
    #[error(
        "the broker has a pool of that name, whose connections go to workers; this daemon can have a \
         held listener only"
    )]
    Pool,
    /// It speaks something else.
    #[error("the broker's answer is not understood ({0}); does it demand a key?")]
    Malformed(#[from] HoldError),
    /// Its answer is one to another question.
    #[error("the broker's answer does not fit the question")]
    Unfit,
    /// What it sent got lost.
    #[error(transparent)]
    Lost(ReceiveError),
    /// The kernel refused.
    #[error("the connection to the broker failed: {0}")]
    Io(io::Error),
}

impl<S: AsFd> Packets<S> {
    /// Sends and receives over `channel`, each within `patience`.
    pub fn new(channel: Channel<S>, patience: Duration) -> Self {
        Self { channel, patience }
    }

    /// The connection.
    pub fn into_channel(self) -> Channel<S> {
        self.channel
    }

    /// Sends a message with descriptors.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), PacketError> {
        let give_up = Instant::now() + self.patience;
        loop {
            match self.channel.send(bytes, descriptors) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, give_up)?;
                }
                Err(error) if is_closed(&error) => return Err(PacketError::Closed),
                Err(error) => return Err(PacketError::Io(error)),
            }
        }
    }

    /// Receives a message into `buffer`.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Message, PacketError> {
        let give_up = Instant::now() + self.patience;
        loop {
            match self.channel.receive(buffer) {
                Ok(message) if message.length == 0 => return Err(PacketError::Closed),
                Ok(message) => return Ok(message),
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, give_up)?;
                }
                Err(ReceiveError::Io(error)) if is_closed(&error) => {
                    return Err(PacketError::Closed);
                }
                Err(ReceiveError::Io(error)) => return Err(PacketError::Io(error)),
                Err(error) => return Err(PacketError::Lost(error)),
            }
        }
    }

    /// Waits until more can be sent or received, or the patience is over.
    fn wait(&self, flags: PollFlags, give_up: Instant) -> Result<(), PacketError> {
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            // Rounded up, so that the last part of a millisecond is not spun away.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999));
            let mut polled = [PollFd::new(self.channel.as_fd(), flags)];
            match poll(&mut polled, timeout.unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Err(PacketError::Silent(self.patience)),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(PacketError::Io(errno.into())),
            }
        }
    }
}

impl Holder {
    /// Connects to the control socket at `path`. One that is not there yet, or refuses, is tried again
    /// until `patience` is over.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, HoldingError> {
        let give_up = Instant::now() + patience;
        loop {
            match Self::connect_now(path, patience) {
                Err(HoldingError::Absent { .. }) if Instant::now() < give_up => {
                    thread::sleep(RETRY);
                }
                other => return other,
            }
        }
    }

    /// The same without waiting: an error says at once that nobody is there.
    pub fn connect_now(path: &Path, patience: Duration) -> Result<Self, HoldingError> {
        let channel = connect(path).map_err(|error| absent(path, error))?;
        Ok(Self {
            packets: Packets::new(channel, patience),
            path: path.into(),
        })
    }

    /// The connection, for who speaks another protocol on it.
    pub fn into_channel(self) -> Channel<Socket> {
        self.packets.into_channel()
    }

    /// Proves a key, where the broker's listener demands one. Before anything else.
    pub fn prove(&self, prover: &Prover) -> Result<(), ProveError> {
        let dialogue = Dialogue {
            packets: &self.packets,
            rest: Vec::new(),
        };
        prover.prove(None, dialogue).map(|_| ())
    }

    /// What is held under a name.
    pub fn retrieve(&self, name: &Name) -> Result<Retrieved, HoldingError> {
        let request = Request::Retrieve { name: name.clone() };
        match self.ask(&request, &[])? {
            (Reply::Sockets { .. }, sockets) => Ok(Retrieved::Sockets(sockets)),
            (Reply::Pool { mode }, _) => Ok(Retrieved::Pool(mode)),
            _ => Err(HoldingError::Unfit),
        }
    }

    /// Has sockets held under a name.
    pub fn store(
        &self,
        name: &Name,
        sockets: &[BorrowedFd<'_>],
        expiry: Option<Duration>,
        replace: bool,
    ) -> Result<(), HoldingError> {
        let request = Request::Store {
            name: name.clone(),
            sockets: u8::try_from(sockets.len()).unwrap_or(u8::MAX),
            expiry,
            replace,
        };
        self.do_it(&request, sockets)
    }

    /// Has what is held under a name closed.
    pub fn delete(&self, name: &Name) -> Result<(), HoldingError> {
        self.do_it(&Request::Delete { name: name.clone() }, &[])
    }

    /// All that is held and that we may see, in the order of names.
    pub fn list(&self) -> Result<Vec<Entry>, HoldingError> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let behind = all.last().map(|entry| entry.name.clone());
            let (reply, _) = self.ask(&Request::List { behind }, &[])?;
            let Reply::Listed { entries, more } = reply else {
                return Err(HoldingError::Unfit);
            };
            let last = all.last().map(|entry| &entry.name);
            let goes_on = entries.iter().all(|entry| Some(&entry.name) > last);
            if !goes_on || (more && entries.is_empty()) {
                return Err(HoldingError::Unfit);
            }
            all.extend(entries);
            if !more {
                return Ok(all);
            }
        }
    }

    fn do_it(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), HoldingError> {
        match self.ask(request, descriptors)? {
            (Reply::Done, _) => Ok(()),
            _ => Err(HoldingError::Unfit),
        }
    }

    /// One question, one answer. A refusal is an error.
    pub fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), HoldingError> {
        self.send(request, descriptors)?;
        self.receive()
    }

    /// Sends a request.
    pub fn send(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HoldingError> {
        match self.packets.send(&request.encode(), descriptors) {
            // It may have said why.
            Ok(()) | Err(PacketError::Closed) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The next message. A refusal is an error.
    pub fn receive(&self) -> Result<(Reply, Vec<OwnedFd>), HoldingError> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let message = self.packets.receive(&mut buffer);
        let message = message.map_err(|error| self.failed(error))?;
        let reply = Reply::decode(&buffer[..message.length], message.descriptors.len())?;
        match reply {
            Reply::Refused { reason, text } => Err(HoldingError::Refused { reason, text }),
            reply => Ok((reply, message.descriptors)),
        }
    }

    fn failed(&self, error: PacketError) -> HoldingError {
        let path = self.path.clone();
        match error {
            PacketError::Silent(patience) => HoldingError::Silent { path, patience },
            PacketError::Closed => HoldingError::Closed { path },
            PacketError::Lost(error) => HoldingError::Lost(error),
            PacketError::Io(error) => HoldingError::Io(error),
        }
    }
}

/// The packets of a key dialogue as the stream that its machine wants: of a packet that is read in parts
/// the kernel would drop the rest.
struct Dialogue<'a> {
    packets: &'a Packets<Socket>,
    rest: Vec<u8>,
}

impl Read for Dialogue<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let mut packet = vec![0; MESSAGE_MAX];
            let message = match self.packets.receive(&mut packet) {
                Ok(message) => message,
                Err(PacketError::Closed) => return Ok(0),
                Err(PacketError::Silent(patience)) => {
                    let why = format!(
                        "the broker has said nothing for {patience:?}; does it demand a key in this \
                         dialogue?"
                    );
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            packet.truncate(message.length);
            self.rest = packet;
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        Ok(length)
    }
}

impl Write for Dialogue<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.packets.send(bytes, &[]) {
            Ok(()) => Ok(bytes.len()),
            Err(PacketError::Closed) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HoldingError {
    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Absent { .. } => Exit::Unavailable,
            Self::Stranger { .. } | Self::Pool => Exit::Config,
            Self::Silent { .. } => Exit::TempFail,
            Self::Closed { .. } | Self::Forbidden { .. } | Self::Key(_) => Exit::NoPermission,
            Self::Refused { reason, .. } => match reason {
                Reason::NotAllowed => Exit::NoPermission,
                Reason::NoSuchName | Reason::Exists | Reason::WrongSocket | Reason::Malformed => {
                    Exit::Config
                }
                Reason::Full | Reason::Busy | Reason::Leaving => Exit::TempFail,
                Reason::Failed => Exit::Unavailable,
            },
            Self::Malformed(_) | Self::Unfit => Exit::Data,
            Self::Lost(_) => Exit::OsError,
            Self::Io(error) => Exit::from_io(error),
        }
    }
}

fn connect(path: &Path) -> io::Result<Channel<Socket>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Channel::new(socket)
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::NotConnected
    )
}

fn absent(path: &Path, error: io::Error) -> HoldingError {
    let path = path.into();
    match error.kind() {
        // Not there yet, served by nobody yet, or with a full backlog.
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::Interrupted => HoldingError::Absent { path, error },
        io::ErrorKind::PermissionDenied => HoldingError::Forbidden { path, error },
        // A socket of another type, or no socket.
        _ => HoldingError::Stranger { path, error },
    }
}

/// How often a broker that is not there is looked for.
const RETRY: Duration = Duration::from_millis(20);
