//! Programs kept warm: processes that are started once and are handed one connection after the other.
//!
//! A process has a Unix socket of whole messages on descriptor 0. Each message is a connection: its
//! number, a NUL, and the variables of the service's style, each `NAME=VALUE` with a NUL behind; the
//! connection's descriptor comes with it. The process answers with the number when it has closed the
//! connection. The end of the messages is its sign to leave.
//!
//! Until that answer we keep a copy of the connection. So a process that dies before it has touched a
//! connection costs nobody anything: another gets it, if the kernel's counters prove that nothing was
//! read or written.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portyard_core::fdpass::{Channel, ReceiveError};
use portyard_core::listener::Permit;
use portyard_core::observe::Throttle;
use portyard_core::serve::Peer;
use portyard_core::sockdiag::{Touch, touch, traffic};
use portyard_core::sys::register;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::Detail;
use super::entry::{Action, Entry};
use super::environment::Facts;
use super::launcher::{Launcher, Running, tell_errors};
use super::metrics::{End, ServiceMetrics};
use crate::process::{
    Backoff, Event, Keeper, ProcessConfig, RestartConfig, Start, Stderr, describe,
};

/// The `warm` table of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmConfig {
    /// How many processes are kept.
    pub processes: u16,
    /// How many connections each of them has at a time, at most.
    pub each: u16,
}

/// What makes two pools of processes the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What it is given.
    pub process: ProcessConfig,
    /// How many.
    pub warm: WarmConfig,
    /// The waits before one is started again.
    pub restart: RestartConfig,
}

/// The warm processes of a service, and the connections that they have or are to get.
pub struct Warm {
    /// What they are made by.
    pub recipe: Recipe,
    /// How long a connection waits for a process.
    patience: Duration,
    metrics: ServiceMetrics,
    state: Mutex<State>,
    /// Told when nothing is undone any more.
    idle: Notify,
    throttle: Throttle,
}

#[derive(Default)]
struct State {
    seats: HashMap<u64, Seat>,
    /// Seats that can take one more, the one to be used next last.
    free: Vec<u64>,
    queue: VecDeque<Handed>,
    /// Of seats and of connections.
    last_number: u64,
}

/// A process, as far as connections are concerned.
struct Seat {
    channel: Arc<Channel<Socket>>,
    undone: HashMap<u64, Handed>,
}

/// A connection on its way to a process, or in one.
pub struct Handed {
    /// The service as it was when the connection came.
    pub entry: Arc<Entry>,
    /// Our copy.
    pub socket: OwnedFd,
    /// What is known of the peer.
    pub facts: Facts,
    /// When it came.
    pub arrived: Instant,
    /// Its place, unless another has that, and that it is something that a drain waits for.
    pub _held: (Option<Permit>, Running),
}

impl Warm {
    /// A pool without processes yet.
    pub fn new(recipe: Recipe, patience: Duration, metrics: ServiceMetrics) -> Self {
        Self {
            recipe,
            patience,
            metrics,
            state: Mutex::default(),
            idle: Notify::new(),
            throttle: Throttle::new(),
        }
    }

    /// Hands a connection to a process, or lets it wait for one. It has its place under the limits
    /// of its listener, which bounds the queue.
    pub fn hand(&self, handed: Handed) {
        // The flag belongs to the connection, not to a descriptor, and programs know nothing of it.
        // One call, where fcntl takes two.
        let socket = TcpStream::from(handed.socket);
        if socket.set_nonblocking(false).is_err() {
            return;
        }
        let handed = Handed {
            socket: socket.into(),
            ..handed
        };
        let mut state = self.state();
        state.queue.push_back(handed);
        self.deal(&mut state);
    }

    /// Sends what waits to whoever can take it.
    fn deal(&self, state: &mut State) {
        while let Some(&number) = state.free.last() {
            let Some(handed) = state.queue.pop_front() else {
                return;
            };
            let Some(seat) = state.seats.get_mut(&number) else {
                state.free.pop();
                state.queue.push_front(handed);
                continue;
            };
            state.last_number += 1;
            let connection = state.last_number;
            match seat
                .channel
                .send(&message(connection, &handed), &[handed.socket.as_fd()])
            {
                Ok(_) => {
                    seat.undone.insert(connection, handed);
                    if seat.undone.len() >= usize::from(self.recipe.warm.each.max(1)) {
                        state.free.pop();
                    }
                }
                Err(error) => {
                    // It reads too slowly, or is gone, which its reader will see; or too many
                    // descriptors are under way, and the next answer makes room.
                    state.queue.push_front(handed);
                    state.free.pop();
                    if let Some(held) = self.throttle.pass() {
                        tracing::warn!(%error, held, "a connection cannot be handed to a warm process");
                    }
                }
            }
        }
    }

    /// A process has answered for a connection.
    fn done(&self, seat_number: u64, connection: u64) -> bool {
        let mut state = self.state();
        let Some(seat) = state.seats.get_mut(&seat_number) else {
            return false;
        };
        let Some(handed) = seat.undone.remove(&connection) else {
            return false;
        };
        if !state.free.contains(&seat_number) {
            state.free.push(seat_number);
        }
        self.deal(&mut state);
        let is_idle = state.is_idle();
        drop(state);
        if is_idle {
            self.idle.notify_waiters();
        }
        handed.end(None);
        true
    }

    /// A process is there, and gets connections when others have none to spare.
    fn enter(&self, channel: Arc<Channel<Socket>>) -> u64 {
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        let undone = HashMap::new();
        state.seats.insert(number, Seat { channel, undone });
        state.free.insert(0, number);
        self.deal(&mut state);
        number
    }

    /// A process takes no more connections.
    fn rest(&self, number: u64) {
        self.state().free.retain(|free| *free != number);
    }

    /// A process is gone. What it has not touched goes to another, the rest is closed.
    fn leave(&self, number: u64) {
        let mut state = self.state();
        state.free.retain(|free| *free != number);
        let Some(seat) = state.seats.remove(&number) else {
            return;
        };
        let mut lost = Vec::new();
        for (_, handed) in seat.undone {
            if matches!(touch(&handed.socket), Ok(Touch::None)) {
                state.queue.push_front(handed);
            } else {
                lost.push(handed);
            }
        }
        self.deal(&mut state);
        drop(state);
        for handed in lost {
            handed.end(Some("its process has died"));
        }
        self.idle.notify_waiters();
    }

    /// Turns away who has waited too long.
    fn sweep(&self) {
        let mut state = self.state();
        let mut late = Vec::new();
        while state
            .queue
            .front()
            .is_some_and(|first| first.arrived.elapsed() > self.patience)
        {
            late.extend(state.queue.pop_front());
        }
        drop(state);
        for handed in late {
            self.metrics.failed.inc();
            handed.turn_away();
        }
    }

    /// Returns when no process has a connection, and none waits.
    async fn emptied(&self) {
        loop {
            let idle = self.idle.notified();
            if self.state().is_idle() {
                return;
            }
            tokio::select! {
                () = idle => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    /// Connections in processes, and waiting for one.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        let undone = state.seats.values().map(|seat| seat.undone.len()).sum();
        (undone, state.queue.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Warm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm")
            .field("recipe", &self.recipe)
            .finish_non_exhaustive()
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.seats.values().all(|seat| seat.undone.is_empty())
    }
}

impl Handed {
    /// Closes our copy, and tells of it where that is wanted.
    fn end(self, lost: Option<&str>) {
        let (entry, took) = (&self.entry, self.arrived.elapsed());
        let peer = self.facts.peer;
        if let Some(why) = lost {
            tracing::warn!(service = %entry.name, %peer, ?took, "closed: {why}");
        } else if entry.log == Detail::Both {
            let (received, sent) = traffic(&self.socket).ok().flatten().unzip();
            tracing::info!(service = %entry.name, %peer, ?took, received, sent, "ended");
        }
    }

    /// Closes it unserved.
    fn turn_away(self) {
        let peer: Peer = self.facts.peer;
        tracing::warn!(service = %self.entry.name, %peer, "no warm process was free in time");
        if let Some(text) = &self.entry.refusal {
            super::launcher::say(&self.socket, text);
        }
    }
}

/// What a process is told of a connection.
fn message(connection: u64, handed: &Handed) -> Vec<u8> {
    let mut message = format!("{connection}\0").into_bytes();
    for (name, value) in handed.facts.variables(handed.entry.style) {
        message.extend_from_slice(name.as_bytes());
        message.push(b'=');
        message.extend_from_slice(value.as_bytes());
        message.push(0);
    }
    message
}

/// Keeps the processes of a pool until `stop` or the end of all, which waits for their connections.
pub async fn keep(
    launcher: Rc<Launcher>,
    entry: Arc<Entry>,
    pool: Arc<Warm>,
    retired: CancellationToken,
) {
    let stop = launcher.ending.child_token();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..pool.recipe.warm.processes.max(1) {
        let (entry, pool) = (entry.clone(), pool.clone());
        tasks.spawn_local(keep_one(entry, pool, stop.clone()));
    }
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = sweep.tick() => pool.sweep(),
            () = launcher.ending.cancelled() => break,
            () = async { retired.cancelled().await; pool.emptied().await; } => break,
        }
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

async fn keep_one(entry: Arc<Entry>, pool: Arc<Warm>, stop: CancellationToken) {
    let Action::Program(program) = &entry.action else {
        return;
    };
    let made: Rc<std::cell::RefCell<Option<Socket>>> = Rc::default();
    let ours = made.clone();
    let stderr = program.stderr();
    let start = move || -> io::Result<Start> {
        let (mine, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        mine.set_nonblocking(true)?;
        *ours.borrow_mut() = Some(mine);
        Ok(Start {
            stdin: OwnedFd::from(theirs).into(),
            stderr: Some(match stderr {
                Stderr::Log => Stdio::piped(),
                Stderr::Null | Stderr::Peer => Stdio::null(),
            }),
            ..Start::default()
        })
    };
    let keeper = Keeper {
        program: Arc::new(program.clone()),
        backoff: Backoff::new(pool.recipe.restart.clone()),
        start,
    };
    let mut seat: Option<(u64, tokio::task::JoinHandle<()>)> = None;
    let metrics = pool.metrics.clone();
    let name = &entry.name;
    let throttle = &pool.throttle;
    keeper
        .run(stop, |event| {
            if let Some((number, reader)) = seat.take() {
                reader.abort();
                pool.leave(number);
            }
            match event {
                Event::Started(pid, errors) => {
                    metrics.started.inc();
                    metrics.running.inc();
                    tokio::task::spawn_local(tell_errors(errors, name.clone(), pid));
                    let channel = made.borrow_mut().take().map(Channel::new);
                    let Some(Ok(channel)) = channel else { return };
                    let channel = Arc::new(channel);
                    let number = pool.enter(channel.clone());
                    let reader = hear(pool.clone(), number, channel, name.clone());
                    seat = Some((number, tokio::task::spawn_local(reader)));
                }
                Event::Ended { pid, status, ran, wait } => {
                    metrics.running.dec();
                    metrics.end(End::of(status));
                    let end = describe(status);
                    tracing::info!(service = %name, pid, %end, ?ran, ?wait, "a warm process has ended");
                }
                Event::Failed(error, wait) => {
                    metrics.failed.inc();
                    if let Some(held) = throttle.pass() {
                        tracing::error!(service = %name, held, ?wait, "{error}");
                    }
                }
                Event::Stopped(pid, status) => {
                    metrics.running.dec();
                    metrics.end(End::of(status));
                    tracing::debug!(service = %name, pid, end = %describe(status), "stopped");
                }
            }
        })
        .await;
}

/// Hears what a process answers, until it closes its end.
async fn hear(pool: Arc<Warm>, seat: u64, channel: Arc<Channel<Socket>>, service: String) {
    let registered = channel.socket().try_clone().map(Rc::new).and_then(register);
    let Ok(registered) = registered else {
        return tracing::error!(%service, "a warm process cannot be heard");
    };
    let mut buffer = [0; ANSWER_MAX];
    while let Ok(mut ready) = registered.readable().await {
        match channel.receive(&mut buffer) {
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
            }
            Ok(answer) if answer.length > 0 => {
                let text = buffer[..answer.length].trim_ascii();
                let number = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok());
                if !number.is_some_and(|number| pool.done(seat, number)) {
                    tracing::warn!(%service, "a warm process answers for a connection that it does not have");
                }
            }
            // It has closed its end; its connections are looked at when it has ended.
            _ => return pool.rest(seat),
        }
    }
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self {
            processes: 1,
            each: 1,
        }
    }
}

/// How often the queue is looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// A number, and what somebody may have put behind it.
const ANSWER_MAX: usize = 64;
