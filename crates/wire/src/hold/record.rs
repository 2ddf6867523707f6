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
        }
        .bare_end()
    }

    /// How many descriptors belong to it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Bound(_) | Self::Waiting(_) => 1,
            Self::Held(held) => held.kinds.len(),
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
