//! From values to JSON, without any whitespace.

use super::form::{BYTES, DATE_TIME, Form, MAP};
use super::json::JsonError;
use crate::decimal;
use crate::plain;
use crate::value::Value;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::io::Write as _;

pub(super) fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match value {
        Value::Nil => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Int(int) => decimal::push(*int, out),
        // In this form it is the shortest, and never looks like a whole number.
        Value::Double(double) if double.is_finite() => format(out, format_args!("{double:?}")),
        Value::Double(_) => return Err(JsonError::NotFinite),
        Value::String(text) => write_string(text, out),
        Value::Bytes(bytes) => {
            format(out, format_args!("{{\"{BYTES}\":\""));
            out.extend(BASE64_STANDARD.encode(bytes).as_bytes());
            out.extend(b"\"}");
        }
        Value::DateTime(text) => {
            format(out, format_args!("{{\"{DATE_TIME}\":"));
            write_string(text, out);
            out.push(b'}');
        }
        Value::List(items) => write_list(items, out)?,
        Value::Map(pairs) => {
            // It would be taken for what it is not.
            let escaped = pairs.first().and_then(|(key, _)| Form::of(key)).is_some();
            if escaped {
                format(out, format_args!("{{\"{MAP}\":"));
            }
            let members = pairs.iter().map(|(key, value)| match key {
                Value::String(key) => (Ok(&**key), value),
                key => (Err(JsonError::Key { kind: key.kind() }), value),
            });
            write_object(members, out)?;
            if escaped {
                out.push(b'}');
            }
        }
    }
    Ok(())
}

pub(super) fn write_list(items: &[Value], out: &mut Vec<u8>) -> Result<(), JsonError> {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out)?;
    }
    out.push(b']');
    Ok(())
}

pub(super) fn write_object<'a>(
    members: impl Iterator<Item = (Result<&'a str, JsonError>, &'a Value)>,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    out.push(b'{');
    for (i, (key, value)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(key?, out);
        out.push(b':');
        write(value, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// Appends a string with its quotes.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let len = plain::leading(rest, [b'"', b'\\'], []);
        out.extend_from_slice(&rest[..len]);
        if len == rest.len() {
            break;
        }
        match rest[len] {
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend([b'\\', byte]),
            control => format(out, format_args!("\\u{control:04x}")),
        }
        rest = &rest[len + 1..];
    }
    out.push(b'"');
}

/// Appends formatted text.
pub(super) fn format(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a vector cannot fail.
    let _ = out.write_fmt(text);
}
