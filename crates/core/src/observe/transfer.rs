//! Bodies of the admin endpoint's answers: a text, or a file in pieces.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The body of an answer.
pub enum Body {
    /// Text that is there.
    Text(Full<Bytes>),
    /// A file.
    File(Transfer),
}

/// A file on its way, read by a thread of its own, which is at most a few pieces ahead.
pub struct Transfer {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    patience: Patience,
}

/// Until when a connection may last; each piece of a file that its peer takes gives it more time.
#[derive(Clone)]
pub struct Patience {
    span: Duration,
    until: Rc<Cell<Instant>>,
}

impl Patience {
    /// So long from now.
    pub fn new(span: Duration) -> Self {
        let until = Rc::new(Cell::new(Instant::now() + span));
        Self { span, until }
    }

    /// Begins the span anew.
    pub fn renew(&self) {
        self.until.set(Instant::now() + self.span);
    }

    /// Ready when nothing has renewed it for the span.
    pub async fn over(&self) {
        while Instant::now() < self.until.get() {
            tokio::time::sleep_until(self.until.get()).await;
        }
    }
}

impl Transfer {
    /// Sends a file as long as it is now.
    pub fn start(mut file: File, patience: Patience) -> io::Result<Self> {
        let left = file.metadata()?.len();
        let (sender, pieces) = mpsc::channel(AHEAD);
        thread::Builder::new()
            .name("transfer".into())
            .spawn(move || {
                let mut rest = left;
                while rest > 0 {
                    let length = rest.min(PIECE);
                    // At most a piece, which fits.
                    let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
                    let read = file.read_exact(&mut piece).map(|()| piece.into());
                    let failed = read.is_err();
                    // Nobody takes it any more when the connection is gone.
                    if sender.blocking_send(read).is_err() || failed {
                        break;
                    }
                    rest -= length;
                }
            })?;
        Ok(Self {
            pieces,
            left,
            patience,
        })
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let piece = match ready!(self.pieces.poll_recv(context)) {
            Some(piece) => piece,
            None if self.left > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            None => return Poll::Ready(None),
        };
        if let Ok(piece) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
            self.patience.renew();
        }
        Poll::Ready(Some(piece))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Text(text) => Pin::new(text)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::File(file) => file
                .poll_piece(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::File(file) => file.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::File(file) => SizeHint::with_exact(file.left),
        }
    }
}

const PIECE: u64 = 256 << 10;
/// Pieces that are read before they are wanted.
const AHEAD: usize = 2;
