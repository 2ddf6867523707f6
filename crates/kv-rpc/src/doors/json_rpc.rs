//! JSON-RPC 2.0: over HTTP, or framed on the bare stream, told apart by the first byte.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Head;
use portyard_wire::jsonrpc::{self, Caps, Decoder, Framing, Incoming, Item, Params, Replies, json};
use portyard_wire::value::Value;

use super::http::{Exchange, HttpDoor, Response};
use super::sayable::{rescued, without};
use super::subscriptions::{self, OverHttp, Subscriptions, Word};
use super::{
    Answer, Call, Later, OwnMethods, REPLIES_MAX, UNDER_WAY_MAX, begin, by_now, in_order_with,
};
use crate::error::MethodError;
use crate::methods::{self, Arguments, Begun, Reply};
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

    /// Messages one after the other, each answered in the framing in which they come.
    async fn framed(&self, connection: &mut Connection, mut pending: Vec<u8>) -> io::Result<Ended> {
        let mut decoder = Decoder::new(self.options.max_request.bytes());
        let mut room = self.state.room();
        let mut subscriptions = Subscriptions::new(self.options.max_subscriptions as usize);
        loop {
            let mut turn = Turn {
                door: self,
                connection: &mut *connection,
                subscriptions: &mut subscriptions,
                framing: Framing::Lines,
                under_way: VecDeque::new(),
                out: Vec::new(),
                too_long: false,
            };
            let broken = turn.take(&mut decoder, &pending).await?;
            let (too_long, framing) = (turn.too_long, turn.framing);
            pending = Vec::new();
            if too_long {
                return Ok(Ended::Protocol);
            }
            let full = !room.grow(decoder.memory() as u64);
            if broken || full {
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
                room = self.state.room();
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

    /// Begins what a message asks for. What it changes is queued when this returns.
    fn start(&self, incoming: Incoming) -> Answer<'_, Told> {
        let items = match incoming {
            Incoming::Single(Item::Call(jsonrpc::Call { id, method, params })) => {
                if subscriptions::have(&method) {
                    return Answer::Done(Told::One(id, Err(MethodError::NotOverHttp(method))));
                }
                let arguments = arguments(params);
                let call = Call { method, arguments };
                return match begin(&self.state, self.options.read_only, call, &[]) {
                    Ok(Begun::Done(reply)) => Answer::Done(Told::One(id, Ok(reply))),
                    Ok(Begun::Waits(reply)) => {
                        Answer::Waits(Box::pin(async { Told::One(id, reply.await) }))
                    }
                    Err(error) => Answer::Done(Told::One(id, Err(error))),
                };
            }
            Incoming::Single(Item::Invalid { id, code, message }) => {
                return Answer::Done(Told::Invalid { id, code, message });
            }
            Incoming::Batch(items) => items,
        };
        let mut later: Later<'_, Told> =
            Box::pin(async { self.make_all(items, &mut OverHttp).await });
        // So that it begins; whoever waits for it looks again.
        match later.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(told) => Answer::Done(told),
            Poll::Pending => Answer::Waits(later),
        }
    }

    /// Makes the calls of a batch. `own` are the methods of this kind of connection.
    async fn make_all(&self, mut items: Vec<Item>, own: &mut impl OwnMethods) -> Told {
        let calls = items.iter_mut().filter_map(|item| match item {
            Item::Call(call) => Some(Call {
                method: call.method.clone(),
                arguments: arguments(std::mem::take(&mut call.params)),
            }),
            Item::Invalid { .. } => None,
        });
        let calls = calls.collect();
        let results = in_order_with(&self.state, self.options.read_only, calls, own).await;
        Told::Many(items, results)
    }

    /// Makes what a message asks for where the server may push.
    async fn make(&self, incoming: Incoming, own: &mut Subscriptions) -> Told {
        let call = match incoming {
            Incoming::Single(Item::Call(call)) => call,
            Incoming::Single(Item::Invalid { id, code, message }) => {
                return Told::Invalid { id, code, message };
            }
            Incoming::Batch(items) => return self.make_all(items, own).await,
        };
        let jsonrpc::Call { id, method, params } = call;
        let arguments = arguments(params);
        let calls = vec![Call { method, arguments }];
        let results = in_order_with(&self.state, self.options.read_only, calls, own);
        // There is a result for each call.
        let result = results.await.pop();
        Told::One(id, result.unwrap_or(Ok(Reply::Owned(Value::Nil))))
    }
}

/// What a message came to.
enum Told {
    /// A call, with its id.
    One(Option<jsonrpc::Id>, Result<Reply, MethodError>),
    /// No request.
    Invalid {
        id: Option<jsonrpc::Id>,
        code: i64,
        message: String,
    },
    /// A batch, with the results of its calls.
    Many(Vec<Item>, Vec<Result<Reply, MethodError>>),
}

impl Told {
    /// Appends the reply, if there is one; whether the message was no request, or held one that was
    /// none.
    fn reply(self, out: &mut Vec<u8>) -> bool {
        let is_batch = matches!(self, Self::Many(..));
        let mut replies = Replies::behind(std::mem::take(out), is_batch);
        let mut is_bad_input = false;
        match self {
            Self::One(id, result) => tell(&mut replies, id.as_ref(), result),
            Self::Invalid { id, code, message } => {
                is_bad_input = true;
                replies.error(id.as_ref(), code, &message, None);
            }
            Self::Many(items, results) => {
                let mut results = results.into_iter();
                for item in items {
                    match item {
                        Item::Invalid { id, code, message } => {
                            is_bad_input = true;
                            replies.error(id.as_ref(), code, &message, None);
                        }
                        Item::Call(call) => {
                            // There is a result for each call.
                            if let Some(result) = results.next() {
                                tell(&mut replies, call.id.as_ref(), result);
                            }
                        }
                    }
                }
            }
        }
        *out = replies.into_bytes();
        is_bad_input
    }
}

/// The messages that came with one read, and their replies.
struct Turn<'a, 'c> {
    door: &'a Door,
    connection: &'c mut Connection,
    subscriptions: &'c mut Subscriptions,
    framing: Framing,
    /// Messages that have begun and are not answered, in their order.
    under_way: VecDeque<Answer<'a, Told>>,
    /// Replies that are not sent yet.
    out: Vec<u8>,
    /// A reply was too long for its framing: nothing can follow it.
    too_long: bool,
}

impl Turn<'_, '_> {
    /// Answers all messages that are whole; whether the stream is broken behind them.
    async fn take(&mut self, decoder: &mut Decoder, mut arrived: &[u8]) -> io::Result<bool> {
        let broken = loop {
            let message = decoder.take(&mut arrived);
            // The first byte has told it.
            self.framing = decoder.framing().unwrap_or(Framing::Lines);
            let incoming = match message {
                Ok(Some(message)) => jsonrpc::decode(&message, &self.door.caps),
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            let full = self.under_way.len() == UNDER_WAY_MAX;
            if !self.under_way.is_empty() && (full || !writes(&incoming)) {
                self.settle().await?;
            }
            if concerns_pushing(&incoming) {
                self.settle().await?;
                let told = self.door.make(incoming, self.subscriptions).await;
                self.reply(told).await?;
                continue;
            }
            match self.door.start(incoming) {
                Answer::Done(told) if self.under_way.is_empty() => self.reply(told).await?,
                answer => self.under_way.push_back(answer),
            }
            if self.too_long {
                return Ok(true);
            }
        };
        self.settle().await?;
        if let Some(error) = &broken
            && !self.too_long
        {
            self.connection.count_bad_input();
            let start = self.framing.begin(&mut self.out);
            let (id, text) = (jsonrpc::Id::null(), error.to_string());
            jsonrpc::encode_error(&id, jsonrpc::PARSE_ERROR, &text, None, &mut self.out);
            // Short enough for every framing.
            let _ = self.framing.end(start, &mut self.out);
        }
        if self.out.is_empty() {
            // Notifications alone have no reply that would show that we are done.
            self.connection.rested();
        } else {
            self.send().await?;
        }
        Ok(broken.is_some() || self.too_long)
    }

    /// Answers all that is under way. What is known is sent before we wait for what is not.
    async fn settle(&mut self) -> io::Result<()> {
        while let Some(answer) = self.under_way.pop_front() {
            let told = match answer {
                Answer::Done(told) => told,
                Answer::Waits(mut later) => {
                    if let Some(told) = by_now(&mut later).await {
                        told
                    } else {
                        self.send().await?;
                        // While we work, nothing need move.
                        self.connection.busy();
                        later.await
                    }
                }
            };
            self.reply(told).await?;
        }
        Ok(())
    }

    async fn reply(&mut self, told: Told) -> io::Result<()> {
        if self.too_long {
            return Ok(());
        }
        let start = self.framing.begin(&mut self.out);
        if told.reply(&mut self.out) {
            self.connection.count_bad_input();
        }
        self.too_long = !self.framing.end(start, &mut self.out);
        if self.too_long || self.out.len() >= REPLIES_MAX {
            self.send().await?;
        }
        Ok(())
    }

    /// Sends the replies so far.
    async fn send(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.connection.write_all(&out).await
    }
}

/// Whether all that a message asks for can only change something.
fn writes(incoming: &Incoming) -> bool {
    let writes = |item: &Item| match item {
        Item::Call(call) => methods::find(&call.method).is_some_and(|method| method.writes),
        Item::Invalid { .. } => true,
    };
    match incoming {
        Incoming::Single(item) => writes(item),
        Incoming::Batch(items) => items.iter().all(writes),
    }
}

/// Whether a message asks for what only a connection can give on which the server may push.
fn concerns_pushing(incoming: &Incoming) -> bool {
    let concerns = |item: &Item| match item {
        Item::Call(call) => subscriptions::have(&call.method) || call.method.starts_with("system."),
        Item::Invalid { .. } => false,
    };
    match incoming {
        Incoming::Single(item) => concerns(item),
        Incoming::Batch(items) => items.iter().any(concerns),
    }
}

/// Why a value has no JSON, if so.
fn why_not(value: &Value) -> Option<String> {
    let said = json::encode(value, &mut Vec::new());
    said.err().map(|error| error.to_string())
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
    type Asked = Incoming;
    type Told = Told;

    fn plan(&self, head: &Head<'_>) -> Result<(), Response> {
        if head.method != "POST" {
            let mut response = Response::text(405, "JSON-RPC is spoken with POST\n");
            response.more = "Allow: POST\r\n";
            return Err(response);
        }
        Ok(())
    }

    fn read(&self, (): (), body: &[u8]) -> Result<Incoming, Response> {
        Ok(jsonrpc::decode(body, &self.caps))
    }

    fn may_follow(&self, incoming: &Incoming) -> bool {
        writes(incoming)
    }

    fn begin(&self, incoming: Incoming) -> Answer<'_, Told> {
        self.start(incoming)
    }

    fn tell(&self, told: Told) -> Response {
        let mut reply = Vec::with_capacity(SHORT_REPLY);
        let is_bad_input = told.reply(&mut reply);
        let body = Some(reply).filter(|reply| !reply.is_empty());
        Response {
            status: if body.is_some() { 200 } else { 204 },
            content_type: "application/json",
            more: "",
            body,
            is_bad_input,
        }
    }
}

/// Values take about so many times their text in memory at the most.
const SIZE_FACTOR: usize = 8;
/// What one read takes at the most.
const READ: usize = 64 << 10;
/// Room for most replies.
const SHORT_REPLY: usize = 256;
