//! What a broker answers.

use std::fmt;
use std::time::Duration;

use super::bytes::{Reader, Writer};
use super::record::Record;
use super::request::seconds;
use super::{BATCH_MAX, ENDPOINT_MAX, HoldError, Kind, MESSAGE_MAX, Name, Origin};

/// What a broker says, one message each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// A part of what is held, as much as a message takes.
    Listed {
        /// In the order of names.
        entries: Vec<Entry>,
        /// Whether there is more behind the last.
        more: bool,
    },
    /// The sockets, which come beside the message.
    Sockets {
        /// What each is.
        kinds: Vec<Kind>,
    },
    /// The name is that of a pool: there is no socket to have, but its connections, for a worker that
    /// says hello on this very connection.
    Pool {
        /// What its workers get.
        mode: Mode,
    },
    /// It is not done, and why.
    Refused {
        /// The reason, for programs.
        reason: Reason,
        /// The reason, for people: at most 1000 bytes are sent.
        text: String,
    },
    /// A part of what a broker has, for its successor. The descriptors come beside the message, in
    /// the order of the records.
    Batch {
        /// Counted from 1 on.
        number: u32,
        /// What they are.
        records: Vec<Record>,
    },
    /// Everything that listens has been handed over.
    Complete {
        /// How many batches that were.
        batches: u32,
    },
    /// Everything has been handed over, and the predecessor leaves.
    Over {
        /// How many batches that were, from the first one on.
        batches: u32,
    },
}

/// What is held under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// Who put it there.
    pub origin: Origin,
    /// How long it has been held, in whole seconds.
    pub age: Duration,
    /// How much longer it will be held; `None`: until it is deleted.
    pub expiry: Option<Duration>,
    /// How often it has been retrieved.
    pub retrieved: u64,
    /// What each socket is, and where, as an endpoint.
    pub sockets: Vec<(Kind, String)>,
}

/// What the workers of a pool get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Accepted connections.
    Connections = 1,
    /// The listening socket.
    Listener = 2,
}

/// Why a broker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No rule allows it.
    NotAllowed = 1,
    /// Nothing is held under that name.
    NoSuchName = 2,
    /// Something is held under that name.
    Exists = 3,
    /// As many names or descriptors are held as may be.
    Full = 4,
    /// The descriptor is not a socket that can be held.
    WrongSocket = 5,
    /// The message is not valid.
    Malformed = 6,
    /// A hand-over is under way.
    Busy = 7,
    /// The broker is about to leave.
    Leaving = 8,
    /// The broker failed, which is nobody's fault but its own.
    Failed = 9,
}

impl Reply {
    /// Reads the message of a packet that came with so many descriptors.
    pub fn decode(packet: &[u8], descriptors: usize) -> Result<Self, HoldError> {
        let (kind, mut body) = Reader::begin(packet, descriptors)?;
        let reply = match kind {
            DONE => Self::Done,
            LISTED => {
                let more = body.bool("the flag for more")?;
                let count = body.u16()?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    entries.push(Entry::decode(&mut body)?);
                }
                Self::Listed { entries, more }
            }
            SOCKETS => Self::Sockets {
                kinds: body.kinds()?,
            },
            POOL => Self::Pool {
                mode: match body.u8()? {
                    1 => Mode::Connections,
                    2 => Mode::Listener,
                    _ => return Err(HoldError::Field("the mode of a pool")),
                },
            },
            REFUSED => Self::Refused {
                reason: Reason::from_byte(body.u8()?)?,
                text: body.text()?,
            },
            BATCH => {
                let number = body.u32()?;
                let count = body.u16()?;
                let mut records = Vec::new();
                let mut descriptors = 0;
                for _ in 0..count {
                    let record = Record::decode(&mut body)?;
                    descriptors += record.descriptors();
                    if descriptors > BATCH_MAX {
                        return Err(HoldError::Field("the number of descriptors"));
                    }
                    records.push(record);
                }
                Self::Batch { number, records }
            }
            COMPLETE => Self::Complete {
                batches: body.u32()?,
            },
            OVER => Self::Over {
                batches: body.u32()?,
            },
            other => return Err(HoldError::Kind(other)),
        };
        body.end()?;
        let wanted = reply.descriptors();
        if wanted != descriptors {
            return Err(HoldError::Descriptors {
                came: descriptors,
                wanted,
            });
        }
        Ok(reply)
    }

    /// The message as one packet. It is at most [`MESSAGE_MAX`] bytes long if entries and records were
    /// cut with [`Reply::listed`] and [`Reply::batches`].
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Done => Writer::begin(DONE),
            Self::Listed { entries, more } => {
                let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
                let mut message = Writer::begin(LISTED).u8((*more).into()).u16(count);
                for entry in entries.iter().take(count.into()) {
                    message = message.raw(&entry.encode());
                }
                message
            }
            Self::Sockets { kinds } => Writer::begin(SOCKETS).kinds(kinds),
            Self::Pool { mode } => Writer::begin(POOL).u8(*mode as u8),
            Self::Refused { reason, text } => Writer::begin(REFUSED)
                .u8(*reason as u8)
                .text(text, TEXT_MAX),
            Self::Batch { number, records } => {
                let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
                let mut message = Writer::begin(BATCH).u32(*number).u16(count);
                for record in records.iter().take(count.into()) {
                    message = message.raw(&record.encode());
                }
                message
            }
            Self::Complete { batches } => Writer::begin(COMPLETE).u32(*batches),
            Self::Over { batches } => Writer::begin(OVER).u32(*batches),
        }
        .finish(self.descriptors())
    }

    /// As many of `entries` as a message takes.
    pub fn listed(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut taken = Vec::new();
        let mut room = MESSAGE_MAX - LISTED_LEN;
        let mut more = false;
        for entry in entries {
            match room.checked_sub(entry.encode().len()) {
                Some(left) if taken.len() < u16::MAX.into() => room = left,
                _ => {
                    more = true;
                    break;
                }
            }
            taken.push(entry);
        }
        Self::Listed {
            entries: taken,
            more,
        }
    }

    /// How many of `records` fit the next batch, in bytes and descriptors; 0 only of none, because
    /// a record never exceeds a message.
    pub fn batch_length<'a>(records: impl IntoIterator<Item = &'a Record>) -> usize {
        let (mut room, mut descriptors) = (MESSAGE_MAX - BATCH_LEN, BATCH_MAX);
        let fits = |record: &&Record| {
            let left = room.checked_sub(record.encode().len());
            let fewer = descriptors.checked_sub(record.descriptors());
            match (left, fewer) {
                (Some(left), Some(fewer)) => {
                    (room, descriptors) = (left, fewer);
                    true
                }
                _ => false,
            }
        };
        records.into_iter().take_while(fits).count()
    }

    /// How many descriptors must come beside it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Sockets { kinds } => kinds.len(),
            Self::Batch { records, .. } => records.iter().map(Record::descriptors).sum(),
            _ => 0,
        }
    }
}

impl Entry {
    fn decode(body: &mut Reader<'_>) -> Result<Self, HoldError> {
        let name = body.name()?;
        let origin = Origin::decode(body)?;
        let age = Duration::from_secs(body.u32()?.into());
        let left = body.u32()?;
        let retrieved = body.u64()?;
        let count = body.sockets()?;
        let mut sockets = Vec::new();
        for _ in 0..count {
            let kind = Kind::from_byte(body.u8()?)?;
            sockets.push((kind, body.endpoint()?));
        }
        Ok(Self {
            name,
            origin,
            age,
            expiry: (left > 0).then(|| Duration::from_secs(left.into())),
            retrieved,
            sockets,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let age = u32::try_from(self.age.as_secs()).unwrap_or(u32::MAX);
        let count = u8::try_from(self.sockets.len()).unwrap_or(u8::MAX);
        let mut entry = Writer::bare().name(&self.name);
        entry = self.origin.encode(entry);
        entry = entry
            .u32(age)
            .u32(self.expiry.map_or(0, seconds))
            .u64(self.retrieved)
            .u8(count);
        for (kind, place) in self.sockets.iter().take(count.into()) {
            entry = entry.u8(*kind as u8).text(place, ENDPOINT_MAX);
        }
        entry.bare_end()
    }
}

impl Reason {
    fn from_byte(byte: u8) -> Result<Self, HoldError> {
        Ok(match byte {
            1 => Self::NotAllowed,
            2 => Self::NoSuchName,
            3 => Self::Exists,
            4 => Self::Full,
            5 => Self::WrongSocket,
            6 => Self::Malformed,
            7 => Self::Busy,
            8 => Self::Leaving,
            9 => Self::Failed,
            _ => return Err(HoldError::Field("the reason of a refusal")),
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotAllowed => "not allowed",
            Self::NoSuchName => "no such name",
            Self::Exists => "the name is taken",
            Self::Full => "full",
            Self::WrongSocket => "not a socket to hold",
            Self::Malformed => "not a valid message",
            Self::Busy => "busy",
            Self::Leaving => "leaving",
            Self::Failed => "failed",
        })
    }
}

const DONE: u8 = 0xc0;
const LISTED: u8 = 0xc1;
const SOCKETS: u8 = 0xc2;
const POOL: u8 = 0xc3;
const REFUSED: u8 = 0xc4;
const BATCH: u8 = 0xc8;
const COMPLETE: u8 = 0xc9;
const OVER: u8 = 0xca;

/// What a list or a batch has besides its entries.
const LISTED_LEN: usize = 16;
const BATCH_LEN: usize = 16;
const TEXT_MAX: usize = 1000;
