//! The socket options of a server. Accepted connections inherit those of their listener on Linux,
//! so they cost nothing per connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Socket, TcpKeepalive};

use crate::config::{Size, SocketOptions};
use crate::endpoint::Transport;
use crate::sys;

/// Sets what must be set before `bind`, and what is inherited from the listener.
pub(super) fn before_bind(
    socket: &Socket,
    address: SocketAddr,
    transport: Transport,
    options: &SocketOptions,
    share: bool,
) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(options.v6only)?;
    }
    socket.set_reuse_port(share)?;
    if options.freebind {
        if address.is_ipv6() {
            socket.set_freebind_v6(true)?;
        } else {
            socket.set_freebind_v4(true)?;
        }
    }
    let burst = (transport == Transport::Datagram).then_some(DATAGRAM_BUFFER);
    if let Some(size) = options.receive_buffer.map(Size::bytes).or(burst) {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(size) = options.send_buffer {
        socket.set_send_buffer_size(size.bytes())?;
    }
    if let Some(dscp) = options.dscp {
        set_tos(socket, address, dscp << 2)?;
    }
    match transport {
        Transport::Stream | Transport::SeqPacket => stream(socket, options),
        Transport::Datagram if address.ip().is_unspecified() => packet_info(socket, address),
        Transport::Datagram => Ok(()),
    }
}

fn stream(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(options.nodelay)?;
    if !options.keepalive.0.is_zero() {
        let keepalive = TcpKeepalive::new()
            .with_time(at_least_a_second(options.keepalive.0))
            .with_interval(at_least_a_second(options.keepalive_interval.0))
            .with_retries(options.keepalive_probes.max(1).into());
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if !options.user_timeout.0.is_zero() {
        socket.set_tcp_user_timeout(Some(options.user_timeout.0))?;
    }
    if !options.defer_accept.0.is_zero() {
        sys::set_defer_accept(socket, options.defer_accept.0)?;
    }
    Ok(())
}

/// An answer must leave from the address that was asked; on a wildcard socket only the packet
/// itself tells which that was.
pub(super) fn packet_info(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    if address.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Sets the type-of-service or traffic-class byte of what the socket sends.
pub(crate) fn set_tos(socket: &Socket, address: SocketAddr, tos: u8) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_tclass_v6(tos.into())?;
        // A dual-stack socket sends IPv4 as well; on an IPv6-only one this is refused, harmlessly.
        let _ = socket.set_tos_v4(tos.into());
        Ok(())
    } else {
        socket.set_tos_v4(tos.into())
    }
}

/// The kernel counts keepalive times in whole seconds and refuses zero.
fn at_least_a_second(span: Duration) -> Duration {
    span.max(Duration::from_secs(1))
}

/// Datagrams that come while we are busy wait in the receive buffer or are lost. Asking for more
/// than `net.core.rmem_max` gives that much.
const DATAGRAM_BUFFER: usize = 4 << 20;
