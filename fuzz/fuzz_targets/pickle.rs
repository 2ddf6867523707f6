//! A value out of a pickle keeps to its cap and survives both protocols that are written. Whatever a
//! message holds, its reply has the request's form and says what it should.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::jsonrpc::{self, json};
use portyard_wire::pickle::rpc::{Form, decode_request, encode_reply};
use portyard_wire::pickle::{Caps, PickleError, Protocol, decode, encode};
use portyard_wire::value::Value;

const CAPS: Caps = Caps { size: 10_000 };

fuzz_target!(|pickle: &[u8]| {
    if let Ok(value) = decode(pickle, &CAPS) {
        assert!(value.size() <= CAPS.size);
        for protocol in [Protocol::Two, Protocol::Four] {
            let written = pickled(&value, protocol);
            let again = decode(&written, &Caps { size: usize::MAX }).expect("it is ours");
            // Not the values, as one that is not a number differs from itself.
            assert_eq!(pickled(&again, protocol), written);
        }
    }
    match decode_request(pickle, &CAPS) {
        Ok(request) => {
            let said = Value::List(request.args);
            let mut reply = Vec::new();
            encode_reply(request.form, Ok(&said), &mut reply);
            check(request.form, &said, &reply);
        }
        Err(refused) => {
            let exception = refused.why.exception();
            if let Some(form) = refused.form {
                let mut reply = Vec::new();
                encode_reply(form, Err(&exception), &mut reply);
                check(form, &Value::String(exception.text()), &reply);
            }
        }
    }
});

fn pickled(value: &Value, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, protocol, &mut out).expect("it came from a pickle");
    out
}

fn check(form: Form, said: &Value, reply: &[u8]) {
    let caps = Caps { size: usize::MAX };
    let inner = match (form, decode(reply, &caps)) {
        (Form::Plain(_), outer) => outer,
        (Form::Wrapped(_), Ok(Value::Bytes(inner))) => decode(&inner, &caps),
        (Form::Json(_), Ok(Value::String(text))) => {
            let (size, batch) = (usize::MAX, 0);
            let read = json::decode(text.as_bytes(), &jsonrpc::Caps { size, batch });
            assert_eq!(read.as_ref(), Ok(said));
            return;
        }
        (form, outer) => panic!("{outer:?} in {form:?}"),
    };
    match inner {
        Ok(value) => assert_eq!(
            pickled(&value, Protocol::Four),
            pickled(said, Protocol::Four)
        ),
        // An exception, which has a class.
        Err(PickleError::Forbidden(_)) => {}
        Err(error) => panic!("{error}"),
    }
}
