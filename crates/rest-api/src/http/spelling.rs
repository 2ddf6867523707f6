//! Names of fields as somebody spells them, which HTTP/1.1 alone can tell.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future as _, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::Incoming;
use hyper::http::Extensions;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::{Body, Response};

/// How some names are spelled.
#[derive(Debug, Clone, Default)]
pub struct Spelling(Extensions);

impl Spelling {
    /// Of names of fields, each as often as the answer has it, in this order.
    ///
    /// hyper keeps the spelling of a request's names in a type of its own, and heeds it in an answer. There
    /// is no other way to make one than to let it read such a request.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut head, mut fields) = (b"GET / HTTP/1.1\r\n".to_vec(), 0);
        for name in names {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b":\r\n");
            fields += 1;
        }
        head.extend_from_slice(b"\r\n");
        let kept = Rc::new(RefCell::new(Self::default()));
        let keep = kept.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            keep.borrow_mut().0 = request.extensions().clone();
            ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        });
        let reading = http1::Builder::new()
            .header_read_timeout(None)
            .preserve_header_case(true)
            .keep_alive(false)
            .max_headers(fields)
            .serve_connection(Memory { head, taken: 0 }, service);
        // Nothing in it waits for anything. What hyper does not take for names leaves them as usual.
        let _ = pin!(reading).poll(&mut Context::from_waker(Waker::noop()));
        kept.take()
    }
}

/// Makes HTTP/1.1 spell the names of an answer's fields so; others begin each word with a capital.
pub fn spell(response: &mut Response, spelling: &Spelling) {
    response.extensions_mut().extend(spelling.0.clone());
}

/// A request that has come, and a peer who takes everything.
struct Memory {
    head: Vec<u8>,
    taken: usize,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.head[self.taken..];
        let fits = cursor.remaining().min(rest.len());
        cursor.put_slice(&rest[..fits]);
        self.taken += fits;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_keeps_what_it_has_read_whatever_the_names_are() {
        for (names, is_kept) in [
            (&["eTag", "x-ONE", "X-one"][..], true),
            (&["a"; 300], true),
            (&[], true),
            (&["no name"], false),
            (&["content-length"], false),
        ] {
            let spelling = Spelling::of(names.iter().copied());
            assert_eq!(!spelling.0.is_empty(), is_kept, "{names:?}");
        }
    }
}
