//! What a broker has, one descriptor or more each, as it is told to a successor or kept in a journal.

use std::time::Duration;

use super::bytes::{Reader, Writer};
use super::request::seconds;
use super::{ENDPOINT_MAX, HoldError, Kind, Name};

/// One thing that a broker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A socket that it listens on.
    Bound(Bound),
    /// What it holds under a name.
    Held(Held),
    /// A connection that waits for a worker.
    Waiting(Waiting),
    /// A worker that knows nothing of brokers: its session goes on with the successor.
    Worker(Worker),
    /// Connections that the worker before it has.
    Served(Served),
    /// A program that has a socket for itself.
    Running(Running),
}

/// A socket that a broker listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The endpoint as the configuration spells it: whoever is configured with the same one takes
    /// the socket.
    pub endpoint: String,
    /// The name of the listener.
    pub listener: String,
    /// Which sockets were opened together: they have one endpoint and belong to one listener.
    pub opening: u64,
}

/// What is held under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The name.
    pub name: Name,
    /// Who put it there.
    pub origin: Origin,
    /// How long it has been held, in whole seconds.
    pub age: Duration,
    /// How much longer, in whole seconds from 1 on; `None`: until it is deleted.
    pub expiry: Option<Duration>,
    /// How often it has been retrieved.
    pub retrieved: u64,
    /// What each socket is.
    pub kinds: Vec<Kind>,
}

/// Who put something there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The configuration.
    Configured,
    /// A process of this user.
    User(u32),
}

/// A connection that waits for a worker. All that is known of it is still to be had from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The name of the listener that accepted it.
    pub listener: String,
}

/// A worker's session, on the socket that comes with it. Behind it come [`Served`] records, until they
/// name as many connections as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The name of the listener that it came to.
    pub listener: String,
    /// The name of the key that it has proved; empty: none.
    pub key: String,
    /// Its process, as it has said or the kernel has; 0: unknown.
    pub process: u32,
    /// How long it has been a worker, in whole seconds.
    pub age: Duration,
    /// Connections that it has taken in all.
    pub taken: u64,
    /// An operator wants it to get nothing new.
    pub drained: bool,
    /// Listening sockets that it was sent and has not answered.
    pub lent: u16,
    /// How much of an answer of two bytes has been read: nothing, or one byte.
    pub answered: u8,
    /// How many connections it has.
    pub served: u32,
    /// A connection that it was sent and has not taken comes as a second descriptor: the name of the
    /// listener that accepted it.
    pub offered: Option<String>,
}

/// Connections that a worker has, of which the broker has no copy any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The name of the listener that accepted them.
    pub listener: String,
    /// The cookie by which the kernel tells of the end of each (`SO_COOKIE`), and its local port. From 1
    /// to [`SERVED_MAX`].
    pub connections: Vec<(u64, u16)>,
}

/// A program that has a socket for itself until it ends. The descriptor is one of its process, and
/// readable once that has ended (`pidfd_open(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The inode of the socket.
    pub socket: u64,
    /// The number of the process.
    pub process: u32,
}

/// Connections in one [`Served`] record.
pub const SERVED_MAX: usize = 1024;

impl Record {
    /// Reads a record that stands by itself, as in a journal.
    pub fn read(bytes: &[u8]) -> Result<Self, HoldError> {
        let mut body = Reader::over(bytes);
        let record = Self::decode(&mut body)?;
        body.end()?;
        Ok(record)
    }

    pub(super) fn decode(body: &mut Reader<'_>) -> Result<Self, HoldError> {
        Ok(match body.u8()? {
            BOUND => Self::Bound(Bound {
                endpoint: body.endpoint()?,
                listener: body.endpoint()?,
                opening: body.u64()?,
            }),
            HELD => {
                let name = body.name()?;
                let origin = Origin::decode(body)?;
                let age = Duration::from_secs(body.u32()?.into());
                let left = body.u32()?;
                Self::Held(Held {
                    name,
                    origin,
                    age,
                    expiry: (left > 0).then(|| Duration::from_secs(left.into())),
                    retrieved: body.u64()?,
                    kinds: body.kinds()?,
                })
            }
            WAITING => Self::Waiting(Waiting {
                listener: body.endpoint()?,
            }),
            WORKER => {
                let mut worker = Worker {
                    listener: body.endpoint()?,
                    key: body.endpoint()?,
                    process: body.u32()?,
                    age: Duration::from_secs(body.u32()?.into()),
                    taken: body.u64()?,
                    drained: false,
                    lent: body.u16()?,
                    answered: body.u8()?,
                    served: body.u32()?,
                    offered: None,
                };
                let flags = body.u8()?;
                if flags & !(DRAINED | OFFERED) != 0 || worker.answered > 1 {
                    return Err(HoldError::Field("the state of a worker"));
                }
                worker.drained = flags & DRAINED != 0;
                if flags & OFFERED != 0 {
                    worker.offered = Some(body.endpoint()?);
                }
                Self::Worker(worker)
            }
            SERVED => {
                let listener = body.endpoint()?;
                let count = usize::from(body.u16()?);
                if !(1..=SERVED_MAX).contains(&count) {
                    return Err(HoldError::Field("the number of connections"));
                }
                let mut connections = Vec::new();
                for _ in 0..count {
                    connections.push((body.u64()?, body.u16()?));
                }
                Self::Served(Served {
                    listener,
                    connections,
                })
            }
            RUNNING => Self::Running(Running {
                socket: body.u64()?,
                process: body.u32()?,
            }),
            _ => return Err(HoldError::Field("the type of a record")),
        })
    }

    /// The bytes of the record. Texts beyond [`ENDPOINT_MAX`] are cut.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Bound(bound) => Writer::bare()
                .u8(BOUND)
                .text(&bound.endpoint, ENDPOINT_MAX)
                .text(&bound.listener, ENDPOINT_MAX)
                .u64(bound.opening),
            Self::Held(held) => {
                let age = u32::try_from(held.age.as_secs()).unwrap_or(u32::MAX);
                let record = Writer::bare().u8(HELD).name(&held.name);
                held.origin
                    .encode(record)
                    .u32(age)
                    .u32(held.expiry.map_or(0, seconds))
                    .u64(held.retrieved)
                    .kinds(&held.kinds)
            }
            Self::Waiting(waiting) => Writer::bare()
                .u8(WAITING)
                .text(&waiting.listener, ENDPOINT_MAX),
            Self::Worker(worker) => {
                let age = u32::try_from(worker.age.as_secs()).unwrap_or(u32::MAX);
                let flag = |set: bool, flag| if set { flag } else { 0 };
                let flags = flag(worker.drained, DRAINED) | flag(worker.offered.is_some(), OFFERED);
                let record = Writer::bare()
                    .u8(WORKER)
                    .text(&worker.listener, ENDPOINT_MAX)
                    .text(&worker.key, ENDPOINT_MAX)
                    .u32(worker.process)
                    .u32(age)
                    .u64(worker.taken)
                    .u16(worker.lent)
                    .u8(worker.answered)
                    .u32(worker.served)
                    .u8(flags);
                match &worker.offered {
                    Some(listener) => record.text(listener, ENDPOINT_MAX),
                    None => record,
                }
            }
            Self::Running(running) => Writer::bare()
                .u8(RUNNING)
                .u64(running.socket)
                .u32(running.process),
            Self::Served(served) => {
                let all = &served.connections[..served.connections.len().min(SERVED_MAX)];
                let count = u16::try_from(all.len()).unwrap_or(u16::MAX);
                let record = Writer::bare()
                    .u8(SERVED)
                    .text(&served.listener, ENDPOINT_MAX)
                    .u16(count);
                all.iter().fold(record, |record, (cookie, port)| {
                    record.u64(*cookie).u16(*port)
                })
            }
        }
        .bare_end()
    }

    /// How many descriptors belong to it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Bound(_) | Self::Waiting(_) | Self::Running(_) => 1,
            Self::Held(held) => held.kinds.len(),
            Self::Worker(worker) => 1 + usize::from(worker.offered.is_some()),
            Self::Served(_) => 0,
        }
    }
}

impl Origin {
    pub(super) fn decode(body: &mut Reader<'_>) -> Result<Self, HoldError> {
        match (body.u8()?, body.u32()?) {
            (0, 0) => Ok(Self::Configured),
            (1, uid) => Ok(Self::User(uid)),
            _ => Err(HoldError::Field("the origin")),
        }
    }

    pub(super) fn encode(self, into: Writer) -> Writer {
        match self {
            Self::Configured => into.u8(0).u32(0),
            Self::User(uid) => into.u8(1).u32(uid),
        }
    }
}

const BOUND: u8 = 1;
const HELD: u8 = 2;
const WAITING: u8 = 3;
const WORKER: u8 = 4;
const SERVED: u8 = 5;
const RUNNING: u8 = 6;

const DRAINED: u8 = 1;
const OFFERED: u8 = 2;
