//! A body that a future makes, piece by piece.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Bytes, Frame, SizeHint};

/// The sending end of [`Body::produce`](super::Body::produce).
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

/// See [`Body::produce`](super::Body::produce).
pub struct Produced {
    making: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
    piece: Rc<RefCell<Option<Frame<Bytes>>>>,
    length: Option<u64>,
}

impl Produced {
    pub fn new<F>(length: Option<u64>, make: impl FnOnce(Sender) -> F) -> Self
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let piece = Rc::new(RefCell::new(None));
        Self {
            making: Some(Box::pin(make(Sender(piece.clone())))),
            piece,
            length,
        }
    }
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
