//! Looks at the keys of a kv-rpc, through its JSON-RPC. Nothing here writes.

use portyard_core::endpoint::Endpoint;
use portyard_wire::jsonrpc::{Params, json};
use portyard_wire::value::Value;

use super::view::{Key, Keys};
use crate::http::{Problem, Request};
use crate::routes::{Caller, problem_of};

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

/// What is known of a key, as JSON text.
pub async fn value(server: &Endpoint, request: &Request) -> Result<Vec<u8>, Problem> {
    let key = request
        .parameter("key")
        .ok_or_else(|| bad("say which key: ?key=NAME"))?;
    let entry = call(server, "entry", vec![Value::String(key)]).await?;
    let mut text = Vec::new();
    json::encode(&entry, &mut text).map_err(|error| Problem::internal(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
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
    Problem::new(hyper::StatusCode::BAD_REQUEST, detail)
}

fn odd() -> Problem {
    let detail = "what is behind this does not answer as a kv-rpc does";
    Problem::new(hyper::StatusCode::BAD_GATEWAY, detail)
}

/// A page that is looked at.
const LIMIT: u64 = 50;
/// The most keys on a page.
pub const LIMIT_MAX: u64 = 200;
/// Characters of a value that are shown in a list.
const BEGINS: usize = 200;
