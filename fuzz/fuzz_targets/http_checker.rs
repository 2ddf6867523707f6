//! What passes the checker is the same whatever pieces it comes in, is the front of what came, and is read
//! by the parser without complaint, request by request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::http::{Caps, Checker, Head, Passed};

const CAPS: Caps = Caps {
    head: 512,
    fields: 12,
    body: u64::MAX,
};

fn check(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut checker, mut out) = (Checker::new(CAPS), Vec::new());
    let mut pieces = bytes.chunks(piece.max(1));
    let result = pieces.try_for_each(|piece| {
        checker.check(piece, |passed| match passed {
            Passed::Head(part) | Passed::Body(part) => out.extend_from_slice(part),
        })
    });
    (out, result.is_ok())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let (out, good) = check(bytes, bytes.len());
    let (pieced, pieced_good) = check(bytes, usize::from(piece));
    assert_eq!(good, pieced_good);
    // Of a body that breaks more may have passed in pieces than at once.
    assert!(pieced.starts_with(&out) && (!good || pieced == out));
    assert!(bytes.starts_with(&out));
    let mut rest = &out[..];
    while !rest.is_empty() {
        let (head, length) = Head::parse(rest, &CAPS)
            .expect("what passed is good")
            .expect("what passed is whole");
        let (mut body, mut content) = (head.body, Vec::new());
        let taken = body.decode(&rest[length..], &mut content);
        // The last may be unfinished, or broken where the stream ended.
        let Ok(taken) = taken else {
            return;
        };
        rest = &rest[length + taken..];
    }
});
