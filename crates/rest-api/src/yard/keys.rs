//! Looks at the keys of a kv-rpc, through its JSON-RPC; and for who may act, changes their values as a route
//! `kv` does.

use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Method, StatusCode};
use portyard_core::endpoint::Endpoint;
use portyard_wire::jsonrpc::{Params, json};
use portyard_wire::value::Value;

use super::fleet::Member;
use super::kv_of;
use super::view::{Done, Key, Keys};
use crate::http::{Answer, Problem, Request, Response, respond};
use crate::routes::{Caller, Captures, Kv, KvConfig, Pattern, problem_of};

/// A page of keys.
pub async fn page(server: &Endpoint, request: &Request) -> Result<Keys, Problem> {
    let text = |name| match request.parameter(name) {
        Some(text) if !text.is_empty() => Value::String(text),
        _ => Value::Nil,
    };
    let limit = match request.parameter("limit") {
        Some(text) => {
            let limit = text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or_else(|| bad(format!("limit is not from 1 to {LIMIT_MAX}")))?
        }
        None => LIMIT,
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let arguments = vec![text("prefix"), text("cursor"), Value::Int(limit)];
    let found = call(server, "scan", arguments).await?;
    let Value::Map(found) = found else {
        return Err(odd());
    };
    let mut page = Keys {
        keys: Vec::new(),
        cursor: None,
    };
    for (name, value) in found {
        match (name, value) {
            (Value::String(name), Value::String(cursor)) if name == "cursor" => {
                page.cursor = Some(cursor);
            }
            (Value::String(name), Value::List(entries)) if name == "entries" => {
                page.keys = entries.into_iter().filter_map(key).collect();
            }
            _ => {}
        }
    }
    Ok(page)
}

/// What is known of a key, as JSON, with a tag by which a change can be made to this value alone.
pub async fn value(server: &Endpoint, request: &Request) -> Answer {
    let key = named(request)?;
    let entry = call(server, "entry", vec![Value::String(key)]).await?;
    let mut text = Vec::new();
    json::encode(&entry, &mut text).map_err(|error| Problem::internal(error.to_string()))?;
    text.push(b'\n');
    let number = |name: &str| match &entry {
        Value::Map(pairs) => pairs.iter().find_map(|pair| match pair {
            (Value::String(key), Value::Int(number)) if key == name => Some(*number),
            _ => None,
        }),
        _ => None,
    };
    let mut response = respond(StatusCode::OK, "application/json", text);
    if let (Some(created), Some(revision)) = (number("created"), number("revision"))
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{created}-{revision}\""))
    {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

/// Sets or deletes the value of a key: what was done, and the answer. Who asked, and what came of it, goes into
/// the log, and never the value.
pub async fn change(
    member: &Member,
    action: &'static str,
    request: Request,
    by: &str,
) -> Result<(Done, Response), Problem> {
    let server = kv_of(member)?;
    let key = named(&request)?;
    let (name, peer) = (&member.config.name, request.client.peer);
    let id = &*request.id().to_owned();
    let said: String = key.chars().take(BEGINS).collect();
    let key = &*said;
    let content_type = request.header(CONTENT_TYPE).unwrap_or_default();
    let is_json = content_type.split(';').next().unwrap_or_default().trim();
    if request.method == Method::PUT && !is_json.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a value is JSON: Content-Type: application/json",
        ));
    }
    match writer(server)?.answer(request, &Captures::default()).await {
        Ok(answer) => {
            tracing::info!(daemon = %name, action, key, %peer, by, id, "a value was changed");
            let done = Done {
                name: name.clone(),
                action: action.into(),
                worker: None,
                said,
            };
            Ok((done, answer))
        }
        Err(problem) => {
            let why = &problem.detail;
            tracing::warn!(daemon = %name, action, key, %peer, by, id, %why, "a value was not changed");
            Err(problem)
        }
    }
}

fn writer(server: &Endpoint) -> Result<Kv, Problem> {
    let config = KvConfig {
        server: server.clone(),
        key: Some("{{query.key}}".into()),
        prefix: String::new(),
        write: true,
        watch: false,
    };
    let made = Pattern::parse("/").and_then(|pattern| Kv::new(&config, &pattern));
    made.map_err(Problem::internal)
}

fn named(request: &Request) -> Result<String, Problem> {
    let key = request.parameter("key");
    key.ok_or_else(|| bad("say which key: ?key=NAME"))
}

/// `[key, value]`.
fn key(entry: Value) -> Option<Key> {
    let Value::List(pair) = entry else {
        return None;
    };
    let [Value::String(name), value] = <[Value; 2]>::try_from(pair).ok()? else {
        return None;
    };
    let mut text = Vec::new();
    // What kv-rpc has told as JSON can be told so again.
    let _ = json::encode(&value, &mut text);
    let text = String::from_utf8_lossy(&text);
    Some(Key {
        name,
        kind: kind(&value),
        begins: text.chars().take(BEGINS).collect(),
        cut: text.chars().nth(BEGINS).is_some(),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) => "integer",
        Value::Double(_) => "number",
        Value::String(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::DateTime(_) => "date",
    }
}

async fn call(server: &Endpoint, method: &str, arguments: Vec<Value>) -> Result<Value, Problem> {
    let mut caller = Caller::connect(server).await?;
    let result = caller.call(method, &Params::Positional(arguments)).await?;
    result.map_err(|error| problem_of(&error))
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn odd() -> Problem {
    let detail = "what is behind this does not answer as a kv-rpc does";
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

/// A page that is looked at.
const LIMIT: u64 = 50;
/// The most keys on a page.
pub const LIMIT_MAX: u64 = 200;
/// Characters of a value that are shown in a list.
const BEGINS: usize = 200;
