//! Documents with the bytes of `xmlrpc.client.dumps`.

use super::base64;
use super::parts::is_char;
use super::python::{class, write_float};
use crate::decimal;
use crate::plain;
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
    decimal::push(code.into(), out);
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
    match value {
        // The one value without an end of line.
        Value::Nil => out.extend_from_slice(b"<value><nil/></value>"),
        Value::Bool(true) => out.extend_from_slice(b"<value><boolean>1</boolean></value>\n"),
        Value::Bool(false) => out.extend_from_slice(b"<value><boolean>0</boolean></value>\n"),
        Value::Int(value) if i32::try_from(*value).is_ok() => {
            out.extend_from_slice(b"<value><int>");
            decimal::push(*value, out);
            out.extend_from_slice(b"</int></value>\n");
        }
        Value::Int(value) if options.emit_i8 => {
            out.extend_from_slice(b"<value><i8>");
            decimal::push(*value, out);
            out.extend_from_slice(b"</i8></value>\n");
        }
        Value::Int(_) => return Err(EncodeError::IntegerRange),
        Value::Double(value) => {
            let mut text = String::new();
            write_float(*value, &mut text);
            for piece in ["<value><double>", &text, "</double></value>\n"] {
                out.extend_from_slice(piece.as_bytes());
            }
        }
        Value::String(text) => {
            out.extend_from_slice(b"<value><string>");
            escape(text, out)?;
            out.extend_from_slice(b"</string></value>\n");
        }
        // Python does not escape here, and a peer could write tags into another peer's answer.
        Value::DateTime(text) => {
            out.extend_from_slice(b"<value><dateTime.iso8601>");
            escape(text, out)?;
            out.extend_from_slice(b"</dateTime.iso8601></value>\n");
        }
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

/// Appends `text` with entities for `&`, `<` and `>`, as Python does. A CR stays one, and whoever
/// reads it makes an LF of it.
fn escape(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    // What may be no character of XML begins with a control character or with 0xef.
    let (marks, controls) = ([b'&', b'<', b'>', 0xef], [b'\t', b'\n', b'\r']);
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain::leading(rest.as_bytes(), marks, controls));
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        let Some(c) = chars.next() else {
            return Ok(());
        };
        match c {
            '&' => out.extend_from_slice(b"&amp;"),
            '<' => out.extend_from_slice(b"&lt;"),
            '>' => out.extend_from_slice(b"&gt;"),
            c if is_char(c) => {
                out.extend_from_slice(&special.as_bytes()[..c.len_utf8()]);
            }
            c => return Err(EncodeError::Character(c)),
        }
        rest = chars.as_str();
    }
}

const HEADER: &[u8] = b"<?xml version='1.0'?>\n";
