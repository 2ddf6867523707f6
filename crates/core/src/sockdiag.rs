//! What the kernel knows of connections that other processes hold: whether anything was read or written
//! on one, and when it is gone.
//!
//! A connection has a cookie that no other one ever has ([`cookie`]), whatever process holds it under
//! whatever number. [`Watch`] hears of each TCP socket that is destroyed, with its cookie; nobody needs
//! to keep a copy for that, and no privilege. Events that came faster than they were read are lost, and
//! the kernel says so: then [`living`] tells which cookies are left.

mod message;
mod touch;
mod watch;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;
use message::Dump;
pub use touch::{Touch, touch, traffic};
pub use watch::{News, Watch};

/// The number that names a socket for as long as the machine runs (`SO_COOKIE`).
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = [0; 8];
    sys::read_option(socket.as_fd(), libc::SOL_SOCKET, SO_COOKIE, &mut cookie)?;
    Ok(u64::from_ne_bytes(cookie))
}

/// How much of what was sent over a Unix socket has not been read: 0 when the peer has taken
/// everything. The number counts memory, not bytes.
pub fn untaken(socket: impl AsFd) -> io::Result<usize> {
    sys::unsent(socket.as_fd())
}

/// A descriptor of the process at the other end of a Unix socket, as it was when it connected: it
/// becomes readable when that process has ended, and its number is never another's (pidfd_open(2)).
/// An error before Linux 6.5.
pub fn peer_process(socket: impl AsFd) -> io::Result<OwnedFd> {
    Ok(getsockopt(&socket, sockopt::PeerPidfd)?)
}

/// The cookies of all TCP sockets that are bound to a local port and not in TIME_WAIT, in whatever
/// process; of all ports for 0. It walks through the kernel's tables, so it is for the rare moment.
pub fn living(port: u16) -> io::Result<HashSet<u64>> {
    let socket = open()?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut cookies = HashSet::new();
    let mut buffer = vec![0; DUMP_BUFFER];
    for family in [libc::AF_INET, libc::AF_INET6] {
        socket.send(&message::request(family, port))?;
        loop {
            // A message of netlink comes whole or not at all.
            let length = io::Read::read(&mut &socket, &mut buffer)?;
            match message::read_dump(&buffer[..length], &mut cookies)? {
                Dump::GoesOn => {}
                Dump::Over => break,
            }
        }
    }
    Ok(cookies)
}

/// A socket on which the kernel answers about sockets (sock_diag(7)).
fn open() -> io::Result<Socket> {
    let domain = Domain::from(libc::AF_NETLINK);
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    Socket::new(domain, Type::RAW, Some(protocol))
}

/// asm-generic/socket.h; libc does not have it for every architecture.
const SO_COOKIE: libc::c_int = 57;
/// What the kernel makes of a dump at a time (`NLMSG_GOODSIZE` and more).
const DUMP_BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this is for one that never does.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    #[test]
    fn a_socket_keeps_its_cookie_whoever_holds_it() {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let two = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            cookie(&one).unwrap(),
            cookie(one.try_clone().unwrap()).unwrap()
        );
        assert_ne!(cookie(&one).unwrap(), cookie(&two).unwrap());
    }

    #[test]
    fn the_living_are_those_of_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (ours, theirs) = (cookie(&accepted).unwrap(), cookie(&client).unwrap());
        let cookies = living(port).unwrap();
        assert!(cookies.contains(&ours) && cookies.contains(&cookie(&listener).unwrap()));
        assert!(!cookies.contains(&theirs));
        assert!(living(0).unwrap().is_superset(&cookies));
        // The client closes first, so that its end is the one that waits for late packets.
        drop(client);
        assert_eq!((&accepted).read(&mut [0; 1]).unwrap(), 0);
        drop(accepted);
        assert!(!living(port).unwrap().contains(&ours));
    }

    #[test]
    fn what_was_sent_over_a_unix_socket_counts_until_it_is_read() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        assert_eq!(untaken(&a).unwrap(), 0);
        io::Write::write_all(&mut a, b"x").unwrap();
        assert!(untaken(&a).unwrap() > 0);
        b.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(untaken(&a).unwrap(), 0);
    }

    #[test]
    fn the_end_of_the_process_at_the_other_end_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let program = "import socket,sys\ns = socket.socket(socket.AF_UNIX)\n\
                       s.connect(sys.argv[1])\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", program])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        let process = peer_process(&stream);
        let ended = |wait: u16| {
            let process = process.as_ref().unwrap();
            let mut polled = [nix::poll::PollFd::new(
                process.as_fd(),
                nix::poll::PollFlags::POLLIN,
            )];
            nix::poll::poll(&mut polled, wait).unwrap() > 0
        };
        // Before Linux 6.5 there is none.
        let unknown = process
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOPROTOOPT));
        assert!(unknown || !ended(0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(unknown || ended(10_000));
    }
}
