//! Calls over Python's `multiprocessing.connection`, in the form of the Cookbook's `RPCProxy` (11.8),
//! so that its `RPCHandler` understands them too. A reply is data or is not opened.

use portyard_wire::framing::{Decoder, FrameError, Framing, python_message};
use portyard_wire::pickle::{self, PickleError, Protocol};
use portyard_wire::value::Value;

use super::{Call, Nonsense, Reply, caps};
use crate::kv::raised::Raised;

/// The bytes of a call: a pickle in a pickle.
pub fn encode(call: &Call) -> Result<Vec<u8>, String> {
    let parts = vec![
        Value::from(call.method),
        Value::List(call.params.clone()),
        Value::Map(Vec::new()),
    ];
    let wrapped = pickled(&Value::List(parts)).map(Value::Bytes)?;
    Ok(python_message(&pickled(&wrapped)?))
}

fn pickled(value: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    pickle::encode(value, Protocol::Four, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// The replies of a connection.
pub struct Replies {
    decoder: Decoder,
    max: usize,
}

impl Replies {
    pub fn new(max: usize) -> Self {
        Self {
            decoder: Decoder::new(Framing::Python, max),
            max,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    pub fn at_boundary(&self) -> bool {
        self.decoder.at_boundary()
    }

    pub fn next(&mut self) -> Result<Option<Reply>, Nonsense> {
        let message = self.decoder.next().map_err(|error| match error {
            FrameError::TooLong { .. } => Nonsense::TooLong { max: self.max },
            other => Nonsense::Other(other.to_string()),
        })?;
        let Some(message) = message else {
            return Ok(None);
        };
        if message.starts_with(CHALLENGE) {
            return Err(Nonsense::WantsKey);
        }
        let caps = pickle::Caps {
            size: caps(self.max).size,
        };
        let outcome = match pickle::decode(&message, &caps) {
            // The result itself is in the form of the call.
            Ok(Value::Bytes(inner)) => opened(&inner, caps)?,
            // A server that cannot read the call does not know its form.
            Err(PickleError::Forbidden(_)) => Err(Raised::from_pickle(&message, caps)),
            Ok(_) => return Err(Nonsense::Other("the reply is in another form".into())),
            Err(error) => return Err(Nonsense::Other(error.to_string())),
        };
        Ok(Some(Reply::new(outcome)))
    }
}

fn opened(pickle: &[u8], caps: pickle::Caps) -> Result<Result<Value, Raised>, Nonsense> {
    match pickle::decode(pickle, &caps) {
        Ok(value) => Ok(Ok(value)),
        Err(PickleError::Forbidden(_)) => Ok(Err(Raised::from_pickle(pickle, caps))),
        Err(error) => Err(Nonsense::Other(error.to_string())),
    }
}

/// How a Listener with an authkey begins.
const CHALLENGE: &[u8] = b"#CHALLENGE#";
