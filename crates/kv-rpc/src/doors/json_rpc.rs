//! JSON-RPC 2.0: over HTTP, or framed on the bare stream, told apart by the first byte.

use std::io;
use std::sync::Arc;

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Head;
use portyard_wire::jsonrpc::{self, Caps, Decoder, Framing, Incoming, Item, Params, Replies, json};
use portyard_wire::value::Value;

use super::http::{Exchange, HttpDoor, Response};
use super::sayable::{rescued, without};
use super::subscriptions::{OverHttp, Subscriptions, Word};
use super::{Call, OwnMethods, in_order_with};
use crate::error::MethodError;
use crate::methods::{Arguments, Reply};
use crate::settings::Options;
use crate::state::State;
use crate::store::Store;

/// The service.
pub struct JsonRpc(Arc<Door>);

struct Door {
    state: State,
    options: Options,
    caps: Caps,
}

impl JsonRpc {
    /// Puts the door in front of the store.
    pub fn new(state: State, options: &Options) -> Self {
        let caps = Caps {
            size: options.max_request.bytes().saturating_mul(SIZE_FACTOR),
            batch: options.max_batch as usize,
        };
        Self(Arc::new(Door {
            state,
            options: options.clone(),
            caps,
        }))
    }
}

impl StreamService for JsonRpc {
    fn serve(&self, mut connection: Connection) -> Serving {
        let door = self.0.clone();
        Box::pin(async move {
            door.serve(&mut connection)
                .await
                .unwrap_or_else(Ended::from)
        })
    }
}

impl Door {
    async fn serve(&self, connection: &mut Connection) -> io::Result<Ended> {
        let mut pending = Vec::new();
        if connection.read_some(&mut pending, READ).await? == 0 {
            connection.finish().await;
            return Ok(Ended::Done);
        }
        // A method of HTTP begins with a capital letter; so does `Content-Length`, alone with its C.
        let cap = self.options.max_request.bytes();
        if pending[0].is_ascii_uppercase() && pending[0] != b'C' {
            let exchange = Exchange::new(connection, self, &self.state, cap, pending);
            return exchange.run().await;
        }
        self.framed(connection, pending).await
    }

    /// Messages one after the other, each answered in the framing in which they come; in between, what
    /// is told to subscribers.
    async fn framed(&self, connection: &mut Connection, mut pending: Vec<u8>) -> io::Result<Ended> {
        let mut decoder = Decoder::new(self.options.max_request.bytes());
        let mut room = self.state.room();
        let mut subscriptions = Subscriptions::new(self.options.max_subscriptions as usize);
        loop {
            decoder.feed(&pending);
            pending.clear();
            let mut messages = Vec::new();
            let broken = loop {
                match decoder.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let framing = decoder.framing().unwrap_or(Framing::Lines);
            let mut out = Vec::new();
            if !messages.is_empty() {
                // While we work, nothing need move.
                connection.busy();
            }
            let (replies, bad_inputs) = self.answer_all(&messages, &mut subscriptions).await;
            (0..bad_inputs).for_each(|_| connection.count_bad_input());
            for reply in replies.into_iter().flatten() {
                if !framing.frame(&reply, &mut out) {
                    connection.write_all(&out).await?;
                    return Ok(Ended::Protocol);
                }
            }
            if let Some(error) = broken {
                connection.count_bad_input();
                let mut reply = Vec::new();
                let id = jsonrpc::Id::null();
                let text = error.to_string();
                jsonrpc::encode_error(&id, jsonrpc::PARSE_ERROR, &text, None, &mut reply);
                // Short enough for every framing.
                let _ = framing.frame(&reply, &mut out);
            }
            if out.is_empty() {
                // Notifications alone have no reply that would show that we are done.
                connection.rested();
            } else {
                connection.write_all(&out).await?;
            }
            let full = !room.grow(decoder.memory() as u64);
            if broken.is_some() || full {
                connection.finish().await;
                return Ok(if full { Ended::Done } else { Ended::Protocol });
            }
            if decoder.at_boundary() {
                // A client that is never silent would be cut in the midst of a message later.
                if connection.draining() {
                    self.push_rest(connection, &mut subscriptions, framing)
                        .await?;
                    connection.finish().await;
                    return Ok(Ended::Done);
                }
                // An idle connection keeps nothing.
                (pending, room) = (Vec::new(), self.state.room());
            }
            let read = self.read(connection, &mut subscriptions, framing, &mut pending);
            if read.await? == 0 {
                self.push_rest(connection, &mut subscriptions, framing)
                    .await?;
                connection.finish().await;
                let whole = decoder.at_boundary();
                return Ok(if whole { Ended::Done } else { Ended::Protocol });
            }
        }
    }

    /// Reads what comes; meanwhile subscribers are told what happens.
    async fn read(
        &self,
        connection: &mut Connection,
        subscriptions: &mut Subscriptions,
        framing: Framing,
        pending: &mut Vec<u8>,
    ) -> io::Result<usize> {
        loop {
            if subscriptions.is_empty() {
                return connection.read_some(pending, READ).await;
            }
            // It may be silent for as long as it likes: we speak, and find out if it is gone.
            connection.busy();
            let word = tokio::select! {
                read = connection.read_some(pending, READ) => return read,
                word = subscriptions.next() => word,
            };
            self.push(connection, word, framing).await?;
        }
    }

    /// Tells the last words, where the daemon stops and the peer may not have them yet.
    async fn push_rest(
        &self,
        connection: &mut Connection,
        subscriptions: &mut Subscriptions,
        framing: Framing,
    ) -> io::Result<()> {
        // Nobody is at the other end where it is the peer that has ended.
        while connection.draining() && !subscriptions.is_empty() {
            let word = subscriptions.next().await;
            self.push(connection, word, framing).await?;
        }
        Ok(())
    }

    async fn push(
        &self,
        connection: &mut Connection,
        word: Word,
        framing: Framing,
    ) -> io::Result<()> {
        let now = self.state.store().map_or(0, Store::now);
        let (method, members) = word.notification(now);
        let params = Params::Named(members);
        let mut message = Vec::new();
        let mut said = jsonrpc::encode_request(None, method, &params, &mut message);
        if let (Err(_), Params::Named(members)) = (&said, params) {
            let members = members.into_iter();
            let members = members.map(|(name, told)| (name, without(&told, &why_not)));
            let params = Params::Named(members.collect());
            said = jsonrpc::encode_request(None, method, &params, &mut message);
        }
        let mut out = Vec::new();
        if said.is_ok() && framing.frame(&message, &mut out) {
            connection.write_all(&out).await?;
        }
        Ok(())
    }

    /// The reply to each message, where there is one, and how many messages were no request, or held
    /// one that was none. All calls are made in their order, and their writes share a sync. `own`
    /// are the methods of this kind of connection.
    async fn answer_all(
        &self,
        messages: &[Vec<u8>],
        own: &mut impl OwnMethods,
    ) -> (Vec<Option<Vec<u8>>>, usize) {
        let mut incoming: Vec<Incoming> = messages
            .iter()
            .map(|message| jsonrpc::decode(message, &self.caps))
            .collect();
        let mut calls = Vec::new();
        for item in incoming.iter_mut().flat_map(items) {
            if let Item::Call(call) = item {
                let params = std::mem::take(&mut call.params);
                calls.push(Call {
                    method: call.method.clone(),
                    arguments: arguments(params),
                });
            }
        }
        let read_only = self.options.read_only;
        let results = in_order_with(&self.state, read_only, calls, own).await;
        let mut results = results.into_iter();
        let mut replies = Vec::with_capacity(incoming.len());
        let mut bad_inputs = 0;
        for mut one in incoming {
            let mut reply = Replies::to(&one);
            let mut is_bad_input = false;
            for item in items(&mut one) {
                match item {
                    Item::Invalid { id, code, message } => {
                        is_bad_input = true;
                        reply.error(id.as_ref(), *code, message, None);
                    }
                    Item::Call(call) => {
                        // There is a result for each call.
                        let Some(result) = results.next() else {
                            continue;
                        };
                        tell(&mut reply, call.id.as_ref(), result);
                    }
                }
            }
            replies.push(reply.finish());
            bad_inputs += usize::from(is_bad_input);
        }
        (replies, bad_inputs)
    }
}

/// Why a value has no JSON, if so.
fn why_not(value: &Value) -> Option<String> {
    let said = json::encode(value, &mut Vec::new());
    said.err().map(|error| error.to_string())
}

fn items(incoming: &mut Incoming) -> &mut [Item] {
    match incoming {
        Incoming::Single(item) => std::slice::from_mut(item),
        Incoming::Batch(items) => items,
    }
}

fn arguments(params: Params) -> Arguments {
    match params {
        Params::None => Arguments::Positional(Vec::new()),
        Params::Positional(values) => Arguments::Positional(values),
        Params::Named(named) => Arguments::Named(Vec::new(), named),
    }
}

fn tell(reply: &mut Replies, id: Option<&jsonrpc::Id>, result: Result<Reply, MethodError>) {
    let error = match result {
        Ok(value) => {
            let mut said = reply.result(id, value.value());
            if said.is_err()
                && let Some(rescue) = rescued(&value, why_not)
            {
                said = reply.result(id, &rescue);
            }
            match said {
                Ok(()) => return,
                Err(error) => MethodError::Value(error.to_string()),
            }
        }
        Err(error) => error,
    };
    let mut data = vec![(Value::from("type"), Value::from(error.class()))];
    if let MethodError::Unavailable { maybe_applied, .. } = &error {
        data.push(("maybe_applied".into(), Value::Bool(*maybe_applied)));
    }
    if let MethodError::History { resume, .. } = &error {
        let resume = i64::try_from(*resume).unwrap_or(i64::MAX);
        data.push(("resume".into(), Value::Int(resume)));
    }
    let message = error.to_string();
    reply.error(id, error.code().into(), &message, Some(&Value::Map(data)));
}

impl HttpDoor for Door {
    type Plan = ();

    fn plan(&self, head: &Head<'_>) -> Result<(), Response> {
        if head.method != "POST" {
            let mut response = Response::text(405, "JSON-RPC is spoken with POST\n");
            response.more = "Allow: POST\r\n";
            return Err(response);
        }
        Ok(())
    }

    async fn answer(&self, (): (), body: &[u8]) -> Response {
        let (mut replies, bad_inputs) = self.answer_all(&[body.to_vec()], &mut OverHttp).await;
        let reply = replies.pop().flatten();
        Response {
            status: if reply.is_some() { 200 } else { 204 },
            content_type: "application/json",
            more: "",
            body: reply,
            is_bad_input: bad_inputs > 0,
        }
    }
}

/// Values take about so many times their text in memory at the most.
const SIZE_FACTOR: usize = 8;
/// What one read takes at the most.
const READ: usize = 64 << 10;
