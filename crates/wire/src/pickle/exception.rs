//! Python's own exceptions, for the answer to a call that failed.

use super::opcode as op;
use super::writer::{Writer, pickle};
use super::{PickleError, Protocol};
use crate::value::Value;
use std::fmt::Write as _;

/// An exception that every Python 3 has, and Python 2 as near as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuiltinException {
    /// There is no such attribute.
    AttributeError,
    /// There is no such key: what a server in Python says to a name that it does not know.
    KeyError,
    /// What was looked for is not there, and no key either.
    LookupError,
    /// There is no room.
    MemoryError,
    /// A number is too large.
    OverflowError,
    /// It is not allowed. Its arguments are an error number and a text, as Python makes this class
    /// from the number (13 or 1) when it reads protocol 2; Python 2 has `OSError` instead.
    PermissionError,
    /// It failed.
    RuntimeError,
    /// A value is of the wrong kind, or their count is.
    TypeError,
    /// A value is of the right kind and still wrong.
    ValueError,
}

/// An exception, as it will be raised at the other end.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    /// Its class.
    pub class: BuiltinException,
    /// Its arguments: mostly one text.
    pub args: Vec<Value>,
}

impl Exception {
    /// With a text, and for a [`BuiltinException::PermissionError`] the number that goes with it.
    pub fn new(class: BuiltinException, text: impl Into<String>) -> Self {
        let text = Value::String(text.into());
        let args = match class {
            BuiltinException::PermissionError => vec![Value::Int(EACCES), text],
            _ => vec![text],
        };
        Self { class, args }
    }

    /// What `str` says of it in Python 3.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match (self.class, &self.args[..]) {
            (_, []) => {}
            (BuiltinException::KeyError, [key]) => repr(key, &mut text),
            (_, [Value::String(only)]) => text.push_str(only),
            (_, [only]) => repr(only, &mut text),
            (BuiltinException::PermissionError, [Value::Int(number), Value::String(what)]) => {
                text = format!("[Errno {number}] {what}");
            }
            (_, several) => repr_items(["(", ")"], several, repr, &mut text),
        }
        text
    }
}

/// Appends a pickle that gives an instance of the class, with these arguments. It is the one pickle
/// from here that has its reader call something. After an error `out` is as it was.
pub fn encode_exception(
    class: BuiltinException,
    args: &[Value],
    protocol: Protocol,
    out: &mut Vec<u8>,
) -> Result<(), PickleError> {
    pickle(protocol, out, |writer| {
        name(class, writer);
        writer.tuple(args, false)?;
        writer.out.push(op::REDUCE);
        Ok(())
    })
}

fn name(class: BuiltinException, writer: &mut Writer<'_>) {
    match writer.protocol {
        // Python 3 knows where Python 2 has them.
        Protocol::Two => {
            writer.out.extend(b"cexceptions\n");
            writer.out.extend(class.in_python2().as_bytes());
            writer.out.push(b'\n');
        }
        Protocol::Four => {
            writer.text("builtins");
            writer.text(class.name());
            writer.out.push(op::STACK_GLOBAL);
        }
    }
}

impl BuiltinException {
    /// The name that Python 3 gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttributeError => "AttributeError",
            Self::KeyError => "KeyError",
            Self::LookupError => "LookupError",
            Self::MemoryError => "MemoryError",
            Self::OverflowError => "OverflowError",
            Self::PermissionError => "PermissionError",
            Self::RuntimeError => "RuntimeError",
            Self::TypeError => "TypeError",
            Self::ValueError => "ValueError",
        }
    }

    const fn in_python2(self) -> &'static str {
        match self {
            Self::PermissionError => "OSError",
            same => same.name(),
        }
    }
}

/// What `repr` says in Python 3, or near enough for a sentence.
fn repr(value: &Value, text: &mut String) {
    match value {
        Value::Nil => text.push_str("None"),
        Value::Bool(true) => text.push_str("True"),
        Value::Bool(false) => text.push_str("False"),
        // Writing into a string cannot fail.
        Value::Int(int) => drop(write!(text, "{int}")),
        Value::Double(double) => drop(write!(text, "{double:?}")),
        Value::String(string) | Value::DateTime(string) => {
            let quote = if string.contains('\'') && !string.contains('"') {
                '"'
            } else {
                '\''
            };
            text.push(quote);
            for char in string.chars() {
                match char {
                    '\\' => text.push_str("\\\\"),
                    '\n' => text.push_str("\\n"),
                    '\r' => text.push_str("\\r"),
                    '\t' => text.push_str("\\t"),
                    char if char == quote => text.extend(['\\', char]),
                    char if char.is_control() => drop(write!(text, "\\x{:02x}", u32::from(char))),
                    char => text.push(char),
                }
            }
            text.push(quote);
        }
        Value::Bytes(bytes) => drop(write!(text, "b'{}'", bytes.escape_ascii())),
        Value::List(items) => repr_items(["[", "]"], items, repr, text),
        Value::Map(pairs) => repr_items(["{", "}"], pairs, repr_pair, text),
    }
}

fn repr_pair((key, value): &(Value, Value), text: &mut String) {
    repr(key, text);
    text.push_str(": ");
    repr(value, text);
}

fn repr_items<T>(
    [open, close]: [&str; 2],
    items: &[T],
    repr: fn(&T, &mut String),
    text: &mut String,
) {
    text.push_str(open);
    for (i, item) in items.iter().enumerate() {
        text.push_str(if i > 0 { ", " } else { "" });
        repr(item, text);
    }
    text.push_str(close);
}

/// The number that goes with most refusals.
const EACCES: i64 = 13;
