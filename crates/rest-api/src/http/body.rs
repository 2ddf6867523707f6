//! The body of an answer.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use portyard_core::serve::{Connection, Ended};

use super::produced::{Produced, Sender};
use super::ranges::Multipart;
use super::record::Record;
use super::watch::UnderWay;

/// The body of an answer: bytes, or a stream that is asked for the next only when the peer has taken
/// the last.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    /// The request that it answers.
    under_way: Option<UnderWay>,
    record: Option<Box<Record>>,
    /// What lasts as long as the body does.
    held: Option<Box<dyn Any>>,
    /// Of HTTP/2: it tells [`Pull`] how it is taken, and goes out in frames.
    is_paced: bool,
    /// What is left of the last piece.
    rest: Bytes,
}

/// How a body of HTTP/2 was asked for more since this was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Something can be sent, and nothing has to be waited for but the peer.
    Given,
    /// There was nothing to send yet.
    Waits,
}

thread_local! {
    static PULL: Cell<Option<Pull>> = const { Cell::new(None) };
}

impl Pull {
    /// What happened to the body of the request that has just been polled, if anything.
    pub fn take() -> Option<Self> {
        PULL.take()
    }
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Whole(Bytes),
    Stream(Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = io::Error>>>),
    /// So many bytes, any part of which can be made.
    Cuttable(u64, Cutter),
    Upgrade(Option<Upgrade>),
}

/// Makes the bytes of a content from one up to another, which is not in it.
type Cutter = Box<dyn FnMut(Range<u64>) -> Body>;

/// What takes the connection over after an answer with status 101.
pub type Upgrade = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = Ended>>>>;

/// A connection that does not speak HTTP any more.
pub struct Upgraded {
    /// The connection.
    pub connection: Connection,
    /// What the peer has sent on it already.
    pub pending: Vec<u8>,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A stream.
    pub fn stream(
        stream: impl hyper::body::Body<Data = Bytes, Error = io::Error> + 'static,
    ) -> Self {
        Kind::Stream(Box::pin(stream)).into()
    }

    /// What `make` sends, piece by piece; each waits until the peer has taken the one before. `length`
    /// is that of all of it, where it is known. Dropped in the midst when the peer is gone.
    pub fn produce<F>(length: Option<u64>, make: impl FnOnce(Sender) -> F) -> Self
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        Self::stream(Produced::new(length, make))
    }

    /// So many bytes, of which `make` makes those that are asked for when they are: all, or parts.
    pub fn cuttable(length: u64, make: impl FnMut(Range<u64>) -> Self + 'static) -> Self {
        Kind::Cuttable(length, Box::new(make)).into()
    }

    /// Of so many bytes in all: text and a part of what `make` makes, in turn, and then `end`.
    pub fn in_turn(
        length: u64,
        parts: impl Iterator<Item = (Bytes, Range<u64>)> + 'static,
        end: Bytes,
        make: impl FnMut(Range<u64>) -> Self + 'static,
    ) -> Self {
        Self::stream(InTurn {
            parts: Box::new(parts),
            part: None,
            end,
            left: length,
            make: Box::new(make),
        })
    }

    /// Hands the connection over to `upgrade` once the answer, whose status must be 101, is written.
    pub fn upgrade<F>(upgrade: impl FnOnce(Upgraded) -> F + 'static) -> Self
    where
        F: Future<Output = Ended> + 'static,
    {
        let upgrade: Upgrade = Box::new(|upgraded| Box::pin(upgrade(upgraded)));
        Kind::Upgrade(Some(upgrade)).into()
    }

    /// The bytes, where it is no stream.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Empty => Some(&EMPTY),
            Kind::Stream(_) | Kind::Cuttable(..) | Kind::Upgrade(_) => None,
        }
    }

    /// Whether a part of it can be had without the rest.
    pub fn can_be_cut(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::Whole(_) | Kind::Cuttable(..))
    }

    /// Leaves these bytes of one that can be cut. They must be within it.
    pub fn cut(&mut self, span: Range<u64>) {
        if let Some(mut make) = self.take_cutter() {
            self.kind = make(span).kind;
        }
    }

    /// Leaves these parts of one that can be cut. They must be within it.
    pub fn cut_to(&mut self, parts: Multipart) {
        if let Some(make) = self.take_cutter() {
            self.kind = parts.body(make).kind;
        }
    }

    /// The next frame's worth of a piece. What has been handed over is out of reach, also of a deadline.
    fn next_frame(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        PULL.set(Some(Pull::Given));
        let length = self.rest.len().min(FRAME);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    /// What makes parts of it; it is empty then.
    fn take_cutter(&mut self) -> Option<Cutter> {
        match std::mem::take(&mut self.kind) {
            Kind::Empty => Some(Box::new(|_| Self::empty())),
            Kind::Whole(bytes) => Some(Box::new(move |span: Range<u64>| {
                // It is in memory, so both are within a usize.
                let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
                bytes.slice(at(span.start)..at(span.end)).into()
            })),
            Kind::Cuttable(_, make) => Some(make),
            other => {
                self.kind = other;
                None
            }
        }
    }

    /// How long it is, where that is known.
    pub fn length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty | Kind::Upgrade(_) => Some(0),
            Kind::Whole(bytes) => Some(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint().exact(),
            Kind::Cuttable(length, _) => Some(*length),
        }
    }

    /// What takes the connection over.
    pub fn take_upgrade(&mut self) -> Option<Upgrade> {
        match &mut self.kind {
            Kind::Upgrade(upgrade) => upgrade.take(),
            _ => None,
        }
    }

    /// Keeps something until it has been sent, or nobody wants it any more.
    pub fn holding(mut self, held: impl Any) -> Self {
        match &mut self.kind {
            Kind::Empty | Kind::Whole(_) => {}
            Kind::Upgrade(upgrade) => {
                *upgrade = upgrade.take().map(|upgrade| -> Upgrade {
                    Box::new(|upgraded| {
                        let going_on = upgrade(upgraded);
                        Box::pin(async move {
                            let _held = held;
                            going_on.await
                        })
                    })
                });
            }
            Kind::Stream(_) | Kind::Cuttable(..) => self.held = Some(Box::new(held)),
        }
        self
    }

    /// Tells from now on, by [`Pull`], whether it is the peer who is waited for.
    pub fn paced(mut self) -> Self {
        self.is_paced = true;
        PULL.set(Some(Pull::Given));
        self
    }

    /// Ties it to the request that it answers: that is under way for as long as there is more of it.
    pub fn answers(mut self, under_way: UnderWay, record: Option<Box<Record>>) -> Self {
        self.under_way = Some(under_way);
        self.record = record;
        self
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            return this.next_frame();
        }
        if let Kind::Cuttable(length, make) = &mut this.kind {
            this.kind = make(0..*length).kind;
        }
        let polled = match &mut this.kind {
            // No cutter makes another of its kind.
            Kind::Empty | Kind::Cuttable(..) | Kind::Upgrade(_) => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => stream.as_mut().poll_frame(cx),
        };
        if let Some(record) = &mut this.record {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                    record.is_whole = this.kind.is_over();
                }
                Poll::Ready(None) => record.is_whole = true,
                _ => {}
            }
        }
        if this.is_paced {
            let pull = match &polled {
                Poll::Pending => Pull::Waits,
                Poll::Ready(_) => Pull::Given,
            };
            PULL.set(Some(pull));
            if let Poll::Ready(Some(Ok(frame))) = &polled
                && let Some(data) = frame.data_ref()
                && data.len() > FRAME
            {
                this.rest = data.clone();
                return this.next_frame();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.kind.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            // Nobody asks in the midst of a piece.
            Kind::Empty | Kind::Upgrade(_) => SizeHint::with_exact(self.rest.len() as u64),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
            Kind::Cuttable(length, _) => SizeHint::with_exact(*length),
        }
    }
}

impl Kind {
    fn is_over(&self) -> bool {
        match self {
            Self::Empty | Self::Upgrade(_) => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
            Self::Cuttable(length, _) => *length == 0,
        }
    }
}

/// Parts of a content with text before each.
struct InTurn {
    parts: Box<dyn Iterator<Item = (Bytes, Range<u64>)>>,
    /// The part under way.
    part: Option<Body>,
    /// What comes last; empty when it has been sent.
    end: Bytes,
    left: u64,
    make: Cutter,
}

impl hyper::body::Body for InTurn {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let bytes = loop {
            if let Some(part) = &mut this.part {
                match Pin::new(part).poll_frame(cx) {
                    Poll::Ready(None) => this.part = None,
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(bytes) if !bytes.is_empty() => break bytes,
                        // No part has trailers.
                        _ => {}
                    },
                    other => return other,
                }
            } else if let Some((head, span)) = this.parts.next() {
                this.part = Some((this.make)(span));
                break head;
            } else if this.end.is_empty() {
                return Poll::Ready(None);
            } else {
                break std::mem::take(&mut this.end);
            }
        };
        this.left = this.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            under_way: None,
            record: None,
            held: None,
            is_paced: false,
            rest: Bytes::new(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Kind::Whole(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

/// What a frame of HTTP/2 holds, unless the peer says otherwise (RFC 9113, 4.2).
const FRAME: usize = 16 << 10;
static EMPTY: Bytes = Bytes::new();
