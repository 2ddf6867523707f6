//! What happens to keys, as server-sent events (the HTML standard), from a subscription of kv-rpc.
//!
//! Nothing is kept here of events: the next is read from kv-rpc when the client has taken the last, and
//! kv-rpc keeps its history for all. Who falls behind that is cut, and begins anew when it comes again.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue, VARY};
use portyard_core::endpoint::Endpoint;
use portyard_wire::jsonrpc::{Call, Params, json};
use portyard_wire::value::Value;
use tokio::time::timeout;

use super::{beginning, call, entry, member};
use crate::http::{Answer, Body, Problem, Request, Sender, respond};
use crate::routes::rpc::{Caller, problem_of};

/// The value of a key, then each one after it.
pub async fn key(server: &Endpoint, key: String, request: &Request) -> Answer {
    Watch::begin(server, Of::Key(key), request).await
}

/// All keys that begin so with their values, then what happens to them.
pub async fn keys(server: &Endpoint, prefix: String, request: &Request) -> Answer {
    Watch::begin(server, Of::Keys(prefix), request).await
}

/// What is watched.
enum Of {
    Key(String),
    Keys(String),
}

struct Watch {
    caller: Caller,
    of: Of,
    /// The last revision that the client has seen.
    seen: i64,
    /// It knows nothing yet.
    is_new: bool,
}

impl Watch {
    async fn begin(server: &Endpoint, of: Of, request: &Request) -> Answer {
        let mut caller = Caller::connect(server).await?;
        // A browser that connects again says what it has seen.
        let last = request.header(HeaderName::from_static("last-event-id"));
        let last = last.and_then(|id| id.parse().ok().filter(|id| *id >= 0));
        let now = call(&mut caller, "revision", Vec::new()).await?;
        let Value::Int(now) = now else {
            return Err(problem("the server behind this path tells no revision"));
        };
        // What it has seen of another store, or of one that has forgotten, is of no use.
        let resumed = last.filter(|last| *last <= now);
        let watch = Self {
            caller,
            of,
            seen: resumed.unwrap_or(now),
            is_new: resumed.is_none(),
        };
        let body = Body::produce(None, |sender| watch.tell(sender));
        let mut response = respond(StatusCode::OK, "text/event-stream", body);
        let fields = response.headers_mut();
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        fields.insert(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }

    /// Tells until the client goes or something fails; then the client comes again by itself.
    async fn tell(mut self, mut sender: Sender) -> io::Result<()> {
        if !self.is_new && !self.subscribe().await? {
            // The history does not go back so far.
            let now = call(&mut self.caller, "revision", Vec::new());
            let Value::Int(now) = now.await.map_err(broken)? else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            (self.seen, self.is_new) = (now, true);
        }
        if self.is_new {
            // First what is there, then all that has happened since it was looked at: nothing is missed.
            self.tell_all(&mut sender).await?;
            if !self.subscribe().await? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        loop {
            let Ok(told) = timeout(QUIET, self.caller.told()).await else {
                // Shows a client that is gone, and a balancer that somebody is there.
                sender.send(":\n\n").await;
                continue;
            };
            let events = events(told.map_err(broken)?)?;
            for event in &events {
                if let Some(text) = self.text_of(event) {
                    sender.send(text).await;
                }
            }
        }
    }

    /// Subscribes to what comes after the last revision seen; `false` if the history does not have it.
    async fn subscribe(&mut self) -> io::Result<bool> {
        let (Of::Key(prefix) | Of::Keys(prefix)) = &self.of;
        let from = Value::Int(self.seen.saturating_add(1));
        let params = Params::Positional(vec![beginning(prefix.clone()), from]);
        let reply = self.caller.call("watch.subscribe", &params).await;
        match reply.map_err(broken)? {
            Ok(_) => Ok(true),
            Err(error) if error.code == NO_HISTORY => Ok(false),
            Err(error) => Err(broken(problem_of(&error))),
        }
    }

    async fn tell_all(&mut self, sender: &mut Sender) -> io::Result<()> {
        let prefix = match &self.of {
            Of::Key(key) => {
                let entry = entry(&mut self.caller, key).await.map_err(broken)?;
                let event = match entry {
                    Some(entry) => {
                        self.seen = self.seen.max(entry.revision);
                        sse("value", Some(self.seen), &entry.value)
                    }
                    None => sse("gone", Some(self.seen), &Value::Nil),
                };
                sender.send(event).await;
                return Ok(());
            }
            Of::Keys(prefix) => beginning(prefix.clone()),
        };
        let mut cursor = Value::Nil;
        loop {
            let arguments = vec![prefix.clone(), cursor, Value::Int(PAGE)];
            let page = call(&mut self.caller, "scan", arguments).await;
            let page = page.map_err(broken)?;
            let Some(Value::List(entries)) = member(&page, "entries") else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            for entry in entries {
                if let Value::List(pair) = entry
                    && let [key, value] = pair.as_slice()
                {
                    // No id yet: a list that breaks off is told again from its beginning.
                    let pair = pair_of(key, Some(value));
                    sender.send(sse("value", None, &pair)).await;
                }
            }
            cursor = match member(&page, "cursor") {
                Some(Value::String(cursor)) => Value::String(cursor.clone()),
                _ => break,
            };
        }
        sender
            .send(sse("listed", Some(self.seen), &Value::Nil))
            .await;
        Ok(())
    }

    /// An event of kv-rpc, if it is about what is watched.
    fn text_of(&mut self, event: &Value) -> Option<String> {
        let key = member(event, "key")?;
        let revision = match member(event, "revision") {
            Some(Value::Int(revision)) => *revision,
            _ => return None,
        };
        if let Of::Key(watched) = &self.of
            && !matches!(key, Value::String(key) if key == watched)
        {
            return None;
        }
        self.seen = self.seen.max(revision);
        let is_set = matches!(member(event, "type"), Some(Value::String(kind)) if kind == "set");
        // JSON cannot say every value, and kv-rpc tells why.
        let (name, value) = match (member(event, "value"), member(event, "unsaid")) {
            _ if !is_set => ("gone", None),
            (Some(value), _) => ("value", Some(value)),
            (None, why) => ("unsaid", why),
        };
        let data = match &self.of {
            Of::Key(_) => value.cloned().unwrap_or(Value::Nil),
            Of::Keys(_) => pair_of(key, value),
        };
        Some(sse(name, Some(revision), &data))
    }
}

/// The events of a notification; the end of a subscription ends the stream.
fn events(told: Call) -> io::Result<Vec<Value>> {
    let Params::Named(members) = told.params else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if told.method != "watch.events" {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let mut members = members.into_iter();
    match members.find(|(name, _)| name == "events") {
        Some((_, Value::List(events))) => Ok(events),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn pair_of(key: &Value, value: Option<&Value>) -> Value {
    let mut pairs = vec![("key".into(), key.clone())];
    pairs.extend(value.map(|value| ("value".into(), value.clone())));
    Value::Map(pairs)
}

/// One server-sent event.
fn sse(name: &str, id: Option<i64>, data: &Value) -> String {
    let mut text = Vec::new();
    // What kv-rpc has told as JSON can be told so again; JSON has no line breaks in it.
    let _ = json::encode(data, &mut text);
    let text = String::from_utf8_lossy(&text);
    match id {
        Some(id) => format!("event: {name}\nid: {id}\ndata: {text}\n\n"),
        None => format!("event: {name}\ndata: {text}\n\n"),
    }
}

fn broken(_: Problem) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn problem(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

/// kv-rpc's code for a revision that the history does not have.
const NO_HISTORY: i64 = -32_007;
const PAGE: i64 = 200;
/// After so long without an event a comment is sent.
const QUIET: Duration = Duration::from_secs(15);
