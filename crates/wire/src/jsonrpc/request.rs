//! Requests: the specification's sections 4 and 6.

use super::json::JsonError;
use super::reader::{self, Reader};
use super::writer;
use super::{Caps, INVALID_PARAMS, INVALID_REQUEST, Id, PARSE_ERROR};
use crate::value::Value;

/// A message, as far as a server is concerned.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// One request, or what is none.
    Single(Item),
    /// At least one. They may be run in any order, and answered in any order in one list.
    Batch(Vec<Item>),
}

/// What stands for one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A method is to be called.
    Call(Call),
    /// It is to be answered with an error, and with nothing when it has no id.
    Invalid {
        /// Where the answer goes: `null` when no id could be made out, and `None` for a
        /// notification.
        id: Option<Id>,
        /// The error's code.
        code: i64,
        /// What is wrong, in a sentence.
        message: String,
    },
}

/// A method to be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Where the result goes; `None` for a notification, which is never answered. An id that is
    /// `null` is one.
    pub id: Option<Id>,
    /// Its name, which the peer chose. Those that begin with `rpc.` are the protocol's own.
    pub method: String,
    /// What it is to be called with.
    pub params: Params,
}

/// What a method is called with.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Params {
    /// The request has no member `params`.
    #[default]
    None,
    /// By position.
    Positional(Vec<Value>),
    /// By name; no two names are equal.
    Named(Vec<(String, Value)>),
}

/// Reads a message. What cannot be read has an answer all the same.
pub fn decode(message: &[u8], caps: &Caps) -> Incoming {
    let read = Reader::new(message, caps).and_then(|mut reader| incoming(&mut reader, caps));
    read.unwrap_or_else(|error| Incoming::Single(Item::nameless(PARSE_ERROR, error.to_string())))
}

/// Appends a request; a notification, if it has no id. After an error `out` is as it was.
pub fn encode_request(
    id: Option<&Id>,
    method: &str,
    params: &Params,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let start = out.len();
    out.extend(b"{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        writer::format(out, format_args!("\"id\":{},", id.as_json()));
    }
    out.extend(b"\"method\":");
    writer::write_string(method, out);
    let written = match params {
        Params::None => Ok(()),
        Params::Positional(items) => {
            out.extend(b",\"params\":");
            writer::write_list(items, out)
        }
        Params::Named(members) => {
            out.extend(b",\"params\":");
            let members = members.iter().map(|(name, value)| (Ok(&**name), value));
            writer::write_object(members, out)
        }
    };
    out.push(b'}');
    written.inspect_err(|_| out.truncate(start))
}

impl Item {
    /// Where no id could be made out.
    fn nameless(code: i64, message: impl Into<String>) -> Self {
        Self::Invalid {
            id: Some(Id::null()),
            code,
            message: message.into(),
        }
    }
}

fn incoming(reader: &mut Reader<'_>, caps: &Caps) -> Result<Incoming, JsonError> {
    if !reader.scanner.eat(b'[') {
        let item = item(reader)?;
        reader.scanner.end()?;
        return Ok(Incoming::Single(item));
    }
    if reader.scanner.eat(b']') {
        reader.scanner.end()?;
        let empty = Item::nameless(INVALID_REQUEST, "a batch has at least one request");
        return Ok(Incoming::Single(empty));
    }
    let mut items = Vec::new();
    loop {
        if items.len() == caps.batch {
            // It is refused as it stands: what follows is not looked at.
            let message = format!("a batch has at most {} requests here", caps.batch);
            let refused = Item::nameless(INVALID_REQUEST, message);
            return Ok(Incoming::Single(refused));
        }
        items.push(item(reader)?);
        if !reader.scanner.another(b']')? {
            reader.scanner.end()?;
            return Ok(Incoming::Batch(items));
        }
    }
}

/// What a request has said so far.
#[derive(Default)]
struct Members {
    version: Option<bool>,
    method: Option<Result<String, Wrong>>,
    params: Option<Result<Params, Refusal>>,
    id: Option<Result<Id, Wrong>>,
    twice: bool,
}

/// It is of another kind than it must be.
#[derive(PartialEq)]
struct Wrong;

/// Why parameters are none.
enum Refusal {
    Unstructured,
    Unreadable(JsonError),
}

/// One request; an error is one of the whole message.
fn item(reader: &mut Reader<'_>) -> Result<Item, JsonError> {
    let scanner = &mut reader.scanner;
    if scanner.peek() != Some(b'{') {
        scanner.skip()?;
        let message = "a request is an object";
        return Ok(Item::nameless(INVALID_REQUEST, message));
    }
    scanner.eat(b'{');
    let mut members = Members::default();
    if !scanner.eat(b'}') {
        loop {
            member(reader, &mut members)?;
            if !reader.scanner.another(b'}')? {
                break;
            }
        }
    }
    Ok(members.verdict())
}

fn member(reader: &mut Reader<'_>, members: &mut Members) -> Result<(), JsonError> {
    let key = reader.scanner.key()?;
    members.twice |= match &*key {
        "jsonrpc" => {
            let two = reader.scanner.text()?.is_some_and(|text| text == "2.0");
            members.version.replace(two).is_some()
        }
        "method" => {
            let method = reader.scanner.text()?.map(Into::into).ok_or(Wrong);
            members.method.replace(method).is_some()
        }
        "params" => members.params.replace(params(reader)?).is_some(),
        "id" => {
            let id = reader.scanner.id()?.map(Id::from_json).ok_or(Wrong);
            members.id.replace(id).is_some()
        }
        _ => {
            reader.scanner.skip()?;
            false
        }
    };
    Ok(())
}

fn params(reader: &mut Reader<'_>) -> Result<Result<Params, Refusal>, JsonError> {
    let first = reader.scanner.peek();
    let start = reader.scanner.at();
    let read = match first {
        Some(b'[') => reader.value(),
        Some(b'{') => reader.plain_map(),
        _ => {
            reader.scanner.skip()?;
            return Ok(Err(Refusal::Unstructured));
        }
    };
    match read {
        Ok(Value::List(items)) => Ok(Ok(Params::Positional(items))),
        Ok(Value::Map(pairs)) => Ok(Ok(Params::Named(reader::named(pairs)))),
        Ok(_) => Ok(Err(Refusal::Unstructured)),
        Err(error) if error.malformed() => Err(error),
        Err(error) => {
            // It is JSON at least, so the rest of the message is worth a look.
            reader.scanner.rewind(start);
            reader.scanner.skip()?;
            Ok(Err(Refusal::Unreadable(error)))
        }
    }
}

impl Members {
    fn verdict(self) -> Item {
        let wrong = if self.twice {
            Some("a request has each of its members once")
        } else if self.version != Some(true) {
            Some("a request says \"jsonrpc\": \"2.0\"")
        } else if self.id == Some(Err(Wrong)) {
            Some("an id is a string, a number or null")
        } else if let Some(Err(Refusal::Unstructured)) = self.params {
            Some("parameters are an array or an object")
        } else {
            None
        };
        let id = self.id.and_then(Result::ok);
        let invalid = |message: &str| Item::Invalid {
            // Of two ids neither is the request's.
            id: id.clone().filter(|_| !self.twice).or(Some(Id::null())),
            code: INVALID_REQUEST,
            message: message.into(),
        };
        if let Some(message) = wrong {
            return invalid(message);
        }
        let Some(method) = self.method.and_then(Result::ok) else {
            return invalid("a method is a string");
        };
        match self.params {
            Some(Err(Refusal::Unreadable(error))) => Item::Invalid {
                id,
                code: INVALID_PARAMS,
                message: error.to_string(),
            },
            params => Item::Call(Call {
                id,
                method,
                params: params.and_then(Result::ok).unwrap_or_default(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        size: 2_000,
        batch: 3,
    };

    fn invalid(id: Option<&str>, code: i64, message: &str) -> Item {
        Item::Invalid {
            id: id.map(Id::from_json),
            code,
            message: message.into(),
        }
    }

    fn single(text: &str) -> Item {
        match decode(text.as_bytes(), &CAPS) {
            Incoming::Single(item) => item,
            Incoming::Batch(items) => panic!("a batch: {items:?}"),
        }
    }

    /// Parameters that are too much are the request's own fault, and its neighbours' no concern.
    #[test]
    fn a_refused_value_is_answered_under_its_own_id() {
        let error = "the whole number at byte 49 does not fit into 64 bits";
        let text = r#"{"jsonrpc":"2.0","id":"a","method":"m","params":[9223372036854775808]}"#;
        assert_eq!(single(text), invalid(Some("\"a\""), INVALID_PARAMS, error));
        let quiet = text.replace("\"id\":\"a\",", "");
        let error = error.replace("49", "40");
        assert_eq!(single(&quiet), invalid(None, INVALID_PARAMS, &error));
        let batch = format!("[{text},{}]", text.replace("9223372036854775808", "9"));
        let Incoming::Batch(items) = decode(batch.as_bytes(), &CAPS) else {
            panic!("no batch");
        };
        assert!(matches!(
            items[0],
            Item::Invalid {
                code: INVALID_PARAMS,
                ..
            }
        ));
        assert!(matches!(&items[1], Item::Call(call) if call.id == Some(Id::text("a"))));
    }

    #[test]
    fn a_batch_is_counted_while_it_arrives() {
        let message = "a batch has at most 3 requests here";
        let refused = invalid(Some("null"), INVALID_REQUEST, message);
        assert_eq!(single("[1,1,1,1]"), refused);
        // What follows is not looked at, whatever it is.
        assert_eq!(single("[1,1,1,?"), refused);
        let Incoming::Batch(items) = decode(b"[1,1,1]", &CAPS) else {
            panic!("no batch");
        };
        assert_eq!(items.len(), 3);
    }

    #[test]
    fn all_parameters_of_a_batch_share_one_cap() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[N]}"#;
        let half = call.replace('N', &["0"; 40].join(","));
        assert!(matches!(single(&half), Item::Call(_)));
        let Incoming::Batch(items) = decode(format!("[{half},{half}]").as_bytes(), &CAPS) else {
            panic!("no batch");
        };
        let error = "the values take more than 2000 bytes of memory";
        assert_eq!(items[1], invalid(Some("1"), INVALID_PARAMS, error));
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let named = Params::Named(vec![
            ("$bytes".into(), Value::Int(1)),
            ("b".into(), Value::Nil),
        ]);
        let positional = Params::Positional(vec![Value::Bytes(vec![1]), Value::Double(1.0)]);
        for params in [Params::None, named, positional] {
            for id in [
                None,
                Some(Id::null()),
                Some(Id::from(7)),
                Some(Id::text("\"\n")),
            ] {
                let mut text = Vec::new();
                encode_request(id.as_ref(), "a\"b", &params, &mut text).unwrap();
                let (method, params) = ("a\"b".into(), params.clone());
                let call = Call { id, method, params };
                let single = Incoming::Single(Item::Call(call));
                assert_eq!(decode(&text, &CAPS), single);
            }
        }
    }

    #[test]
    fn a_request_that_cannot_be_written_leaves_nothing() {
        let mut out = b"before".to_vec();
        let params = Params::Positional(vec![Value::Double(f64::NAN)]);
        let refused = encode_request(None, "m", &params, &mut out);
        assert_eq!(refused, Err(JsonError::NotFinite));
        assert_eq!(out, b"before");
    }
}
