//! Whole conversations: each `.txt` in `jsonrpc/` is a list of messages to a server (`-->`), each with
//! the exact reply (`<--`), or none when nothing may be answered.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the conversations are files; what fails in a helper fails the test"
)]

use portyard_wire::jsonrpc::{
    Call, Caps, INVALID_PARAMS, Incoming, Item, METHOD_NOT_FOUND, Params, Replies, decode,
};
use portyard_wire::value::Value;
use std::path::Path;

#[test]
fn the_server_says_what_the_transcripts_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jsonrpc");
    let (mut files, mut exchanges) = (0, 0);
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        files += 1;
        for (message, reply) in transcript(&std::fs::read_to_string(&path).unwrap()) {
            exchanges += 1;
            let said = answer(&message).map(|reply| String::from_utf8(reply).unwrap());
            assert_eq!(said, reply, "{message} in {}", path.display());
        }
    }
    assert!(files >= 6, "only {files} transcripts were found");
    assert!(exchanges >= 70, "only {exchanges} messages were found");
}

#[test]
fn a_wrong_transcript_is_noticed() {
    let [(message, reply)] = &transcript("--> 1\n<-- 2\n")[..] else {
        panic!("one message");
    };
    assert_ne!(answer(message), reply.clone().map(String::into_bytes));
}

/// Messages and what answers them. A line that begins with neither arrow is a comment.
fn transcript(text: &str) -> Vec<(String, Option<String>)> {
    let mut exchanges: Vec<(String, Option<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(message) = line.strip_prefix("--> ") {
            exchanges.push((message.into(), None));
        } else if let Some(reply) = line.strip_prefix("<-- ") {
            let (_, answer) = exchanges.last_mut().unwrap();
            assert!(
                answer.replace(reply.into()).is_none(),
                "two replies: {line}"
            );
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{line}");
        }
    }
    exchanges
}

const CAPS: Caps = Caps {
    size: 4_000,
    batch: 8,
};

/// A server with two methods: `echo` returns its parameters, `subtract` the difference of two.
fn answer(message: &str) -> Option<Vec<u8>> {
    let incoming = decode(message.as_bytes(), &CAPS);
    let mut replies = Replies::to(&incoming);
    let items = match incoming {
        Incoming::Single(item) => vec![item],
        Incoming::Batch(items) => items,
    };
    for item in items {
        match item {
            Item::Call(call) => run(call, &mut replies),
            Item::Invalid { id, code, message } => {
                replies.error(id.as_ref(), code, &message, None);
            }
        }
    }
    replies.finish()
}

fn run(call: Call, replies: &mut Replies) {
    let id = call.id.as_ref();
    match (&*call.method, call.params) {
        ("echo", Params::None) => replies.result(id, &Value::Nil).unwrap(),
        ("echo", Params::Positional(items)) => replies.result(id, &Value::List(items)).unwrap(),
        ("echo", Params::Named(members)) => {
            let pairs = members.into_iter().map(|(k, v)| (Value::String(k), v));
            replies.result(id, &Value::Map(pairs.collect())).unwrap();
        }
        ("subtract", Params::Positional(items)) => match items[..] {
            [Value::Int(a), Value::Int(b)] => replies.result(id, &Value::Int(a - b)).unwrap(),
            _ => replies.error(id, INVALID_PARAMS, "two whole numbers", None),
        },
        ("subtract", Params::Named(members)) => {
            let of = |name| members.iter().find(|(key, _)| key == name).map(|(_, v)| v);
            let (minuend, subtrahend) = (of("minuend"), of("subtrahend"));
            if let (Some(Value::Int(a)), Some(Value::Int(b))) = (minuend, subtrahend) {
                replies.result(id, &Value::Int(a - b)).unwrap();
            } else {
                let data = Value::List(vec!["minuend".into(), "subtrahend".into()]);
                replies.error(id, INVALID_PARAMS, "two whole numbers", Some(&data));
            }
        }
        (method, _) => replies.error(id, METHOD_NOT_FOUND, method, None),
    }
}
