//! The `control` service: what peers ask of a broker, one packet a question, one an answer.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Poll;

use portyard_core::endpoint::Transport;
use portyard_core::fdpass::ReceiveError;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::wire::broker::ToWorker;
use portyard_core::wire::hold::{HoldError, MESSAGE_MAX, Name, Reason, Reply, Request};
use portyard_core::wire::operate::Request as Operating;

use super::Asker;
use super::rules::Operation;
use super::socket::HeldSocket;
use crate::broker::Broker;
use crate::operate;
use crate::settings::Options;
use crate::worker::{Hello, pool_reply, serve_hello};

/// The service.
pub struct Control {
    broker: Broker,
    /// Connections at a time of a worker that says hello here.
    max_capacity: u32,
}

impl Control {
    /// The service of this broker.
    pub fn new(broker: Broker, options: &Options) -> Self {
        let max_capacity = options.max_capacity.get();
        Self {
            broker,
            max_capacity,
        }
    }
}

impl StreamService for Control {
    fn serve(&self, connection: Connection) -> Serving {
        let (broker, max_capacity) = (self.broker.clone(), self.max_capacity);
        Box::pin(async move { converse(&broker, connection, max_capacity).await })
    }

    fn transport(&self) -> Transport {
        Transport::SeqPacket
    }
}

async fn converse(broker: &Broker, mut connection: Connection, max_capacity: u32) -> Ended {
    let Ok(user) = connection.user() else {
        return Ended::Broken;
    };
    let key = connection.key();
    let asker = Asker {
        user,
        key: key.as_deref(),
    };
    loop {
        let (request, descriptors) = match receive(&mut connection).await {
            Ok(Some(Received::Request(request, descriptors))) => (request, descriptors),
            Ok(Some(Received::Hello(hello))) => {
                return employ(broker, connection, &asker, max_capacity, hello).await;
            }
            Ok(None) => return Ended::Done,
            Err(NoRequest::Operate(packet)) => {
                for answer in operate::answer(broker, &asker, &packet) {
                    if let Err(error) = send(&mut connection, &answer, &[]).await {
                        return error.into();
                    }
                }
                continue;
            }
            Err(error) => return error.tell(&mut connection).await,
        };
        if request == Request::TakeOver {
            return broker
                .succession()
                .hand_over(broker, connection, &asker)
                .await;
        }
        let pool = match &request {
            Request::Retrieve { name } => broker.open_pool(name.as_str()),
            _ => None,
        };
        let (mut reply, sockets) = broker.holding().answer(&asker, request, descriptors);
        if let (Some(pool), true) = (pool, is_unknown(&reply)) {
            reply = pool_reply(&pool);
        }
        let malformed = matches!(
            reply,
            Reply::Refused {
                reason: Reason::Malformed,
                ..
            }
        );
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(HeldSocket::as_fd).collect();
        if let Err(error) = send(&mut connection, &reply.encode(), &sockets).await {
            return error.into();
        }
        if malformed {
            return Ended::Protocol;
        }
    }
}

/// A worker that has come here for the pool that it names.
async fn employ(
    broker: &Broker,
    mut connection: Connection,
    asker: &Asker<'_>,
    max_capacity: u32,
    hello: Hello,
) -> Ended {
    let name: Result<Name, _> = hello.pool().parse();
    let why = match name.map(|name| broker.holding().permit(asker, Operation::Retrieve, &name)) {
        Err(_) => "a worker that comes to a control socket says for which pool".into(),
        Ok(Err((_, text))) => text,
        Ok(Ok(())) => match broker.open_pool(hello.pool()) {
            Some(pool) => return serve_hello(connection, &pool, max_capacity, hello).await,
            None => format!("there is no pool called {}", hello.pool()),
        },
    };
    tracing::info!(listener = %connection.listener().name, why, "worker rejected");
    match connection.pass(&ToWorker::Rejected(&why).encode(), &[]) {
        Ok(_) => Ended::Protocol,
        Err(error) => error.into(),
    }
}

/// Whether nothing is held under the name, though the peer may ask for it.
fn is_unknown(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Refused {
            reason: Reason::NoSuchName,
            ..
        }
    )
}

/// What comes from a peer.
pub(super) enum Received {
    /// A request with its descriptors.
    Request(Request, Vec<OwnedFd>),
    /// A worker begins.
    Hello(Hello),
}

/// Why a packet is no request.
pub(super) enum NoRequest {
    /// It is one for who operates the broker.
    Operate(Vec<u8>),
    /// It is not one of the protocol.
    Malformed(HoldError),
    /// It is one of a worker, and not a HELLO.
    NoHello(String),
    /// What came with it, or a part of it, got lost.
    Lost(ReceiveError),
}

impl NoRequest {
    /// Tells the peer, which then has no further say.
    async fn tell(self, connection: &mut Connection) -> Ended {
        let (reason, text) = match self {
            Self::Lost(ReceiveError::Io(error)) => return error.into(),
            Self::Lost(error @ ReceiveError::Cut) => (Reason::Failed, error.to_string()),
            Self::Lost(error) => (Reason::Malformed, error.to_string()),
            Self::Operate(_) => (Reason::Malformed, "not in the midst of a hand-over".into()),
            Self::Malformed(error) => (Reason::Malformed, error.to_string()),
            Self::NoHello(text) => (Reason::Malformed, text),
        };
        tracing::debug!(listener = %connection.listener().name, %reason, text, "request refused");
        let ended = if reason == Reason::Malformed {
            Ended::Protocol
        } else {
            Ended::Done
        };
        let reply = Reply::Refused { reason, text };
        match send(connection, &reply.encode(), &[]).await {
            Ok(()) => ended,
            Err(error) => error.into(),
        }
    }
}

/// The next request with its descriptors; `None` at the end, which a drain brings about too.
pub(super) async fn receive(connection: &mut Connection) -> Result<Option<Received>, NoRequest> {
    let home = connection.home().clone();
    poll_fn(|cx| {
        home.with_buffer(
            |buffer| match connection.poll_receive(cx, &mut buffer[..MESSAGE_MAX]) {
                Poll::Ready(Ok(message)) if message.length == 0 => Poll::Ready(Ok(None)),
                Poll::Ready(Ok(message)) => {
                    let (packet, came) = (&buffer[..message.length], message.descriptors.len());
                    if Operating::KINDS.contains(&packet[0]) && came == 0 {
                        return Poll::Ready(Err(NoRequest::Operate(packet.to_vec())));
                    }
                    if packet[0] < *Request::KINDS.start() {
                        let hello = Hello::read(packet, came).map_err(NoRequest::NoHello)?;
                        return Poll::Ready(Ok(Some(Received::Hello(hello))));
                    }
                    let request = Request::decode(packet, came).map_err(NoRequest::Malformed)?;
                    let request = Received::Request(request, message.descriptors);
                    Poll::Ready(Ok(Some(request)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(NoRequest::Lost(error))),
                Poll::Pending if connection.finishing() => Poll::Ready(Ok(None)),
                Poll::Pending => Poll::Pending,
            },
        )
    })
    .await
}

/// Sends a message with descriptors.
pub(super) async fn send(
    connection: &mut Connection,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    poll_fn(|cx| connection.poll_send(cx, bytes, descriptors)).await?;
    Ok(())
}
