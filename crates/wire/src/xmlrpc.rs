//! XML-RPC as Python speaks it: the bytes of `xmlrpc.client.dumps`, the tolerance of its `loads`.
//!
//! A request is read in two steps. The scanner cuts XML into tags and text; it takes what expat
//! takes and refuses the rest with expat's words, line and column. The builder makes values of
//! them; it is the machine inside of Python's `Unmarshaller`, state by state, so that documents
//! which nobody would write on purpose mean the same here and there. What is not like Python:
//!
//! - A document type is refused: no entity is defined by a peer, and none but the five and numeric
//!   ones is ever replaced.
//! - Everything has a cap: [`Caps`].
//! - Whole numbers have 64 bits, a `bigdecimal` must be a double without loss, and the members of
//!   a struct have strings for names.
//! - Encodings are UTF-8, ISO-8859-1 and US-ASCII.
//! - What Python would send as broken XML is escaped, or refused when no XML can say it.

mod base64;
mod build;
mod document;
mod encode;
mod error;
mod name;
mod number;
mod outside;
mod python;
mod scan;

pub use encode::{EncodeError, Options, encode_call, encode_fault, encode_response};
pub use error::{Malformed, XmlError};
pub use python::python_repr;

use crate::value::{DEPTH_MAX, Value};

/// A method and what it is called with.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The name, as it came: any text, also none.
    pub method: String,
    /// The parameters in order.
    pub params: Vec<Value>,
}

/// What a server answers instead of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// 1 for every exception of a Python server.
    pub code: i64,
    /// For people; a Python server writes class and text of the exception.
    pub text: String,
}

/// How much a document may hold. One that holds more is refused before more of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of the document.
    pub bytes: usize,
    /// How deep arrays and structs lie in each other; [`DEPTH_MAX`] when more is given.
    pub depth: usize,
    /// Elements, which bounds the values.
    pub elements: usize,
    /// Attributes of all elements together. XML-RPC has none; namespaces are declared by them.
    pub attributes: usize,
}

impl Default for Caps {
    /// Room for what people send: 1 MiB, 100,000 elements.
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            depth: DEPTH_MAX,
            elements: 100_000,
            attributes: 1_000,
        }
    }
}

/// Reads a request.
pub fn decode_call(bytes: &[u8], caps: &Caps) -> Result<Call, XmlError> {
    let built = build::build(bytes, caps)?;
    if built.is_fault {
        return Err(XmlError::NotACall);
    }
    let (method, params) = (built.method, built.values);
    let method = method.ok_or(XmlError::NoMethod)?;
    Ok(Call { method, params })
}

/// Reads what a server answered. A fault may have further members, as some servers send.
pub fn decode_response(bytes: &[u8], caps: &Caps) -> Result<Result<Value, Fault>, XmlError> {
    let built = build::build(bytes, caps)?;
    let mut values = built.values.into_iter();
    let (Some(value), extra) = (values.next(), values.next()) else {
        return Err(XmlError::NotAResponse);
    };
    if built.is_fault {
        return fault(value).map(Err).ok_or(XmlError::NotAFault);
    }
    match extra {
        None if built.method.is_none() => Ok(Ok(value)),
        _ => Err(XmlError::NotAResponse),
    }
}

fn fault(value: Value) -> Option<Fault> {
    let Value::Map(members) = value else {
        return None;
    };
    let (mut code, mut text) = (None, None);
    for member in members {
        match member {
            (Value::String(name), Value::Int(value)) if name == "faultCode" => code = Some(value),
            (Value::String(name), Value::String(value)) if name == "faultString" => {
                text = Some(value);
            }
            _ => {}
        }
    }
    Some(Fault {
        code: code?,
        text: text?,
    })
}
