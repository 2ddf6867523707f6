//! Many datagrams in one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use tokio::net::UdpSocket;

/// Memory for one batch in each direction.
pub struct Batch {
    headers: MultiHeaders<()>,
    /// One slot after the other.
    pub bytes: Vec<u8>,
    /// Bytes of a slot.
    pub slot: usize,
    /// How long the received datagrams are, each in its slot.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// For requests of `size` bytes, and answers as long.
    pub fn new(size: usize) -> Self {
        // One byte more than any right answer tells a wrong one.
        let slot = (size + 1).max(SMALL_ANSWER);
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            bytes: vec![0; slot * BATCH],
            slot,
            lengths: Vec::with_capacity(BATCH),
        }
    }

    /// Receives a batch; `lengths` tells how many and how long.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.lengths.clear();
        let mut slots: Vec<[IoSliceMut<'_>; 1]> = self
            .bytes
            .chunks_exact_mut(self.slot)
            .map(|slot| [IoSliceMut::new(slot)])
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slots.iter_mut(),
            flags,
            None,
        )?;
        self.lengths.extend(received.map(|message| message.bytes));
        Ok(())
    }

    /// Sends the first `count` slots of `size` bytes; returns how many went out.
    pub fn send(&mut self, socket: &UdpSocket, count: usize, size: usize) -> io::Result<usize> {
        let slots: Vec<[IoSlice<'_>; 1]> = self
            .bytes
            .chunks_exact(self.slot)
            .take(count)
            .map(|slot| [IoSlice::new(&slot[..size])])
            .collect();
        let connected: [Option<()>; BATCH] = [None; BATCH];
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            &slots,
            &connected[..count],
            [],
            flags,
        )?;
        Ok(sent.count())
    }
}

/// Datagrams in one system call.
pub const BATCH: usize = 32;
/// More than the answer to a request of one byte.
const SMALL_ANSWER: usize = 512;
