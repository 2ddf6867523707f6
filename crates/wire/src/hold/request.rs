//! What is asked of a broker.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::bytes::{Reader, Writer};
use super::{HoldError, Name};

/// What a peer asks for, one message each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What is held, in the order of names: from the first, or behind this one. Answered by
    /// `Listed`.
    List {
        /// The last name of the list so far.
        behind: Option<Name>,
    },
    /// Hold these sockets. They come beside the message. Answered by `Done`.
    Store {
        /// The name to hold them under.
        name: Name,
        /// How many there are.
        sockets: u8,
        /// How long to hold them, in whole seconds from 1 on; `None`: until they are deleted.
        expiry: Option<Duration>,
        /// Whether what is held under that name goes.
        replace: bool,
    },
    /// Give me what is held under that name. Answered by `Sockets` or `Pool`.
    Retrieve {
        /// The name.
        name: Name,
    },
    /// Hold it no longer. Answered by `Done`.
    Delete {
        /// The name.
        name: Name,
    },
    /// Hand everything over to me.
    TakeOver,
    /// I have the descriptors of that batch.
    Received {
        /// The number of the batch.
        batch: u32,
    },
    /// I accept on everything I was given; stop accepting, and hand over what waits.
    Serving,
}

impl Request {
    /// The kinds of requests, which no message of a worker has.
    pub const KINDS: RangeInclusive<u8> = 0x40..=0x4f;

    /// Reads the message of a packet that came with so many descriptors.
    pub fn decode(packet: &[u8], descriptors: usize) -> Result<Self, HoldError> {
        let (kind, mut body) = Reader::begin(packet, descriptors)?;
        let request = match kind {
            LIST => Self::List {
                behind: body.maybe_name()?,
            },
            STORE => {
                let replace = body.bool("the flags")?;
                let sockets = body.sockets()?;
                let seconds = body.u32()?;
                Self::Store {
                    name: body.name()?,
                    sockets,
                    expiry: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
                    replace,
                }
            }
            RETRIEVE => Self::Retrieve { name: body.name()? },
            DELETE => Self::Delete { name: body.name()? },
            TAKE_OVER => Self::TakeOver,
            RECEIVED => Self::Received { batch: body.u32()? },
            SERVING => Self::Serving,
            other => return Err(HoldError::Kind(other)),
        };
        body.end()?;
        let wanted = request.descriptors();
        if wanted != descriptors {
            return Err(HoldError::Descriptors {
                came: descriptors,
                wanted,
            });
        }
        Ok(request)
    }

    /// The message as one packet. An expiry is rounded up to whole seconds.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::List { behind } => Writer::begin(LIST).maybe_name(behind.as_ref()),
            Self::Store {
                name,
                sockets,
                expiry,
                replace,
            } => Writer::begin(STORE)
                .u8((*replace).into())
                .u8(*sockets)
                .u32(expiry.map_or(0, seconds))
                .name(name),
            Self::Retrieve { name } => Writer::begin(RETRIEVE).name(name),
            Self::Delete { name } => Writer::begin(DELETE).name(name),
            Self::TakeOver => Writer::begin(TAKE_OVER),
            Self::Received { batch } => Writer::begin(RECEIVED).u32(*batch),
            Self::Serving => Writer::begin(SERVING),
        }
        .finish(self.descriptors())
    }

    /// How many descriptors must come beside it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Store { sockets, .. } => (*sockets).into(),
            _ => 0,
        }
    }
}

/// Whole seconds, at least one: 0 means for good.
pub(super) fn seconds(span: Duration) -> u32 {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

const LIST: u8 = 0x40;
const STORE: u8 = 0x41;
const RETRIEVE: u8 = 0x42;
const DELETE: u8 = 0x43;
const TAKE_OVER: u8 = 0x48;
const RECEIVED: u8 = 0x49;
const SERVING: u8 = 0x4a;
