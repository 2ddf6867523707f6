//! The requests that nearly all are, read in one pass: what `xmlrpc.client` writes for a call with texts,
//! whole numbers, truths and `None`.
//!
//! Nothing is refused here and nothing is tolerated: whatever is not written just so is left to the
//! scanner and the builder, which come to the same values, and know every error.

use super::{Call, Caps};
use crate::plain;
use crate::value::Value;

/// Reads a request, if it is a usual one.
pub(super) fn call(bytes: &[u8], caps: &Caps) -> Option<Call> {
    if bytes.len() > caps.bytes {
        return None;
    }
    let rest = bytes.strip_prefix(BEGIN)?;
    let (method, rest) = text(rest)?;
    let mut rest = rest.strip_prefix(PARAMS)?;
    let mut params = Vec::new();
    while let Some(behind) = rest.strip_prefix(PARAM) {
        if OUTER_ELEMENTS + PARAM_ELEMENTS * (params.len() + 1) > caps.elements {
            return None;
        }
        let value;
        (value, rest) = param(behind)?;
        params.push(value);
    }
    (rest == END && OUTER_ELEMENTS <= caps.elements).then(|| Call {
        method: method.to_owned(),
        params,
    })
}

/// The value behind `<value>`, and what follows the parameter.
fn param(rest: &[u8]) -> Option<(Value, &[u8])> {
    if let Some(rest) = rest.strip_prefix(b"<string>") {
        let (text, rest) = text(rest)?;
        let rest = rest.strip_prefix(b"</string></value>\n</param>\n")?;
        return Some((Value::String(text.to_owned()), rest));
    }
    if let Some(rest) = rest.strip_prefix(b"<int>") {
        let (digits, rest) = text(rest)?;
        let rest = rest.strip_prefix(b"</int></value>\n</param>\n")?;
        // Up to so many digits there is nothing to be told about them.
        let number = digits.parse().ok().filter(|_| digits.len() < 18)?;
        return Some((Value::Int(number), rest));
    }
    if let Some(rest) = rest.strip_prefix(b"<boolean>") {
        let (digit, rest) = rest.split_first()?;
        let truth = match digit {
            b'0' => false,
            b'1' => true,
            _ => return None,
        };
        let rest = rest.strip_prefix(b"</boolean></value>\n</param>\n")?;
        return Some((Value::Bool(truth), rest));
    }
    let rest = rest.strip_prefix(b"<nil/></value></param>\n")?;
    Some((Value::Nil, rest))
}

/// Text up to the next tag, in which nothing has to be replaced or looked at twice.
fn text(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (marks, controls) = ([b'<', b'&', b']', 0xef], [b'\t', b'\n']);
    let (text, rest) = rest.split_at(plain::leading(rest, marks, controls));
    Some((str::from_utf8(text).ok()?, rest))
}

const BEGIN: &[u8] = b"<?xml version='1.0'?>\n<methodCall>\n<methodName>";
const PARAMS: &[u8] = b"</methodName>\n<params>\n";
const PARAM: &[u8] = b"<param>\n<value>";
const END: &[u8] = b"</params>\n</methodCall>\n";
/// `methodCall`, `methodName` and `params`.
const OUTER_ELEMENTS: usize = 3;
/// `param`, `value` and the type.
const PARAM_ELEMENTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmlrpc::{Options, decode_by_parts, encode_call};
    use proptest::prelude::*;

    const CAPS: Caps = Caps {
        bytes: 1_000,
        depth: 3,
        elements: 15,
        attributes: 1,
    };

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[a-z\n\t\r\u{e4}]{0,5}".prop_map(Value::String),
            "[a-z<&>\\]\n\t\r\u{e4}\u{ffff}\0 ]{0,30}".prop_map(Value::String),
            any::<i32>().prop_map(|number| Value::Int(number.into())),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Nil),
            Just(Value::Double(1.5)),
            Just(Value::List(vec![Value::Nil])),
        ]
    }

    #[test]
    fn what_python_writes_is_usual() {
        let params = [
            Value::from("ä ]"),
            Value::Int(-5),
            Value::Bool(true),
            Value::Nil,
        ];
        let mut written = Vec::new();
        encode_call("a.b", &params, Options::default(), &mut written).unwrap();
        // With a bracket it is not.
        assert_eq!(call(&written, &CAPS), None);
        let params = [
            Value::from("ä\n"),
            Value::Int(-5),
            Value::Bool(true),
            Value::Nil,
        ];
        written.clear();
        encode_call("a.b", &params, Options::default(), &mut written).unwrap();
        let usual = call(&written, &CAPS).unwrap();
        assert_eq!((&*usual.method, &usual.params[..]), ("a.b", &params[..]));
        let fewer = Caps {
            elements: 14,
            ..CAPS
        };
        assert_eq!(call(&written, &fewer), None);
        let fewer = Caps {
            bytes: written.len() - 1,
            ..CAPS
        };
        assert_eq!(call(&written, &fewer), None);
    }

    proptest! {
        #[test]
        fn what_is_usual_means_what_its_parts_mean(
            method in "[a-z<\\]\u{e4}. ]{0,9}",
            params in prop::collection::vec(any_value(), 0..6),
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"<>/ \r\n&;]-+_09ax\xef\xff\0'"[..])), 0..3),
            cut in any::<prop::sample::Index>(),
            cuts in any::<bool>(),
        ) {
            let mut written = Vec::new();
            let options = Options { emit_i8: true };
            prop_assume!(encode_call(&method, &params, options, &mut written).is_ok());
            for (at, byte) in changes {
                let at = at.index(written.len());
                written[at] = byte;
            }
            if cuts {
                written.truncate(cut.index(written.len()));
            }
            if let Some(usual) = call(&written, &CAPS) {
                prop_assert_eq!(decode_by_parts(&written, &CAPS), Ok(usual));
            }
        }
    }
}
