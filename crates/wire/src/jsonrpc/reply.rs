//! Replies: the specification's sections 5 and 6.

use super::json::{self, JsonError};
use super::writer;
use super::{Id, Incoming};
use crate::decimal;
use crate::value::Value;

/// Appends a result. After an error, which says that the value has no JSON, `out` is as it was.
pub fn encode_result(id: &Id, value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let start = out.len();
    open(id, out);
    out.extend_from_slice(b"\"result\":");
    json::encode(value, out).inspect_err(|_| out.truncate(start))?;
    out.push(b'}');
    Ok(())
}

/// Appends an error. Data that have no JSON are replaced by the sentence that says so.
pub fn encode_error(id: &Id, code: i64, message: &str, data: Option<&Value>, out: &mut Vec<u8>) {
    open(id, out);
    out.extend_from_slice(b"\"error\":{\"code\":");
    decimal::push(code, out);
    out.extend_from_slice(b",\"message\":");
    writer::write_string(message, out);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        if let Err(error) = json::encode(data, out) {
            writer::write_string(&error.to_string(), out);
        }
    }
    out.extend_from_slice(b"}}");
}

/// Gathers the replies to one message.
///
/// ```
/// use portyard_wire::jsonrpc::{Caps, Incoming, Item, Replies, decode};
/// use portyard_wire::value::Value;
///
/// let caps = Caps { size: 1 << 20, batch: 100 };
/// let message = br#"[{"jsonrpc":"2.0","method":"log"},{"jsonrpc":"2.0","id":7,"method":"ping"},5]"#;
/// let incoming = decode(message, &caps);
/// let mut replies = Replies::to(&incoming);
/// let items = match incoming {
///     Incoming::Single(item) => vec![item],
///     Incoming::Batch(items) => items,
/// };
/// for item in items {
///     match item {
///         Item::Call(call) => replies.result(call.id.as_ref(), &Value::from("pong")).unwrap(),
///         Item::Invalid { id, code, message } => replies.error(id.as_ref(), code, &message, None),
///     }
/// }
/// let replies = String::from_utf8(replies.finish().unwrap()).unwrap();
/// assert_eq!(
///     replies,
///     r#"[{"jsonrpc":"2.0","id":7,"result":"pong"},"#.to_owned()
///         + r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"a request is an object"}}]"#
/// );
/// ```
#[derive(Debug)]
pub struct Replies {
    out: Vec<u8>,
    /// Where the reply begins.
    start: usize,
    batch: bool,
}

impl Replies {
    /// None so far.
    pub fn to(incoming: &Incoming) -> Self {
        Self::behind(Vec::new(), matches!(incoming, Incoming::Batch(_)))
    }

    /// None so far, to a batch or to a single request. They will stand behind what is in `out`.
    pub fn behind(out: Vec<u8>, batch: bool) -> Self {
        let start = out.len();
        Self { out, start, batch }
    }

    /// Answers with a result, or not at all without an id. After an error, which says that the value
    /// has no JSON, the answer is still missing.
    pub fn result(&mut self, id: Option<&Id>, value: &Value) -> Result<(), JsonError> {
        let Some(id) = id else {
            return Ok(());
        };
        let start = self.out.len();
        self.separate();
        encode_result(id, value, &mut self.out).inspect_err(|_| self.out.truncate(start))
    }

    /// Answers with an error, or not at all without an id.
    pub fn error(&mut self, id: Option<&Id>, code: i64, message: &str, data: Option<&Value>) {
        if let Some(id) = id {
            self.separate();
            encode_error(id, code, message, data, &mut self.out);
        }
    }

    /// Bytes so far. A short batch may ask for much: hold them against a cap.
    pub fn size(&self) -> usize {
        self.out.len() - self.start
    }

    /// The message to send, or `None` when nothing may be answered.
    pub fn finish(self) -> Option<Vec<u8>> {
        let out = self.into_bytes();
        Some(out).filter(|out| !out.is_empty())
    }

    /// What was there with the message behind it, if there is one.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.batch && self.size() > 0 {
            self.out.push(b']');
        }
        self.out
    }

    fn separate(&mut self) {
        if self.batch {
            self.out.push(if self.size() == 0 { b'[' } else { b',' });
        }
    }
}

fn open(id: &Id, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_json().as_bytes());
    out.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{Caps, decode};

    fn replies(message: &str) -> Replies {
        let caps = Caps { size: 99, batch: 9 };
        Replies::to(&decode(message.as_bytes(), &caps))
    }

    #[test]
    fn what_has_no_id_is_not_answered() {
        for message in ["1", "[1]"] {
            let mut replies = replies(message);
            replies.result(None, &Value::Nil).unwrap();
            replies.error(None, 1, "no", None);
            assert_eq!(replies.finish(), None);
        }
    }

    #[test]
    fn a_result_without_json_leaves_room_for_an_error() {
        let id = Id::from(1);
        for (message, before, after) in [("[1]", "[", "]"), ("1", "", "")] {
            let mut replies = replies(message);
            let refused = replies.result(Some(&id), &Value::Double(f64::NAN));
            assert_eq!(refused, Err(JsonError::NotFinite));
            assert_eq!(replies.size(), 0);
            let data = Value::List(vec![Value::Double(f64::INFINITY)]);
            replies.error(Some(&id), -1, "no", Some(&data));
            let said = "JSON has no infinity and no NaN";
            let error = format!(r#"{{"code":-1,"message":"no","data":"{said}"}}"#);
            let reply = format!(r#"{before}{{"jsonrpc":"2.0","id":1,"error":{error}}}{after}"#);
            assert_eq!(replies.finish(), Some(reply.into_bytes()));
        }
    }
}
