//! The services `python` and `raw`: workers that get one connection at a time and report little.
//!
//! A `python` worker sits in `multiprocessing.reduction.recv_handle`, which takes a byte and a
//! descriptor and answers nothing: that it has read them is seen by the socket's draining. A `raw` worker
//! takes the same and answers `OK`. Neither tells when a connection ends; the kernel does.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portyard_core::fdpass::ReceiveError;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::framing::{Decoder, Framing};
use portyard_wire::pickle::{self, Caps};
use portyard_wire::value::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::{about, installed};
use crate::broker::Broker;
use crate::crew::Crew;
use crate::pool::{About, ConnectionId, Joining, Legacy, Parked, Pool, Protocol, Seat};
use crate::settings::Options;

/// The service.
pub struct Plain {
    broker: Broker,
    protocol: Protocol,
    options: Options,
}

/// A worker that has begun.
struct Session {
    connection: Connection,
    seat: Option<Seat>,
    protocol: Protocol,
    /// The worker's process; 0: unknown.
    pid: i32,
    /// What it was sent and has not taken, and the inode of that socket.
    offered: Option<(ConnectionId, u64)>,
    /// Listening sockets that it was sent and has not answered.
    lent: usize,
    /// What it has answered, as far as that is not complete.
    answer: Vec<u8>,
    crew: Crew,
    /// A successor may have the worker.
    parked: bool,
}

/// What happens in a session.
enum Event {
    /// The worker says something: nothing at the end.
    Said(io::Result<usize>),
    /// It has read what it was sent.
    Drained(io::Result<()>),
    /// There is something to send or to do.
    Woken,
    /// The daemon drains, and this session is not needed any more.
    Finished,
}

impl Plain {
    /// A service for the workers of a pool.
    pub fn new(broker: Broker, protocol: Protocol, options: &Options) -> Self {
        Self {
            broker,
            protocol,
            options: options.clone(),
        }
    }
}

impl StreamService for Plain {
    fn serve(&self, connection: Connection) -> Serving {
        let pool = self.broker.pool(&self.options.pool);
        let (protocol, options) = (self.protocol, self.options.clone());
        let crew = self.broker.crew().clone();
        Box::pin(async move {
            let Some(pool) = pool else {
                return Ended::Broken;
            };
            let begun = match connection.take_legacy::<Legacy>() {
                Some(legacy) => Ok(go_on(connection, &pool, protocol, &options, crew, *legacy)),
                None => begin(connection, &pool, protocol, &options, crew).await,
            };
            match begun {
                Ok(mut session) => session.run().await,
                Err(ended) => ended,
            }
        })
    }
}

async fn begin(
    mut connection: Connection,
    pool: &Arc<Pool>,
    protocol: Protocol,
    options: &Options,
    crew: Crew,
) -> Result<Session, Ended> {
    let said = match protocol {
        Protocol::Python => match timeout(HELLO_WAIT, read_pid(&mut connection)).await {
            Ok(Ok(pid)) => Some(pid),
            Ok(Err(error)) => {
                tracing::info!(
                    listener = %connection.listener().name, %error,
                    "worker rejected: a python worker begins with send(os.getpid())"
                );
                return Err(Ended::Protocol);
            }
            Err(_) => return Err(Ended::Protocol),
        },
        Protocol::Raw | Protocol::Native => None,
    };
    let about = about(&connection, protocol, "", said);
    let pid = about.pid;
    let joining = joining(&about, options);
    Ok(Session {
        connection,
        seat: Some(Seat::take(pool, about, joining, true)),
        protocol,
        pid,
        offered: None,
        lent: 0,
        answer: Vec::new(),
        crew,
        parked: false,
    })
}

/// Goes on with a worker that a predecessor had, and that notices nothing.
fn go_on(
    connection: Connection,
    pool: &Arc<Pool>,
    protocol: Protocol,
    options: &Options,
    crew: Crew,
    legacy: Legacy,
) -> Session {
    let said = i32::try_from(legacy.record.process).ok();
    let about = about(&connection, protocol, "", said);
    let (pid, joining) = (about.pid, joining(&about, options));
    let (lent, answered) = (legacy.record.lent, legacy.record.answered);
    let (seat, offered) = Seat::inherit(pool, about, joining, legacy);
    Session {
        connection,
        seat: Some(seat),
        protocol,
        pid,
        offered,
        lent: lent.into(),
        answer: ANSWER[..usize::from(answered).min(ANSWER.len())].to_vec(),
        crew,
        parked: false,
    }
}

fn joining(about: &About, options: &Options) -> Joining {
    Joining {
        name: about.name.clone(),
        weight: options.weight.get().into(),
        capacity: options.capacity.get(),
        window: 1,
    }
}

/// Reads the message that a `python` worker begins with: its process.
async fn read_pid(connection: &mut Connection) -> io::Result<i32> {
    let wrong =
        |why: &dyn fmt::Display| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    let mut frames = Decoder::new(Framing::Python, PID_MAX);
    let mut bytes = Vec::new();
    loop {
        if let Some(message) = frames.next().map_err(|error| wrong(&error))? {
            let caps = Caps { size: PID_MAX };
            let value = pickle::decode(&message, &caps).map_err(|error| wrong(&error))?;
            let Value::Int(pid) = value else {
                return Err(wrong(&format_args!("it sent a {}", value.kind())));
            };
            return i32::try_from(pid).map_err(|error| wrong(&error));
        }
        bytes.clear();
        if connection.read_some(&mut bytes, PID_MAX).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.feed(&bytes);
    }
}

impl Session {
    async fn run(&mut self) -> Ended {
        loop {
            // A worker may be silent for as long as it likes.
            self.connection.busy();
            match self.event().await {
                Event::Finished => return Ended::Done,
                Event::Woken => {
                    let Some(seat) = &self.seat else {
                        return Ended::Done;
                    };
                    let asked = seat.asked();
                    if asked.cut {
                        return self.give_up().await;
                    }
                    if let Some(to) = asked.park
                        && self.park(to).await
                    {
                        return Ended::Done;
                    }
                    if asked.lent
                        && let Err(error) = self.lend()
                    {
                        return error.into();
                    }
                    if let Err(error) = self.offer() {
                        return error.into();
                    }
                    if self.seat.as_ref().is_some_and(Seat::is_through) {
                        return Ended::Done;
                    }
                }
                Event::Drained(Ok(())) if self.protocol == Protocol::Raw => {}
                Event::Drained(Ok(())) => match self.drained() {
                    Ok(true) => {}
                    Ok(false) => return self.leave().await,
                    Err(ended) => return ended,
                },
                Event::Drained(Err(_)) | Event::Said(Ok(0) | Err(_)) => return self.leave().await,
                Event::Said(Ok(_)) => {
                    if let Err(why) = self.heed() {
                        return self.part(&why);
                    }
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let Self {
            connection,
            seat: Some(seat),
            protocol,
            offered,
            answer,
            crew,
            pid,
            ..
        } = self
        else {
            return Event::Finished;
        };
        let mut woken = pin!(seat.woken());
        let mut finished = None;
        let drains = *protocol == Protocol::Python && offered.is_some();
        poll_fn(|cx| {
            // The end of the worker goes first: a socket whose peer is gone is drained, too.
            let mut bytes = [0; ANSWER.len() + 1];
            if let Poll::Ready(read) = poll_said(connection, cx, &mut bytes) {
                answer.extend_from_slice(&bytes[..*read.as_ref().unwrap_or(&0)]);
                return Poll::Ready(Event::Said(read));
            }
            if drains && let Poll::Ready(drained) = connection.poll_drained(cx) {
                // It may have gone between the two looks.
                if let Poll::Ready(read) = poll_said(connection, cx, &mut bytes) {
                    answer.extend_from_slice(&bytes[..*read.as_ref().unwrap_or(&0)]);
                    return Poll::Ready(Event::Said(read));
                }
                return Poll::Ready(Event::Drained(drained));
            }
            if woken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Woken);
            }
            if connection.finishing() {
                // A program of ours ends with us, and with it what it serves.
                let wait = || Box::pin(seat.finished(crew.has(*pid)));
                let finished = finished.get_or_insert_with(wait);
                return finished.as_mut().poll(cx).map(|()| Event::Finished);
            }
            Poll::Pending
        })
        .await
    }

    /// Sends the connection that is in the outbox, if one is.
    fn offer(&mut self) -> io::Result<()> {
        let Self {
            connection,
            seat: Some(seat),
            protocol,
            offered,
            ..
        } = self
        else {
            return Ok(());
        };
        let byte = first_byte(*protocol);
        seat.send(true, 1, |next, descriptors| {
            connection.pass(&[byte], descriptors)?;
            let inode = installed::inode(descriptors[0]).unwrap_or(0);
            *offered = Some((next[0].0, inode));
            Ok(1)
        })?;
        Ok(())
    }

    /// The worker has read what it was sent. Whether it got it is another question; false when it is gone,
    /// so that nothing can be told of it any more.
    fn drained(&mut self) -> Result<bool, Ended> {
        let (Some(seat), Some((id, inode))) = (&self.seat, self.offered) else {
            return Ok(true);
        };
        if !installed::is_installed(self.pid, inode) {
            seat.cut(
                &"it may open no more descriptors, and a connection got lost on its way to it",
            );
            return Err(Ended::Broken);
        }
        // Asked behind the look at its descriptors, which finds nothing amiss with one that is not there.
        if self.connection.has_ended() {
            return Ok(false);
        }
        self.offered = None;
        let _ = seat.taken(id);
        Ok(true)
    }

    /// Understands what the worker has said.
    fn heed(&mut self) -> Result<(), &'static str> {
        let owes = self.offered.is_some() || self.lent > 0;
        let (Some(seat), Protocol::Raw, true) = (&self.seat, self.protocol, owes) else {
            return Err("it says something where nothing is expected of it");
        };
        if !ANSWER.starts_with(&self.answer) {
            return Err("it does not answer with OK");
        }
        if self.answer.len() == ANSWER.len() {
            self.answer.clear();
            if self.lent > 0 {
                self.lent -= 1;
            } else if let Some((id, _)) = self.offered.take() {
                let _ = seat.taken(id);
            }
        }
        Ok(())
    }

    /// The worker is gone. What it was sent goes to others, if it has not touched it.
    async fn leave(&mut self) -> Ended {
        if self.protocol == Protocol::Python
            && self.offered.is_some()
            && let Some(seat) = &mut self.seat
        {
            // It may have ended this connection alone, and serve the one it has.
            seat.linger();
            if self.is_gone().await
                && let Some(seat) = &mut self.seat
            {
                seat.returns();
            }
        }
        Ended::Done
    }

    /// The worker has not taken what it was sent, in all its time.
    async fn give_up(&mut self) -> Ended {
        let Some(seat) = &mut self.seat else {
            return Ended::Done;
        };
        seat.cut(&"it has not taken an offer in time");
        if self.protocol == Protocol::Python {
            // Nothing takes back what it was sent; its end does, and it is no use as it is.
            seat.linger();
            if self.crew.kill(self.pid)
                && self.is_gone().await
                && let Some(seat) = &mut self.seat
            {
                seat.returns();
            }
        }
        Ended::Protocol
    }

    /// Whether the worker's process is over, which may take a moment after its sockets have closed.
    async fn is_gone(&self) -> bool {
        let start = Instant::now();
        while installed::is_alive(self.pid) {
            if start.elapsed() > DEATH_WAIT {
                return false;
            }
            sleep(DEATH_LOOK).await;
        }
        true
    }

    /// Stops, so that a successor can go on with the worker; whether it does. What the worker says
    /// meanwhile stays in its socket.
    async fn park(&mut self, to: UnboundedSender<Parked>) -> bool {
        let Some(seat) = &self.seat else {
            return false;
        };
        // A program of ours ends with us.
        if self.crew.has(self.pid) {
            return false;
        }
        let (Ok(socket), Ok(estate)) = (self.connection.channel(), seat.park()) else {
            seat.unpark();
            return false;
        };
        let (moved, outcome) = oneshot::channel();
        let parked = Parked::new(
            &self.connection,
            (self.pid, self.lent, self.answer.len()),
            socket.into_socket(),
            estate,
            moved,
        );
        self.parked = true;
        let sent = to.send(parked);
        drop(to);
        let moved = sent.is_ok() && outcome.await.unwrap_or(false);
        if moved {
            if let Some(seat) = self.seat.take() {
                seat.move_out();
            }
        } else {
            self.parked = false;
            seat.unpark();
        }
        moved
    }

    /// Gives the worker the listening sockets that its pool lends.
    fn lend(&mut self) -> io::Result<()> {
        let Self {
            connection,
            seat: Some(seat),
            protocol,
            lent,
            ..
        } = self
        else {
            return Ok(());
        };
        let byte = first_byte(*protocol);
        for (_, socket) in seat.lent()? {
            connection.pass(&[byte], &[socket.as_fd()])?;
            *lent += 1;
        }
        Ok(())
    }

    fn part(&self, why: &dyn fmt::Display) -> Ended {
        if let Some(seat) = &self.seat {
            seat.cut(why);
        }
        Ended::Protocol
    }
}

impl Drop for Session {
    /// What a raw worker has answered counts; after that, its answer fails at its end, which keeps it
    /// from using what goes to others.
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else {
            return;
        };
        if self.parked {
            // It was cut before anybody said whether a successor has the worker, who may be at work.
            return seat.move_out();
        }
        self.connection.shut();
        if let (Protocol::Raw, Some((id, _))) = (self.protocol, self.offered) {
            let mut bytes = [0; ANSWER.len()];
            let length = self.connection.leftover(&mut bytes);
            self.answer.extend_from_slice(&bytes[..length]);
            if self.answer == ANSWER {
                let _ = seat.taken(id);
            }
        }
        drop(seat);
    }
}

/// The number of descriptors, as Python counts them; any byte for the others.
fn first_byte(protocol: Protocol) -> u8 {
    if protocol == Protocol::Python {
        1
    } else {
        b'x'
    }
}

/// Reads what the worker says. A descriptor that comes with it is closed.
fn poll_said(
    connection: &mut Connection,
    cx: &mut Context<'_>,
    bytes: &mut [u8],
) -> Poll<io::Result<usize>> {
    connection
        .poll_receive(cx, bytes)
        .map(|received| match received {
            Ok(message) => Ok(message.length),
            Err(ReceiveError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        })
}

/// What a raw worker answers.
const ANSWER: &[u8] = b"OK";
/// A pickled number is shorter in every protocol.
const PID_MAX: usize = 256;
/// How long a worker may take to say who it is.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// A process that has closed its sockets because it dies is gone within milliseconds.
const DEATH_WAIT: Duration = Duration::from_millis(500);
const DEATH_LOOK: Duration = Duration::from_millis(5);
