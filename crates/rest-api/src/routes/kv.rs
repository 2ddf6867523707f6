//! Keys and values of a kv-rpc, as HTTP has it: GET, PUT, DELETE, lists, and a stream of changes.

mod forms;
mod watch;

use hyper::header::{CACHE_CONTROL, HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK};
use hyper::{Method, StatusCode};
use portyard_core::endpoint::Endpoint;
use portyard_wire::jsonrpc::{Params, json};
use portyard_wire::value::Value;

use super::config::KvConfig;
use super::pattern::{Captures, Pattern};
use super::rpc::{Caller, problem_of};
use super::template::{Escape, Template};
use super::upstream;
use super::values::{fill, template};
use crate::http::conditions::{self, Validators, Verdict};
use crate::http::{Answer, Body, Offer, Problem, Request, Response, choose, is_text, respond};
use forms::{Form, give, read_value, supposed};

/// The handler.
pub struct Kv {
    server: Endpoint,
    key: Option<Template>,
    prefix: String,
    write: bool,
    watch: bool,
}

/// What is under a key.
struct Entry {
    value: Value,
    etag: String,
    /// When it was changed last.
    revision: i64,
}

impl Kv {
    /// Reads which keys.
    pub fn new(config: &KvConfig, pattern: &Pattern) -> Result<Self, String> {
        upstream::check(&config.server).map_err(|why| format!("kv.server: {why}"))?;
        let key = config
            .key
            .as_deref()
            .map(|key| template(key, pattern))
            .transpose();
        let key = key.map_err(|why| format!("kv.key: {why}"))?;
        if key.is_some() && !config.prefix.is_empty() {
            return Err("kv.prefix is for lists; write the whole key as kv.key".into());
        }
        if key.is_none() && config.write {
            return Err("kv.write needs kv.key: a list is not written".into());
        }
        Ok(Self {
            server: config.server.clone(),
            key,
            prefix: config.prefix.clone(),
            write: config.write,
            watch: config.watch,
        })
    }

    /// The methods that it answers.
    pub fn methods(&self) -> &'static [&'static str] {
        if self.write {
            &["GET", "HEAD", "PUT", "DELETE"]
        } else {
            &["GET", "HEAD"]
        }
    }

    /// Answers.
    pub async fn answer(&self, mut request: Request, captures: &Captures) -> Answer {
        // It may be a part of the key.
        if !request.uri.query().is_none_or(is_text) {
            return Err(bad("the query is not UTF-8, once it is decoded"));
        }
        let watches = self.watch
            && request.method == Method::GET
            && choose(&request.headers, WATCHED) == Some(1);
        let Some(key) = &self.key else {
            return if watches {
                watch::keys(&self.server, self.prefix(&request), &request).await
            } else {
                self.list(&request).await
            };
        };
        let key = fill(key, Escape::None, &request, captures);
        if watches {
            return watch::key(&self.server, key, &request).await;
        }
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        // A request that is wrong in itself is refused whatever it supposes (RFC 9110, 13.2.1).
        let value = match request.method {
            Method::PUT => Some(read_value(&mut request).await?),
            _ => None,
        };
        let seconds = match request.parameter("ttl").map(|seconds| seconds.parse()) {
            Some(Ok(seconds)) => Some(seconds),
            Some(Err::<f64, _>(_)) => return Err(bad("ttl is no number of seconds")),
            None => None,
        };
        let mut caller = Caller::connect(&self.server).await?;
        if reads {
            let entry = entry(&mut caller, &key).await?.ok_or_else(no_such_key)?;
            return give(&request, &entry);
        }
        // The tag of what is there decides whether it may be replaced.
        let there = entry(&mut caller, &key).await?;
        let validators = Validators {
            etag: there.as_ref().map(|entry| entry.etag.as_str()),
            modified: None,
        };
        if conditions::evaluate(&request.method, &supposed(&request), validators) != Verdict::Go {
            return Err(changed());
        }
        // What depends on a condition is done only to the value that the condition was about: somebody may
        // have been faster.
        let has_condition =
            request.headers.contains_key(IF_MATCH) || request.headers.contains_key(IF_NONE_MATCH);
        let Some(value) = value else {
            let there = there.ok_or_else(no_such_key)?;
            if has_condition {
                let arguments = vec![key.as_str().into(), there.value];
                if call(&mut caller, "cad", arguments).await? != Value::Bool(true) {
                    return Err(changed());
                }
            } else {
                call(&mut caller, "delete", vec![key.as_str().into()]).await?;
            }
            return Ok(empty(StatusCode::NO_CONTENT));
        };
        let is_new = there.is_none();
        let form = Form::put(&value, &request);
        match (seconds, has_condition) {
            (Some(seconds), false) => {
                let arguments = vec![key.as_str().into(), value, Value::Double(seconds)];
                call(&mut caller, "setex", arguments).await?;
            }
            (Some(_), true) => return Err(bad("ttl and a condition do not go together")),
            (None, true) => {
                let expected = there.map_or(Value::Nil, |entry| entry.value);
                let arguments = vec![key.as_str().into(), expected, value];
                if call(&mut caller, "cas", arguments).await? != Value::Bool(true) {
                    return Err(changed());
                }
            }
            (None, false) => {
                call(&mut caller, "set", vec![key.as_str().into(), value]).await?;
            }
        }
        let mut response = empty(if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::NO_CONTENT
        });
        if let Some(entry) = entry(&mut caller, &key).await? {
            form.mark(&entry, &mut response);
        }
        Ok(response)
    }

    /// How the keys begin that a request for a list is about.
    fn prefix(&self, request: &Request) -> String {
        let asked = request.parameter("prefix").unwrap_or_default();
        format!("{}{asked}", self.prefix)
    }

    /// A page of keys and values: `{"entries": [[KEY, VALUE], …], "cursor": …}`.
    async fn list(&self, request: &Request) -> Answer {
        let prefix = self.prefix(request);
        let cursor = request
            .parameter("cursor")
            .map_or(Value::Nil, Value::String);
        let limit = match request.parameter("limit") {
            Some(text) => {
                let limit = text
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit));
                let wrong = || bad(format!("limit is not from 1 to {LIMIT_MAX}"));
                Value::Int(limit.ok_or_else(wrong)?)
            }
            None => Value::Int(LIMIT),
        };
        let mut caller = Caller::connect(&self.server).await?;
        let page = call(&mut caller, "scan", vec![beginning(prefix), cursor, limit]).await?;
        let cursor = member(&page, "cursor").and_then(|cursor| match cursor {
            Value::String(cursor) => Some(cursor.clone()),
            _ => None,
        });
        let mut text = Vec::new();
        json::encode(&page, &mut text).map_err(|error| Problem::internal(error.to_string()))?;
        text.push(b'\n');
        let mut response = respond(StatusCode::OK, "application/json", text);
        let fields = response.headers_mut();
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(cursor) = cursor {
            let others = request
                .query()
                .into_iter()
                .filter(|(name, _)| name != "cursor");
            let pairs = others.chain([("cursor".into(), cursor)]);
            let pairs: Vec<String> = pairs
                .map(|(name, value)| {
                    format!("{}={}", Escape::Url.apply(&name), Escape::Url.apply(&value))
                })
                .collect();
            let link = format!("<?{}>; rel=\"next\"", pairs.join("&"));
            if let Ok(link) = HeaderValue::from_str(&link) {
                fields.insert(LINK, link);
            }
        }
        Ok(response)
    }
}

async fn call(caller: &mut Caller, method: &str, arguments: Vec<Value>) -> Result<Value, Problem> {
    let result = caller.call(method, &Params::Positional(arguments)).await?;
    result.map_err(|error| problem_of(&error))
}

/// What is under a key, if anything.
async fn entry(caller: &mut Caller, key: &str) -> Result<Option<Entry>, Problem> {
    let arguments = Params::Positional(vec![key.into()]);
    let found = match caller.call("entry", &arguments).await? {
        Ok(found) => found,
        Err(error) if error.code == MISSING => return Ok(None),
        Err(error) => return Err(problem_of(&error)),
    };
    let number = |name| match member(&found, name) {
        Some(Value::Int(number)) => *number,
        _ => 0,
    };
    let etag = format!("\"{}-{}\"", number("created"), number("revision"));
    let value = member(&found, "value").cloned().unwrap_or(Value::Nil);
    Ok(Some(Entry {
        value,
        etag,
        revision: number("revision"),
    }))
}

/// A prefix, as kv-rpc has it: none stands for keys that are no text as well.
fn beginning(prefix: String) -> Value {
    if prefix.is_empty() {
        Value::Nil
    } else {
        Value::String(prefix)
    }
}

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(pairs) = value else {
        return None;
    };
    let is_named = |key: &Value| matches!(key, Value::String(key) if key == name);
    pairs
        .iter()
        .find(|(key, _)| is_named(key))
        .map(|(_, value)| value)
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn no_such_key() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such key")
}

fn changed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "what is under the key is not what the request supposes",
    )
}

/// An event stream is only for who asks for it by name.
const WATCHED: &[Offer] = &[
    Offer::new("application/json", &[]),
    Offer::new("text/event-stream", &[]),
];
/// kv-rpc's code for a key that is not there.
const MISSING: i64 = -32_001;
const LIMIT: i64 = 100;
const LIMIT_MAX: i64 = 1000;
