//! The native protocol between fd-broker and its workers.
//!
//! It runs over a Unix socket of type `SOCK_SEQPACKET`: one message is one packet, and descriptors
//! come with the packet that speaks of them. Numbers are big-endian. Every message begins with four
//! bytes:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 1 | how many descriptors come with it |
//! | 2 | 2 | how many bytes follow |
//!
//! Both numbers are checked against what came: a message that was cut, or that lost or gained a
//! descriptor on its way, is an error. In the end of some messages are fields, each of them a type
//! in one byte, a length in two, and that many bytes. A type that a receiver does not know is
//! skipped, so that later versions can say more; a type comes once, [`ALPN`](field::ALPN) excepted.
//!
//! | kind | message | from | descriptors | what follows |
//! |---|---|---|---|---|
//! | 0x01 | HELLO | worker | 0 | version (2), flags (2), capacity (4), weight (2), fields: name, pool |
//! | 0x02 | REPORT | worker | 0 | 1 to 256 records of 10: verb (1), reason (1), connection (8) |
//! | 0x03 | CAPACITY | worker | 0 | connections at a time (4) |
//! | 0x04 | DRAIN | worker | 0 | |
//! | 0x05 | RESUME | worker | 0 | |
//! | 0x06 | PING | worker | 0 | 8 bytes of its choice |
//! | 0x21 | WELCOME | broker | 0 | version (2), mode (1), 0 (1), fields: pool |
//! | 0x22 | REJECTED | broker | 0 | text |
//! | 0x23 | OFFER | broker | 1 to 64 | as many entries: length (2), connection (8), arrival (8), fields |
//! | 0x24 | LISTENER | broker | 1 | fields: listener |
//! | 0x25 | DRAIN | broker | 0 | |
//! | 0x26 | RESUME | broker | 0 | |
//! | 0x27 | PONG | broker | 0 | the 8 bytes of the PING |
//!
//! Kinds from 0x40 on belong to held listeners and control.
//!
//! A worker begins with HELLO and is answered WELCOME or REJECTED. It may ask for the pool of a name
//! before, with RETRIEVE of the held listeners ([`crate::hold`]), and is answered whether it is one. A capacity is how many
//! connections it has at a time, offered ones included; it grows and shrinks by CAPACITY. Of each
//! connection that it was offered it reports exactly one of
//!
//! - TAKEN and later DONE, or DONE at once;
//! - REFUSED: it has neither read nor written, and another worker gets the connection.
//!
//! The sockets of connections are non-blocking. The broker keeps its own copy until it hears TAKEN, DONE or REFUSED; before that, a close by the
//! worker does not reach the peer. A worker that cannot say DONE says so in HELLO, and the kernel
//! tells the broker instead.
//!
//! After a DRAIN of either side the broker offers nothing; the worker finishes what it has and
//! refuses what was on its way. RESUME takes it back.

pub mod field;
mod frame;
mod hello;
mod offer;
mod report;

pub use frame::{Frame, HEADER_LEN, Writer};
pub use hello::{Hello, Mode, Welcome};
pub use offer::{Offer, Offers, User};
pub use report::{Report, Reports, Verdict, Why};

/// The version that is spoken here.
pub const VERSION: u16 = 1;
/// The longest message: what a receiver needs a buffer for.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Connections in one OFFER.
pub const OFFERS_MAX: usize = 64;
/// Records in one REPORT.
pub const REPORTS_MAX: usize = 256;
/// Bytes of a name: of a worker, pool, listener, TLS server or application protocol.
pub const NAME_MAX: usize = 255;
/// Bytes of the beginning of a connection that an offer repeats.
pub const FIRST_BYTES_MAX: usize = 512;
/// Bytes of the text of REJECTED.
pub const TEXT_MAX: usize = 512;
/// Application protocols of one client hello that an offer repeats.
pub const ALPN_MAX: usize = 16;

/// A message of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker<'a> {
    /// The first one.
    Hello(Hello<'a>),
    /// What became of connections, in the order in which it happened.
    Report(Vec<Report>),
    /// How many connections it has at a time from now on; 0: none for the moment.
    Capacity(u32),
    /// Offer nothing more.
    Drain,
    /// Offer again.
    Resume,
    /// Is the broker there?
    Ping(u64),
}

/// A message of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker<'a> {
    /// The answer to a HELLO that was accepted.
    Welcome(Welcome<'a>),
    /// The answer to one that was not: why, and what to do. The broker closes behind it.
    Rejected(&'a str),
    /// Connections, each with its descriptor, in the order of the descriptors.
    Offer(Vec<Offer<'a>>),
    /// The listening socket of a pool in listener mode.
    Listener {
        /// The name of the listener.
        name: &'a str,
    },
    /// Nothing more is offered; finish what is there.
    Drain,
    /// Connections are offered again.
    Resume,
    /// The answer to PING.
    Pong(u64),
}

impl<'a> FromWorker<'a> {
    /// Reads a packet with which `descriptors` came.
    pub fn decode(packet: &'a [u8], descriptors: usize) -> Result<Self, BrokerError> {
        let Frame { kind, body } = Frame::decode(packet, descriptors)?;
        let message = match kind {
            HELLO => Self::Hello(Hello::decode(body)?),
            REPORT => Self::Report(report::decode(body)?),
            CAPACITY => Self::Capacity(u32::from_be_bytes(frame::exactly(body)?)),
            DRAIN => empty(body, Self::Drain)?,
            RESUME => empty(body, Self::Resume)?,
            PING => Self::Ping(u64::from_be_bytes(frame::exactly(body)?)),
            other => return Err(BrokerError::Kind(other)),
        };
        if descriptors != 0 {
            return Err(BrokerError::Descriptors {
                came: descriptors,
                wanted: 0,
            });
        }
        Ok(message)
    }

    /// The packet. A REPORT says the first [`REPORTS_MAX`] only: [`Reports`] writes long ones in
    /// several packets.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => hello.encode(),
            Self::Report(reports) => {
                let mut writer = Reports::new();
                for report in reports.iter().take(REPORTS_MAX) {
                    writer.push(*report);
                }
                writer.take()
            }
            Self::Capacity(capacity) => simple(CAPACITY, &capacity.to_be_bytes()),
            Self::Drain => simple(DRAIN, &[]),
            Self::Resume => simple(RESUME, &[]),
            Self::Ping(token) => simple(PING, &token.to_be_bytes()),
        }
    }
}

impl<'a> ToWorker<'a> {
    /// Reads a packet with which `descriptors` came.
    pub fn decode(packet: &'a [u8], descriptors: usize) -> Result<Self, BrokerError> {
        let Frame { kind, body } = Frame::decode(packet, descriptors)?;
        let (message, wanted) = match kind {
            WELCOME => (Self::Welcome(Welcome::decode(body)?), 0),
            REJECTED => (Self::Rejected(frame::text(body, TEXT_MAX)?), 0),
            OFFER => {
                let offers = offer::decode(body)?;
                let count = offers.len();
                (Self::Offer(offers), count)
            }
            LISTENER => {
                let name = hello::name(body, field::LISTENER)?.unwrap_or_default();
                (Self::Listener { name }, 1)
            }
            BROKER_DRAIN => (empty(body, Self::Drain)?, 0),
            BROKER_RESUME => (empty(body, Self::Resume)?, 0),
            PONG => (Self::Pong(u64::from_be_bytes(frame::exactly(body)?)), 0),
            other => return Err(BrokerError::Kind(other)),
        };
        if descriptors != wanted {
            return Err(BrokerError::Descriptors {
                came: descriptors,
                wanted,
            });
        }
        Ok(message)
    }

    /// The packet. What is longer than its cap is cut there; of an OFFER, what does not fit is left
    /// out: [`Offers`] tells when a packet is full.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => welcome.encode(),
            Self::Rejected(text) => simple(REJECTED, frame::cut(text, TEXT_MAX).as_bytes()),
            Self::Offer(offers) => {
                let mut writer = Offers::new();
                for offer in offers {
                    if !writer.push(offer) {
                        break;
                    }
                }
                writer.take()
            }
            Self::Listener { name } => {
                let mut writer = Writer::new(LISTENER);
                writer.field(field::LISTENER, frame::cut(name, NAME_MAX).as_bytes());
                writer.finish(1)
            }
            Self::Drain => simple(BROKER_DRAIN, &[]),
            Self::Resume => simple(BROKER_RESUME, &[]),
            Self::Pong(token) => simple(PONG, &token.to_be_bytes()),
        }
    }
}

fn simple(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(kind);
    writer.bytes(body);
    writer.finish(0)
}

fn empty<T>(body: &[u8], message: T) -> Result<T, BrokerError> {
    frame::exactly::<0>(body).map(|_| message)
}

const HELLO: u8 = 0x01;
const REPORT: u8 = 0x02;
const CAPACITY: u8 = 0x03;
const DRAIN: u8 = 0x04;
const RESUME: u8 = 0x05;
const PING: u8 = 0x06;
const WELCOME: u8 = 0x21;
const REJECTED: u8 = 0x22;
const OFFER: u8 = 0x23;
const LISTENER: u8 = 0x24;
const BROKER_DRAIN: u8 = 0x25;
const BROKER_RESUME: u8 = 0x26;
const PONG: u8 = 0x27;

/// The other end does not speak the protocol, or lost something of it on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The packet is shorter than its kind needs or than it says, or longer.
    #[error("the message has {came} bytes where {wanted} are due")]
    Length {
        /// What came.
        came: usize,
        /// What was announced, or what the kind needs.
        wanted: usize,
    },
    /// Longer than any message.
    #[error("the message has {0} bytes; the longest has {MESSAGE_MAX}")]
    TooLong(usize),
    /// Descriptors got lost, or came where none belong.
    #[error("the message came with {came} descriptors where {wanted} are due")]
    Descriptors {
        /// What came.
        came: usize,
        /// What was announced, or what the kind needs.
        wanted: usize,
    },
    /// No message of that end has this kind.
    #[error("{0:#04x} is not a kind of message that belongs here")]
    Kind(u8),
    /// A number that its field does not have.
    #[error("{1} is not a value of {0}")]
    Value(&'static str, u64),
    /// A field is cut off, too long, malformed or there twice.
    #[error("field {0} is malformed")]
    Field(u8),
    /// More entries than a message has, or none where one is due.
    #[error("the message has {came} entries; 1 to {max} are allowed")]
    Entries {
        /// What came.
        came: usize,
        /// The cap.
        max: usize,
    },
    /// Text that is no UTF-8.
    #[error("a text is not UTF-8, or it is too long or holds a control character")]
    Text,
}

#[cfg(test)]
mod tests;
