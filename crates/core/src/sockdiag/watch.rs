//! Hearing of sockets that are destroyed, whoever held them.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;

use nix::sys::socket::{NetlinkAddr, bind};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::{living, message, open};
use crate::sys::{self, Batch};

/// Hears of each TCP socket that the kernel destroys, on the loop that opened it.
pub struct Watch {
    socket: AsyncFd<Rc<Socket>>,
    batch: Batch,
}

/// What a [`Watch`] has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The sockets with these cookies are gone.
    Gone,
    /// Some events were lost: [`living`] tells who is left.
    Lost,
}

impl Watch {
    /// Begins to listen; what is gone by now will not be told. `ports` are the local ports of the
    /// sockets that matter: the kernel keeps all others back, unless these are more than 255.
    ///
    /// An error where the kernel was built without `INET_TCP_DIAG`.
    pub fn open(ports: &[u16]) -> io::Result<Self> {
        let socket = open()?;
        socket.set_nonblocking(true)?;
        // Room for a burst of closes. The kernel gives as much as net.core.rmem_max allows.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        set_ports(&socket, ports)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // Asking once makes the kernel load what sends the events, or says that there is none.
        living(UNUSED_PORT)?;
        Ok(Self {
            socket: sys::register(Rc::new(socket))?,
            batch: Batch::new(BATCH, message::EVENT_LEN, false),
        })
    }

    /// Other ports matter from now on.
    pub fn set_ports(&self, ports: &[u16]) -> io::Result<()> {
        set_ports(self.socket.get_ref(), ports)
    }

    /// Waits for news and appends the cookies to `gone`: with one call of the kernel, as many as have
    /// come, up to 64.
    pub async fn next(&mut self, gone: &mut Vec<u64>) -> io::Result<News> {
        loop {
            let mut ready = poll_fn(|cx| self.socket.poll_read_ready(cx)).await?;
            let socket = self.socket.get_ref().as_fd();
            match receive(&mut self.batch, socket, gone) {
                Ok(()) => return Ok(News::Gone),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    // Until all that has come is read, the kernel drops what comes now, and says so
                    // no second time.
                    while receive(&mut self.batch, socket, gone).is_ok() {}
                    return Ok(News::Lost);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn receive(batch: &mut Batch, socket: BorrowedFd<'_>, gone: &mut Vec<u64>) -> io::Result<()> {
    let count = batch.receive(socket)?;
    let event = |slot| message::cookie_of_event(batch.datagram(slot).payload);
    gone.extend((0..count).filter_map(event));
    Ok(())
}

fn set_ports(socket: &Socket, ports: &[u16]) -> io::Result<()> {
    // More than a filter holds: everything is let through.
    let mut program = message::filter(ports).unwrap_or_else(message::everything);
    sys::set_filter(socket.as_fd(), &mut program)
}

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`, as bits from 0 on.
const GROUPS: u32 = 0b101;
/// Events per call.
const BATCH: usize = 64;
const RECEIVE_BUFFER: usize = 4 << 20;
/// tcpmux, which nobody has.
const UNUSED_PORT: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockdiag::cookie;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, poll};

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    async fn hear(watch: &mut Watch, wanted: usize) -> Vec<u64> {
        let mut gone = Vec::new();
        let hear = async {
            while gone.len() < wanted {
                assert_eq!(watch.next(&mut gone).await.unwrap(), News::Gone);
            }
        };
        tokio::time::timeout(PATIENCE, hear).await.unwrap();
        gone
    }

    #[tokio::test]
    async fn the_last_close_is_heard_of_and_no_other_port() {
        let watched = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = watched.local_addr().unwrap().port();
        let mut watch = Watch::open(&[1, port]).unwrap();
        let (other_client, other_accepted) = pair(&other);
        drop((other_client, other_accepted));
        let (client, accepted) = pair(&watched);
        let copy = accepted.try_clone().unwrap();
        let expected = cookie(&accepted).unwrap();
        drop(client);
        assert_eq!((&accepted).read(&mut [0; 1]).unwrap(), 0);
        drop(accepted);
        let mut early = Vec::new();
        let wait = Duration::from_millis(50);
        assert!(
            tokio::time::timeout(wait, watch.next(&mut early))
                .await
                .is_err(),
            "heard of {early:?} while a copy is open"
        );
        drop(copy);
        assert_eq!(hear(&mut watch, 1).await, [expected]);
    }

    #[tokio::test]
    async fn ipv6_is_heard_of_and_ports_can_change() {
        let Ok(listener) = TcpListener::bind("[::1]:0") else {
            // A machine without IPv6.
            return;
        };
        let mut watch = Watch::open(&[]).unwrap();
        watch
            .set_ports(&[listener.local_addr().unwrap().port()])
            .unwrap();
        let (client, accepted) = pair(&listener);
        let expected = cookie(&accepted).unwrap();
        drop(client);
        assert_eq!((&accepted).read(&mut [0; 1]).unwrap(), 0);
        drop(accepted);
        assert_eq!(hear(&mut watch, 1).await, [expected]);
    }

    #[tokio::test]
    async fn a_flood_of_closes_is_told_as_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut watch = Watch::open(&[port]).unwrap();
        watch.socket.get_ref().set_recv_buffer_size(2048).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (client, accepted) = pair(&listener);
            drop(client);
            assert_eq!((&accepted).read(&mut [0; 1]).unwrap(), 0);
            drop(accepted);
            let mut polled = [PollFd::new(watch.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, 0u16).unwrap();
            if polled[0].revents().unwrap().contains(PollFlags::POLLERR) {
                break;
            }
            assert!(Instant::now() < deadline, "nothing is lost");
        }
        let mut gone = Vec::new();
        let news = async { while watch.next(&mut gone).await.unwrap() != News::Lost {} };
        tokio::time::timeout(PATIENCE, news).await.unwrap();
        // And it goes on.
        let (client, accepted) = pair(&listener);
        let expected = cookie(&accepted).unwrap();
        drop(client);
        assert_eq!((&accepted).read(&mut [0; 1]).unwrap(), 0);
        drop(accepted);
        while !hear(&mut watch, 1).await.contains(&expected) {
            assert!(Instant::now() < deadline, "not heard of");
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);
}
