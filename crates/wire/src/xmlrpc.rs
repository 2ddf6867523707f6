//! XML-RPC as Python speaks it: the bytes of `xmlrpc.client.dumps`, the tolerance of its `loads`.
//!
//! A request is read in two steps, unless it is a usual one, which is read in one. The scanner cuts XML into tags and text; it takes what expat
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
mod parts;
mod python;
mod scan;
mod usual;

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
    match usual::call(bytes, caps) {
        Some(call) => Ok(call),
        None => decode_by_parts(bytes, caps),
    }
}

/// Reads any request.
fn decode_by_parts(bytes: &[u8], caps: &Caps) -> Result<Call, XmlError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPS: Caps = Caps {
        bytes: 1000,
        depth: 2,
        elements: 8,
        attributes: 2,
    };

    fn call(body: &str) -> Result<Call, XmlError> {
        let document = format!("<a><methodName>m</methodName>{body}</a>");
        decode_call(document.as_bytes(), &CAPS)
    }

    fn too_much(what: &'static str, max: usize) -> Result<Call, XmlError> {
        Err(XmlError::TooMuch { what, max })
    }

    #[test]
    fn a_document_type_is_refused_before_it_is_read() {
        for document in [
            "<!DOCTYPE a [<!ENTITY b 'c'>]><methodName>&b;</methodName>",
            "<?xml version='1.0'?>\n<!-- --> <!DOCTYPE \x01",
        ] {
            let error = decode_call(document.as_bytes(), &CAPS).unwrap_err();
            assert_eq!(error, XmlError::Doctype);
            assert_eq!(error.interop_code(), -32700);
            let text = "<class 'ValueError'>:document types are refused";
            assert_eq!(error.python_text(), text);
        }
    }

    #[test]
    fn each_cap_is_the_last_that_is_taken() {
        let nested = |n| "<array>".repeat(n) + &"</array>".repeat(n);
        assert!(call(&nested(2)).is_ok());
        assert_eq!(call(&nested(3)), too_much("values in each other", 2));
        assert!(call(&"<b/>".repeat(6)).is_ok());
        assert_eq!(call(&"<b/>".repeat(7)), too_much("elements", 8));
        assert!(call("<b c='' d=''/>").is_ok());
        assert_eq!(call("<b c='' d='' e=''/>"), too_much("attributes", 2));
        assert_eq!(call("<b c='' d=''/><b c=''/>"), too_much("attributes", 2));
        let filled = |n: usize| call(&" ".repeat(n - "<a><methodName>m</methodName></a>".len()));
        assert!(filled(1000).is_ok());
        assert_eq!(filled(1001), too_much("bytes", 1000));
    }

    #[test]
    fn no_cap_allows_what_recursion_does_not() {
        let caps = Caps {
            depth: usize::MAX,
            ..Caps::default()
        };
        let nested = |n| {
            let (open, close) = ("<array>".repeat(n), "</array>".repeat(n));
            let document = format!("<a><methodName>m</methodName>{open}{close}</a>");
            decode_call(document.as_bytes(), &caps)
        };
        assert!(nested(DEPTH_MAX).is_ok());
        let (what, max) = ("values in each other", DEPTH_MAX);
        assert_eq!(nested(DEPTH_MAX + 1), Err(XmlError::TooMuch { what, max }));
        assert_eq!(nested(10_000), Err(XmlError::TooMuch { what, max }));
    }

    #[test]
    fn a_refusal_has_the_number_that_people_agreed_on() {
        for (document, code) in [
            (&b"<a>"[..], -32700),
            (b"<?xml version='1.0' encoding='koi8-r'?><a/>", -32701),
            (b"<?xml version='1.0' encoding='utf-16'?><a/>", -32701),
            (b"\xff\xfe<\0a\0/\0>\0", -32701),
            (b"<a>\xff</a>", -32702),
            (b"<a>\xc3", -32702),
            (b"<a/>", -32600),
            (b"<value><foo/></value>", -32600),
            (b"<params/>", -32600),
            (b"<a><int>x</int></a>", -32602),
            (b"<a><int>9223372036854775808</int></a>", -32602),
            (b"<a><struct><int>1</int><int>1</int></struct></a>", -32602),
        ] {
            let error = decode_call(document, &CAPS).unwrap_err();
            assert_eq!(error.interop_code(), code, "{error}");
        }
    }

    fn response(body: &str) -> Result<Result<Value, Fault>, XmlError> {
        decode_response(format!("<a>{body}</a>").as_bytes(), &Caps::default())
    }

    #[test]
    fn a_response_has_one_value() {
        for body in [
            "<params/>",
            "<params><int>1</int><int>2</int></params>",
            "<methodName>m</methodName><int>1</int><params/>",
        ] {
            assert_eq!(response(body), Err(XmlError::NotAResponse), "{body}");
        }
        assert_eq!(
            response("<params><int>1</int></params>"),
            Ok(Ok(Value::Int(1)))
        );
    }

    #[test]
    fn a_fault_needs_code_and_text_and_may_have_more() {
        let fault = |members: &str| response(&format!("<fault><struct>{members}</struct></fault>"));
        let code = "<name>faultCode</name><int>4</int>";
        let text = "<name>faultString</name><string>no</string>";
        for members in [code, text, "", "<name>faultCode</name><string>4</string>"] {
            assert_eq!(fault(members), Err(XmlError::NotAFault), "{members}");
        }
        assert_eq!(response("<nil/><fault/>"), Err(XmlError::NotAFault));
        let more = fault(&format!("<name>x</name><nil/>{text}{code}"));
        let text = "no".into();
        assert_eq!(more, Ok(Err(Fault { code: 4, text })));
    }

    #[test]
    fn a_fault_is_no_call() {
        assert_eq!(call("<fault/>"), Err(XmlError::NotACall));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let options = Options::default();
        for (value, error, text) in [
            (
                Value::Int(1 << 31),
                EncodeError::IntegerRange,
                "<class 'OverflowError'>:int exceeds XML-RPC limits",
            ),
            (
                Value::Map(vec![(Value::Int(1), Value::Nil)]),
                EncodeError::Name,
                "<class 'TypeError'>:dictionary key must be string",
            ),
            (
                "a\u{1}".into(),
                EncodeError::Character('\u{1}'),
                "<class 'ValueError'>:XML cannot hold the character U+0001",
            ),
            (
                "\u{ffff}".into(),
                EncodeError::Character('\u{ffff}'),
                "<class 'ValueError'>:XML cannot hold the character U+FFFF",
            ),
        ] {
            let value = Value::List(vec![Value::Nil, value]);
            let mut out = b"before".to_vec();
            assert_eq!(encode_response(&value, options, &mut out), Err(error));
            assert_eq!(encode_call("m", &[value], options, &mut out), Err(error));
            assert_eq!(
                encode_call("\0", &[], options, &mut out),
                Err(EncodeError::Character('\0'))
            );
            assert_eq!(out, b"before");
            assert_eq!(error.python_text(), text);
        }
    }

    #[test]
    fn large_integers_are_written_when_asked_for() {
        let written = |value| {
            let mut out = Vec::new();
            let options = Options { emit_i8: true };
            encode_response(&Value::Int(value), options, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(written(1 << 31).contains("<value><i8>2147483648</i8></value>\n"));
        assert!(written(i64::MIN).contains("<i8>-9223372036854775808</i8>"));
        for small in [i32::MIN, i32::MAX] {
            assert!(written(small.into()).contains(&format!("<int>{small}</int>")));
        }
    }

    proptest! {
        #[test]
        fn every_fault_can_be_said(code: i32, text: String) {
            let mut out = Vec::new();
            encode_fault(code, &text, &mut out);
            let fault = decode_response(&out, &Caps::default()).unwrap().unwrap_err();
            prop_assert_eq!(fault.code, i64::from(code));
            let said = text.replace("\r\n", "\n").replace('\r', "\n");
            let said = said.replace(|c| !parts::is_char(c), "\u{fffd}");
            prop_assert_eq!(fault.text, said);
        }
    }
}
