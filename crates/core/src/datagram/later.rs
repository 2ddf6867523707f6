//! Answers that take long: computed on the pool, sent when they are there.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use socket2::{SockAddr, Socket};
use tokio::time::sleep;

use super::FULL_PAUSE;

/// Where a late answer goes, and which of our addresses it leaves from.
#[derive(Debug, Clone)]
pub(super) struct Return {
    pub to: SockAddr,
    pub from: Option<IpAddr>,
}

/// Sends one datagram, waiting for room in the send buffer.
pub(super) async fn send(socket: &Socket, back: &Return, bytes: &[u8]) -> io::Result<()> {
    loop {
        match send_now(socket, back, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !back.to.is_unix() => {
                sleep(FULL_PAUSE).await;
            }
            result => return result,
        }
    }
}

fn send_now(socket: &Socket, back: &Return, bytes: &[u8]) -> io::Result<()> {
    let (Some(to), Some(from)) = (back.to.as_socket(), back.from) else {
        return socket.send_to(bytes, &back.to).map(drop);
    };
    let to = SockaddrStorage::from(to);
    let iov = [io::IoSlice::new(bytes)];
    let send = |control: ControlMessage<'_>| {
        sendmsg(
            socket.as_raw_fd(),
            &iov,
            &[control],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )
    };
    match from {
        IpAddr::V4(from) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(from).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send(ControlMessage::Ipv4PacketInfo(&info))
        }
        IpAddr::V6(from) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            };
            send(ControlMessage::Ipv6PacketInfo(&info))
        }
    }?;
    Ok(())
}
