//! Calls over Python's connections: recipe 11.8 of the Python Cookbook, and what people make of it.
//!
//! A message is what `connection.send` makes of an object: its pickle. There are three forms of a
//! request, and a reply has the form of its request.
//!
//! | form | the request's pickle holds | the reply's pickle holds |
//! |---|---|---|
//! | [`Form::Wrapped`]: the recipe's `RPCProxy` | bytes, the pickle of `(name, args, kwargs)` | bytes, the pickle of the result or of an exception |
//! | [`Form::Plain`]: without the recipe's own `pickle.dumps` | `(name, args, kwargs)` | the result or an exception |
//! | [`Form::Json`]: the recipe's `RPCProxy` with `json` | text, the JSON of `[name, args, kwargs]` | text, the JSON of the result, or of the exception's own text |
//!
//! The last form cannot tell an error from a result that is text; neither can the recipe. Bytes and
//! date-times in it are spelt as in [`json`].

use super::writer::pickle;
use super::{
    BuiltinException, Caps, Exception, PickleError, Protocol, decode, encode, encode_exception,
};
use crate::jsonrpc;
use crate::jsonrpc::json::{self, JsonError};
use crate::value::Value;

/// A function to be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its name, which the peer chose.
    pub name: String,
    /// Arguments by position.
    pub args: Vec<Value>,
    /// Arguments by name; no two names are equal.
    pub kwargs: Vec<(String, Value)>,
    /// The form of the reply.
    pub form: Form,
}

/// How a request is written. The protocol is one that the peer reads: [`Protocol::Two`], if it has
/// written none above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A pickle in a pickle.
    Wrapped(Protocol),
    /// A pickle.
    Plain(Protocol),
    /// JSON in a pickle.
    Json(Protocol),
}

/// Reads a request.
pub fn decode_request(message: &[u8], caps: &Caps) -> Result<Request, Refused> {
    let protocol = match message {
        [super::opcode::PROTO, 3..=u8::MAX, ..] => Protocol::Four,
        _ => Protocol::Two,
    };
    let plain = Form::Plain(protocol);
    let outer = decode(message, caps).map_err(|why| Refused {
        // A damaged pickle may have been of any form, or of none.
        form: why.is_about_values().then_some(plain),
        why: why.into(),
    })?;
    let (form, call) = match outer {
        Value::Bytes(inner) => {
            let call = decode(&inner, caps).map_err(Into::into);
            (Form::Wrapped(protocol), call)
        }
        Value::String(text) if text.starts_with('[') => {
            let (size, batch) = (caps.size, 0);
            let call = json::decode(text.as_bytes(), &jsonrpc::Caps { size, batch });
            (Form::Json(protocol), call.map_err(Into::into))
        }
        // The bytes of Python 2 may be text. No pickle begins as JSON does.
        Value::String(inner) => {
            let call = decode(inner.as_bytes(), caps).map_err(Into::into);
            (Form::Wrapped(protocol), call)
        }
        call => (plain, Ok(call)),
    };
    let refused = |why| Refused {
        form: Some(form),
        why,
    };
    let call = call.map_err(refused)?;
    request(call, form).ok_or(RpcError::NoCall).map_err(refused)
}

/// Appends the reply to a request of this form: a result or an exception. A result that the form
/// cannot say becomes a `TypeError` that says so.
pub fn encode_reply(form: Form, outcome: Result<&Value, &Exception>, out: &mut Vec<u8>) {
    if let Err(why) = write_reply(form, outcome, out) {
        let sorry = Exception::new(BuiltinException::TypeError, why.to_string());
        // A text can be said in every form.
        let _ = write_reply(form, Err(&sorry), out);
    }
}

/// Why a reply of this form cannot say a value, if it cannot.
pub fn why_unsaid(form: Form, value: &Value) -> Option<String> {
    let written = write_reply(form, Ok(value), &mut Vec::new());
    written.err().map(|why| why.to_string())
}

/// After an error `out` is as it was.
fn write_reply(
    form: Form,
    outcome: Result<&Value, &Exception>,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    match form {
        Form::Plain(protocol) => write_pickle(protocol, outcome, out)?,
        Form::Wrapped(protocol) => {
            let mut inner = Vec::new();
            write_pickle(protocol, outcome, &mut inner)?;
            pickle(protocol, out, |writer| {
                writer.bytes(&inner);
                Ok(())
            })?;
        }
        Form::Json(protocol) => {
            let mut text = Vec::new();
            match outcome {
                Ok(value) => json::encode(value, &mut text)?,
                Err(exception) => json::encode(&Value::String(exception.text()), &mut text)?,
            }
            pickle(protocol, out, |writer| {
                writer.text(&String::from_utf8_lossy(&text));
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn write_pickle(
    protocol: Protocol,
    outcome: Result<&Value, &Exception>,
    out: &mut Vec<u8>,
) -> Result<(), PickleError> {
    match outcome {
        Ok(value) => encode(value, protocol, out),
        Err(Exception { class, args }) => encode_exception(*class, args, protocol, out),
    }
}

fn request(call: Value, form: Form) -> Option<Request> {
    let Value::List(parts) = call else {
        return None;
    };
    let parts: [Value; 3] = parts.try_into().ok()?;
    let [Value::String(name), Value::List(args), Value::Map(pairs)] = parts else {
        return None;
    };
    let named = pairs.into_iter().map(|(key, value)| match key {
        Value::String(key) => Some((key, value)),
        _ => None,
    });
    Some(Request {
        name,
        args,
        kwargs: named.collect::<Option<_>>()?,
        form,
    })
}

/// A message that is no request, or one that cannot be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// How the peer may be told; `None` when that is anybody's guess, and only hanging up is left.
    pub form: Option<Form>,
    /// What is wrong.
    pub why: RpcError,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The pickle, or the one within.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The JSON within.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Something else is in it.
    #[error("a request is a name, a tuple of arguments and a dict of named ones")]
    NoCall,
}

impl RpcError {
    /// What the peer is told.
    pub fn exception(&self) -> Exception {
        let class = match self {
            Self::Pickle(PickleError::IntRange { .. }) | Self::Json(JsonError::IntRange { .. }) => {
                BuiltinException::OverflowError
            }
            Self::Pickle(PickleError::NoForm(_) | PickleError::Forbidden(_)) | Self::NoCall => {
                BuiltinException::TypeError
            }
            Self::Pickle(_) | Self::Json(_) => BuiltinException::ValueError,
        };
        Exception::new(class, self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { size: 10_000 };

    fn read(message: &[u8]) -> Result<Request, Refused> {
        decode_request(message, &CAPS)
    }

    fn reply(form: Form, outcome: Result<&Value, &Exception>) -> Value {
        let mut out = Vec::new();
        encode_reply(form, outcome, &mut out);
        decode(&out, &CAPS).unwrap()
    }

    /// `('add', (2,), {'k': 3})` from Python 3.13 and 2.7, by itself, in a pickle, and as JSON.
    #[test]
    fn the_form_is_that_of_the_request() {
        let plain = b"\x80\x04\x8c\x03addK\x02\x85}\x8c\x01kK\x03s\x87.";
        let wrapped = [&b"\x80\x04C\x13"[..], plain, b"."].concat();
        let plain_2 = b"\x80\x02U\x03addK\x02\x85}U\x01kK\x03s\x87.";
        let wrapped_2 = [&b"\x80\x02U\x13"[..], plain_2, b"."].concat();
        let text_2 = b"(S'add'\n(I2\nt(dS'k'\nI3\nst.";
        let text_2 = [&b"\x80\x02U\x1a"[..], text_2, b"."].concat();
        let json = b"\x80\x04\x8c\x16[\"add\", [2], {\"k\": 3}].";
        let json_2 = b"\x80\x02U\x16[\"add\", [2], {\"k\": 3}].";
        for (message, form) in [
            (&plain[..], Form::Plain(Protocol::Four)),
            (&wrapped, Form::Wrapped(Protocol::Four)),
            (plain_2, Form::Plain(Protocol::Two)),
            (&wrapped_2, Form::Wrapped(Protocol::Two)),
            (&text_2, Form::Wrapped(Protocol::Two)),
            (json, Form::Json(Protocol::Four)),
            (json_2, Form::Json(Protocol::Two)),
        ] {
            let request = Request {
                name: "add".into(),
                args: vec![Value::Int(2)],
                kwargs: vec![("k".into(), Value::Int(3))],
                form,
            };
            assert_eq!(read(message), Ok(request), "{}", message.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_call_is_refused_in_its_own_form() {
        let no_call = |form| Refused {
            form: Some(form),
            why: RpcError::NoCall,
        };
        let plain = no_call(Form::Plain(Protocol::Two));
        for message in [
            &b"N."[..],
            b"].",
            b"X\x01\0\0\0a)\x86.",
            b"N)}\x87.",
            b"X\x01\0\0\0aN}\x87.",
            b"X\x01\0\0\0a))\x87.",
            b"X\x01\0\0\0a)}K\x01Ns\x87.",
        ] {
            assert_eq!(read(message), Err(plain.clone()));
        }
        let json = no_call(Form::Json(Protocol::Two));
        assert_eq!(read(b"U\x02[]."), Err(json));
        let wrapped = no_call(Form::Wrapped(Protocol::Four));
        assert_eq!(read(b"\x80\x04C\x02N.."), Err(wrapped));
    }

    #[test]
    fn whom_to_tell_of_a_refusal_is_known_where_the_message_is_whole() {
        for (message, form, class) in [
            (
                &b"\x80\x04\x8a\x09\0\0\0\0\0\0\0\0\x01."[..],
                Some(Form::Plain(Protocol::Four)),
                BuiltinException::OverflowError,
            ),
            (
                b"cos\nsystem\n.",
                Some(Form::Plain(Protocol::Two)),
                BuiltinException::TypeError,
            ),
            (b"\x80\x04C\x03]].", None, BuiltinException::ValueError),
            (
                b"\x80\x04C\x03]]..",
                Some(Form::Wrapped(Protocol::Four)),
                BuiltinException::ValueError,
            ),
            (
                b"U\x03[1,.",
                Some(Form::Json(Protocol::Two)),
                BuiltinException::ValueError,
            ),
            (b"hello", None, BuiltinException::ValueError),
        ] {
            let refused = read(message).unwrap_err();
            assert_eq!(refused.form, form, "{}", message.escape_ascii());
            assert_eq!(refused.why.exception().class, class);
        }
    }

    #[test]
    fn what_a_form_cannot_say_becomes_an_exception() {
        let date_time = Value::DateTime("19980717T14:08:55".into());
        let nan = Value::Double(f64::NAN);
        let mut out = b"before".to_vec();
        encode_reply(Form::Plain(Protocol::Four), Ok(&date_time), &mut out);
        let mut wanted = b"before".to_vec();
        let why = PickleError::NoForm("date-time").to_string();
        let args = [Value::String(why)];
        let class = BuiltinException::TypeError;
        encode_exception(class, &args, Protocol::Four, &mut wanted).unwrap();
        assert_eq!(out, wanted);
        let said = reply(Form::Json(Protocol::Two), Ok(&nan));
        assert_eq!(said, "\"JSON has no infinity and no NaN\"".into());
    }

    /// Checked with `str` in Python 3.13.
    #[test]
    fn json_has_the_text_of_an_exception() {
        let list = || Value::List(vec![Value::Int(1), Value::Double(1.5), Value::Nil]);
        let map = Value::Map(vec![("a".into(), Value::Bytes(vec![0, b'b']))]);
        for (class, args, text) in [
            (BuiltinException::KeyError, vec!["a\n".into()], r"'a\n'"),
            (BuiltinException::KeyError, vec!["it's".into()], r#""it's""#),
            (BuiltinException::KeyError, vec![], ""),
            (BuiltinException::ValueError, vec!["a\n".into()], "a\n"),
            (BuiltinException::ValueError, vec![list()], "[1, 1.5, None]"),
            (BuiltinException::ValueError, vec![map], r"{'a': b'\x00b'}"),
            (
                BuiltinException::ValueError,
                vec!["a".into(), Value::Bool(true)],
                "('a', True)",
            ),
            (
                BuiltinException::PermissionError,
                vec![Value::Int(13), "no".into()],
                "[Errno 13] no",
            ),
        ] {
            let exception = Exception { class, args };
            let mut json = Vec::new();
            json::encode(&text.into(), &mut json).unwrap();
            let said = reply(Form::Json(Protocol::Four), Err(&exception));
            assert_eq!(said, Value::String(String::from_utf8(json).unwrap()));
        }
    }
}
