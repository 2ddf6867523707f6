//! The thread that starts programs, waits for them, and watches the sockets of those that take
//! their peers themselves.
//!
//! It is one thread, because a fork takes about a millisecond in which no connection of another
//! service should wait. The fork itself is made by the thread outside of the sandbox, which lives as
//! long as the broker: a program's bond to the broker is one to the thread that started it (prctl(2),
//! `PR_SET_PDEATHSIG`). Without a sandbox it is this one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use portyard_core::clock::Zone;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::listener::Permit;
use portyard_core::observe::Throttle;
use portyard_core::serve::Peer;
use portyard_core::sockdiag::traffic;
use portyard_core::sys::child_descriptor;
use socket2::{SockRef, Socket};
use tokio::process::ChildStderr;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::{Detail, Style};
use super::entry::{Action, Entry};
use super::environment::Facts;
use super::metrics::{End, Metrics, ServiceMetrics};
use super::relay::Counts;
use super::warm::{self, Warm};
use super::watch::Watched;
use crate::process::{Child, Program, Said, Start, Stderr, describe, follow};

/// What the thread is asked for.
pub enum Order {
    /// Start a program for a connection.
    Start(Box<Job>),
    /// Watch a socket.
    Watch(Box<Watched>),
    /// Keep the processes of a pool until it is retired.
    Keep(Arc<Entry>, Arc<Warm>, CancellationToken),
    /// Tell which programs have a socket for themselves.
    Programs(oneshot::Sender<Vec<Alone>>),
    /// Watch no more; what runs may go on.
    Drain,
    /// End all that runs, and then the thread.
    Stop,
}

/// A program that has a socket for itself.
pub struct Alone {
    /// The socket's inode.
    pub socket: u64,
    /// The process.
    pub pid: i32,
    /// A descriptor of it, which is readable once it has ended.
    pub process: OwnedFd,
}

/// A connection that a program is to be started for.
pub struct Job {
    /// The service.
    pub entry: Arc<Entry>,
    /// The program's end of the connection.
    pub socket: OwnedFd,
    /// What is known of the peer.
    pub facts: Facts,
    /// The connection's place, given back when the program has ended; `None`: another has it.
    pub permit: Option<Permit>,
    /// When the connection came.
    pub arrived: Instant,
    /// Where the bytes between program and peer pass through us.
    pub relay: Option<Relay>,
    /// Counts it as something that a drain waits for.
    pub running: Running,
}

/// What a relay and its program know of each other.
#[derive(Clone)]
pub struct Relay {
    /// Cancelled when the relay has ended.
    pub over: CancellationToken,
    /// What has passed.
    pub counts: Arc<Counts>,
}

/// One of the things that run. Dropping it says that it is over.
pub struct Running(watch::Sender<usize>);

impl Running {
    /// Counts one more.
    pub fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What the tasks of the thread share.
pub struct Launcher {
    metrics: Metrics,
    /// Where failures are logged at most once a second.
    throttle: Throttle,
    /// The local time zone.
    pub zone: Zone,
    /// Cancelled when no watch is to begin anything.
    pub draining: CancellationToken,
    /// Cancelled when everything is to end.
    pub ending: CancellationToken,
    /// What holds back the watches.
    pub gate: Gate,
    /// Programs that have a socket for themselves, by its inode: ours, and with their descriptor those of
    /// a predecessor.
    alone: RefCell<HashMap<u64, (i32, Option<OwnedFd>)>>,
}

/// Holds back who would start programs for sockets that a successor or a predecessor has, too. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Gate {
    closed: watch::Sender<bool>,
    /// Programs of a predecessor that have a socket for themselves, by its inode.
    elsewhere: Arc<Mutex<HashMap<u64, (i32, OwnedFd)>>>,
}

impl Gate {
    /// Nobody starts anything until it is opened.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Everybody goes on.
    pub fn open(&self) {
        self.closed.send_replace(false);
    }

    /// A program of a predecessor has this socket for itself.
    pub fn expect(&self, socket: u64, pid: i32, process: OwnedFd) {
        self.lock().insert(socket, (pid, process));
    }

    /// Returns once it is open, or once it is closed.
    pub async fn is(&self, closed: bool) {
        // We have a sender, so it cannot be gone.
        let _ = self.closed.subscribe().wait_for(|is| *is == closed).await;
    }

    /// Whether nobody may start anything.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (i32, OwnedFd)>> {
        // Each change is one step.
        self.elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread.
pub fn start(
    orders: mpsc::UnboundedReceiver<Order>,
    metrics: Metrics,
    zone: Zone,
    gate: Gate,
    faults: mpsc::UnboundedSender<Fatal>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("programs".into())
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(obey(orders, metrics, zone, gate)),
                Err(error) => {
                    let message = format!("the thread for programs cannot start: {error}");
                    let _ = faults.send(Fatal::new(Exit::OsError, message));
                }
            }
        })
}

async fn obey(
    mut orders: mpsc::UnboundedReceiver<Order>,
    metrics: Metrics,
    zone: Zone,
    gate: Gate,
) {
    let launcher = Rc::new(Launcher {
        metrics,
        throttle: Throttle::new(),
        zone,
        draining: CancellationToken::new(),
        ending: CancellationToken::new(),
        gate,
        alone: RefCell::default(),
    });
    let mut tasks = JoinSet::new();
    while let Some(order) = orders.recv().await {
        while tasks.try_join_next().is_some() {}
        match order {
            Order::Start(job) => {
                if let Some(begun) = launcher.begin(*job) {
                    tasks.spawn_local(begun.attend(launcher.clone()));
                }
            }
            Order::Watch(watched) => {
                tasks.spawn_local(watched.run(launcher.clone()));
            }
            Order::Keep(entry, pool, retired) => {
                tasks.spawn_local(warm::keep(launcher.clone(), entry, pool, retired));
            }
            Order::Programs(answer) => {
                let _ = answer.send(launcher.programs());
            }
            Order::Drain => launcher.draining.cancel(),
            Order::Stop => break,
        }
    }
    launcher.draining.cancel();
    launcher.ending.cancel();
    while tasks.join_next().await.is_some() {}
}

impl Launcher {
    /// The counters of a service.
    pub fn metrics(&self, entry: &Entry) -> ServiceMetrics {
        self.metrics.service(&entry.name)
    }

    /// A program has a socket for itself, until what is returned is dropped.
    pub fn leave_alone(
        self: &Rc<Self>,
        socket: &Socket,
        pid: i32,
        process: Option<OwnedFd>,
    ) -> impl Sized + use<> {
        struct Until(Rc<Launcher>, Option<u64>);
        impl Drop for Until {
            fn drop(&mut self) {
                if let Some(inode) = self.1 {
                    self.0.alone.borrow_mut().remove(&inode);
                }
            }
        }
        let inode = inode(socket);
        if let Some(inode) = inode {
            self.alone.borrow_mut().insert(inode, (pid, process));
        }
        Until(self.clone(), inode)
    }

    /// The program of a predecessor that has this socket for itself, if one has; once.
    pub fn elsewhere(&self, socket: &Socket) -> Option<(i32, OwnedFd)> {
        self.gate.lock().remove(&inode(socket)?)
    }

    /// All programs that have a socket for themselves, as far as the kernel gives descriptors of them.
    fn programs(&self) -> Vec<Alone> {
        let alone = self.alone.borrow();
        let one = |(&socket, (pid, process)): (&u64, &(i32, Option<OwnedFd>))| {
            let process = match process {
                Some(process) => process.try_clone(),
                // It is ours, and has not been waited for: the number is its own.
                None => child_descriptor(Pid::from_raw(*pid)),
            };
            Some(Alone {
                socket,
                pid: *pid,
                process: process.ok()?,
            })
        };
        alone.iter().filter_map(one).collect()
    }

    /// Starts a program, or says why not: in the log at most once a second.
    pub fn start(
        &self,
        entry: &Entry,
        program: &Program,
        start: Start,
        peer: Option<Peer>,
    ) -> Option<Process> {
        let metrics = self.metrics(entry);
        let peer = peer.map_or("any".into(), |peer| peer.to_string());
        match program.start(start) {
            Ok(child) => {
                metrics.started.inc();
                metrics.running.inc();
                if entry.log == Detail::Both {
                    tracing::info!(service = %entry.name, %peer, pid = child.pid(), "started");
                }
                Some(Process {
                    child,
                    peer,
                    metrics,
                })
            }
            Err(error) => {
                metrics.failed.inc();
                if let Some(held) = self.throttle.pass() {
                    tracing::error!(service = %entry.name, %peer, held, "{error}");
                }
                None
            }
        }
    }

    /// Starts the program of a connection.
    fn begin(&self, job: Job) -> Option<Begun> {
        let Action::Program(program) = &job.entry.action else {
            return None;
        };
        let begin = || -> io::Result<(Start, Option<OwnedFd>)> {
            let socket = SockRef::from(&job.socket);
            if !job.entry.banner.is_empty() && job.relay.is_none() {
                say(&job.socket, &job.entry.banner);
            }
            // The flag belongs to the connection, not to a descriptor, and programs know nothing of it.
            socket.set_nonblocking(false)?;
            let counted = job.entry.count_bytes && job.relay.is_none();
            let kept = counted.then(|| job.socket.try_clone()).transpose()?;
            Ok((descriptors(&job.entry, program, &job)?, kept))
        };
        let peer = job.facts.peer;
        let (start, kept) = match begin() {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(service = %job.entry.name, %peer, %error, "the connection was gone already");
                return None;
            }
        };
        let Some(process) = self.start(&job.entry, program, start, Some(peer)) else {
            if let (Some(text), None) = (&job.entry.refusal, &job.relay) {
                say(&job.socket, text);
            }
            return None;
        };
        // The peer shall see the end of the stream when the program closes it.
        let Job {
            entry,
            permit,
            arrived,
            relay,
            running,
            ..
        } = job;
        Some(Begun {
            entry,
            process,
            kept,
            relay,
            arrived,
            held: (permit, running),
        })
    }
}

/// What tells a socket from every other.
fn inode(socket: &Socket) -> Option<u64> {
    Some(fstat(socket).ok()?.st_ino)
}

/// A program that runs for a connection.
struct Begun {
    entry: Arc<Entry>,
    process: Process,
    /// A copy of the connection, to ask it at the end what has passed.
    kept: Option<OwnedFd>,
    relay: Option<Relay>,
    arrived: Instant,
    /// Its place, and that it runs.
    held: (Option<Permit>, Running),
}

impl Begun {
    /// Waits for its end, or ends it when its time is over, its peer has gone, or all is to end.
    async fn attend(mut self, launcher: Rc<Launcher>) {
        let child = &mut self.process.child;
        let telling = tell_errors(child.take_stderr(), self.entry.name.clone(), child.pid());
        let telling = tokio::task::spawn_local(telling);
        let gone = async {
            match &self.relay {
                Some(relay) => {
                    relay.over.cancelled().await;
                    sleep(GONE_WAIT).await;
                }
                None => std::future::pending().await,
            }
        };
        let total = self.entry.total;
        let over = async {
            match total {
                Duration::ZERO => std::future::pending().await,
                total => sleep(total).await,
            }
        };
        let ended = tokio::select! {
            status = child.wait() => Some(status),
            () = gone => None,
            () = over => None,
            () = launcher.ending.cancelled() => None,
        };
        let status = match ended {
            Some(status) => Some(status),
            None if launcher.ending.is_cancelled() && outlives(&self.entry) => None,
            None => Some(child.stop().await),
        };
        let bytes = match (&self.relay, &self.kept) {
            (Some(relay), _) => Some(relay.counts.get()),
            (None, Some(kept)) => traffic(kept).ok().flatten(),
            (None, None) => None,
        };
        // The peer sees the end, and the next one has its place, before the last words are written.
        drop(self.kept);
        drop(self.held);
        // They may still be in the pipe; who has inherited that is not waited for.
        let _ = timeout(LAST_WORDS, telling).await;
        let took = self.arrived.elapsed();
        self.process.end(&self.entry, status, took, bytes);
    }
}

/// Whether a program stays when the broker ends.
fn outlives(entry: &Entry) -> bool {
    matches!(&entry.action, Action::Program(program) if program.outlives())
}

/// A process of a service.
pub struct Process {
    /// The process.
    pub child: Child,
    peer: String,
    metrics: ServiceMetrics,
}

impl Process {
    /// Counts and logs its end; `None`: it goes on without us.
    pub fn end(
        &self,
        entry: &Entry,
        status: Option<ExitStatus>,
        took: Duration,
        bytes: Option<(u64, u64)>,
    ) {
        self.metrics.running.dec();
        let pid = self.child.pid();
        let Some(status) = status else {
            return tracing::info!(service = %entry.name, peer = %self.peer, pid, "left running");
        };
        self.metrics.end(End::of(status));
        if entry.log == Detail::Off {
            return;
        }
        let end = describe(status);
        if let Some((received, sent)) = bytes {
            tracing::info!(
                service = %entry.name, peer = %self.peer, pid, %end, ?took, received, sent, "ended"
            );
        } else {
            tracing::info!(service = %entry.name, peer = %self.peer, pid, %end, ?took, "ended");
        }
    }
}

/// Brings what a program writes to standard error into the log, until the pipe ends.
pub async fn tell_errors(errors: Option<ChildStderr>, service: String, pid: i32) {
    let Some(errors) = errors else { return };
    follow(errors, |said| match said {
        Said::Line(line) => {
            let line = String::from_utf8_lossy(line);
            tracing::info!(%service, pid, %line, "program");
        }
        Said::Held(held) => {
            tracing::warn!(%service, pid, held, "program writes more than is logged");
        }
    })
    .await;
}

/// Where a program finds its connection, by the service's style.
fn descriptors(entry: &Entry, program: &Program, job: &Job) -> io::Result<Start> {
    let copy = || job.socket.try_clone();
    let mut start = Start {
        environment: job.facts.variables(entry.style),
        ..Start::default()
    };
    if entry.style == Style::Systemd {
        start.more.push(copy()?);
        start.own_number = Some("LISTEN_PID");
    } else {
        start.stdin = copy()?.into();
        start.stdout = copy()?.into();
    }
    start.stderr = Some(match program.stderr() {
        Stderr::Log => Stdio::piped(),
        Stderr::Null => Stdio::null(),
        Stderr::Peer => copy()?.into(),
    });
    Ok(start)
}

/// Tells a fresh connection something, which it has room for; one that has not misses it.
pub fn say(socket: &impl AsFd, text: &[u8]) {
    let socket = socket.as_fd();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = send(socket.as_raw_fd(), text, flags);
}

/// How long a program goes on whose peer is gone before it is asked to end.
const GONE_WAIT: Duration = Duration::from_secs(5);
/// How long what a program wrote last is waited for.
pub const LAST_WORDS: Duration = Duration::from_millis(200);
