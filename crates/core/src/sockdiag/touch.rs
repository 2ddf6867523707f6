//! Whether anybody has read from or written to a connection: proof out of the kernel's counters.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, SockRef};

use crate::sys;

/// What a connection has seen since it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Nothing was read or written, and the peer still waits: whoever gets it next finds it as it came.
    None,
    /// Something was read or written, or the connection is on its way to its end.
    Some,
    /// The kernel keeps no such counts: it is no TCP connection.
    Unknown,
}

/// Finds out what was done with a connection. When in doubt, something was.
///
/// Looking at bytes without taking them (`MSG_PEEK`) does not count. Nor do socket options: those
/// that a worker sets stay set.
pub fn touch(socket: impl AsFd) -> io::Result<Touch> {
    let socket = socket.as_fd();
    if SockRef::from(&socket).domain()? == Domain::UNIX {
        return Ok(Touch::Unknown);
    }
    let mut found = Touch::Some;
    // What arrives between the two looks makes it seem touched, and never the other way round.
    for _ in 0..LOOKS {
        let unread = sys::unread(socket)?;
        let Some(counts) = Counts::read(socket)? else {
            return Ok(Touch::Unknown);
        };
        found = counts.judge(unread, sys::unsent(socket)?);
        if found == Touch::None {
            break;
        }
    }
    Ok(found)
}

/// The bytes that a connection has received from its peer and that were written to it, in whatever process
/// that was. `None` for what is no TCP connection. For accepted connections.
pub fn traffic(socket: impl AsFd) -> io::Result<Option<(u64, u64)>> {
    let socket = socket.as_fd();
    let mut found = None;
    for _ in 0..LOOKS {
        let before = sys::unsent(socket)?;
        let Some(counts) = Counts::read(socket)? else {
            return Ok(None);
        };
        // What the peer has acknowledged, and what still waits for that.
        let written = (counts.acknowledged + before as u64).saturating_sub(counts.own_end());
        found = Some((counts.received - counts.end(), written));
        if sys::unsent(socket)? == before {
            break;
        }
    }
    Ok(found)
}

/// What TCP_INFO counts of a connection.
#[derive(Debug, Clone, Copy)]
struct Counts {
    state: u8,
    acknowledged: u64,
    received: u64,
    sent: u64,
}

impl Counts {
    fn read(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let mut info = [0; SENT_AT + 8];
        match sys::read_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info) {
            // Bytes sent are counted since Linux 4.19.
            Ok(length) if length < info.len() => Ok(None),
            Ok(_) => Ok(Some(Self::of(&info))),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(info: &[u8; SENT_AT + 8]) -> Self {
        let count = |at: usize| {
            let bytes = info[at..].first_chunk().copied();
            u64::from_ne_bytes(bytes.unwrap_or_default())
        };
        Self {
            state: info[0],
            acknowledged: count(ACKNOWLEDGED_AT),
            received: count(RECEIVED_AT),
            sent: count(SENT_AT),
        }
    }

    /// The peer's end of the stream, where it has come, counts as one byte received.
    fn end(self) -> u64 {
        let has_come = [CLOSE_WAIT, LAST_ACK, CLOSING, TIME_WAIT].contains(&self.state);
        u64::from(has_come).min(self.received)
    }

    /// Our own end of the stream, where it was sent, counts as one byte written.
    fn own_end(self) -> u64 {
        u64::from([FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING].contains(&self.state))
    }

    fn judge(self, unread: usize, unsent: usize) -> Touch {
        if ![ESTABLISHED, CLOSE_WAIT].contains(&self.state) {
            return Touch::Some;
        }
        let is_whole = self.received == unread as u64 + self.end();
        if is_whole && self.sent == 0 && unsent == 0 {
            Touch::None
        } else {
            Touch::Some
        }
    }
}

/// A peer that sends all the time is met between two segments.
const LOOKS: usize = 3;
/// linux/tcp.h, `struct tcp_info`: `tcpi_bytes_acked`, `tcpi_bytes_received` and `tcpi_bytes_sent`.
const ACKNOWLEDGED_AT: usize = 120;
const RECEIVED_AT: usize = 128;
const SENT_AT: usize = 200;
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        (client, accepted)
    }

    /// Waits until so many bytes wait in `socket`.
    fn arrive(socket: &TcpStream, bytes: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while sys::unread(socket.as_fd()).unwrap() < bytes {
            assert!(Instant::now() < deadline);
        }
    }

    fn wait_for(socket: &TcpStream, expected: Touch) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while touch(socket).unwrap() != expected {
            assert!(Instant::now() < deadline, "{:?}", touch(socket));
        }
    }

    #[test]
    fn what_has_passed_is_counted_without_the_end() {
        let (mut client, mut accepted) = pair();
        assert_eq!(traffic(&accepted).unwrap(), Some((0, 0)));
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut said = Vec::new();
        accepted.read_to_end(&mut said).unwrap();
        accepted.write_all(b"ok").unwrap();
        assert_eq!(traffic(&accepted).unwrap(), Some((5, 2)));
        // Whether the peer has read it or not.
        accepted.set_nonblocking(true).unwrap();
        let mut written = 2;
        while let Ok(length) = accepted.write(&[7; 10_000]) {
            written += length as u64;
        }
        assert_eq!(traffic(&accepted).unwrap(), Some((5, written)));
        accepted.shutdown(Shutdown::Write).unwrap();
        assert_eq!(traffic(&accepted).unwrap(), Some((5, written)));
        assert_eq!(traffic(UnixStream::pair().unwrap().0).unwrap(), None);
    }

    #[test]
    fn what_waits_unread_is_untouched_and_a_look_at_it_too() {
        let (mut client, accepted) = pair();
        assert_eq!(touch(&accepted).unwrap(), Touch::None);
        client.write_all(b"hello").unwrap();
        arrive(&accepted, 5);
        accepted.peek(&mut [0; 3]).unwrap();
        assert_eq!(touch(&accepted).unwrap(), Touch::None);
    }

    #[test]
    fn a_peer_that_has_ended_its_side_is_untouched() {
        for bytes in [&b""[..], b"hello"] {
            let (mut client, accepted) = pair();
            client.write_all(bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            arrive(&accepted, bytes.len());
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut state = [0];
            while state != [CLOSE_WAIT] {
                assert!(Instant::now() < deadline);
                sys::read_option(accepted.as_fd(), level, name, &mut state).unwrap();
            }
            assert_eq!(touch(&accepted).unwrap(), Touch::None);
            if bytes.is_empty() {
                continue;
            }
            (&accepted).read_exact(&mut [0; 1]).unwrap();
            assert_eq!(touch(&accepted).unwrap(), Touch::Some);
        }
    }

    #[test]
    fn one_byte_read_is_a_touch() {
        let (mut client, mut accepted) = pair();
        client.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 1]).unwrap();
        arrive(&accepted, 4);
        assert_eq!(touch(&accepted).unwrap(), Touch::Some);
    }

    #[test]
    fn one_byte_written_is_a_touch_even_when_it_has_arrived() {
        let (mut client, mut accepted) = pair();
        accepted.write_all(b"x").unwrap();
        assert_eq!(touch(&accepted).unwrap(), Touch::Some);
        client.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(touch(&accepted).unwrap(), Touch::Some);
    }

    #[test]
    fn an_end_that_was_sent_and_a_reset_are_touches() {
        let (_client, accepted) = pair();
        accepted.shutdown(Shutdown::Write).unwrap();
        assert_eq!(touch(&accepted).unwrap(), Touch::Some);
        let (client, accepted) = pair();
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        wait_for(&accepted, Touch::Some);
    }

    #[test]
    fn of_a_unix_socket_nothing_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(touch(&ours).unwrap(), Touch::Unknown);
    }
}
