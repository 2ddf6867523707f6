//! Values, keys and tables for a person or a program to read.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};

use portyard_core::exit::Exit;
use portyard_wire::escape::escape;
use portyard_wire::jsonrpc::json as wire_json;
use portyard_wire::value::Value;

use super::Style;
use crate::out::Out;
use crate::stop::Stop;

/// Prints a value: JSON on a line, or with --text what a text or bytes are.
pub fn value(value: &Value, style: Style, out: &mut Out) -> Result<(), Stop> {
    let is_seen = stdout().is_terminal();
    match value {
        Value::String(text) if style.text && is_seen => out.peer_line(text.as_bytes(), usize::MAX),
        Value::String(text) if style.text => out.line(text),
        Value::Bytes(bytes) if style.text && is_seen => out.peer_line(bytes, usize::MAX),
        Value::Bytes(bytes) if style.text => out.bytes(bytes),
        other => out.line(exact(other)?),
    }
}

/// The JSON of a value, on one line that no terminal obeys; what has none, such as an infinity, is
/// an error.
pub fn exact(value: &Value) -> Result<String, Stop> {
    let mut bytes = Vec::new();
    wire_json::encode(value, &mut bytes)
        .map_err(|error| Stop::fatal(Exit::Data, format!("the value has no JSON: {error}")))?;
    Ok(harmless(&String::from_utf8_lossy(&bytes)))
}

/// The same for a sentence or a table, where what has no JSON is told in its stead.
pub fn json(value: &Value) -> String {
    let mut bytes = Vec::new();
    match wire_json::encode(value, &mut bytes) {
        Ok(()) => harmless(&String::from_utf8_lossy(&bytes)),
        Err(error) => format!("({error})"),
    }
}

/// A key as it is typed; one that is no text, with its kind.
pub fn key(key: &Value) -> String {
    match key {
        Value::String(text) => escape(text.as_bytes(), MAX_KEY),
        other => format!("{} ({})", json(other), other.kind()),
    }
}

/// Prints lines of two columns below each other.
pub fn table(rows: &[(String, String)], out: &mut Out) -> Result<(), Stop> {
    let width = |text: &str| text.chars().count();
    let widest = rows.iter().map(|(left, _)| width(left)).max();
    let widest = widest.unwrap_or_default().min(MAX_COLUMN);
    for (left, right) in rows {
        let gap = widest.saturating_sub(width(left)) + 2;
        out.line(format_args!("{left}{:gap$}{right}", ""))?;
    }
    Ok(())
}

/// A value for a table: one that is long is cut.
pub fn cell(value: &Value) -> String {
    let text = json(value);
    match text.char_indices().nth(MAX_CELL) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// JSON says control characters beyond ASCII as they are; here they are escapes, which means the
/// same. They stand in strings alone.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}'
            || escape(c.encode_utf8(&mut [0; 4]).as_bytes(), 9).starts_with(c)
        {
            text.push(c);
        } else {
            // All of them are in the first plane. Writing into a String does not fail.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        }
    }
    text
}

/// Characters of a key in a table or a sentence.
const MAX_KEY: usize = 300;
/// Longer keys push their value to the right.
const MAX_COLUMN: usize = 40;
const MAX_CELL: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_commands_a_terminal_and_json_stays_the_same() {
        let text = "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\\é\n😀";
        let shown = exact(&Value::from(text)).unwrap();
        assert_eq!(shown, "\"a\\u001b[2J\\u007f\\u009b31m\\u202e\\\\é\\n😀\"");
        let read: String = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, text);
        assert!(exact(&Value::Double(f64::NAN)).is_err());
        assert!(json(&Value::Double(f64::NAN)).contains("NaN"));
    }

    #[test]
    fn keys_of_two_kinds_are_told_apart() {
        assert_eq!(key(&Value::from("5")), "5");
        assert_eq!(key(&Value::Int(5)), "5 (integer)");
        assert_eq!(key(&Value::from("\x1b")), "\\x1b");
    }
}
