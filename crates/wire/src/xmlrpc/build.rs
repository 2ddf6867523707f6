//! Values from tags and text: the machine inside of Python's `Unmarshaller`.
//!
//! It keeps one stack of values. An element that is a type pushes one when it ends; an array or a
//! struct takes all that were pushed since it began. Which element lies in which is checked
//! nowhere, except that only a type may follow `<value>`.

use super::document::Document;
use super::python::{SHOWN_MAX, repr_of_at_most};
use super::scan::{Scanner, Token};
use super::{Caps, XmlError, base64, number};
use crate::value::{DEPTH_MAX, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What a document says.
pub(super) struct Built {
    pub(super) method: Option<String>,
    pub(super) values: Vec<Value>,
    /// Whether the values are a fault's.
    pub(super) is_fault: bool,
}

/// Reads a document to its end.
pub(super) fn build(bytes: &[u8], caps: &Caps) -> Result<Built, XmlError> {
    if bytes.len() > caps.bytes {
        let (what, max) = ("bytes", caps.bytes);
        return Err(XmlError::TooMuch { what, max });
    }
    let document = Document::new(bytes)?;
    let mut scanner = Scanner::new(&document, *caps);
    let mut builder = Builder {
        depth_max: caps.depth.min(DEPTH_MAX),
        data: String::with_capacity(SHORT_TEXT),
        ..Builder::default()
    };
    while let Some(token) = scanner.next()? {
        match token {
            Token::Start(name) => builder.start(local(name))?,
            Token::End(name) => builder.end(local(name))?,
            Token::Text(text) => builder.text(text),
            Token::Char(c) => builder.data.push(c),
        }
    }
    let is_fault = match builder.message {
        None => return Err(XmlError::NotXmlRpc),
        Some(message) => message == Message::Fault,
    };
    let (method, values) = (builder.method, builder.stack);
    Ok(Built {
        method,
        values,
        is_fault,
    })
}

#[derive(Default)]
struct Builder {
    stack: Vec<Value>,
    /// How high the stack was at the beginning of each array and struct that is open.
    marks: Vec<usize>,
    depth_max: usize,
    /// The text since the last start tag. An end tag does not clear it.
    data: String,
    /// Whether the last start tag was `<value>` and nothing was pushed since.
    in_value: bool,
    method: Option<String>,
    message: Option<Message>,
}

/// What kind of document it is: the last of these elements to end decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Params,
    Fault,
    Method,
}

impl Builder {
    fn start(&mut self, tag: &str) -> Result<(), XmlError> {
        if tag == "array" || tag == "struct" {
            if self.marks.len() == self.depth_max {
                return Err(XmlError::TooMuch {
                    what: "values in each other",
                    max: self.depth_max,
                });
            }
            self.marks.push(self.stack.len());
        }
        self.data.clear();
        if self.in_value && !is_known(tag) {
            return Err(XmlError::UnknownTag(repr_of_at_most(SHOWN_MAX, tag)));
        }
        self.in_value = tag == "value";
        Ok(())
    }

    /// Appends text, with LF for every end of a line.
    fn text(&mut self, text: &str) {
        let mut rest = text;
        loop {
            let cr = memchr::memchr(b'\r', rest.as_bytes());
            let (line, behind) = rest.split_at(cr.unwrap_or(rest.len()));
            self.data.push_str(line);
            let Some(behind) = behind.strip_prefix('\r') else {
                break;
            };
            self.data.push('\n');
            rest = behind.strip_prefix('\n').unwrap_or(behind);
        }
    }

    fn end(&mut self, tag: &str) -> Result<(), XmlError> {
        let value = match tag {
            "value" if self.in_value => Value::String(self.data.clone()),
            "string" | "name" => Value::String(self.data.clone()),
            "int" | "i4" | "i8" | "i2" | "i1" | "biginteger" => {
                Value::Int(number::int(&self.data)?)
            }
            "boolean" => match &*self.data {
                "0" => Value::Bool(false),
                "1" => Value::Bool(true),
                _ => return Err(XmlError::Boolean),
            },
            "double" | "float" => Value::Double(number::float(&self.data)?),
            "bigdecimal" => Value::Double(number::decimal(&self.data)?),
            "nil" => Value::Nil,
            "base64" => Value::Bytes(base64::read(&self.data)?),
            "dateTime.iso8601" => Value::DateTime(self.data.trim().to_owned()),
            "array" => Value::List(self.since_mark()),
            "struct" => Value::Map(members(self.since_mark())?),
            "params" => return self.is(Message::Params),
            "fault" => return self.is(Message::Fault),
            "methodName" => {
                self.method = Some(self.data.clone());
                return self.is(Message::Method);
            }
            _ => return Ok(()),
        };
        self.stack.push(value);
        self.in_value = false;
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "so that the table of tags is one")]
    fn is(&mut self, message: Message) -> Result<(), XmlError> {
        self.message = Some(message);
        Ok(())
    }

    fn since_mark(&mut self) -> Vec<Value> {
        let mark = self.marks.pop().unwrap_or(0);
        self.stack.split_off(mark)
    }
}

/// Names and values in turn become pairs. Of two members with one name the first says where, the
/// last says what.
fn members(items: Vec<Value>) -> Result<Vec<(Value, Value)>, XmlError> {
    let mut pairs: Vec<(Value, Value)> = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some(name) = items.next() {
        let value = items.next().ok_or(XmlError::NoMember)?;
        match &name {
            Value::String(_) => pairs.push((name, value)),
            Value::List(_) => return Err(XmlError::Unhashable("list")),
            Value::Map(_) => return Err(XmlError::Unhashable("dict")),
            Value::Bytes(_) => return Err(XmlError::Unhashable("Binary")),
            Value::DateTime(_) => return Err(XmlError::Unhashable("DateTime")),
            other => return Err(XmlError::Name(other.kind())),
        }
    }
    if is_unique(&pairs) {
        return Ok(pairs);
    }
    let mut merged: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (name, value) in pairs {
        let Value::String(text) = &name else {
            continue;
        };
        match places.entry(text.clone()) {
            Entry::Occupied(place) => merged[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push((name, value));
            }
        }
    }
    Ok(merged)
}

fn is_unique(pairs: &[(Value, Value)]) -> bool {
    let mut names: Vec<&str> = pairs
        .iter()
        .filter_map(|(name, _)| match name {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.windows(2).all(|two| two[0] != two[1])
}

/// The name behind the last colon: prefixes of namespaces are not looked at.
fn local(name: &str) -> &str {
    let colon = name.bytes().rposition(|byte| byte == b':');
    colon.map_or(name, |colon| &name[colon + 1..])
}

/// Whether something happens when the element ends.
fn is_known(tag: &str) -> bool {
    matches!(
        tag,
        "nil"
            | "boolean"
            | "i1"
            | "i2"
            | "i4"
            | "i8"
            | "int"
            | "biginteger"
            | "double"
            | "float"
            | "bigdecimal"
            | "string"
            | "name"
            | "array"
            | "struct"
            | "base64"
            | "dateTime.iso8601"
            | "value"
            | "params"
            | "fault"
            | "methodName"
    )
}

/// Room for most texts.
const SHORT_TEXT: usize = 128;
