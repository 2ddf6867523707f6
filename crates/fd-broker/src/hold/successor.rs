//! The broker that everything goes to: it is sent batches, and confirms each.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use portyard_core::holding::{PATIENCE, PacketError, Packets};
use portyard_core::serve::Connection;
use portyard_core::wire::hold::{MESSAGE_MAX, Record, Reply, Request, Running};
use tokio::time::timeout;

use super::batch::{Item, batch, next_batch};
use super::control::{Received, receive, send};
use crate::inetd::Alone;

/// The way to a successor that has everything but what still comes in.
pub struct Successor {
    packets: Packets<OwnedFd>,
    /// How many batches it has had.
    batches: u32,
}

impl Successor {
    /// One that has had so many batches.
    pub fn new(packets: Packets<OwnedFd>, batches: u32) -> Self {
        Self { packets, batches }
    }

    /// Gives it these, of which it must confirm each batch. Blocks.
    pub fn give(&mut self, items: &[Item]) -> Result<(), PacketError> {
        let mut rest = items;
        while let Some((now, later)) = next_batch(rest) {
            rest = later;
            self.batches += 1;
            let (bytes, descriptors) = batch(self.batches, now);
            self.packets.send(&bytes, &descriptors)?;
            let mut buffer = vec![0; MESSAGE_MAX];
            let message = self.packets.receive(&mut buffer)?;
            let answer = Request::decode(&buffer[..message.length], message.descriptors.len());
            let batch = self.batches;
            if answer != Ok(Request::Received { batch }) {
                return Err(PacketError::Closed);
            }
        }
        Ok(())
    }

    /// The last word.
    pub fn end(self) -> Result<(), PacketError> {
        let over = Reply::Over {
            batches: self.batches,
        };
        self.packets.send(&over.encode(), &[])
    }
}

/// A successor is not handed everything.
pub enum Failure {
    /// It is gone, or does not answer in time.
    Gone(&'static str),
    /// It broke the protocol.
    Protocol,
    /// The kernel refused.
    Io(io::Error),
}

/// Sends everything in batches, each of which is confirmed before the next.
pub async fn send_batches(
    connection: &mut Connection,
    items: &[Item],
    batches: &mut u32,
) -> Result<(), Failure> {
    let mut rest = items;
    while let Some((now, later)) = next_batch(rest) {
        rest = later;
        send_batch(connection, now, batches).await?;
    }
    Ok(())
}

async fn send_batch(
    connection: &mut Connection,
    items: &[Item],
    batches: &mut u32,
) -> Result<(), Failure> {
    *batches += 1;
    let (bytes, descriptors) = batch(*batches, items);
    send_packet(connection, &bytes, &descriptors).await?;
    let received = Request::Received { batch: *batches };
    expect(connection, &received, PATIENCE).await
}

/// Sends what goes over once we have stopped: programs that have a socket for themselves, and when those
/// are all, by a batch without any, the rest.
pub async fn give_rest(
    connection: &mut Connection,
    programs: Vec<Alone>,
    rest: &[Item],
    batches: &mut u32,
) -> Result<(), Failure> {
    let item = |alone: Alone| Item {
        record: Record::Running(Running {
            socket: alone.socket,
            process: alone.pid.unsigned_abs(),
        }),
        descriptors: vec![alone.process],
    };
    let programs: Vec<Item> = programs.into_iter().map(item).collect();
    send_batches(connection, &programs, batches).await?;
    if rest.is_empty() {
        return send_batch(connection, &[], batches).await;
    }
    send_batches(connection, rest, batches).await
}

/// Sends a reply without descriptors.
pub async fn tell(connection: &mut Connection, reply: &Reply) -> Result<(), Failure> {
    send_packet(connection, &reply.encode(), &[]).await
}

async fn send_packet(
    connection: &mut Connection,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let sent = timeout(PATIENCE, send(connection, bytes, descriptors)).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Io(error)),
        Err(_) => Err(Failure::Gone("it takes nothing")),
    }
}

/// The next message must be this one, in time.
pub async fn expect(
    connection: &mut Connection,
    wanted: &Request,
    patience: Duration,
) -> Result<(), Failure> {
    match timeout(patience, receive(connection)).await {
        Ok(Ok(Some(Received::Request(request, _)))) if request == *wanted => Ok(()),
        Ok(Ok(Some(_)) | Err(_)) => Err(Failure::Protocol),
        Ok(Ok(None)) => Err(Failure::Gone("it has closed the connection")),
        Err(_) => Err(Failure::Gone("it has not answered in time")),
    }
}
