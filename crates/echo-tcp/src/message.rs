//! The messages of Python's `multiprocessing.connection` come back whole, and are never opened.
//!
//! What is in a message is a pickle as a rule, which runs what its sender likes; here it is bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use portyard_core::config::Size;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::wire::framing::{FrameError, Framing, Header};
use tokio::sync::Semaphore;

use crate::options::Options;
use crate::spill::{Counted, Spill};

/// The message service.
pub struct Message {
    max: u64,
    room: Arc<Room>,
}

/// What the long messages of all connections may take together.
struct Room(Semaphore);

impl Message {
    /// Takes `max_message` and `max_buffered` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        let (max, room) = (options.max_message, options.max_buffered);
        if !(1..=MAX_MESSAGE_LIMIT).contains(&max.0) {
            return Err(format!(
                "options.max_message = \"{max}\" is not from 1B to {}",
                Size(MAX_MESSAGE_LIMIT)
            ));
        }
        if !(max.0..=MAX_BUFFERED_LIMIT).contains(&room.0) {
            return Err(format!(
                "options.max_buffered = \"{room}\" is not from options.max_message = \"{max}\", \
                 which has to fit, to {}",
                Size(MAX_BUFFERED_LIMIT)
            ));
        }
        Ok(Self {
            max: max.0,
            room: Arc::new(Room(Semaphore::new(units(room.0) as usize))),
        })
    }
}

impl StreamService for Message {
    fn serve(&self, connection: Connection) -> Serving {
        let returning = Returning {
            spill: Spill::new(connection.home().clone()),
            connection,
            head: Vec::new(),
            max: self.max,
            room: self.room.clone(),
        };
        Box::pin(async move { returning.run().await.unwrap_or_else(Ended::from) })
    }
}

struct Returning {
    connection: Connection,
    spill: Spill,
    /// The beginning of a header whose end has not come.
    head: Vec<u8>,
    max: u64,
    room: Arc<Room>,
}

/// What a turn of short messages has come to.
enum Turn {
    /// The peer has ended between two messages.
    End,
    /// The peer has ended within a message.
    Cut,
    /// The peer has sent what is no message, or too long a one.
    Refused(FrameError),
    /// A message has begun, and its end is still to come.
    Begun(Begun),
}

/// A message of which only the beginning has come.
struct Begun {
    start: Vec<u8>,
    /// Bytes in all, the header included.
    total: u64,
}

impl Returning {
    async fn run(mut self) -> io::Result<Ended> {
        loop {
            let turn = poll_fn(|cx| self.turn(cx)).await?;
            poll_fn(|cx| self.spill.poll_flush(&mut self.connection, cx)).await?;
            match turn {
                // Boxed: most connections never have a long message, and need no room for it.
                Turn::Begun(begun) => {
                    if !Box::pin(self.pass(begun)).await? {
                        return Ok(Ended::Broken);
                    }
                }
                Turn::End => {
                    self.connection.finish().await;
                    return Ok(Ended::Done);
                }
                Turn::Cut => return Ok(Ended::Broken),
                Turn::Refused(error) => {
                    self.connection.count_bad_input();
                    tracing::debug!(peer = %self.connection.peer(), %error, "bad message");
                    self.connection.finish().await;
                    return Ok(Ended::Protocol);
                }
            }
        }
    }

    /// Reads into the loop's buffer and writes the whole messages in it back at once, for as long
    /// as nothing else comes. Nothing more is read while the peer does not take what it gets.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let home = self.connection.home().clone();
        loop {
            ready!(self.spill.poll_flush(&mut self.connection, cx))?;
            let turn = home.with_buffer(|buffer| {
                let (head, size) = (self.head.len(), home.read_size());
                buffer[..head].copy_from_slice(&self.head);
                let length = ready!(self.connection.poll_read(cx, &mut buffer[head..size]))?;
                if length == 0 {
                    let turn = if head == 0 { Turn::End } else { Turn::Cut };
                    return Poll::Ready(Ok(Some(turn)));
                }
                let (messages, rest, behind) = split(&buffer[..head + length], self.max);
                if !messages.is_empty() {
                    let taken = match self.connection.poll_write(cx, messages) {
                        Poll::Ready(taken) => taken?,
                        Poll::Pending => 0,
                    };
                    if taken < messages.len() {
                        self.spill.keep(&messages[taken..]);
                    }
                }
                self.head = Vec::new();
                Poll::Ready(Ok::<_, io::Error>(match behind {
                    Behind::Head => {
                        self.head.extend_from_slice(rest);
                        None
                    }
                    Behind::Body { total } => Some(Turn::Begun(Begun {
                        start: rest.to_vec(),
                        total,
                    })),
                    Behind::Wrong(error) => Some(Turn::Refused(error)),
                }))
            });
            if let Some(turn) = ready!(turn)? {
                return Poll::Ready(Ok(turn));
            }
        }
    }

    /// Takes a message to its end, then returns it; false when the peer ends before.
    ///
    /// It must be whole first: a Python client sends all of it before it reads. It takes memory as
    /// it arrives, and a long one only once there is room for all of it.
    async fn pass(&mut self, begun: Begun) -> io::Result<bool> {
        let room = self.room.clone();
        let mut counted = Counted::new(self.connection.home().clone(), begun.start.len());
        let _place = if begun.total > SHORT {
            let place = room.0.acquire_many(units(begun.total)).await;
            counted.set(0);
            Some(place.map_err(io::Error::other)?)
        } else {
            counted.set(SHORT_LEN);
            None
        };
        let mut message = Pieces::default();
        message.add(&begun.start);
        let mut missing = begun.total - begun.start.len() as u64;
        drop(begun);
        while missing > 0 {
            let length = poll_fn(|cx| {
                let home = self.connection.home().clone();
                home.with_buffer(|buffer| {
                    let limit = usize::try_from(missing)
                        .map_or(buffer.len(), |missing| missing.min(buffer.len()));
                    let read = self.connection.poll_read(cx, &mut buffer[..limit]);
                    if let Poll::Ready(Ok(length)) = read {
                        message.add(&buffer[..length]);
                    }
                    read
                })
            })
            .await?;
            if length == 0 {
                return Ok(false);
            }
            missing -= length as u64;
        }
        while let Some(piece) = message.0.pop_front() {
            self.connection.write_all(&piece).await?;
        }
        Ok(true)
    }
}

/// What stands behind the last whole message.
enum Behind {
    /// Nothing, or the beginning of a header.
    Head,
    /// The beginning of a message of so many bytes, its header included.
    Body { total: u64 },
    /// No message.
    Wrong(FrameError),
}

/// Splits `bytes` behind the last whole message.
fn split(bytes: &[u8], max: u64) -> (&[u8], &[u8], Behind) {
    let mut end = 0;
    let behind = loop {
        let rest = &bytes[end..];
        match Header::parse(Framing::Python, max, rest) {
            Ok(Some(Header { len, header_len })) => {
                // The cap keeps the sum far below the end of the range.
                let total = len + header_len as u64;
                match usize::try_from(total) {
                    Ok(total) if total <= rest.len() => end += total,
                    _ => break Behind::Body { total },
                }
            }
            Ok(None) => break Behind::Head,
            Err(error) => break Behind::Wrong(error),
        }
    };
    let (messages, rest) = bytes.split_at(end);
    (messages, rest, behind)
}

/// A message in pieces: it grows without being copied, and goes as it is sent.
#[derive(Default)]
struct Pieces(VecDeque<Vec<u8>>);

impl Pieces {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.0.back().is_none_or(|last| last.len() == PIECE) {
                // A piece behind a full one is taken whole: grown in steps, each would leave blocks
                // behind it in which no later piece has room.
                let capacity = if self.0.is_empty() { 0 } else { PIECE };
                self.0.push_back(Vec::with_capacity(capacity));
            }
            let mut later = &[][..];
            if let Some(last) = self.0.back_mut() {
                let now;
                (now, later) = bytes.split_at(bytes.len().min(PIECE - last.len()));
                if last.capacity() - last.len() < now.len() {
                    // Twice as much, as a vector grows, but never beyond the piece.
                    last.reserve_exact(now.len().max(last.len().min(PIECE - last.len())));
                }
                last.extend_from_slice(now);
            }
            bytes = later;
        }
    }
}

/// What the room is counted in: kibibytes, rounded up.
fn units(bytes: u64) -> u32 {
    // The limits below are far under 2^32 KiB.
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A message is held in memory. Python 2.7, 3.6 and 3.7 send one byte less at the most.
const MAX_MESSAGE_LIMIT: u64 = 2 << 30;
const MAX_BUFFERED_LIMIT: u64 = 1 << 40;
/// A message up to this length waits for no room.
const SHORT: u64 = SHORT_LEN as u64;
const SHORT_LEN: usize = 64 * 1024;
/// As much as a loop reads at once.
const PIECE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(bytes: &[u8]) -> (usize, &'static str) {
        let (messages, rest, behind) = split(bytes, 100);
        assert_eq!([messages, rest].concat(), bytes);
        let behind = match behind {
            Behind::Head => "head",
            Behind::Body { total: 9 } => "body of 9",
            Behind::Body { .. } => "another body",
            Behind::Wrong(_) => "wrong",
        };
        (messages.len(), behind)
    }

    #[test]
    fn bytes_are_split_behind_the_last_whole_message() {
        assert_eq!(ends(b""), (0, "head"));
        assert_eq!(ends(b"\0\0\0"), (0, "head"));
        assert_eq!(ends(b"\0\0\0\0\0\0\0\x01x\0"), (9, "head"));
        assert_eq!(ends(b"\0\0\0\x02ab\0\0\0\x05cde"), (6, "body of 9"));
        assert_eq!(ends(b"\0\0\0\x02ab\0\0\0\x65"), (6, "wrong"));
        assert_eq!(ends(b"\0\0\0\x02ab\xff\xff\xff\xfe"), (6, "wrong"));
        assert_eq!(ends(b"\xff\xff\xff\xff\0\0\0\0\0\0\0"), (0, "head"));
    }

    #[test]
    fn a_message_takes_the_memory_of_what_has_come_of_it_or_twice_as_much() {
        let mut pieces = Pieces::default();
        pieces.add(b"x");
        assert!(pieces.0[0].capacity() < 64);
        pieces.add(&vec![7; PIECE * 2]);
        let lengths: Vec<_> = pieces.0.iter().map(Vec::len).collect();
        assert_eq!(lengths, [PIECE, PIECE, 1]);
        let taken: usize = pieces.0.iter().map(Vec::capacity).sum();
        assert_eq!(taken, PIECE * 3);
    }
}
