//! Calls a method of a JSON-RPC server.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use portyard_core::endpoint::Endpoint;
use portyard_wire::jsonrpc::{
    self, Call, Caps, Decoder, ErrorObject, Framing, Id, Incoming, Item, Params, json,
};
use portyard_wire::value::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::config::RpcConfig;
use super::pattern::{Captures, Pattern};
use super::template::{Escape, Template};
use super::upstream::{self, Upstream, broken};
use super::values::{fill, template};
use crate::http::{Answer, Problem, Request, respond};

/// A connection to a JSON-RPC server, a message on each line.
pub struct Caller {
    stream: Upstream,
    decoder: Decoder,
    next: u64,
}

impl Caller {
    /// Connects.
    pub async fn connect(server: &Endpoint) -> Result<Self, Problem> {
        Ok(Self {
            stream: Upstream::connect(server, None, CONNECT).await?,
            decoder: Decoder::new(CAPS.size),
            next: 1,
        })
    }

    /// Calls a method: its result, or the error that the server tells.
    pub async fn call(
        &mut self,
        method: &str,
        params: &Params,
    ) -> Result<Result<Value, ErrorObject>, Problem> {
        let id = Id::from(self.next);
        self.next += 1;
        let mut message = Vec::new();
        jsonrpc::encode_request(Some(&id), method, params, &mut message).map_err(|error| {
            let detail = format!("the parameters cannot be passed on: {error}");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })?;
        let mut framed = Vec::with_capacity(message.len() + 1);
        // A line has any length.
        let _ = Framing::Lines.frame(&message, &mut framed);
        self.stream.write_all(&framed).await.map_err(|_| broken())?;
        let reply = self.receive().await?;
        let reply = jsonrpc::decode_response(&reply, &CAPS).map_err(|_| broken())?;
        let is_ours = reply.id == id || (reply.id == Id::null() && reply.outcome.is_err());
        if is_ours {
            Ok(reply.outcome)
        } else {
            Err(broken())
        }
    }

    /// Waits for what the server tells unasked. Nothing is lost when the future is dropped.
    pub async fn told(&mut self) -> Result<Call, Problem> {
        let message = self.receive().await?;
        match jsonrpc::decode(&message, &CAPS) {
            Incoming::Single(Item::Call(call)) => Ok(call),
            _ => Err(broken()),
        }
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Problem> {
        loop {
            if let Some(message) = self.decoder.next().map_err(|_| broken())? {
                return Ok(message);
            }
            let mut buffer = vec![0; READ];
            let length = self.stream.read(&mut buffer).await.map_err(|_| broken())?;
            if length == 0 {
                return Err(broken());
            }
            self.decoder.feed(&buffer[..length]);
        }
    }
}

/// An error of a server, as an answer. The codes are those of JSON-RPC, and of kv-rpc.
pub fn problem_of(error: &ErrorObject) -> Problem {
    let status = match error.code {
        -32_001 => StatusCode::NOT_FOUND,
        -32_002 => StatusCode::CONFLICT,
        -32_003 => StatusCode::PAYLOAD_TOO_LARGE,
        -32_004 | -32_005 => StatusCode::SERVICE_UNAVAILABLE,
        -32_006 => StatusCode::FORBIDDEN,
        -32_602 => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    Problem::new(status, error.message.clone())
}

/// The handler.
pub struct Rpc {
    server: Endpoint,
    method: String,
    parameters: Shape,
}

/// Parameters with holes in them.
enum Shape {
    Constant(Value),
    Text(Template),
    /// The body of the request.
    Body,
    List(Vec<Shape>),
    Map(Vec<(String, Shape)>),
}

impl Rpc {
    /// Reads what is called.
    pub fn new(config: &RpcConfig, pattern: &Pattern) -> Result<Self, String> {
        upstream::check(&config.server).map_err(|why| format!("rpc.server: {why}"))?;
        if config.method.is_empty() {
            return Err("rpc.method names no method".into());
        }
        let parameters = Shape::new(&config.parameters, pattern)?;
        if !matches!(parameters, Shape::List(_) | Shape::Map(_)) {
            return Err("rpc.parameters must be a list or a table".into());
        }
        Ok(Self {
            server: config.server.clone(),
            method: config.method.clone(),
            parameters,
        })
    }

    /// Answers.
    pub async fn answer(&self, mut request: Request, captures: &Captures) -> Answer {
        let body = if self.parameters.wants_body() {
            let bytes = request.body.collect().await?;
            let read = json::decode(&bytes, &CAPS).map_err(|error| {
                let detail = format!("the body is not the JSON that is wanted: {error}");
                Problem::new(StatusCode::BAD_REQUEST, detail)
            });
            read?
        } else {
            Value::Nil
        };
        let params = match self.parameters.fill(&request, captures, &body) {
            Value::List(items) => Params::Positional(items),
            Value::Map(pairs) => Params::Named(named(pairs)),
            _ => Params::None,
        };
        let mut caller = Caller::connect(&self.server).await?;
        let result = caller.call(&self.method, &params).await?;
        let value = result.map_err(|error| problem_of(&error))?;
        let mut text = Vec::new();
        json::encode(&value, &mut text).map_err(|error| Problem::internal(error.to_string()))?;
        text.push(b'\n');
        let mut response = respond(StatusCode::OK, "application/json", text);
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(response)
    }
}

/// JSON-RPC names parameters by text alone, and the shape has no other.
fn named(pairs: Vec<(Value, Value)>) -> Vec<(String, Value)> {
    let text = |(name, value)| match name {
        Value::String(name) => Some((name, value)),
        _ => None,
    };
    pairs.into_iter().filter_map(text).collect()
}

impl Shape {
    fn new(value: &toml::Value, pattern: &Pattern) -> Result<Self, String> {
        Ok(match value {
            toml::Value::String(text) if text == "{{body}}" => Self::Body,
            toml::Value::String(text) => {
                let parsed =
                    template(text, pattern).map_err(|why| format!("rpc.parameters: {why}"))?;
                if parsed.is_constant() {
                    Self::Constant(Value::String(text.clone()))
                } else {
                    Self::Text(parsed)
                }
            }
            toml::Value::Integer(number) => Self::Constant(Value::Int(*number)),
            toml::Value::Float(number) => Self::Constant(Value::Double(*number)),
            toml::Value::Boolean(yes) => Self::Constant(Value::Bool(*yes)),
            toml::Value::Datetime(_) => {
                return Err("rpc.parameters: JSON has no dates; write a string".into());
            }
            toml::Value::Array(items) => {
                let items = items.iter().map(|item| Self::new(item, pattern));
                Self::List(items.collect::<Result<_, _>>()?)
            }
            toml::Value::Table(pairs) => {
                let pairs = pairs
                    .iter()
                    .map(|(name, item)| Ok((name.clone(), Self::new(item, pattern)?)));
                Self::Map(pairs.collect::<Result<_, String>>()?)
            }
        })
    }

    fn wants_body(&self) -> bool {
        match self {
            Self::Body => true,
            Self::Constant(_) | Self::Text(_) => false,
            Self::List(items) => items.iter().any(Self::wants_body),
            Self::Map(pairs) => pairs.iter().any(|(_, item)| item.wants_body()),
        }
    }

    fn fill(&self, request: &Request, captures: &Captures, body: &Value) -> Value {
        match self {
            Self::Constant(value) => value.clone(),
            Self::Text(text) => Value::String(fill(text, Escape::None, request, captures)),
            Self::Body => body.clone(),
            Self::List(items) => {
                let items = items.iter().map(|item| item.fill(request, captures, body));
                Value::List(items.collect())
            }
            Self::Map(pairs) => {
                let pairs = pairs.iter().map(|(name, item)| {
                    (
                        Value::String(name.clone()),
                        item.fill(request, captures, body),
                    )
                });
                Value::Map(pairs.collect())
            }
        }
    }
}

/// A reply has as much room as a value of kv-rpc.
pub const CAPS: Caps = Caps {
    size: 64 << 20,
    batch: 1,
};
const CONNECT: Duration = Duration::from_secs(5);
const READ: usize = 16 << 10;
