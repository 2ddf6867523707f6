//! What a machine makes of bytes is the same whatever pieces they come in, within its limits, and text is
//! UTF-8.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::websocket::{Event, Fault, Limits, Machine};

const LIMITS: Limits = Limits {
    fragment: 300,
    message: 400,
};

fn run(bytes: &[u8], piece: usize) -> (Vec<Event>, Option<Fault>) {
    let (mut machine, mut events) = (Machine::new(LIMITS), Vec::new());
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
    let (events, fault) = run(bytes, bytes.len());
    assert_eq!(run(bytes, usize::from(piece)), (events.clone(), fault));
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
