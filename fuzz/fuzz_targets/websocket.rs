//! What a machine makes of bytes is the same whatever pieces they come in, within its limits, and text is
//! UTF-8; with compression agreed on or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::websocket::deflate::Agreed;
use portyard_wire::websocket::{Event, Fault, Limits, Machine};

const LIMITS: Limits = Limits {
    fragment: 300,
    message: 400,
};

fn run(bytes: &[u8], piece: usize, agreed: Option<Agreed>) -> (Vec<Event>, Option<Fault>) {
    let mut machine = Machine::with(LIMITS, agreed.as_ref());
    let mut events = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        let mut input = piece;
        loop {
            match machine.receive(&mut input) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
        assert!(input.is_empty());
    }
    (events, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let agreed = Agreed::to(match piece % 3 {
        0 => "",
        1 => "permessage-deflate",
        _ => "permessage-deflate; client_no_context_takeover",
    });
    let (events, fault) = run(bytes, bytes.len(), agreed);
    let (in_pieces, other) = run(bytes, usize::from(piece), agreed);
    // Which of several faults is found first may depend on the pieces of what is compressed.
    assert_eq!((in_pieces, other.is_some()), (events.clone(), fault.is_some()));
    assert!(agreed.is_some() || other == fault);
    for event in events {
        match event {
            Event::Message { is_text, payload } => {
                assert!(payload.len() as u64 <= LIMITS.message);
                assert!(!is_text || std::str::from_utf8(&payload).is_ok());
            }
            Event::Ping(payload) => assert!(payload.len() <= 125),
            Event::Close(_) => {}
        }
    }
});
