//! A TLS session that two threads share.
//!
//! The socket never blocks, and nobody waits while holding the session: a thread takes the session,
//! moves what can be moved between it and the socket, lets go, and waits for the socket. So a reader
//! that waits for the server does not hold up a writer, nor the other way round.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use portyard_core::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::Socket;

use super::{Sent, is_no_error, wait};

/// The session and the socket it goes over.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
    tls: Mutex<ClientConnection>,
    /// In milliseconds.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

impl Session {
    /// Has the handshake, in at most `timeout`.
    pub fn open(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        timeout: Duration,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let tls = ClientConnection::new(config, name).map_err(broken)?;
        let session = Self {
            socket,
            tls: Mutex::new(tls),
            read_timeout: AtomicU64::new(millis(timeout)),
            write_timeout: AtomicU64::new(millis(timeout)),
        };
        session.shake(Instant::now() + timeout)?;
        Ok(session)
    }

    /// The channel binding.
    pub fn exporter(&self) -> io::Result<[u8; 32]> {
        tls::exporter(&self.lock()).map_err(broken)
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.read_timeout.store(millis(timeout), Ordering::Relaxed);
    }

    pub fn set_write_timeout(&self, timeout: Duration) {
        self.write_timeout.store(millis(timeout), Ordering::Relaxed);
    }

    /// Reads; 0 once the server has ended the session, and an error if the connection has ended
    /// without that.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = deadline(&self.read_timeout);
        loop {
            let events = {
                let mut tls = self.lock();
                match tls.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    end => return end,
                }
                if self.take_in(&mut tls)? {
                    continue;
                }
                // Our half may be closed already; that is no reason not to read.
                events(self.give_out(&mut tls).unwrap_or(true))
            };
            wait(self.socket.as_fd(), events, deadline)?;
        }
    }

    /// Takes a beginning of `bytes` over, once everything before it is on its way. When that takes
    /// too long, nothing of it was taken.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let mut tls = self.lock();
        let length = tls.writer().write(bytes)?;
        self.give_out(&mut tls)?;
        Ok(length)
    }

    /// Waits until everything is on its way.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_until(deadline(&self.write_timeout))
    }

    /// Ends our half of the session, and of the connection.
    pub fn close_write(&self) -> io::Result<()> {
        self.lock().send_close_notify();
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Sends a beginning of `bytes`, unless the server has something to say.
    pub fn send_watching(&self, bytes: &[u8], timeout: Duration) -> io::Result<Sent> {
        let deadline = Instant::now() + timeout;
        loop {
            let events = {
                let mut tls = self.lock();
                while !has_news(&mut tls) && self.take_in(&mut tls)? {}
                if has_news(&mut tls) {
                    return Ok(Sent::Answered);
                }
                if self.give_out(&mut tls)? {
                    let length = tls.writer().write(bytes)?;
                    self.give_out(&mut tls)?;
                    return Ok(Sent::Taken(length));
                }
                events(false)
            };
            wait(self.socket.as_fd(), events, deadline)?;
        }
    }

    fn shake(&self, deadline: Instant) -> io::Result<()> {
        loop {
            let events = {
                let mut tls = self.lock();
                let all_out = self.give_out(&mut tls)?;
                if !tls.is_handshaking() {
                    break;
                }
                if self.take_in(&mut tls)? {
                    if tls.is_handshaking() && has_news(&mut tls) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    continue;
                }
                events(all_out)
            };
            wait(self.socket.as_fd(), events, deadline)?;
        }
        self.flush_until(deadline)
    }

    fn flush_until(&self, deadline: Instant) -> io::Result<()> {
        while !self.give_out(&mut self.lock())? {
            wait(self.socket.as_fd(), PollFlags::POLLOUT, deadline)?;
        }
        Ok(())
    }

    /// Moves a piece from the socket into the session, if one is there. The end of the connection
    /// is a piece too, which [`has_news`] and a read tell.
    fn take_in(&self, tls: &mut ClientConnection) -> io::Result<bool> {
        match tls.read_tls(&mut &self.socket) {
            Ok(_) => {}
            Err(error) if is_no_error(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let processed = tls.process_new_packets().map_err(broken);
        // An answer of the protocol itself, or why we end it. Who is gone does not need it.
        let _ = self.give_out(tls);
        processed?;
        Ok(true)
    }

    /// Moves what the session has to send to the socket; whether that was all.
    fn give_out(&self, tls: &mut ClientConnection) -> io::Result<bool> {
        while tls.wants_write() {
            match tls.write_tls(&mut &self.socket) {
                Ok(_) => {}
                Err(error) if is_no_error(&error) => return Ok(false),
                Err(error) => return Err(self.last_words(tls, error)),
            }
        }
        Ok(true)
    }

    /// A server that closes may have said why; that tells more than that the connection is broken.
    fn last_words(&self, tls: &mut ClientConnection, error: io::Error) -> io::Error {
        while let Ok(1..) = tls.read_tls(&mut &self.socket) {
            if let Err(said) = tls.process_new_packets() {
                return broken(said);
            }
        }
        error
    }

    fn lock(&self) -> MutexGuard<'_, ClientConnection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    /// Ends the session if that has not been done, as far as it goes without waiting.
    fn drop(&mut self) {
        let mut tls = self.lock();
        tls.send_close_notify();
        while tls.wants_write() && tls.write_tls(&mut &self.socket).is_ok() {}
    }
}

/// Whether there is something to read, the end included.
fn has_news(tls: &mut ClientConnection) -> bool {
    let first = tls.reader().into_first_chunk();
    !matches!(first, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What to wait for: the server, and room for what is still to be sent.
fn events(all_out: bool) -> PollFlags {
    if all_out {
        PollFlags::POLLIN
    } else {
        PollFlags::POLLIN | PollFlags::POLLOUT
    }
}

/// As tokio-rustls has it, so that there is one way to tell such an error.
fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn deadline(timeout: &AtomicU64) -> Instant {
    Instant::now() + Duration::from_millis(timeout.load(Ordering::Relaxed))
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use portyard_core::tls::{ClientTls, Pin};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    pub type Peer = StreamOwned<ServerConnection, UnixStream>;

    /// A session with a server in the same process, over a socket that holds little.
    pub fn pair() -> (Session, Peer) {
        let issued = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let pin = Pin(tls::fingerprint(issued.cert.der()));
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
            let mut theirs = theirs;
            while tls.is_handshaking() {
                tls.complete_io(&mut theirs).unwrap();
            }
            StreamOwned::new(tls, theirs)
        });
        let client = ClientTls {
            pin: Some(pin),
            ..ClientTls::default()
        };
        let socket = Socket::from(OwnedFd::from(ours));
        socket.set_send_buffer_size(8192).unwrap();
        let (config, name) = (client.config().unwrap(), client.name(None).unwrap());
        let session = Session::open(socket, config, name, SOON).unwrap();
        (session, server.join().unwrap())
    }

    #[test]
    fn what_the_server_does_not_take_is_waited_for_by_a_flush() {
        let (session, mut server) = pair();
        let taken = session.write(&vec![b'x'; 60_000]).unwrap();
        session.set_write_timeout(Duration::from_millis(1));
        let full = session.flush().unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        // Nothing of the next piece is taken before.
        let full = session.write(b"y").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        session.set_write_timeout(SOON);
        let reading = thread::spawn(move || {
            let mut all = vec![0; taken];
            server.read_exact(&mut all).unwrap();
            all
        });
        session.flush().unwrap();
        assert_eq!(reading.join().unwrap(), vec![b'x'; taken]);
    }

    #[test]
    fn a_reader_that_waits_does_not_hold_up_a_writer() {
        let (session, mut server) = pair();
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut answer = [0; 10];
                session
                    .read(&mut answer)
                    .map(|length| answer[..length].to_vec())
            });
            let mut writer = 0;
            while writer < 100_000 {
                writer += session.write(&[b'x'; 1000]).unwrap();
                session.flush().unwrap();
                server.read_exact(&mut [0; 1000]).unwrap();
            }
            server.write_all(b"done").unwrap();
            assert_eq!(reading.join().unwrap().unwrap(), b"done");
        });
    }

    #[test]
    fn what_is_left_to_send_goes_out_while_an_answer_is_waited_for() {
        let (session, mut server) = pair();
        let taken = session.write(&vec![b'x'; 60_000]).unwrap();
        let serving = thread::spawn(move || {
            server.read_exact(&mut vec![0; taken]).unwrap();
            server.write_all(b"all").unwrap();
            server
        });
        let mut answer = [0; 10];
        assert_eq!(session.read(&mut answer).unwrap(), 3);
        drop(serving.join().unwrap());
        let end = session.read(&mut answer).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    const SOON: Duration = Duration::from_secs(20);
}
