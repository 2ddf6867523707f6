//! The `native` service: workers that speak our protocol.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use portyard_core::endpoint::Transport;
use portyard_core::fdpass::{Message, ReceiveError};
use portyard_core::serve::{Connection, Ended, Peer, Serving, StreamService};
use portyard_wire::broker::{
    self, BrokerError, FromWorker, MESSAGE_MAX, OFFERS_MAX, Offer, Offers, Report, ToWorker, User,
    VERSION, Welcome,
};
use portyard_wire::hold;
use tokio::time::timeout;

use super::about;
use crate::broker::Broker;
use crate::pool::{ConnectionId, Handed, Joining, Mode, Pool, Protocol, Seat, Sent, Unknown};
use crate::settings::Options;

/// The service.
pub struct Native {
    broker: Broker,
    options: Options,
}

/// A worker that has begun.
struct Session {
    connection: Connection,
    /// Given up in the end, once it is known what the worker has taken.
    seat: Option<Seat>,
    max_capacity: u32,
    offers: Offers,
    /// The worker has left too much unread.
    blocked: bool,
}

/// What a worker says, once it has begun.
enum Said {
    Report(Vec<Report>),
    Capacity(u32),
    Drain,
    Resume,
    Ping(u64),
}

/// What happens in a session.
enum Event {
    /// The worker says something, breaks the rules, or is gone.
    Said(io::Result<Option<Result<Said, BrokerError>>>),
    /// There is something to send or to do.
    Woken,
    /// There is room for what was kept.
    Writable,
    /// The daemon drains, and this session is not needed any more.
    Finished,
}

/// A worker's own words about itself.
struct Beginning {
    /// The pool it means to work for; empty for whichever is here.
    pool: String,
    name: String,
    capacity: u32,
    weight: u32,
    mute: bool,
}

impl Native {
    /// A service for the workers of a pool.
    pub fn new(broker: Broker, options: &Options) -> Self {
        Self {
            broker,
            options: options.clone(),
        }
    }
}

impl StreamService for Native {
    fn serve(&self, connection: Connection) -> Serving {
        let pool = self.broker.pool(&self.options.pool);
        let max_capacity = self.options.max_capacity.get();
        Box::pin(async move {
            let Some(pool) = pool else {
                return Ended::Broken;
            };
            match begin(connection, &pool, max_capacity).await {
                Ok(mut session) => session.run().await,
                Err(ended) => ended,
            }
        })
    }

    fn transport(&self) -> Transport {
        Transport::SeqPacket
    }
}

/// From HELLO to WELCOME.
async fn begin(
    mut connection: Connection,
    pool: &Arc<Pool>,
    max_capacity: u32,
) -> Result<Session, Ended> {
    let hello = match timeout(HELLO_WAIT, hear_hello(&mut connection, pool)).await {
        Ok(hello) => hello?,
        Err(_) => Some(Err("HELLO did not come in time".into())),
    };
    let beginning = match hello {
        None => return Err(Ended::Broken),
        Some(Ok(beginning)) if beginning.pool.is_empty() || beginning.pool == pool.name => {
            beginning
        }
        Some(other) => {
            let why = match other {
                Ok(_) => format!("this socket is for workers of the pool {}", pool.name),
                Err(why) => why,
            };
            tracing::info!(listener = %connection.listener().name, why, "worker rejected");
            connection.pass(&ToWorker::Rejected(&why).encode(), &[])?;
            return Err(Ended::Protocol);
        }
    };
    welcome(connection, pool, max_capacity, beginning)
}

/// Serves a worker whose HELLO has come to a control socket.
pub async fn serve_hello(
    connection: Connection,
    pool: &Arc<Pool>,
    max_capacity: u32,
    hello: Hello,
) -> Ended {
    match welcome(connection, pool, max_capacity, hello.0) {
        Ok(mut session) => session.run().await,
        Err(ended) => ended,
    }
}

/// A HELLO that somebody else has received.
pub struct Hello(Beginning);

impl Hello {
    /// Reads a packet that came with so many descriptors, or says why it is none.
    pub fn read(packet: &[u8], descriptors: usize) -> Result<Self, String> {
        read_hello(packet, descriptors).map(Self)
    }

    /// The pool that the worker means; empty for none in particular.
    pub fn pool(&self) -> &str {
        &self.0.pool
    }
}

/// What a daemon is told that asks what is behind the name of a pool.
pub fn pool_reply(pool: &Pool) -> hold::Reply {
    hold::Reply::Pool {
        mode: match pool.config().mode {
            Mode::Connections => hold::Mode::Connections,
            Mode::Listener => hold::Mode::Listener,
        },
    }
}

/// Lets a worker in.
fn welcome(
    mut connection: Connection,
    pool: &Arc<Pool>,
    max_capacity: u32,
    beginning: Beginning,
) -> Result<Session, Ended> {
    let welcome = ToWorker::Welcome(Welcome {
        version: VERSION,
        mode: match pool.config().mode {
            Mode::Connections => broker::Mode::Connections,
            Mode::Listener => broker::Mode::Listener,
        },
        pool: &pool.name,
    });
    connection.pass(&welcome.encode(), &[])?;
    let Beginning {
        name,
        capacity,
        weight,
        mute,
        ..
    } = beginning;
    let about = about(&connection, Protocol::Native, &name, None);
    let capacity = capacity.min(max_capacity);
    let joining = Joining {
        name: about.name.clone(),
        weight,
        capacity,
        window: max_capacity,
    };
    let seat = Seat::take(pool, about, joining, mute);
    Ok(Session {
        connection,
        seat: Some(seat),
        max_capacity,
        offers: Offers::new(),
        blocked: false,
    })
}

/// The first message of a worker. A daemon that wants to know what is behind a name asks before, as it
/// would a control socket, and may go again.
async fn hear_hello(
    connection: &mut Connection,
    pool: &Arc<Pool>,
) -> io::Result<Option<Result<Beginning, String>>> {
    let opening = poll_fn(|cx| poll_message(connection, cx, read_opening)).await?;
    let Some(Opening::Asks(name)) = opening else {
        return Ok(opening.map(Opening::hello));
    };
    let reply = if name.as_str() == &*pool.name {
        pool_reply(pool)
    } else {
        hold::Reply::Refused {
            reason: hold::Reason::NoSuchName,
            text: format!("this socket is for workers of the pool {}", pool.name),
        }
    };
    connection.pass(&reply.encode(), &[])?;
    let opening = poll_fn(|cx| poll_message(connection, cx, read_opening)).await?;
    Ok(opening.map(Opening::hello))
}

/// How a worker can begin.
enum Opening {
    Hello(Result<Beginning, String>),
    /// It asks what is behind a name.
    Asks(hold::Name),
}

impl Opening {
    fn hello(self) -> Result<Beginning, String> {
        match self {
            Self::Hello(hello) => hello,
            Self::Asks(_) => Err("a worker that has its answer says HELLO".into()),
        }
    }
}

fn read_opening(packet: &[u8], descriptors: usize) -> Opening {
    match hold::Request::decode(packet, descriptors) {
        Ok(hold::Request::Retrieve { name }) => Opening::Asks(name),
        _ => Opening::Hello(read_hello(packet, descriptors)),
    }
}

fn read_hello(packet: &[u8], descriptors: usize) -> Result<Beginning, String> {
    match FromWorker::decode(packet, descriptors) {
        Ok(FromWorker::Hello(hello)) if hello.version == VERSION => Ok(Beginning {
            pool: hello.pool.into(),
            name: hello.name.into(),
            capacity: hello.capacity,
            weight: hello.weight.into(),
            mute: !hello.reports_done,
        }),
        Ok(FromWorker::Hello(hello)) => Err(format!(
            "version {} is not spoken here, only {VERSION}",
            hello.version
        )),
        Ok(_) => Err("a worker begins with HELLO".into()),
        Err(error) => Err(error.to_string()),
    }
}

impl Session {
    /// Offers, listens to what becomes of them, until one of the two ends leaves.
    async fn run(&mut self) -> Ended {
        loop {
            // A worker may be silent for as long as it likes.
            self.connection.busy();
            let said = match self.event().await {
                Event::Finished | Event::Said(Ok(None)) => return Ended::Done,
                Event::Woken | Event::Writable => match self.attend() {
                    Ok(true) if self.seat.as_ref().is_some_and(Seat::is_through) => {
                        return Ended::Done;
                    }
                    Ok(true) => continue,
                    Ok(false) => return Ended::Protocol,
                    Err(error) => return error.into(),
                },
                Event::Said(Ok(Some(Ok(said)))) => said,
                Event::Said(Ok(Some(Err(error)))) => return self.part(&error),
                Event::Said(Err(error)) => return error.into(),
            };
            if let Err(unknown) = self.heed(said) {
                return self.part(&unknown);
            }
        }
    }

    async fn event(&mut self) -> Event {
        let Self {
            connection,
            seat,
            blocked,
            ..
        } = self;
        let Some(seat) = seat else {
            return Event::Finished;
        };
        let mut woken = pin!(seat.woken());
        let mut finished = pin!(seat.finished(false));
        // What the worker says goes first, so that offers go out once for all of it.
        poll_fn(|cx| {
            if let Poll::Ready(said) = poll_message(connection, cx, read_said) {
                return Poll::Ready(Event::Said(said));
            }
            if woken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Woken);
            }
            if *blocked && connection.poll_writable(cx).is_ready() {
                *blocked = false;
                return Poll::Ready(Event::Writable);
            }
            if connection.finishing() {
                return finished.as_mut().poll(cx).map(|()| Event::Finished);
            }
            Poll::Pending
        })
        .await
    }

    /// Sends what there is to be sent; false when the worker is to be parted with.
    fn attend(&mut self) -> io::Result<bool> {
        let Self {
            connection,
            seat: Some(seat),
            offers,
            blocked,
            ..
        } = self
        else {
            return Ok(false);
        };
        let asked = seat.asked();
        if asked.cut {
            seat.cut(&"it has not answered an offer in time");
            return Ok(false);
        }
        if let Some(draining) = asked.drain {
            let message = if draining {
                ToWorker::Drain
            } else {
                ToWorker::Resume
            };
            connection.pass(&message.encode(), &[])?;
        }
        if asked.lent {
            for (name, socket) in seat.lent()? {
                let message = ToWorker::Listener { name: &name };
                connection.pass(&message.encode(), &[socket.as_fd()])?;
            }
        }
        if !*blocked {
            let sent = seat.send(false, OFFERS_MAX, |next, descriptors| {
                send_offers(connection, offers, next, descriptors)
            })?;
            *blocked = sent == Sent::Blocked;
        }
        Ok(true)
    }

    /// Does what the worker says.
    fn heed(&mut self, said: Said) -> Result<(), Unknown> {
        let Self {
            connection,
            seat: Some(seat),
            max_capacity,
            ..
        } = self
        else {
            return Ok(());
        };
        match said {
            Said::Report(reports) => return seat.report(&reports),
            Said::Capacity(capacity) => seat.set_capacity(capacity.min(*max_capacity)),
            Said::Drain => seat.set_draining(true),
            Said::Resume => seat.set_draining(false),
            Said::Ping(token) => {
                // Who does not read its answers needs none.
                let _ = connection.pass(&ToWorker::Pong(token).encode(), &[]);
            }
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
    /// From here on nothing that the worker says is heard, which it learns by an error: it must not use
    /// what it has not been able to report. What it had said before counts, and only then is it known
    /// what goes to others.
    fn drop(&mut self) {
        let Self {
            connection, seat, ..
        } = self;
        let Some(seat) = seat.take() else {
            return;
        };
        connection.shut();
        let home = connection.home().clone();
        home.with_buffer(|buffer| {
            for _ in 0..LEFTOVERS_MAX {
                let length = connection.leftover(buffer);
                if let Ok(Said::Report(reports)) = read_said(&buffer[..length], 0)
                    && seat.report(&reports).is_ok()
                {
                    continue;
                }
                break;
            }
        });
        drop(seat);
    }
}

/// Sends as many of the next connections as go into one packet.
fn send_offers(
    connection: &mut Connection,
    offers: &mut Offers,
    next: &[(ConnectionId, &Handed)],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    for (id, handed) in next {
        let peer = match handed.peer {
            Peer::Internet(address) => Some(address),
            Peer::Local => None,
        };
        let mut offer = Offer {
            connection: id.0,
            arrival: handed.arrival,
            listener: handed.listener(),
            peer,
            user: peer.is_none().then(|| user(handed)).flatten(),
            ..Offer::default()
        };
        if let Some(peeked) = &handed.peeked {
            peeked.describe(&mut offer);
        }
        if !offers.push(&offer) {
            break;
        }
    }
    let count = offers.len();
    let packet = offers.take();
    connection.pass(&packet, &descriptors[..count])?;
    Ok(count)
}

/// Who is at the other end of a Unix socket.
fn user(handed: &Handed) -> Option<User> {
    let credentials = getsockopt(handed.socket.as_ref()?, PeerCredentials).ok()?;
    Some(User {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
    })
}

/// Reads a packet and understands it; `None` at the end.
fn poll_message<T>(
    connection: &mut Connection,
    cx: &mut Context<'_>,
    read: impl FnOnce(&[u8], usize) -> T,
) -> Poll<io::Result<Option<T>>> {
    let home = connection.home().clone();
    home.with_buffer(|buffer| {
        // One byte more than any message has, so that a longer one is noticed.
        let buffer = &mut buffer[..=MESSAGE_MAX];
        Poll::Ready(match ready!(connection.poll_receive(cx, buffer)) {
            Ok(Message { length: 0, .. }) => Ok(None),
            // Whatever came with it is closed when it goes.
            Ok(message) => Ok(Some(read(
                &buffer[..message.length],
                message.descriptors.len(),
            ))),
            Err(ReceiveError::Io(error)) => Err(error),
            // A header that no message has, so that it is refused as what it is: too long, or robbed.
            Err(_) => Ok(Some(read(&[], 0))),
        })
    })
}

fn read_said(packet: &[u8], descriptors: usize) -> Result<Said, BrokerError> {
    Ok(match FromWorker::decode(packet, descriptors)? {
        FromWorker::Report(reports) => Said::Report(reports),
        FromWorker::Capacity(capacity) => Said::Capacity(capacity),
        FromWorker::Drain => Said::Drain,
        FromWorker::Resume => Said::Resume,
        FromWorker::Ping(token) => Said::Ping(token),
        // A second HELLO.
        FromWorker::Hello(_) => return Err(BrokerError::Kind(packet[0])),
    })
}

/// How long a worker may take to say HELLO.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Packets that a worker may have sent before it was parted with: more than fit into its socket.
const LEFTOVERS_MAX: usize = 4096;
