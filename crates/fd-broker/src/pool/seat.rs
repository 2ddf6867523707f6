//! A worker's place in its pool.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::fstat;
use portyard_core::serve::Connection;
use portyard_wire::broker::{Report, Verdict};
use portyard_wire::hold as wire;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};

use super::connections::ConnectionId;
use super::machine::{self, Trace, Unknown};
use super::worker::{Joining, WorkerId};
use super::{Counts, Handed, Link, Mode, Pool};

/// What is told of a worker.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its process; 0: unknown.
    pub pid: i32,
    /// The user that this process runs as.
    pub uid: u32,
}

/// What a worker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Ours.
    Native,
    /// That of `multiprocessing.reduction`.
    Python,
    /// A byte with a descriptor, and OK.
    Raw,
}

impl Protocol {
    /// The service's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Python => "python",
            Self::Raw => "raw",
        }
    }
}

/// What a session is to do besides sending what is in its outbox.
#[derive(Debug, Default)]
pub struct Asked {
    /// Part with the worker.
    pub cut: bool,
    /// Tell it that it gets nothing more, or that it does again.
    pub drain: Option<bool>,
    /// Give it the listening sockets.
    pub lent: bool,
    /// Stop, so that the worker can go on with a successor, and say where.
    pub park: Option<UnboundedSender<Parked>>,
}

/// A worker's session that has stopped, so that a successor can go on with it.
#[derive(Debug)]
pub struct Parked {
    /// What the successor gets, the worker's socket first.
    pub record: wire::Worker,
    /// See `record`.
    pub descriptors: Vec<OwnedFd>,
    /// What the worker has.
    pub served: Vec<wire::Served>,
    /// Told whether the successor has it; dropped: it has not.
    pub moved: oneshot::Sender<bool>,
}

impl Parked {
    /// The session on `connection`. `state` is the worker's process, how many listening sockets it has
    /// not answered, and how much of an answer has been read.
    pub fn new(
        connection: &Connection,
        (process, lent, answered): (i32, usize, usize),
        socket: OwnedFd,
        estate: Estate,
        moved: oneshot::Sender<bool>,
    ) -> Self {
        let mut served = Vec::new();
        let mut count = 0;
        for (listener, connections) in estate.served {
            count += connections.len();
            served.extend(
                connections
                    .chunks(wire::SERVED_MAX)
                    .map(|part| wire::Served {
                        listener: listener.clone(),
                        connections: part.to_vec(),
                    }),
            );
        }
        let mut descriptors = vec![socket];
        let offered = estate.offered.map(|(listener, copy)| {
            descriptors.push(copy);
            listener
        });
        let record = wire::Worker {
            listener: connection.listener().name.clone(),
            key: connection
                .key()
                .map_or_else(String::new, |key| key.to_string()),
            process: process.max(0).unsigned_abs(),
            age: estate.age,
            taken: estate.taken,
            drained: estate.drained,
            lent: u16::try_from(lent).unwrap_or(u16::MAX),
            // Two bytes are an answer, which has been understood.
            answered: u8::try_from(answered).unwrap_or(1).min(1),
            served: u32::try_from(count).unwrap_or(u32::MAX),
            offered,
        };
        Self {
            record,
            descriptors,
            served,
            moved,
        }
    }
}

/// What a worker has, as it is told to a successor.
#[derive(Debug, Default)]
pub struct Estate {
    /// For how long it has been a worker.
    pub age: Duration,
    /// Connections that it has taken in all.
    pub taken: u64,
    /// Whether an operator wants it to get nothing.
    pub drained: bool,
    /// The listener and a copy of what it was sent and has not taken.
    pub offered: Option<(String, OwnedFd)>,
    /// By listener, the cookies and local ports of connections that it has.
    pub served: BTreeMap<String, Vec<(u64, u16)>>,
}

/// A worker that a predecessor had, as its session finds it.
pub struct Legacy {
    /// What the predecessor knew of it.
    pub record: wire::Worker,
    /// What it was sent and has not taken.
    pub offered: Option<Handed>,
    /// What it has, each with its cookie and its local port.
    pub served: Vec<(Handed, u64, u16)>,
    /// Dropped once it has its place.
    pub comes: Box<dyn Send>,
}

/// What came of sending an outbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it went.
    All,
    /// The worker has not read what it was sent before; the rest waits.
    Blocked,
}

/// A worker's place in its pool. Dropping it gives the place up: what was offered and not taken goes to
/// others, if it is untouched.
pub struct Seat {
    pool: Arc<Pool>,
    id: WorkerId,
    wake: Arc<Notify>,
    /// Whether the kernel is to tell of the ends of its connections.
    mute: bool,
    /// Whether the worker goes on without us, and may take what it was sent.
    lingers: bool,
    /// Whether a successor has the worker.
    moved: bool,
}

impl Seat {
    /// Takes a place. A `mute` worker does not say when a connection has ended.
    pub fn take(pool: &Arc<Pool>, about: About, joining: Joining, mute: bool) -> Self {
        let wake = Arc::new(Notify::new());
        let id = pool.change(|state, now, _| {
            let id = state.machine.join(joining, now, &mut state.actions);
            let link = Link {
                about,
                outbox: Vec::new(),
                wake: wake.clone(),
                asked: Asked {
                    lent: true,
                    ..Asked::default()
                },
                drained: (false, false),
            };
            link.wake.notify_one();
            let link = state.links.entry(id).or_insert(link);
            if state.leaving {
                link.ask_to_drain(true);
                let (machine, actions) = (&mut state.machine, &mut state.actions);
                machine.set_draining(id, true, now, actions);
            }
            id
        });
        Self {
            pool: pool.clone(),
            id,
            wake,
            mute,
            lingers: false,
            moved: false,
        }
    }

    /// Takes the place of a worker that a predecessor had, and that does not say when a connection has
    /// ended. Returns what it was sent and has not taken, and the inode of that.
    pub fn inherit(
        pool: &Arc<Pool>,
        about: About,
        joining: Joining,
        legacy: Legacy,
    ) -> (Self, Option<(ConnectionId, u64)>) {
        let Legacy {
            record,
            offered,
            served,
            comes,
        } = legacy;
        let wake = Arc::new(Notify::new());
        let (mut cookies, mut payloads) = (Vec::new(), Vec::new());
        for (handed, cookie, port) in served {
            handed.watched.set(Some(cookie));
            cookies.push((cookie, port));
            payloads.push(handed);
        }
        let (id, offered) = pool.change(|state, now, _| {
            let inode = offered
                .as_ref()
                .and_then(|handed| Some(fstat(handed.socket.as_ref()?).ok()?.st_ino));
            let estate = machine::Estate {
                age: record.age,
                taken: record.taken,
                offered,
                served: payloads,
            };
            let draining = record.drained || state.leaving;
            let (id, offered, served) =
                state
                    .machine
                    .inherit(joining, estate, draining, now, &mut state.actions);
            for (connection, (cookie, port)) in served.into_iter().zip(cookies) {
                pool.watch.add_cookie(cookie, port, pool, connection);
            }
            if let Some(connection) = offered
                && let Some(handed) = state.machine.connection(connection)
                && let Some(socket) = &handed.socket
            {
                handed.watched.set(pool.watch.add(socket, pool, connection));
            }
            let link = Link {
                about,
                outbox: Vec::new(),
                wake: wake.clone(),
                // What is lent to its pool it has already.
                asked: Asked::default(),
                drained: (record.drained, false),
            };
            link.wake.notify_one();
            state.links.insert(id, link);
            (id, offered.map(|offered| (offered, inode.unwrap_or(0))))
        });
        drop(comes);
        // Some may have ended on the way from there to here.
        pool.watch.look_again();
        let seat = Self {
            pool: pool.clone(),
            id,
            wake,
            mute: true,
            lingers: false,
            moved: false,
        };
        (seat, offered)
    }

    /// Gets nothing more, and tells what the worker has; an error when that cannot be had.
    pub fn park(&self) -> io::Result<Estate> {
        self.pool.change(|state, now, _| {
            let Some(link) = state.links.get_mut(&self.id) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let drained = link.drained.0;
            for id in std::mem::take(&mut link.outbox).into_iter().rev() {
                state.machine.unsent(self.id, id, now);
            }
            let (machine, actions) = (&mut state.machine, &mut state.actions);
            machine.set_draining(self.id, true, now, actions);
            let Some(worker) = machine.worker(self.id) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let mut estate = Estate {
                age: now.duration_since(worker.since),
                taken: worker.taken,
                drained,
                ..Estate::default()
            };
            for (_, handed) in machine.estate(self.id) {
                let listener = handed.listener().to_owned();
                if let Some(socket) = &handed.socket {
                    estate.offered = Some((listener, socket.try_clone()?));
                } else if let Some(cookie) = handed.watched.get()
                    && let Some(port) = self.pool.watch.port_of(cookie)
                {
                    let served = estate.served.entry(listener).or_default();
                    served.push((cookie, port));
                }
            }
            Ok(estate)
        })
    }

    /// Goes on after all.
    pub fn unpark(&self) {
        self.pool.change(|state, now, _| {
            let leaving = state.leaving;
            let Some(link) = state.links.get_mut(&self.id) else {
                return;
            };
            let drained = link.drained.0 || link.drained.1 || leaving;
            link.wake.notify_one();
            let (machine, actions) = (&mut state.machine, &mut state.actions);
            machine.set_draining(self.id, drained, now, actions);
        });
    }

    /// A successor has the worker and all that belongs to it.
    pub fn move_out(mut self) {
        self.moved = true;
    }

    /// Returns when there is something to send or to do.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Returns when nobody waits for a worker, and with `through` only when this one has nothing any more.
    /// To be asked while the daemon drains.
    pub async fn finished(&self, through: bool) {
        while !self.pool.is_idle() || through && self.pool.load_of(self.id) > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Whether its pool leaves and the worker has nothing of it any more.
    pub fn is_through(&self) -> bool {
        let state = self.pool.lock();
        state.leaving && state.machine.load(self.id) == 0
    }

    /// What to do besides sending; asked once.
    pub fn asked(&self) -> Asked {
        let mut state = self.pool.lock();
        let link = state.links.get_mut(&self.id);
        link.map(|link| std::mem::take(&mut link.asked))
            .unwrap_or_default()
    }

    /// The listening sockets that the pool lends to its workers, each with its listener's name.
    pub fn lent(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let state = self.pool.lock();
        if state.config.mode != Mode::Listener {
            return Ok(Vec::new());
        }
        let copy = |(name, socket): &(String, OwnedFd)| Ok((name.clone(), socket.try_clone()?));
        state.lent.iter().map(copy).collect()
    }

    /// Sends what is in the outbox. `send` gets what comes next, at most `batch` connections with their
    /// descriptors, sends as many of them as go into one message and returns how many those were.
    ///
    /// An error is the end of the session.
    pub fn send(
        &self,
        blocking: bool,
        batch: usize,
        mut send: impl FnMut(&[(ConnectionId, &Handed)], &[BorrowedFd<'_>]) -> io::Result<usize>,
    ) -> io::Result<Sent> {
        self.pool.change(|state, now, _| {
            loop {
                let Some(link) = state.links.get_mut(&self.id) else {
                    return Ok(Sent::All);
                };
                if link.outbox.is_empty() {
                    return Ok(Sent::All);
                }
                let mut next = Vec::with_capacity(batch.min(link.outbox.len()));
                let mut descriptors = Vec::with_capacity(next.capacity());
                for &id in link.outbox.iter().take(batch) {
                    // What is in an outbox is offered, and the broker has its copy until it is taken.
                    let Some(handed) = state.machine.connection(id) else {
                        continue;
                    };
                    let Some(socket) = handed.for_worker(blocking)? else {
                        continue;
                    };
                    if self.mute {
                        let cookie = self.pool.watch.add(socket, &self.pool, id);
                        handed.watched.set(cookie);
                    } else if let Some(cookie) = handed.watched.take() {
                        self.pool.watch.remove(cookie);
                    }
                    next.push((id, handed));
                    descriptors.push(socket);
                }
                match send(&next, &descriptors) {
                    Ok(count) => {
                        link.outbox.drain(..count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Sent::Blocked);
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                        self.pool.warn_of_flight();
                        for id in std::mem::take(&mut link.outbox) {
                            state.machine.unsent(self.id, id, now);
                        }
                        return Ok(Sent::All);
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// The worker reports what became of connections.
    pub fn report(&self, reports: &[Report]) -> Result<(), Unknown> {
        self.pool.change(|state, now, endings| {
            state.look_who_is_through();
            let (machine, actions) = (&mut state.machine, &mut state.actions);
            let counts = &self.pool.counts;
            for report in reports {
                let id = ConnectionId(report.connection);
                match report.verdict {
                    Verdict::Taken => {
                        let handed = machine.taken(self.id, id)?;
                        Counts::add(&counts.taken);
                        endings.closed.extend(handed.socket.take());
                        handed.leave_daemon();
                        if self.mute && handed.watched.get().is_none() {
                            // Nobody will tell of its end.
                            endings.dropped.extend(machine.done(None, id, now, actions));
                        }
                    }
                    Verdict::Refused(why) => {
                        machine.refused(self.id, id, now, actions)?;
                        Counts::add(&counts.refused);
                        tracing::debug!(pool = %self.pool.name, why = why.word(), "refused");
                    }
                    Verdict::Done => {
                        let handed = machine.done(Some(self.id), id, now, actions);
                        let handed = handed.ok_or(Unknown(id.0))?;
                        if handed.socket.is_some() {
                            Counts::add(&counts.taken);
                        }
                        Counts::add(&counts.done);
                        endings.dropped.push(handed);
                    }
                }
            }
            Ok(())
        })
    }

    /// The worker has taken a connection, says its protocol.
    pub fn taken(&self, connection: ConnectionId) -> Result<(), Unknown> {
        self.report(&[Report {
            connection: connection.0,
            verdict: Verdict::Taken,
        }])
    }

    /// The worker wants to have so many connections at a time.
    pub fn set_capacity(&self, capacity: u32) {
        self.pool.change(|state, now, _| {
            state
                .machine
                .set_capacity(self.id, capacity, now, &mut state.actions);
        });
    }

    /// The worker wants nothing more for now, or again.
    pub fn set_draining(&self, draining: bool) {
        self.pool.change(|state, now, _| {
            let Some(link) = state.links.get_mut(&self.id) else {
                return;
            };
            link.drained.1 = draining;
            let draining = draining || link.drained.0 || state.leaving;
            state
                .machine
                .set_draining(self.id, draining, now, &mut state.actions);
        });
    }

    /// The worker is parted with for what it did, or did not do.
    pub fn cut(&self, why: &dyn std::fmt::Display) {
        Counts::add(&self.pool.counts.cut);
        let about = self
            .pool
            .lock()
            .links
            .get(&self.id)
            .map(|link| link.about.clone());
        if let Some(About { name, pid, .. }) = about {
            tracing::warn!(pool = %self.pool.name, worker = %name, pid, %why, "parted with a worker");
        }
    }

    /// The worker is left alone with what it was sent, and nothing tells whether it takes that: its
    /// connections cannot go to others.
    pub fn linger(&mut self) {
        self.lingers = true;
    }

    /// The worker is gone after all.
    pub fn returns(&mut self) {
        self.lingers = false;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.change(|state, now, _| {
            let unsent = state.links.remove(&self.id).map(|link| link.outbox);
            // What never went out has not been touched by anybody.
            for id in unsent.unwrap_or_default().into_iter().rev() {
                state.machine.unsent(self.id, id, now);
            }
            let counts = &self.pool.counts;
            let trace = |handed: &Handed| {
                if self.moved {
                    return Trace::Moved;
                }
                if self.lingers {
                    // The worker may still find it among what it was sent; by then it is over.
                    handed.end();
                    return Trace::Touched;
                }
                let trace = handed.trace();
                if trace == Trace::Untouched {
                    Counts::add(&counts.redelivered);
                }
                trace
            };
            state.machine.leave(self.id, now, trace, &mut state.actions);
        });
        self.pool.left.notify_one();
    }
}

/// How often a draining session looks whether it is still needed.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
