//! Calls over Python's `multiprocessing.connection`, as the Cookbook's `RPCHandler` and `RPCProxy`
//! make them (11.8), in pickles that are data and nothing else.

use std::io;
use std::sync::Arc;

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::framing::{Decoder, Framing, python_message};
use portyard_wire::pickle::rpc::{self, Request};
use portyard_wire::pickle::{BuiltinException, Caps, Exception};
use portyard_wire::value::Value;

use super::sayable::rescued;
use super::{Call, in_order};
use crate::error::MethodError;
use crate::methods::{Arguments, Reply};
use crate::settings::Options;
use crate::state::State;

/// The service.
pub struct PythonRpc(Arc<Door>);

struct Door {
    state: State,
    options: Options,
    caps: Caps,
}

impl PythonRpc {
    /// Puts the door in front of the store.
    pub fn new(state: State, options: &Options) -> Self {
        let caps = Caps {
            size: options.max_request.bytes().saturating_mul(SIZE_FACTOR),
        };
        Self(Arc::new(Door {
            state,
            options: options.clone(),
            caps,
        }))
    }
}

impl StreamService for PythonRpc {
    fn serve(&self, mut connection: Connection) -> Serving {
        let door = self.0.clone();
        Box::pin(async move {
            let served = door.serve(&mut connection).await;
            served.unwrap_or_else(Ended::from)
        })
    }
}

impl Door {
    async fn serve(&self, connection: &mut Connection) -> io::Result<Ended> {
        let cap = self.options.max_request.bytes();
        let mut decoder = Decoder::new(Framing::Python, cap);
        let mut room = self.state.room();
        loop {
            let mut arrived = Vec::new();
            if connection.read_some(&mut arrived, READ).await? == 0 {
                connection.finish().await;
                let whole = decoder.at_boundary();
                return Ok(if whole { Ended::Done } else { Ended::Protocol });
            }
            decoder.feed(&arrived);
            loop {
                match decoder.next() {
                    Ok(Some(message)) => {
                        // While we work, nothing need move.
                        connection.busy();
                        let Some(reply) = self.answer(connection, &message).await else {
                            connection.finish().await;
                            return Ok(Ended::Protocol);
                        };
                        connection.write_all(&python_message(&reply)).await?;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        connection.count_bad_input();
                        connection.finish().await;
                        return Ok(Ended::Protocol);
                    }
                }
            }
            if decoder.at_boundary() {
                // A client that is never silent would be cut in the midst of a message later.
                if connection.draining() {
                    connection.finish().await;
                    return Ok(Ended::Done);
                }
                // An idle connection keeps nothing.
                (decoder, room) = (Decoder::new(Framing::Python, cap), self.state.room());
            } else if !room.grow(decoder.memory() as u64) {
                connection.finish().await;
                return Ok(Ended::Done);
            }
        }
    }

    /// The reply to a request; `None` where nobody can say in which form it would be one.
    async fn answer(&self, connection: &Connection, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let Request {
            name,
            args,
            kwargs,
            form,
        } = match rpc::decode_request(message, &self.caps) {
            Ok(request) => request,
            Err(refused) => {
                connection.count_bad_input();
                let exception =
                    Exception::new(BuiltinException::ValueError, refused.why.to_string());
                rpc::encode_reply(refused.form?, Err(&exception), &mut out);
                return Some(out);
            }
        };
        let call = Call {
            method: name,
            arguments: Arguments::Named(args, kwargs),
        };
        let result = in_order(&self.state, self.options.read_only, vec![call])
            .await
            .pop();
        match result.unwrap_or(Ok(Reply::Owned(Value::Nil))) {
            Ok(reply) => {
                let why_not = |value: &Value| rpc::why_unsaid(form, value);
                let rescue = match &reply {
                    Reply::Events(told) if why_not(told).is_some() => rescued(&reply, why_not),
                    _ => None,
                };
                let value = rescue.as_ref().unwrap_or(reply.value());
                rpc::encode_reply(form, Ok(value), &mut out);
            }
            Err(error) => rpc::encode_reply(form, Err(&exception(&error)), &mut out),
        }
        Some(out)
    }
}

/// What the client raises.
fn exception(error: &MethodError) -> Exception {
    let class = match error {
        MethodError::Missing { .. }
        | MethodError::NoSuchMethod(_)
        | MethodError::NotOverHttp(_) => BuiltinException::KeyError,
        MethodError::History { .. } => BuiltinException::LookupError,
        MethodError::Type(_) => BuiltinException::TypeError,
        MethodError::Value(_) | MethodError::TooLarge(_) => BuiltinException::ValueError,
        MethodError::Overflow(_) => BuiltinException::OverflowError,
        MethodError::ReadOnly(_) => BuiltinException::PermissionError,
        MethodError::Conflict { .. } | MethodError::Busy(_) | MethodError::Unavailable { .. } => {
            BuiltinException::RuntimeError
        }
    };
    match error {
        // As Python's own: the key itself, not its text.
        MethodError::Missing { key } => Exception {
            class,
            args: vec![key.clone()],
        },
        MethodError::NoSuchMethod(name) => Exception::new(class, name),
        other => Exception::new(class, other.to_string()),
    }
}

/// Values take about so many times their pickle in memory at the most.
const SIZE_FACTOR: usize = 8;
/// What one read takes at the most.
const READ: usize = 64 << 10;
