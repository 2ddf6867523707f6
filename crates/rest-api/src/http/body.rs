//! The body of an answer.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Bytes, Frame, SizeHint};
use portyard_core::serve::{Connection, Ended};

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
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Whole(Bytes),
    Stream(Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = io::Error>>>),
    Upgrade(Option<Upgrade>),
}

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
        let sender = Sender(Rc::new(RefCell::new(None)));
        let piece = sender.0.clone();
        Self::stream(Produced {
            making: Some(Box::pin(make(sender))),
            piece,
            length,
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
            Kind::Stream(_) | Kind::Upgrade(_) => None,
        }
    }

    /// How long it is, where that is known.
    pub fn length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty | Kind::Upgrade(_) => Some(0),
            Kind::Whole(bytes) => Some(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint().exact(),
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
        if !matches!(self.kind, Kind::Empty | Kind::Whole(_)) {
            self.held = Some(Box::new(held));
        }
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
        let polled = match &mut this.kind {
            Kind::Empty | Kind::Upgrade(_) => Poll::Ready(None),
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
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Upgrade(_) => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

impl Kind {
    fn is_over(&self) -> bool {
        match self {
            Self::Empty | Self::Upgrade(_) => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }
}

/// The sending end of [`Body::produce`].
pub struct Sender(Rc<RefCell<Option<Frame<Bytes>>>>);

impl Sender {
    /// Sends a piece, and returns once the peer can be given another.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        // An empty piece would end a chunked body.
        if !bytes.is_empty() {
            self.put(Frame::data(bytes)).await;
        }
    }

    /// Sends the trailers, behind which nothing may come.
    pub async fn trailers(&mut self, trailers: HeaderMap) {
        self.put(Frame::trailers(trailers)).await;
    }

    async fn put(&mut self, frame: Frame<Bytes>) {
        *self.0.borrow_mut() = Some(frame);
        // Whoever polls the body takes the piece out before it polls this again.
        let first = Cell::new(true);
        poll_fn(|_| {
            if first.replace(false) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

struct Produced {
    making: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
    piece: Rc<RefCell<Option<Frame<Bytes>>>>,
    length: Option<u64>,
}

impl hyper::body::Body for Produced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let Some(making) = &mut this.making else {
            return Poll::Ready(None);
        };
        let made = making.as_mut().poll(cx);
        if let Poll::Ready(result) = made {
            this.making = None;
            if let Err(error) = result {
                return Poll::Ready(Some(Err(error)));
            }
        }
        match this.piece.take() {
            Some(frame) => {
                if let (Some(length), Some(data)) = (&mut this.length, frame.data_ref()) {
                    *length = length.saturating_sub(data.len() as u64);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None if this.making.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.making.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            under_way: None,
            record: None,
            held: None,
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

static EMPTY: Bytes = Bytes::new();
