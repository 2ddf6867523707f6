//! The forms of a value: how it is written, which tag each form has, and how it is read.

use hyper::HeaderMap;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH, VARY,
};
use portyard_wire::jsonrpc::json;
use portyard_wire::value::Value;

use super::{Entry, bad};
use crate::http::{Answer, Body, Offer, Problem, Request, Response, choose, conditions};
use crate::routes::rpc::CAPS;

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is: text as text, bytes as bytes, all else as JSON.
    Own,
    /// Text or bytes as JSON.
    Json,
}

impl Form {
    /// That in which a request has brought a value.
    pub fn put(value: &Value, request: &Request) -> Self {
        let is_plain = matches!(value, Value::String(_) | Value::Bytes(_));
        if is_plain && is_json(request) {
            Self::Json
        } else {
            Self::Own
        }
    }

    /// Tells the tag of an entry in this form: other bytes, another tag.
    pub fn mark(self, entry: &Entry, response: &mut Response) {
        let etag = HeaderValue::from_str(&entry.etag).ok();
        let etag = match self {
            Self::Own => etag,
            Self::Json => etag.and_then(|etag| conditions::coded_etag(&etag, AS_JSON)),
        };
        if let Some(etag) = etag {
            response.headers_mut().insert(ETAG, etag);
        }
    }
}

/// The conditions of a request that changes a value: whoever has any form of it knows the value.
pub fn supposed(request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [IF_MATCH, IF_NONE_MATCH] {
        for list in request.headers.get_all(&name) {
            let uncoded = conditions::uncoded_etags(list);
            let list = uncoded.as_ref().unwrap_or(list);
            let plain = conditions::without_endings(list, &[AS_JSON]);
            headers.append(name.clone(), plain.unwrap_or_else(|| list.clone()));
        }
    }
    headers
}

/// Text as text, bytes as bytes, and the rest, or whatever is asked for so, as JSON.
pub fn give(request: &Request, entry: &Entry) -> Answer {
    let plain: Option<(&'static str, Vec<u8>)> = match &entry.value {
        Value::String(text) => Some(("text/plain; charset=utf-8", text.clone().into_bytes())),
        Value::Bytes(bytes) => Some(("application/octet-stream", bytes.clone())),
        _ => None,
    };
    let offers: &[Offer] = match &entry.value {
        Value::String(_) => TEXT,
        Value::Bytes(_) => BYTES,
        _ => JSON,
    };
    let form = choose(&request.headers, offers).ok_or_else(|| Problem::not_acceptable(offers))?;
    let is_own = form == 0;
    let (content_type, bytes) = if let Some(plain) = plain.filter(|_| is_own) {
        plain
    } else {
        let mut text = Vec::new();
        json::encode(&entry.value, &mut text)
            .map_err(|error| Problem::internal(error.to_string()))?;
        ("application/json", text)
    };
    let form = if is_own { Form::Own } else { Form::Json };
    let mut response = Response::new(Body::from(bytes));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(VARY, HeaderValue::from_static("accept"));
    form.mark(entry, &mut response);
    Ok(response)
}

/// JSON, text or bytes, as the client says.
pub async fn read_value(request: &mut Request) -> Result<Value, Problem> {
    let bytes = request.body.collect().await?;
    if is_json(request) {
        return json::decode(&bytes, &CAPS)
            .map_err(|error| bad(format!("the body is no JSON: {error}")));
    }
    if kind(request).starts_with("text/") {
        let text = String::from_utf8(bytes.into());
        return text
            .map(Value::String)
            .map_err(|_| bad("the text is not UTF-8"));
    }
    Ok(Value::Bytes(bytes.into()))
}

fn is_json(request: &Request) -> bool {
    let name = kind(request);
    name == "application/json" || name.ends_with("+json")
}

/// The media type of the body, in small letters and without parameters.
fn kind(request: &Request) -> String {
    let content_type = request.header(CONTENT_TYPE).unwrap_or_default();
    let name = content_type.split(';').next().unwrap_or_default();
    name.trim().to_ascii_lowercase()
}

const TEXT: &[Offer] = &[
    Offer::new("text/plain; charset=utf-8", &[]),
    Offer::new("application/json", &[]),
];
const BYTES: &[Offer] = &[
    Offer::new("application/octet-stream", &[]),
    Offer::new("application/json", &[]),
];
const JSON: &[Offer] = &[Offer::new("application/json", &[])];
/// What ends the tag of text or bytes as JSON.
const AS_JSON: &str = "json";
