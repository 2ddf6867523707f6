//! A connected socket that its loop hears of only when somebody has to wait for it.
//!
//! Most peers have spoken by the time their connection is accepted, or handed to us, so that the first
//! read needs no readiness; and most never make us wait for a write. A socket is registered by the first
//! call that would block, for what that call waits for. So the loop is not woken for each message that a
//! peer takes out of a Unix socket, nor to hear that a fresh connection can be written to.

use std::io::{self, IoSlice, Read};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::Socket;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::task::coop::poll_proceed;

use crate::sys;

/// A connected, non-blocking socket. One task uses it at a time: to wait for one more thing may wake it for
/// nothing, because what it waited for before is registered anew.
#[derive(Debug)]
pub struct Plain {
    held: Held,
    /// A read has left nothing behind: the next one waits.
    drained: bool,
}

#[derive(Debug)]
enum Held {
    /// No loop knows of it.
    Fresh(Socket),
    /// The task is woken when there is something to read.
    Reading(AsyncFd<Socket>),
    /// And when the peer has taken some of what it was sent.
    Both(AsyncFd<Socket>),
    /// Nothing, for as long as it takes to go from one to another.
    Moving,
}

/// What a call did, and whether the next one would block as far as that can be told from it.
pub type Step<R> = io::Result<(R, Next)>;

/// Whether another call is worth while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There may be more, or room for more.
    Try,
    /// There is not.
    Wait,
}

impl Plain {
    pub fn new(socket: Socket) -> Self {
        Self {
            held: Held::Fresh(socket),
            drained: false,
        }
    }

    /// Receives with `receive`, as soon as there is something.
    pub fn poll_in<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(&Socket) -> Step<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match &self.held {
                Held::Fresh(socket) if !self.drained => {
                    let budget = ready!(poll_proceed(cx));
                    match receive(socket) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.drained = true;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        received => {
                            budget.made_progress();
                            return Poll::Ready(received.map(|(received, next)| {
                                self.drained = next == Next::Wait;
                                received
                            }));
                        }
                    }
                }
                Held::Reading(socket) | Held::Both(socket) => {
                    let mut ready = ready!(socket.poll_read_ready(cx))?;
                    if let Some(received) = settle(&mut ready, receive(socket.get_ref())) {
                        return Poll::Ready(received);
                    }
                }
                Held::Fresh(_) | Held::Moving => self.register(Interest::READABLE)?,
            }
        }
    }

    /// Sends with `send`, as soon as the peer takes something.
    pub fn poll_out<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&Socket) -> Step<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            if let Held::Both(socket) = &self.held {
                let mut ready = ready!(socket.poll_write_ready(cx))?;
                if let Some(sent) = settle(&mut ready, send(socket.get_ref())) {
                    return Poll::Ready(sent);
                }
                continue;
            }
            let budget = ready!(poll_proceed(cx));
            match send(self.socket()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.widen(cx)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => {
                    budget.made_progress();
                    return Poll::Ready(sent.map(|(sent, _)| sent));
                }
            }
        }
    }

    /// Waits until the peer takes something, after a send past the loop's knowledge that would have
    /// blocked; from then on the loop is not woken for it any more.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.held, Held::Both(_)) {
            self.widen(cx)?;
        }
        if let Held::Both(socket) = &self.held {
            ready!(socket.poll_write_ready(cx))?.retain_ready();
            self.register(Interest::READABLE)?;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// A send past the loop's knowledge would have blocked.
    pub fn is_full(&self) {
        if let Held::Both(socket) = &self.held {
            let full = |_: &Socket| Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = socket.try_io(Interest::WRITABLE, full);
        }
    }

    /// To be woken when the peer takes something, too.
    fn widen(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let waits = matches!(self.held, Held::Reading(_));
        self.register(Interest::READABLE | Interest::WRITABLE)?;
        if waits {
            // Whoever waited to read is not known to the new registration.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn socket(&self) -> &Socket {
        match &self.held {
            Held::Fresh(socket) => socket,
            Held::Reading(registered) | Held::Both(registered) => registered.get_ref(),
            // It is so within `register` alone, which leaves it otherwise in any case.
            Held::Moving => unreachable!("a socket on the move"),
        }
    }

    fn register(&mut self, interest: Interest) -> io::Result<()> {
        let socket = match mem::replace(&mut self.held, Held::Moving) {
            Held::Fresh(socket) => socket,
            Held::Reading(registered) | Held::Both(registered) => registered.into_inner(),
            Held::Moving => return Err(io::ErrorKind::NotConnected.into()),
        };
        match sys::register_for(socket, interest) {
            Ok(registered) => {
                self.held = if interest.is_writable() {
                    Held::Both(registered)
                } else {
                    Held::Reading(registered)
                };
                Ok(())
            }
            Err((socket, error)) => {
                self.held = Held::Fresh(socket);
                Err(error)
            }
        }
    }
}

/// What a call came to that was made because the loop has said that the socket is ready; `None`: it was
/// not, and the loop will say so again.
fn settle<R>(ready: &mut AsyncFdReadyGuard<'_, Socket>, step: Step<R>) -> Option<io::Result<R>> {
    match step {
        Ok((done, next)) => {
            if next == Next::Wait {
                ready.clear_ready();
            }
            Some(Ok(done))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            ready.clear_ready();
            None
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        Err(error) => Some(Err(error)),
    }
}

/// A byte stream has no more, or takes no more, than it gave or took of what was asked for.
fn step(length: io::Result<usize>, wanted: usize) -> Step<usize> {
    length.map(|length| {
        let short = 0 < length && length < wanted;
        (length, if short { Next::Wait } else { Next::Try })
    })
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = into.initialize_unfilled();
        let read = |mut socket: &Socket| step(socket.read(bytes), bytes.len());
        let length = ready!(self.get_mut().poll_in(cx, read))?;
        into.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let flags = libc::MSG_NOSIGNAL;
        let write = |socket: &Socket| step(socket.send_with_flags(bytes, flags), bytes.len());
        self.get_mut().poll_out(cx, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (flags, wanted) = (libc::MSG_NOSIGNAL, slices.iter().map(|one| one.len()).sum());
        let write = |socket: &Socket| step(socket.send_vectored_with_flags(slices, flags), wanted);
        self.get_mut().poll_out(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of ours to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket().shutdown(Shutdown::Write) {
            // The peer has broken the connection, and hears nothing more anyway.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::time::Duration;

    use socket2::{Domain, Type};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::sleep;

    fn pair(kind: Type) -> (Plain, Socket) {
        let (ours, theirs) = Socket::pair(Domain::UNIX, kind.nonblocking(), None).unwrap();
        (Plain::new(ours), theirs)
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        // Not a timeout, which asks the future once more before it gives up on it.
        tokio::select! {
            biased;
            () = sleep(Duration::from_secs(10)) => panic!("nobody was woken"),
            done = future => done,
        }
    }

    #[tokio::test]
    async fn a_peer_that_has_spoken_is_answered_without_a_registration() {
        let (mut plain, mut peer) = pair(Type::STREAM);
        peer.write_all(b"abc").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(soon(plain.read(&mut bytes)).await.unwrap(), 3);
        plain.write_all(b"abc").await.unwrap();
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 3);
        assert!(matches!(plain.held, Held::Fresh(_)));
        // All has been read, so that the next read waits for the loop without a try.
        assert!(plain.drained);
        drop(peer);
        assert_eq!(soon(plain.read(&mut bytes)).await.unwrap(), 0);
        assert!(matches!(plain.held, Held::Reading(_)));
    }

    #[tokio::test]
    async fn a_buffer_that_was_filled_may_have_left_more_behind() {
        let (mut plain, mut peer) = pair(Type::STREAM);
        peer.write_all(b"abcd").unwrap();
        let mut bytes = [0; 2];
        for expected in [b"ab", b"cd"] {
            assert_eq!(soon(plain.read(&mut bytes)).await.unwrap(), 2);
            assert_eq!(&bytes, expected);
            assert!(matches!(plain.held, Held::Fresh(_)));
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_what_comes() {
        let (mut plain, mut peer) = pair(Type::STREAM);
        let mut bytes = [0; 8];
        for _ in 0..2 {
            let reading = soon(plain.read(&mut bytes));
            let (read, ()) = tokio::join!(reading, async {
                tokio::task::yield_now().await;
                peer.write_all(b"x").unwrap();
            });
            assert_eq!(read.unwrap(), 1);
        }
        assert!(matches!(plain.held, Held::Reading(_)));
    }

    #[tokio::test]
    async fn a_write_that_blocks_forgets_no_reader() {
        let (mut plain, mut peer) = pair(Type::STREAM);
        let read = soon(poll_fn(|cx| {
            let mut bytes = [0; 8];
            let mut into = ReadBuf::new(&mut bytes);
            if let Poll::Ready(read) = Pin::new(&mut plain).poll_read(cx, &mut into) {
                return Poll::Ready(read.map(|()| into.filled().len()));
            }
            if matches!(plain.held, Held::Both(_)) {
                return Poll::Pending;
            }
            // The peer takes nothing, and then says something itself.
            while let Poll::Ready(written) = Pin::new(&mut plain).poll_write(cx, &[0; 4096]) {
                written.unwrap();
            }
            peer.write_all(b"x").unwrap();
            Poll::Pending
        }));
        assert_eq!(read.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_write_that_blocks_goes_on_when_the_peer_reads() {
        let (mut plain, peer) = pair(Type::STREAM);
        let sent = vec![7; 1 << 20];
        peer.set_nonblocking(false).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut peer = peer;
            peer.read_to_end(&mut all).unwrap();
            all
        });
        soon(plain.write_all(&sent)).await.unwrap();
        plain.shutdown().await.unwrap();
        drop(plain);
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[tokio::test]
    async fn a_socket_that_was_full_is_left_alone_once_it_is_not() {
        let (mut plain, mut peer) = pair(Type::SEQPACKET);
        let flags = libc::MSG_NOSIGNAL;
        let fill =
            |plain: &Plain| while plain.socket().send_with_flags(&[0; 4096], flags).is_ok() {};
        for _ in 0..2 {
            fill(&plain);
            plain.is_full();
            let writable = soon(poll_fn(|cx| plain.poll_writable(cx)));
            let (writable, ()) = tokio::join!(writable, async {
                tokio::task::yield_now().await;
                while peer.read(&mut [0; 4096]).is_ok() {}
            });
            writable.unwrap();
            assert!(matches!(plain.held, Held::Reading(_)));
        }
    }
}
