//! Batches of datagrams.

use std::io;
use std::mem::{self, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::length_of;

/// A batch of received datagrams and their answers: `recvmmsg(2)`, then `sendmmsg(2)`.
///
/// All memory is allocated once. The pages of a slot become resident only when a datagram reaches
/// that far, so a large `capacity` costs address space, not memory.
pub struct Batch {
    /// Bytes that a slot can receive.
    capacity: usize,
    /// Bytes of control messages that a slot can receive.
    control_length: usize,
    payloads: Vec<u8>,
    answers: Vec<Vec<u8>>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    receive_iovs: Vec<libc::iovec>,
    receive_headers: Vec<libc::mmsghdr>,
    send_iovs: Vec<libc::iovec>,
    send_headers: Vec<libc::mmsghdr>,
    received: usize,
    queued: usize,
    sent: usize,
}

/// Room for IP_PKTINFO or IPV6_PKTINFO and the traffic class, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// What was sent, cut at the batch's capacity.
    pub payload: &'a [u8],
    /// How long it was when it was sent.
    pub length: usize,
    /// Who sent it; `None` for Unix sockets.
    pub source: Option<SocketAddr>,
    /// Whether the sender has an address that an answer can reach.
    pub named: bool,
    /// The address it was sent to, where the socket reports it (`IP_PKTINFO`).
    pub local: Option<IpAddr>,
    /// The type-of-service or traffic-class byte, where the socket reports it.
    pub tos: Option<u8>,
}

/// What to answer a datagram of the batch with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The datagram's own payload.
    Echo,
    /// What was written with [`Batch::answer_buffer`].
    Buffer,
}

impl Batch {
    /// A batch of `slots` datagrams of at most `capacity` bytes each; `control` says whether the
    /// socket reports more than payload and source.
    pub fn new(slots: usize, capacity: usize, control: bool) -> Self {
        let capacity = capacity.max(1);
        let empty_iov = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: mmsghdr and sockaddr_storage are plain C structures for which zero is valid.
        let (header, name) = unsafe {
            (
                mem::zeroed::<libc::mmsghdr>(),
                mem::zeroed::<libc::sockaddr_storage>(),
            )
        };
        let mut batch = Self {
            capacity,
            control_length: if control { CONTROL_LEN } else { 0 },
            payloads: vec![0; slots * capacity],
            answers: vec![Vec::new(); slots],
            names: vec![name; slots],
            controls: vec![Control([0; CONTROL_LEN]); slots],
            receive_iovs: vec![empty_iov; slots],
            receive_headers: vec![header; slots],
            send_iovs: vec![empty_iov; slots],
            send_headers: vec![header; slots],
            received: 0,
            queued: 0,
            sent: 0,
        };
        for slot in 0..slots {
            batch.prepare(slot);
        }
        batch
    }

    /// Points a slot's receive header to the slot's memory, none of which ever moves.
    fn prepare(&mut self, slot: usize) {
        self.receive_iovs[slot] = libc::iovec {
            iov_base: self.payloads[slot * self.capacity..].as_mut_ptr().cast(),
            iov_len: self.capacity,
        };
        let header = &mut self.receive_headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = length_of::<libc::sockaddr_storage>();
        header.msg_iov = &raw mut self.receive_iovs[slot];
        header.msg_iovlen = 1;
        if self.control_length > 0 {
            header.msg_control = self.controls[slot].0.as_mut_ptr().cast();
            header.msg_controllen = self.control_length;
        }
    }

    /// Receives as many datagrams as are waiting, without blocking. `WouldBlock` when none is.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.queued = 0;
        self.sent = 0;
        // The kernel changes the headers it fills, and no others.
        for header in &mut self.receive_headers[..self.received] {
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_storage>();
            header.msg_hdr.msg_controllen = self.control_length;
        }
        self.received = 0;
        let slots = libc::c_uint::try_from(self.names.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: each header points to a name, one iovec and a control buffer of this batch, with
        // their true lengths; they outlive the call, and `&mut self` keeps others away.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.receive_headers.as_mut_ptr(),
                slots,
                // MSG_TRUNC makes msg_len the true length of a datagram that did not fit.
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        self.received = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        Ok(self.received)
    }

    /// The datagram in a slot below the number that [`Batch::receive`] returned.
    pub fn datagram(&self, slot: usize) -> Datagram<'_> {
        let received = &self.receive_headers[..self.received][slot];
        let length = (received.msg_len as usize).min(self.capacity);
        let start = slot * self.capacity;
        let (local, tos) = ancillary(&received.msg_hdr);
        let source = socket_address(&self.names[slot], received.msg_hdr.msg_namelen);
        Datagram {
            payload: &self.payloads[start..start + length],
            length: received.msg_len as usize,
            source,
            // An unnamed Unix socket has an address of its family alone.
            named: source.is_some()
                || received.msg_hdr.msg_namelen > length_of::<libc::sa_family_t>(),
            local,
            tos,
        }
    }

    /// The sender of the datagram in a slot, for an answer that outlives the batch.
    pub fn peer(&self, slot: usize) -> socket2::SockAddr {
        let length = self.receive_headers[..self.received][slot]
            .msg_hdr
            .msg_namelen;
        let mut storage = socket2::SockAddrStorage::zeroed();
        // SAFETY: sockaddr_storage is one of the platform's address types; the kernel wrote the
        // name and its length, which describe a valid address.
        unsafe {
            *storage.view_as::<libc::sockaddr_storage>() = self.names[slot];
            socket2::SockAddr::new(storage, length)
        }
    }

    /// The datagram in a slot and the buffer for its answer, cleared.
    pub fn answer_buffer(&mut self, slot: usize) -> (&[u8], &mut Vec<u8>) {
        let length =
            (self.receive_headers[..self.received][slot].msg_len as usize).min(self.capacity);
        let start = slot * self.capacity;
        let answer = &mut self.answers[slot];
        answer.clear();
        (&self.payloads[start..start + length], answer)
    }

    /// Queues the answer to a slot. It leaves from `from`, the address that was asked, if given.
    pub fn queue(&mut self, slot: usize, reply: Reply, from: Option<IpAddr>) {
        let received = &self.receive_headers[..self.received][slot];
        let length = (received.msg_len as usize).min(self.capacity);
        let name_length = received.msg_hdr.msg_namelen;
        let iov = &mut self.send_iovs[self.queued];
        *iov = match reply {
            Reply::Echo => libc::iovec {
                iov_base: self.payloads[slot * self.capacity..].as_mut_ptr().cast(),
                iov_len: length,
            },
            Reply::Buffer => libc::iovec {
                iov_base: self.answers[slot].as_mut_ptr().cast(),
                iov_len: self.answers[slot].len(),
            },
        };
        let header = &mut self.send_headers[self.queued].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = name_length;
        header.msg_iov = iov;
        header.msg_iovlen = 1;
        let control = from.map_or(0, |from| write_source(&mut self.controls[slot], from));
        header.msg_control = match control {
            0 => std::ptr::null_mut(),
            _ => self.controls[slot].0.as_mut_ptr().cast(),
        };
        header.msg_controllen = control;
        self.queued += 1;
    }

    /// Sends what is queued, without blocking, and returns how many went out in all.
    ///
    /// After an error the call can be repeated (`WouldBlock`), or the datagram that failed be left
    /// out with [`Batch::skip`].
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.sent < self.queued {
            let pending = &mut self.send_headers[self.sent..self.queued];
            let count = libc::c_uint::try_from(pending.len()).unwrap_or(libc::c_uint::MAX);
            // SAFETY: `queue` pointed each of these headers to a name, an iovec and a control
            // buffer of this batch with their true lengths, and nothing has moved since: all of
            // them are heap buffers of fixed size, and an answer is written before it is queued.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    pending.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => self.sent += sent,
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }

    /// Leaves out the datagram at which [`Batch::send`] failed.
    pub fn skip(&mut self) {
        self.sent = (self.sent + 1).min(self.queued);
    }

    /// Bytes and number of the answers queued since the last [`Batch::receive`].
    pub fn queued(&self) -> (usize, usize) {
        let bytes = self.send_iovs[..self.queued]
            .iter()
            .map(|iov| iov.iov_len)
            .sum();
        (bytes, self.queued)
    }
}

/// Local address and traffic class out of a received header's control messages.
fn ancillary(header: &libc::msghdr) -> (Option<IpAddr>, Option<u8>) {
    let (mut local, mut tos) = (None, None);
    if header.msg_controllen == 0 {
        return (local, tos);
    }
    // SAFETY: the header came back from recvmmsg with a control buffer of ours, and CMSG_FIRSTHDR
    // and CMSG_NXTHDR stay inside msg_controllen. Payloads are read unaligned, each after checking
    // level and type, which fix their size for the kernel that wrote them.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = message.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    // ipi_addr is where the packet went to; ipi_spec_dst is what to answer from
                    // (for a broadcast, the interface's own address).
                    local = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = Some(*data),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class: libc::c_int = data.cast::<libc::c_int>().read_unaligned();
                    tos = u8::try_from(class).ok();
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    (local, tos)
}

/// Writes the control message that makes an answer leave from `from`; returns its length.
fn write_source(control: &mut Control, from: IpAddr) -> usize {
    // SAFETY: all of these are plain C structures for which zero is valid; CMSG_LEN and CMSG_SPACE
    // only compute, and CONTROL_LEN has room for the larger of the two messages.
    unsafe {
        let head = libc::CMSG_LEN(0) as usize;
        let (level, kind, length) = match from {
            IpAddr::V4(from) => {
                let mut info: libc::in_pktinfo = mem::zeroed();
                info.ipi_spec_dst.s_addr = u32::from(from).to_be();
                control
                    .0
                    .as_mut_ptr()
                    .add(head)
                    .cast::<libc::in_pktinfo>()
                    .write_unaligned(info);
                (
                    libc::IPPROTO_IP,
                    libc::IP_PKTINFO,
                    size_of::<libc::in_pktinfo>(),
                )
            }
            IpAddr::V6(from) => {
                let mut info: libc::in6_pktinfo = mem::zeroed();
                info.ipi6_addr.s6_addr = from.octets();
                control
                    .0
                    .as_mut_ptr()
                    .add(head)
                    .cast::<libc::in6_pktinfo>()
                    .write_unaligned(info);
                (
                    libc::IPPROTO_IPV6,
                    libc::IPV6_PKTINFO,
                    size_of::<libc::in6_pktinfo>(),
                )
            }
        };
        let mut header: libc::cmsghdr = mem::zeroed();
        header.cmsg_level = level;
        header.cmsg_type = kind;
        let length = u32::try_from(length).unwrap_or(0);
        header.cmsg_len = libc::CMSG_LEN(length) as usize;
        (&raw mut *control).cast::<libc::cmsghdr>().write(header);
        libc::CMSG_SPACE(length) as usize
    }
}

/// The Internet address that the kernel wrote, if it is one.
fn socket_address(name: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET if length >= length_of::<libc::sockaddr_in>() => {
            // SAFETY: sockaddr_storage is at least as large and as aligned as sockaddr_in, and the
            // kernel filled one in: family and length say so.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 if length >= length_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// in6_pktinfo (40 with its header) and a traffic class (24), rounded up.
const CONTROL_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_batch_receives_and_answers_from_the_asked_address() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::Ipv4PacketInfo, &true)
            .unwrap();
        server.set_nonblocking(true).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::from(([127, 0, 0, 9], server.local_addr().unwrap().port()));
        let mut batch = Batch::new(4, 16, true);
        assert_eq!(
            batch.receive(server.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        client.send_to(b"one", to).unwrap();
        client.send_to(&[7; 17], to).unwrap();
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 2);
        let first = batch.datagram(0);
        assert_eq!(first.payload, b"one");
        assert_eq!(first.source, Some(client.local_addr().unwrap()));
        assert_eq!(first.local, Some([127, 0, 0, 9].into()));
        assert_eq!((first.length, batch.datagram(1).length), (3, 17));
        assert_eq!(batch.datagram(1).payload, [7; 16]);
        let local = first.local;
        batch.queue(0, Reply::Echo, local);
        batch.answer_buffer(1).1.extend_from_slice(b"two");
        batch.queue(1, Reply::Buffer, local);
        assert_eq!(batch.queued(), (6, 2));
        batch.send(server.as_fd()).unwrap();
        let mut buffer = [0; 16];
        for expected in [&b"one"[..], b"two"] {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (expected, to));
        }
    }

    #[test]
    fn ipv6_reports_the_asked_address_and_the_class() {
        let server = UdpSocket::bind("[::]:0").unwrap();
        let socket = socket2::SockRef::from(&server);
        socket.set_recv_tclass_v6(true).unwrap();
        nix::sys::socket::setsockopt(
            &server,
            nix::sys::socket::sockopt::Ipv6RecvPacketInfo,
            &true,
        )
        .unwrap();
        let client = UdpSocket::bind("[::1]:0").unwrap();
        let to = SocketAddr::from((Ipv6Addr::LOCALHOST, server.local_addr().unwrap().port()));
        client.send_to(b"x", to).unwrap();
        let mut batch = Batch::new(1, 16, true);
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
        assert_eq!(batch.datagram(0).local, Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(batch.datagram(0).tos, Some(0));
        batch.queue(0, Reply::Echo, batch.datagram(0).local);
        batch.send(server.as_fd()).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, to));
    }
}
