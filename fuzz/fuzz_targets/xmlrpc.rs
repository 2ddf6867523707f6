//! A call that is read can be written and read again; no value lies too deep; tighter caps refuse
//! and never change what is read; a refusal is one line that survives as a fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::value::{DEPTH_MAX, Value};
use portyard_wire::xmlrpc::{
    Call, Caps, Options, XmlError, decode_call, decode_response, encode_call, encode_fault,
    encode_response,
};

fuzz_target!(|document: &[u8]| {
    let caps = Caps::default();
    let read = decode_call(document, &caps);
    let tight = Caps {
        bytes: 300,
        depth: 2,
        elements: 12,
        attributes: 2,
    };
    match decode_call(document, &tight) {
        Err(XmlError::TooMuch { .. }) => {}
        tightly => assert_eq!(format!("{tightly:?}"), format!("{read:?}")),
    }
    match read {
        Ok(call) => written(&call, &caps),
        Err(error) => refused(&error, &caps),
    }
    if let Ok(Ok(value)) = decode_response(document, &caps) {
        assert!(depth(&value) <= DEPTH_MAX);
    }
});

fn written(call: &Call, caps: &Caps) {
    assert!(call.params.iter().all(|value| depth(value) <= DEPTH_MAX));
    let first = encoded(call);
    // A CR is an LF to whoever reads it.
    if first.contains(&b'\r') {
        return;
    }
    let again = decode_call(&first, caps).expect("we wrote it");
    assert_eq!(encoded(&again), first);

    let value = Value::List(again.params);
    let mut response = Vec::new();
    if depth(&value) <= DEPTH_MAX {
        encode_response(&value, OPTIONS, &mut response).expect("its values were read");
        let value = decode_response(&response, caps).expect("we wrote it");
        let mut again = Vec::new();
        let value = value.expect("it is no fault");
        encode_response(&value, OPTIONS, &mut again).expect("its values were read");
        assert_eq!(again, response);
    }
}

fn refused(error: &XmlError, caps: &Caps) {
    let text = error.python_text();
    assert!(text.starts_with("<class '") && !text.contains(char::is_control));
    let mut fault = Vec::new();
    encode_fault(error.interop_code(), &text, &mut fault);
    let fault = decode_response(&fault, caps).expect("we wrote it");
    let fault = fault.expect_err("it is a fault");
    assert_eq!(
        (fault.code, fault.text),
        (error.interop_code().into(), text)
    );
}

fn encoded(call: &Call) -> Vec<u8> {
    let mut out = Vec::new();
    encode_call(&call.method, &call.params, OPTIONS, &mut out).expect("its values were read");
    out
}

/// How many arrays and structs lie in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(pairs) => {
            1 + pairs
                .iter()
                .map(|(_, value)| depth(value))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}

const OPTIONS: Options = Options { emit_i8: true };
