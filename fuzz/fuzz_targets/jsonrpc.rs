//! A stream gives the same messages in one piece and in many, and each survives being framed again.
//! A value survives JSON and keeps to its caps. A call survives being written; whatever a message
//! holds, each of its requests gets one reply or none, and a client can read the replies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::framing::STEP;
use portyard_wire::jsonrpc::{
    Call, Caps, Decoder, Framing, HEADERS_MAX, Incoming, Item, Params, Replies, StreamError,
    decode, decode_batch, encode_request, json,
};
use portyard_wire::value::Value;

const CAPS: Caps = Caps {
    size: 10_000,
    batch: 10,
};
const LONGEST: usize = 300;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, stream) = input;
    value(stream);
    message(stream);
    let whole = framed(stream, stream.len());
    assert_eq!(framed(stream, piece.into()), whole);
    for framing in [Framing::Length, Framing::Lines, Framing::Headers] {
        let mut written = Vec::new();
        let mut sent = whole.0.clone();
        // Only these can stand on a line and begin a stream of lines.
        if framing == Framing::Lines {
            sent.retain(|message| matches!(message[..], [b'{' | b'[', ..]));
            sent.retain(|message| !message.contains(&b'\n') && !message.ends_with(b"\r"));
        }
        for message in &sent {
            assert!(framing.frame(message, &mut written));
        }
        assert_eq!(framed(&written, piece.into()), (sent, None));
    }
    for message in &whole.0 {
        self::message(message);
    }
});

fn framed(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<StreamError>) {
    let mut decoder = Decoder::new(LONGEST);
    let mut messages = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    assert!(message.len() <= LONGEST);
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error));
                    return (messages, Some(error));
                }
            }
        }
        assert!(decoder.memory() <= 2 * (LONGEST + HEADERS_MAX + piece.len()) + 2 * STEP);
    }
    (messages, None)
}

fn value(text: &[u8]) {
    let Ok(value) = json::decode(text, &CAPS) else {
        return;
    };
    assert!(value.size() <= CAPS.size);
    let mut written = Vec::new();
    json::encode(&value, &mut written).expect("it came from JSON");
    assert_eq!(json::decode(&written, &CAPS), Ok(value));
}

fn message(text: &[u8]) {
    let incoming = decode(text, &CAPS);
    let mut replies = Replies::to(&incoming);
    let items = match incoming {
        Incoming::Single(item) => vec![item],
        Incoming::Batch(items) => items,
    };
    assert!((1..=CAPS.batch).contains(&items.len()));
    let mut ids = Vec::new();
    for item in items {
        match item {
            Item::Call(call) => {
                again(&call);
                let result = match call.params {
                    Params::None => Value::Nil,
                    Params::Positional(items) => Value::List(items),
                    Params::Named(members) => {
                        let pairs = members.into_iter().map(|(k, v)| (Value::String(k), v));
                        Value::Map(pairs.collect())
                    }
                };
                let id = call.id.as_ref();
                replies.result(id, &result).expect("it came from JSON");
                ids.extend(call.id);
            }
            Item::Invalid { id, code, message } => {
                replies.error(id.as_ref(), code, &message, None);
                ids.extend(id);
            }
        }
    }
    let caps = Caps {
        size: 2 * CAPS.size,
        ..CAPS
    };
    match replies.finish() {
        None => assert_eq!(ids, []),
        Some(replies) => {
            assert!(!replies.contains(&b'\n'));
            let responses = decode_batch(&replies, &caps).expect("it is ours");
            let answered: Vec<_> = responses.into_iter().map(|response| response.id).collect();
            assert_eq!(answered, ids);
        }
    }
}

fn again(call: &Call) {
    let mut written = Vec::new();
    let id = call.id.as_ref();
    encode_request(id, &call.method, &call.params, &mut written).expect("it came from JSON");
    let single = Incoming::Single(Item::Call(call.clone()));
    assert_eq!(decode(&written, &CAPS), single);
}
