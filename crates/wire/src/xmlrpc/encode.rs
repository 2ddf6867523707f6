//! Documents with the bytes of `xmlrpc.client.dumps`.

use super::base64;
use super::parts::is_char;
use super::python::{class, write_float};
use crate::value::Value;

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Writes whole numbers beyond 32 bits as `i8`, which Python reads and never writes. They are
    /// refused otherwise.
    pub emit_i8: bool,
}

/// Why a value cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A whole number beyond 32 bits.
    #[error("int exceeds XML-RPC limits")]
    IntegerRange,
    /// A map with another key than a string.
    #[error("dictionary key must be string")]
    Name,
    /// A text with a character that no XML can hold.
    #[error("XML cannot hold the character U+{:04X}", u32::from(*.0))]
    Character(char),
}

impl EncodeError {
    /// What Python's server writes into `faultString`.
    pub fn python_text(&self) -> String {
        let name = match self {
            Self::IntegerRange => "OverflowError",
            Self::Name => "TypeError",
            Self::Character(_) => "ValueError",
        };
        class(name, self)
    }
}

/// Appends a request to `out`, which stays as it is after an error.
pub fn encode_call(
    method: &str,
    params: &[Value],
    options: Options,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    document(out, |out| {
        out.extend_from_slice(b"<methodCall>\n<methodName>");
        escape(method, out)?;
        out.extend_from_slice(b"</methodName>\n");
        write_params(params, options, out)?;
        out.extend_from_slice(b"</methodCall>\n");
        Ok(())
    })
}

/// Appends a response with one value to `out`, which stays as it is after an error.
pub fn encode_response(
    value: &Value,
    options: Options,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    document(out, |out| {
        out.extend_from_slice(b"<methodResponse>\n");
        write_params(std::slice::from_ref(value), options, out)?;
        out.extend_from_slice(b"</methodResponse>\n");
        Ok(())
    })
}

/// Appends a response with a fault to `out`. Characters of `text` that no XML can hold become
/// U+FFFD: what went wrong must always be possible to say.
pub fn encode_fault(code: i32, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(HEADER);
    out.extend_from_slice(
        b"<methodResponse>\n<fault>\n<value><struct>\n<member>\n<name>faultCode</name>\n<value><int>",
    );
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(
        b"</int></value>\n</member>\n<member>\n<name>faultString</name>\n<value><string>",
    );
    for piece in text.split_inclusive(|c| !is_char(c)) {
        let allowed = piece.trim_end_matches(|c| !is_char(c));
        // Nothing is refused in what is allowed.
        let _ = escape(allowed, out);
        if allowed.len() < piece.len() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(
        b"</string></value>\n</member>\n</struct></value>\n</fault>\n</methodResponse>\n",
    );
}

/// Appends the header and what `write` adds, or nothing.
fn document(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let before = out.len();
    out.extend_from_slice(HEADER);
    let written = write(out);
    if written.is_err() {
        out.truncate(before);
    }
    written
}

fn write_params(params: &[Value], options: Options, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend_from_slice(b"<params>\n");
    for value in params {
        out.extend_from_slice(b"<param>\n");
        write_value(value, options, out)?;
        out.extend_from_slice(b"</param>\n");
    }
    out.extend_from_slice(b"</params>\n");
    Ok(())
}

fn write_value(value: &Value, options: Options, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut scalar = |tag: &str, text: &str| {
        for piece in ["<value><", tag, ">", text, "</", tag, "></value>\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    };
    match value {
        // The one value without an end of line.
        Value::Nil => out.extend_from_slice(b"<value><nil/></value>"),
        Value::Bool(value) => scalar("boolean", if *value { "1" } else { "0" }),
        Value::Int(value) if i32::try_from(*value).is_ok() => scalar("int", &value.to_string()),
        Value::Int(value) if options.emit_i8 => scalar("i8", &value.to_string()),
        Value::Int(_) => return Err(EncodeError::IntegerRange),
        Value::Double(value) => {
            let mut text = String::new();
            write_float(*value, &mut text);
            scalar("double", &text);
        }
        Value::String(text) => write_text("string", text, out)?,
        // Python does not escape here, and a peer could write tags into another peer's answer.
        Value::DateTime(text) => write_text("dateTime.iso8601", text, out)?,
        Value::Bytes(bytes) => {
            out.extend_from_slice(b"<value><base64>\n");
            base64::write(bytes, out);
            out.extend_from_slice(b"</base64></value>\n");
        }
        Value::List(items) => {
            out.extend_from_slice(b"<value><array><data>\n");
            for item in items {
                write_value(item, options, out)?;
            }
            out.extend_from_slice(b"</data></array></value>\n");
        }
        Value::Map(pairs) => {
            out.extend_from_slice(b"<value><struct>\n");
            for (name, value) in pairs {
                let Value::String(name) = name else {
                    return Err(EncodeError::Name);
                };
                out.extend_from_slice(b"<member>\n<name>");
                escape(name, out)?;
                out.extend_from_slice(b"</name>\n");
                write_value(value, options, out)?;
                out.extend_from_slice(b"</member>\n");
            }
            out.extend_from_slice(b"</struct></value>\n");
        }
    }
    Ok(())
}

fn write_text(tag: &str, text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    for piece in ["<value><", tag, ">"] {
        out.extend_from_slice(piece.as_bytes());
    }
    escape(text, out)?;
    for piece in ["</", tag, "></value>\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
    Ok(())
}

/// Appends `text` with entities for `&`, `<` and `>`, as Python does. A CR stays one, and whoever
/// reads it makes an LF of it.
fn escape(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let entity: &[u8] = match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            // What may be no character of XML begins with these.
            ..b' ' | 0xef => {
                let c = text[i..].chars().next().unwrap_or_default();
                if is_char(c) {
                    continue;
                }
                return Err(EncodeError::Character(c));
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..i]);
        out.extend_from_slice(entity);
        written = i + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    Ok(())
}

const HEADER: &[u8] = b"<?xml version='1.0'?>\n";
