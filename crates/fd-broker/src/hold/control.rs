//! The `control` service: what peers ask of a broker, one packet a question, one an answer.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Poll;

use portyard_core::endpoint::Transport;
use portyard_core::fdpass::ReceiveError;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::wire::hold::{HoldError, MESSAGE_MAX, Reason, Reply, Request};

use super::Asker;
use super::socket::HeldSocket;
use crate::broker::Broker;

/// The service.
pub struct Control {
    broker: Broker,
}

impl Control {
    /// The service of this broker.
    pub fn new(broker: Broker) -> Self {
        Self { broker }
    }
}

impl StreamService for Control {
    fn serve(&self, connection: Connection) -> Serving {
        let broker = self.broker.clone();
        Box::pin(async move { converse(&broker, connection).await })
    }

    fn transport(&self) -> Transport {
        Transport::SeqPacket
    }
}

async fn converse(broker: &Broker, mut connection: Connection) -> Ended {
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
            Ok(Some(received)) => received,
            Ok(None) => return Ended::Done,
            Err(error) => return error.tell(&mut connection).await,
        };
        if request == Request::TakeOver {
            return broker
                .succession()
                .hand_over(broker, connection, &asker)
                .await;
        }
        let (reply, sockets) = broker.holding().answer(&asker, request, descriptors);
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

/// Why a packet is no request.
pub(super) enum NoRequest {
    /// It is not one of the protocol.
    Malformed(HoldError),
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
            Self::Malformed(error) => {
                let hint = match error {
                    HoldError::Kind(..0x40) => {
                        "; this is a broker's control socket, and workers connect to a listener of \
                         the service native"
                    }
                    _ => "",
                };
                (Reason::Malformed, format!("{error}{hint}"))
            }
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
pub(super) async fn receive(
    connection: &mut Connection,
) -> Result<Option<(Request, Vec<OwnedFd>)>, NoRequest> {
    let home = connection.home().clone();
    poll_fn(|cx| {
        home.with_buffer(
            |buffer| match connection.poll_receive(cx, &mut buffer[..MESSAGE_MAX]) {
                Poll::Ready(Ok(message)) if message.length == 0 => Poll::Ready(Ok(None)),
                Poll::Ready(Ok(message)) => {
                    let packet = &buffer[..message.length];
                    let request = Request::decode(packet, message.descriptors.len());
                    let request = request.map_err(NoRequest::Malformed)?;
                    Poll::Ready(Ok(Some((request, message.descriptors))))
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
