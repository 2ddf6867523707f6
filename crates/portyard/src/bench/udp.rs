//! Load of a datagram server: a window of requests on each of several sockets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::sntp;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::batch::{BATCH, Batch};
use super::load::{Load, MAX_COUNT, MAX_DEPTH};
use super::pattern::Pattern;
use super::tally::Tally;
use crate::ask::MAX_DATAGRAM;
use crate::catalog;
use crate::connect::Target;
use crate::stop::{Outcome, Stop};

/// Keep a window of datagrams under way on each socket and count the answers and the losses.
///
/// A request counts as lost when no answer has come for a second. Requests of "time" are one byte, and
/// any answer counts (ctime, daytime, time); as these answers have no mark, they are matched in
/// order. Answers to "echo" (8 bytes and more) and "sntp" are matched by what they carry and
/// checked.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard bench udp
  portyard bench udp udp://127.0.0.1:3707 --request echo --size 512
  portyard bench udp --request sntp --sockets 8 --window 16 --seconds 10 --json")]
pub struct Args {
    /// The server. [default: the yard's port for the kind of request]
    endpoint: Option<Endpoint>,
    /// What to send.
    #[arg(long, value_enum, default_value_t = Kind::Time)]
    request: Kind,
    /// Sockets, each with its own port, 1 to 20000.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    sockets: u32,
    /// Requests under way on each socket, 1 to 1024.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=MAX_DEPTH))]
    window: u32,
    /// Bytes of a datagram of --request echo, 1 to 65507.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=MAX_DATAGRAM as i64))]
    size: u32,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One byte; any answer.
    Time,
    /// A payload that comes back.
    Echo,
    /// A client's packet of NTP version 4.
    Sntp,
}

/// Runs the load and prints the result.
pub fn run(args: Args) -> Outcome {
    let service = match args.request {
        Kind::Time => "ctime",
        Kind::Echo => "echo",
        Kind::Sntp => "sntp",
    };
    let endpoint = args
        .endpoint
        .or_else(|| catalog::find(Transport::Datagram, service).map(catalog::Service::endpoint))
        .ok_or_else(|| Stop::fatal(Exit::Usage, "name an endpoint"))?;
    let size = match args.request {
        Kind::Time => 1,
        Kind::Echo => args.size as usize,
        Kind::Sntp => sntp::LEN,
    };
    let in_flight = u64::from(args.sockets) * u64::from(args.window) * size as u64;
    if in_flight > MAX_IN_FLIGHT {
        return Err(Stop::fatal(
            Exit::Usage,
            format!("{in_flight} bytes in flight are more than 256 MiB; lower one of the numbers"),
        ));
    }
    let target = args.load.target(endpoint, Transport::Datagram)?;
    if target.internet_addresses().next().is_none() {
        return Err(Stop::fatal(
            Exit::Usage,
            format!("{} is not UDP", target.endpoint),
        ));
    }
    let plan = Plan {
        kind: args.request,
        size,
        window: args.window as usize,
    };
    let tally = args.load.run(args.sockets, |share| {
        drive(&target, share, plan, &args.load)
    })?;
    let shape = [
        ("sockets", args.sockets.into()),
        ("window", args.window.into()),
        ("size", size as u64),
    ];
    tally.report(&args.load, service, &target, &shape)
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    kind: Kind,
    size: usize,
    window: usize,
}

impl Plan {
    /// Where a request, and its answer, carry the request's number.
    fn mark(self) -> Option<(usize, usize)> {
        match self.kind {
            Kind::Echo if self.size >= 8 => Some((0, 0)),
            // The transmit time comes back as the origin (RFC 5905 section 7.3).
            Kind::Sntp => Some((40, 24)),
            _ => None,
        }
    }

    fn request(self, pattern: &Pattern) -> Vec<u8> {
        match self.kind {
            Kind::Time => b"\n".to_vec(),
            Kind::Echo => pattern.at(0, self.size).to_vec(),
            Kind::Sntp => sntp::Request::new(sntp::Timestamp::UNKNOWN, 4).to_vec(),
        }
    }
}

async fn drive(target: &Target, share: u32, plan: Plan, load: &Load) -> Result<Tally, Fatal> {
    let shared = Rc::new(Shared {
        plan,
        template: plan.request(&Pattern::new()),
        batch: RefCell::new(Batch::new(plan.size)),
        tally: RefCell::new(Tally::new()?),
    });
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    let deadline = load.deadline();
    for _ in 0..share {
        let socket = UdpSocket::from_std(target.datagrams(0)?.into())
            .map_err(|error| target.failure(&error))?;
        let mut window = Window::new(socket);
        let shared = Rc::clone(&shared);
        tasks.spawn_local(async move { poll_fn(|cx| window.poll(cx, &shared)).await });
    }
    tokio::select! {
        () = tokio::time::sleep_until(deadline.into()) => {}
        // A task ends only with an error.
        Some(ended) = tasks.join_next() => return Err(match ended {
            Ok(error) => target.failure(&error),
            Err(panic) => Fatal::new(Exit::Software, panic.to_string()),
        }),
    }
    tasks.shutdown().await;
    let mut tally = shared.tally.replace(Tally::new()?);
    tally.finish(started.elapsed());
    Ok(tally)
}

/// What the sockets of one loop share.
struct Shared {
    plan: Plan,
    template: Vec<u8>,
    batch: RefCell<Batch>,
    tally: RefCell<Tally>,
}

/// One socket and the requests under way on it.
struct Window {
    socket: UdpSocket,
    /// Number and time of each request, the oldest first.
    open: VecDeque<(u64, Instant)>,
    next: u64,
    /// A batch stopped half-way, and sendmmsg(2) keeps the reason for itself. A single datagram
    /// tells whether it is that nobody listens.
    cut_short: bool,
    sweep: Interval,
}

impl Window {
    fn new(socket: UdpSocket) -> Self {
        let mut sweep = interval(LOST_AFTER / 4);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            open: VecDeque::new(),
            next: 1,
            cut_short: false,
            sweep,
        }
    }

    /// Sends and receives as far as the socket goes; ready only with an error.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Error> {
        loop {
            let filled = self.fill(cx, shared);
            if let Poll::Ready(Err(error)) = filled {
                return Poll::Ready(error);
            }
            match self.receive(cx, shared) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending if self.sweep.poll_tick(cx).is_ready() => self.give_up(shared),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends until the window is full.
    fn fill(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<()>> {
        let plan = shared.plan;
        let mut batch = shared.batch.borrow_mut();
        while self.open.len() < plan.window {
            std::task::ready!(self.socket.poll_send_ready(cx))?;
            let count = if self.cut_short {
                1
            } else {
                (plan.window - self.open.len()).min(BATCH)
            };
            let slot = batch.slot;
            for (number, request) in
                (self.next..).zip(batch.bytes.chunks_exact_mut(slot).take(count))
            {
                request[..plan.size].copy_from_slice(&shared.template);
                if let Some((at, _)) = plan.mark() {
                    request[at..at + 8].copy_from_slice(&number.to_be_bytes());
                }
            }
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                batch.send(&self.socket, count, plan.size)
            });
            match sent {
                Ok(sent) => {
                    let now = Instant::now();
                    self.open
                        .extend((self.next..).take(sent).map(|number| (number, now)));
                    self.next += sent as u64;
                    if self.cut_short
                        && let Some(error) = self.socket.take_error()?
                    {
                        return Poll::Ready(Err(error));
                    }
                    self.cut_short = sent < count;
                }
                // The loop registers with the reactor.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Receives one batch.
    fn receive(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<()>> {
        std::task::ready!(self.socket.poll_recv_ready(cx))?;
        let mut batch = shared.batch.borrow_mut();
        let received = self.socket.try_io(Interest::READABLE, || {
            batch.receive(&self.socket)?;
            if batch.lengths.len() < BATCH {
                // The queue is empty: say so to the reactor, which saves a call that would tell it.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match received {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            _ => {}
        }
        let now = Instant::now();
        let mut tally = shared.tally.borrow_mut();
        for (answer, length) in batch.bytes.chunks_exact(batch.slot).zip(&batch.lengths) {
            self.take(&answer[..*length], shared, now, &mut tally);
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, answer: &[u8], shared: &Shared, now: Instant, tally: &mut Tally) {
        let plan = shared.plan;
        let fits = match plan.kind {
            Kind::Time => !answer.is_empty(),
            Kind::Echo => {
                let checked = if plan.mark().is_some() { 8 } else { 0 };
                answer.len() == plan.size && answer[checked..] == shared.template[checked..]
            }
            Kind::Sntp => answer.len() >= sntp::LEN && answer[0] & 7 == SERVER_MODE,
        };
        if !fits {
            tally.failed(format!("{} bytes that are no answer", answer.len()));
            return;
        }
        let at = match plan.mark() {
            None => (!self.open.is_empty()).then_some(0),
            Some((_, at)) => {
                let mut number = [0; 8];
                number.copy_from_slice(&answer[at..at + 8]);
                let number = u64::from_be_bytes(number);
                self.open.iter().position(|(open, _)| *open == number)
            }
        };
        // An answer that comes after its request was given up is no loss less.
        if let Some((_, begun)) = at.and_then(|at| self.open.remove(at)) {
            tally.bytes += answer.len() as u64;
            tally.answered(1, now - begun);
        }
    }

    /// Counts requests that have waited too long as lost.
    fn give_up(&mut self, shared: &Shared) {
        let now = Instant::now();
        while self
            .open
            .front()
            .is_some_and(|(_, begun)| now - *begun >= LOST_AFTER)
        {
            self.open.pop_front();
            shared.tally.borrow_mut().lost += 1;
        }
    }
}

const LOST_AFTER: Duration = Duration::from_secs(1);
const SERVER_MODE: u8 = 4;
const MAX_IN_FLIGHT: u64 = 256 << 20;
