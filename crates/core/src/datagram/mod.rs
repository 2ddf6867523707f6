//! The datagram loop: receive a batch, drop what must not be answered, answer the rest.
//!
//! The order of the checks is the security of the service: size and source first ([`guard`]), then
//! the access list, then marks and signatures of our own answers, then the rate, and only then is
//! anything parsed. Every drop is counted by its reason.

mod guard;
mod later;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portyard_wire::signature::is_own_answer;
use socket2::Socket;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use guard::{Guard, Own};

use crate::access::Action;
use crate::clock::Now;
use crate::event_loop::EventLoop;
use crate::exit::{Exit, Fatal};
use crate::limits::Token;
use crate::listener::{Datagrams, Listener, Settings, source_of};
use crate::observe::Throttle;
use crate::observe::metrics::Drop;
use crate::serve::AcceptFault;
use crate::sys::{self, Batch, Datagram, Reply};

/// A datagram that passed all checks, as its service sees it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What was sent.
    pub payload: &'a [u8],
    /// Who sent it; `None` on Unix sockets.
    pub source: Option<SocketAddr>,
    /// When the batch was received.
    pub now: Now,
    /// The loop: its clock.
    pub home: &'a EventLoop,
}

/// What a service answers.
pub enum Answer {
    /// What was written to the buffer.
    Buffer,
    /// The request's own payload.
    Echo,
    /// Nothing, for this reason.
    Ignore(Drop),
    /// What this work will give, done on the pool; the loop goes on meanwhile.
    Later(Work),
}

/// Work for the pool that gives an answer.
pub type Work = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// What a datagram listener serves. One value serves all loops.
pub trait DatagramService: Send + Sync + 'static {
    /// Answers one request. Must not block and must not panic, whatever the payload.
    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer;

    /// What to say instead of an answer to a source over its rate: `true` when `answer` holds it.
    /// Called for the few that the leak lets through.
    fn over_rate(&self, _request: Request<'_>, _answer: &mut Vec<u8>) -> bool {
        false
    }

    /// How much of a payload the service looks at; the rest of a longer datagram is not received.
    /// Fewer bytes mean a batch that stays in the processor's caches.
    fn reads(&self) -> usize {
        MAX_DATAGRAM
    }

    /// How the service keeps itself out of loops.
    fn guard(&self) -> Guard {
        Guard::SIGNATURE
    }
}

/// Serves a bound, non-blocking datagram socket until its listener is stopped; then what is being
/// worked on is still answered.
pub async fn run(home: Rc<EventLoop>, listener: Arc<Listener<Datagrams>>, socket: Socket) {
    let name = listener.name.clone();
    let result = match Port::new(home.clone(), listener, socket) {
        Ok(mut port) => port.serve().await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        let message = format!("listener {name} cannot receive any more: {error}");
        home.fail(Fatal::new(Exit::OsError, message));
    }
}

/// A socket at work.
struct Port {
    home: Rc<EventLoop>,
    listener: Arc<Listener<Datagrams>>,
    /// What the batch was made for; a reload brings others.
    settings: Arc<Settings<Datagrams>>,
    socket: Rc<Socket>,
    /// Whether it is an Internet socket, whose peers can neither hold us up nor be trusted.
    internet: bool,
    batch: Batch,
    throttle: Throttle,
    /// Answers that the pool is working on.
    later: JoinSet<()>,
}

/// A request on its way through the checks.
#[derive(Clone, Copy)]
struct Candidate {
    source: Option<SocketAddr>,
    local: Option<IpAddr>,
    /// Payload bytes plus headers, as it crossed the wire.
    wire: usize,
    length: usize,
}

impl Port {
    fn new(
        home: Rc<EventLoop>,
        listener: Arc<Listener<Datagrams>>,
        socket: Socket,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?.as_socket();
        if let Some(local) = local {
            crate::listen::set_tos(&socket, local, REPLY_MARK)?;
        }
        let settings = listener.settings();
        let batch = batch_for(&settings, &socket)?;
        let later = JoinSet::new();
        Ok(Self {
            home,
            listener,
            settings,
            socket: Rc::new(socket),
            internet: local.is_some(),
            batch,
            throttle: Throttle::new(),
            later,
        })
    }

    /// Waits for datagrams with the loop, and while they come in numbers, without it.
    async fn serve(&mut self) -> io::Result<()> {
        let stopped = self.listener.stopped().cancelled_owned();
        tokio::pin!(stopped);
        'serving: loop {
            let arrivals = sys::register(self.socket.clone())?;
            loop {
                let mut ready = tokio::select! {
                    biased;
                    () = &mut stopped => break 'serving,
                    ready = arrivals.readable() => ready?,
                };
                let received = self.turn();
                // A batch that was not full has emptied the socket; what comes later is an event.
                if received
                    .as_ref()
                    .map_or_else(is_empty, |count| *count < BATCH)
                {
                    ready.clear_ready();
                }
                drop(ready);
                self.send().await;
                match received {
                    Ok(count) if count >= BUSY => break,
                    Err(error) if !is_empty(&error) => self.survive(error).await?,
                    _ => {}
                }
            }
            // A socket that the loop watches costs a wake-up for each datagram in and out. Under
            // load the next batch is there already, so it is taken without being announced.
            drop(arrivals);
            while !self.listener.stopped().is_cancelled() && self.turn().is_ok() {
                self.send().await;
                tokio::task::yield_now().await;
            }
        }
        self.answer_the_rest().await;
        while self.later.join_next().await.is_some() {}
        Ok(())
    }

    /// Rests after an error of receiving, which is a shortage, and must not become a busy loop. What
    /// says that the socket itself is unusable is returned.
    async fn survive(&self, error: io::Error) -> io::Result<()> {
        if AcceptFault::of(&error) == AcceptFault::Broken {
            return Err(error);
        }
        if let Some(held) = self.throttle.pass() {
            tracing::warn!(listener = %self.listener.name, %error, held, "cannot receive for the moment");
        }
        sleep(SHORTAGE_PAUSE).await;
        Ok(())
    }

    /// What came before the stop is answered. An inherited socket keeps it for the next process.
    async fn answer_the_rest(&mut self) {
        if !self.listener.owes_backlog() {
            return;
        }
        for _ in 0..LAST_TURNS {
            if self.turn().is_err() {
                return;
            }
            self.send().await;
            tokio::task::yield_now().await;
        }
    }

    /// Receives a batch and queues its answers; returns how many datagrams came.
    fn turn(&mut self) -> io::Result<usize> {
        let settings = self.listener.settings();
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.batch = batch_for(&settings, &self.socket)?;
            self.settings = settings.clone();
        }
        while self.later.try_join_next().is_some() {}
        let received = self.batch.receive(self.socket.as_fd())?;
        let now = self.home.clock.now();
        let mut bytes = 0;
        for slot in 0..received {
            let datagram = self.batch.datagram(slot);
            bytes += datagram.length as u64;
            let outcome = self
                .check(&settings, &datagram, now)
                .map(|()| Candidate::new(&datagram))
                .and_then(|candidate| self.answer(&settings, slot, &candidate, now));
            if let Err(reason) = outcome {
                self.listener.metrics.drop(reason);
            }
        }
        self.listener.metrics.datagrams.inc_by(received as u64);
        self.listener.metrics.traffic.received.inc_by(bytes);
        Ok(received)
    }

    /// Everything that can be known without parsing.
    fn check(
        &self,
        settings: &Settings<Datagrams>,
        datagram: &Datagram<'_>,
        now: Now,
    ) -> Result<(), Drop> {
        if datagram.length > settings.limits.max_datagram.bytes() {
            return Err(Drop::Oversize);
        }
        if !datagram.named {
            return Err(Drop::Unnamed);
        }
        let guard = settings.service.guard();
        if let Some(source) = datagram.source {
            self.home
                .own
                .check(source, settings.limits.min_source_port, guard.ntp)?;
            if settings.access.check(source.ip()) == Action::Deny {
                return Err(Drop::Access);
            }
        }
        if guard.mark && datagram.tos.is_some_and(|tos| tos & DSCP == REPLY_MARK) {
            return Err(Drop::Mark);
        }
        if guard.signature && is_own_answer(datagram.payload, now.seconds) {
            return Err(Drop::Signature);
        }
        Ok(())
    }

    fn answer(
        &mut self,
        settings: &Arc<Settings<Datagrams>>,
        slot: usize,
        candidate: &Candidate,
        now: Now,
    ) -> Result<(), Drop> {
        let over_rate = self.over_rate(settings, candidate)?;
        let (payload, buffer) = self.batch.answer_buffer(slot);
        let request = Request {
            payload,
            source: candidate.source,
            now,
            home: &self.home,
        };
        let reply = if over_rate && settings.service.over_rate(request, buffer) {
            Reply::Buffer
        } else {
            match settings.service.answer(request, buffer) {
                Answer::Buffer => Reply::Buffer,
                Answer::Echo => Reply::Echo,
                Answer::Ignore(reason) => return Err(reason),
                Answer::Later(work) => {
                    let to = self.batch.peer(slot);
                    let back = later::Return {
                        to,
                        from: candidate.local,
                    };
                    self.later(settings, candidate, back, work);
                    return Ok(());
                }
            }
        };
        let length = if reply == Reply::Echo {
            candidate.length
        } else {
            buffer.len()
        };
        candidate.allows(settings, length)?;
        self.batch.queue(slot, reply, candidate.local);
        Ok(())
    }

    /// Whether the source is over its rate and was picked by the leak all the same.
    fn over_rate(
        &self,
        settings: &Settings<Datagrams>,
        candidate: &Candidate,
    ) -> Result<bool, Drop> {
        let limits = &settings.limits;
        let address = candidate.source.map(|source| source.ip());
        let exempt = limits.rate.0.is_none()
            || (limits.exempt_loopback && address.is_none_or(crate::listen::is_loopback));
        if exempt {
            return Ok(false);
        }
        match self
            .listener
            .take_token(source_of(address), self.home.milliseconds())
        {
            Token::Taken => Ok(false),
            Token::Wait(_) if self.listener.leak(limits.leak) => Ok(true),
            Token::Wait(_) => Err(Drop::Rate),
        }
    }

    /// Has the pool work out an answer, and sends it when it is there.
    fn later(
        &mut self,
        settings: &Arc<Settings<Datagrams>>,
        candidate: &Candidate,
        back: later::Return,
        work: Work,
    ) {
        let (home, settings, candidate) = (self.home.clone(), settings.clone(), *candidate);
        let (listener, socket) = (self.listener.clone(), self.socket.clone());
        self.later.spawn_local(async move {
            let Ok(answer) = home.offload.run(work).await else {
                return listener.metrics.drop(Drop::Busy);
            };
            if let Err(reason) = candidate.allows(&settings, answer.len()) {
                return listener.metrics.drop(reason);
            }
            match later::send(&socket, &back, &answer).await {
                Ok(()) => {
                    listener.metrics.answers.inc();
                    listener.metrics.traffic.sent.inc_by(answer.len() as u64);
                }
                Err(_) => listener.metrics.drop(Drop::SendFailed),
            }
        });
    }

    /// Sends what is queued. A full send buffer makes the port wait, which makes the kernel drop
    /// further requests: the only backpressure there is for datagrams.
    async fn send(&mut self) {
        let (bytes, count) = self.batch.queued();
        let metrics = &self.listener.metrics;
        let mut failed = 0;
        loop {
            match self.batch.send(self.socket.as_fd()) {
                Ok(()) => break,
                // A Unix socket is full when its peer does not read: that is the peer's loss. Our
                // own send buffer empties by itself.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.internet => {
                    sleep(FULL_PAUSE).await;
                }
                Err(error) => {
                    tracing::debug!(listener = %self.listener.name, %error, "answer not sent");
                    metrics.drop(Drop::SendFailed);
                    failed += 1;
                    self.batch.skip();
                }
            }
        }
        metrics.answers.inc_by((count - failed) as u64);
        metrics.traffic.sent.inc_by(bytes as u64);
    }
}

/// A batch that holds what the service looks at and what the checks need.
fn batch_for(settings: &Settings<Datagrams>, socket: &Socket) -> io::Result<Batch> {
    let local = socket.local_addr()?.as_socket();
    let marked = settings.service.guard().mark;
    if let Some(local) = local.filter(|_| marked) {
        guard::report_mark(socket, local)?;
    }
    let control = marked || local.is_some_and(|local| local.ip().is_unspecified());
    let reads = settings.service.reads().max(SIGNATURE_MAX);
    let capacity = settings.limits.max_datagram.bytes().min(reads);
    Ok(Batch::new(BATCH, capacity, control))
}

/// Whether an error of receiving says that nothing is there.
fn is_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Candidate {
    fn new(datagram: &Datagram<'_>) -> Self {
        let headers = match datagram.source {
            Some(SocketAddr::V4(_)) => 28,
            Some(SocketAddr::V6(source)) if source.ip().to_ipv4_mapped().is_some() => 28,
            Some(SocketAddr::V6(_)) => 48,
            None => 0,
        };
        Self {
            source: datagram.source,
            local: datagram.local,
            wire: datagram.length + headers,
            length: datagram.length,
        }
    }

    /// Whether a stranger may make us send an answer of `length` bytes. A Unix socket's peer cannot
    /// forge its name, so there is no limit.
    fn allows(&self, settings: &Settings<Datagrams>, length: usize) -> Result<(), Drop> {
        if self.source.is_none() {
            return Ok(());
        }
        let limits = &settings.limits;
        if limits.strict && length > self.length {
            return Err(Drop::Strict);
        }
        let headers = self.wire - self.length;
        let factor = usize::try_from(limits.amplification.get()).unwrap_or(usize::MAX);
        if length + headers > self.wire.saturating_mul(factor) {
            return Err(Drop::Amplification);
        }
        Ok(())
    }
}

/// The type-of-service byte of every answer: DSCP 3, of the pool for local use (RFC 2474, 6).
///
/// No client sends it by itself, so a datagram that carries it is an answer, whatever its payload:
/// this keeps services without a direction in their protocol (echo) out of loops.
pub const REPLY_MARK: u8 = 0x0c;
/// The DSCP part of the type-of-service byte; the rest is congestion notification.
const DSCP: u8 = 0xfc;
/// How long to wait for room in a full send buffer, which a network card empties in far less.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// How long a port rests when the kernel is short of something.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);
/// Datagrams in a turn: more gain nothing, and others on the loop have to wait for them.
const BATCH: usize = 64;
/// Batches that are still answered after a stop: more than a full receive buffer holds.
const LAST_TURNS: usize = 1024;
/// A batch of this size shows that more is coming.
const BUSY: usize = 16;
/// Enough of a payload to recognise an answer of ours.
const SIGNATURE_MAX: usize = 64;
/// The longest UDP payload over IPv4.
const MAX_DATAGRAM: usize = 65_507;
