//! Sockets that are given to programs as a whole: streams and datagrams with `wait`.
//!
//! Nobody reads here. A socket that becomes readable starts its program, and until that ends the
//! socket is the program's alone. One that ends without having read anything is not started again
//! at once, and a datagram that three of them left unread is thrown away.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrLike, SockaddrStorage, recvmsg};
use portyard_core::access::Action as Verdict;
use portyard_core::clock::Now;
use portyard_core::endpoint::Transport;
use portyard_core::listen::{Bound, UnixFile};
use portyard_core::sys::{register, register_descriptor};
use socket2::Socket;
use tokio::sync::watch;

use super::entry::{Action, Watch};
use super::launcher::{LAST_WORDS, Launcher, tell_errors};
use super::metrics::Refusal;
use crate::process::{Backoff, Start, Stderr};

/// The file of a Unix socket, which one of several owners takes.
pub type SharedFile = Arc<Mutex<Option<UnixFile>>>;

/// Takes the file, to remove it or to leave it.
pub fn take_file(file: &SharedFile) -> Option<UnixFile> {
    // Taking it is one assignment.
    file.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A socket and what is to be done with it.
pub struct Watched {
    /// The socket.
    pub bound: Bound,
    /// Its file, where it has one: ours to remove, unless somebody has taken it.
    pub file: SharedFile,
    /// What a reload can change; `None`: the service is gone.
    pub service: watch::Receiver<Option<Watch>>,
}

/// What has come first: enough to know it again.
#[derive(Debug, PartialEq, Eq)]
struct First {
    source: Option<SocketAddr>,
    length: usize,
    begins: Vec<u8>,
}

/// What a turn came to.
enum Turn {
    /// The next may follow at once.
    Done,
    /// The program left its work undone after running so long.
    Undone(Duration),
    /// All is to end.
    Over,
}

impl Watched {
    /// Starts the program whenever something comes, until the service is gone or the broker drains.
    pub async fn run(self, launcher: Rc<Launcher>) {
        let Self {
            bound,
            file,
            mut service,
        } = self;
        let Bound { socket, .. } = bound;
        let socket = Rc::new(socket);
        let mut backoff: Option<Backoff> = None;
        let mut undone = 0_u32;
        // Whether a predecessor's program may have the socket: the gate may have been opened before we
        // first look, so whether it is closed says nothing then.
        let mut unsure = true;
        loop {
            let Some(watch) = service.borrow_and_update().clone() else {
                break;
            };
            if unsure || launcher.gate.is_closed() {
                tokio::select! {
                    () = launcher.gate.is(false) => {}
                    () = launcher.draining.cancelled() => break,
                }
                if !wait_for_predecessor(&launcher, &watch, &socket).await {
                    break;
                }
                unsure = false;
                continue;
            }
            tokio::select! {
                ready = readable(&socket) => if let Err(error) = ready {
                    tracing::error!(service = %watch.entry.name, %error, "the socket cannot be watched");
                    break;
                },
                // What it becomes is looked at above.
                _ = service.changed() => continue,
                () = launcher.gate.is(true) => continue,
                () = launcher.draining.cancelled() => break,
            }
            if launcher.gate.is_closed() {
                continue;
            }
            let turn = turn(&launcher, &watch, &socket, undone >= UNREAD_MAX).await;
            match turn {
                Turn::Done => (undone, backoff) = (0, None),
                Turn::Over => break,
                Turn::Undone(ran) => {
                    undone += 1;
                    let backoff =
                        backoff.get_or_insert_with(|| Backoff::new(watch.entry.restart.clone()));
                    let wait = backoff.after(ran);
                    launcher.metrics(&watch.entry).unread.inc();
                    tracing::warn!(service = %watch.entry.name, ?wait, "the program left what had come unread");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = service.changed() => {}
                        () = launcher.draining.cancelled() => break,
                    }
                }
            }
        }
        drop(take_file(&file));
    }
}

/// Waits for the end of a predecessor's program that has the socket for itself, if one has; false when the
/// broker drains meanwhile.
async fn wait_for_predecessor(launcher: &Rc<Launcher>, watch: &Watch, socket: &Socket) -> bool {
    if let Some((pid, process)) = launcher.elsewhere(socket) {
        let name = &watch.entry.name;
        tracing::info!(service = %name, pid, "a program of the predecessor has the socket until it ends");
        let registered = process.try_clone().and_then(register_descriptor);
        let _alone = launcher.leave_alone(socket, pid, Some(process));
        match registered {
            Ok(registered) => tokio::select! {
                _ = registered.readable() => {}
                () = launcher.draining.cancelled() => return false,
            },
            Err(error) => tracing::warn!(service = %name, %error, "its end cannot be waited for"),
        }
    }
    // Nobody waits in the socket any more.
    let _ = socket.set_nonblocking(true);
    true
}

/// Deals with something that has come.
async fn turn(launcher: &Rc<Launcher>, watch: &Watch, socket: &Rc<Socket>, give_up: bool) -> Turn {
    let entry = &watch.entry;
    let datagrams = watch.transport == Transport::Datagram;
    let first = datagrams.then(|| peek(socket)).flatten();
    if datagrams && first.is_none() {
        // An error that was waiting (a port unreachable), or a checksum that was wrong: it is gone.
        return Turn::Done;
    }
    let refusal = judge(launcher, watch, first.as_ref());
    if refusal.is_some() || give_up && datagrams {
        if let Some(why) = refusal {
            launcher.metrics(entry).refuse(why);
        } else {
            tracing::warn!(service = %entry.name, source = ?first.and_then(|first| first.source), "a datagram that nobody reads is thrown away");
        }
        discard(socket, watch.transport);
        return Turn::Done;
    }
    let Action::Program(program) = &entry.action else {
        return Turn::Over;
    };
    // A program waits in its reads; the flag is the socket's, so ours, too, until it has ended.
    let start = || -> io::Result<Start> {
        socket.set_nonblocking(false)?;
        let copy = || socket.as_fd().try_clone_to_owned();
        let stdout: OwnedFd = copy()?;
        Ok(Start {
            stdin: copy()?.into(),
            stdout: stdout.into(),
            stderr: Some(match program.stderr() {
                Stderr::Log => Stdio::piped(),
                Stderr::Null => Stdio::null(),
                Stderr::Peer => copy()?.into(),
            }),
            ..Start::default()
        })
    };
    let process = match start() {
        Ok(start) => launcher.start(entry, program, start, None),
        Err(error) => {
            tracing::error!(service = %entry.name, %error, "the program cannot be given its socket");
            None
        }
    };
    let Some(mut process) = process else {
        let _ = socket.set_nonblocking(true);
        return Turn::Undone(Duration::ZERO);
    };
    let alone = launcher.leave_alone(socket, process.child.pid(), None);
    let started = Instant::now();
    let errors = process.child.take_stderr();
    let telling =
        tokio::task::spawn_local(tell_errors(errors, entry.name.clone(), process.child.pid()));
    let (status, over) = tokio::select! {
        status = process.child.wait() => (Some(status), false),
        () = launcher.ending.cancelled() => {
            if program.outlives() {
                (None, true)
            } else {
                (Some(process.child.stop().await), true)
            }
        }
    };
    drop(alone);
    let ran = started.elapsed();
    process.end(entry, status, ran, None);
    if over {
        return Turn::Over;
    }
    // Its last words may still be in the pipe; who inherited that is not waited for.
    let _ = tokio::time::timeout(LAST_WORDS, telling).await;
    let _ = socket.set_nonblocking(true);
    let is_unread = match first {
        Some(first) => peek(socket).is_some_and(|now| now == first),
        None => ran < SHORT && is_readable(socket),
    };
    if is_unread {
        Turn::Undone(ran)
    } else {
        Turn::Done
    }
}

/// Why what has come may not start the program.
fn judge(launcher: &Launcher, watch: &Watch, first: Option<&First>) -> Option<Refusal> {
    let now = Now::read().seconds;
    let local = now.saturating_add(launcher.zone.offset(now).into());
    if !watch.entry.times.allow(local) {
        return Some(Refusal::Time);
    }
    let source: Option<IpAddr> = first
        .and_then(|first| first.source)
        .map(|source| source.ip());
    let denied = source.is_some_and(|source| watch.access.check(source) == Verdict::Deny);
    denied.then_some(Refusal::Access)
}

/// Waits until something has come. Registered anew each time, so that what comes while a program has
/// the socket wakes nobody here.
async fn readable(socket: &Rc<Socket>) -> io::Result<()> {
    let registered = register(socket.clone())?;
    registered.readable().await.map(|_| ())
}

fn is_readable(socket: &Socket) -> bool {
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Looks at the first datagram without taking it.
fn peek(socket: &Socket) -> Option<First> {
    let mut buffer = [0; 512];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, None, flags).ok()?;
    let (length, source) = (message.bytes, message.address);
    let source = source.filter(|source| source.len() > 0).and_then(internet);
    let begins = buffer[..length.min(buffer.len())].to_vec();
    Some(First {
        source,
        length,
        begins,
    })
}

fn internet(address: SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::V4((*v4).into())),
        (_, Some(v6)) => Some(SocketAddr::V6((*v6).into())),
        _ => None,
    }
}

/// Takes what has come first and throws it away.
fn discard(socket: &Socket, transport: Transport) {
    if transport == Transport::Datagram {
        let mut buffer = [0; 1];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let _ = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            None,
            MsgFlags::MSG_DONTWAIT,
        );
    } else {
        // Accepted and dropped: the peer sees a close.
        let _ = socket.accept();
    }
}

/// A program that ends before this, with something still waiting, has not read it.
const SHORT: Duration = Duration::from_secs(1);
/// So many programs may leave a datagram unread before it is thrown away.
const UNREAD_MAX: u32 = 3;
