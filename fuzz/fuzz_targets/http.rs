//! A request is the same whatever pieces it comes in: no prefix of it is another request, and what
//! follows its body is the next one's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::http::{Caps, Head};

const CAPS: Caps = Caps {
    head: 512,
    fields: 12,
    body: 300,
};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = Head::parse(bytes, &CAPS);
    // The first verdict over growing prefixes is the only one.
    let early = (0..=bytes.len().min(600))
        .map(|end| Head::parse(&bytes[..end], &CAPS))
        .find(|verdict| *verdict != Ok(None));
    if let (Some(Ok(Some((early, _)))), Ok(Some((head, _)))) = (&early, &whole) {
        assert_eq!(early, head);
    }
    let Ok(Some((head, length))) = whole else {
        if let Some(Ok(early)) = early {
            assert!(early.is_none(), "a longer text took a request back");
        }
        return;
    };
    assert!(length <= CAPS.head);
    assert!(head.method.len() <= 32 && head.path().len() <= head.target.len());

    let rest = &bytes[length..];
    let read = |piece: usize| {
        let (mut body, mut out, mut taken) = (head.body.clone(), Vec::new(), 0);
        for piece in rest.chunks(piece.max(1)) {
            if body.is_over() {
                break;
            }
            match body.decode(piece, &mut out) {
                Ok(more) => taken += more,
                Err(error) => return Err(error),
            }
        }
        Ok((body.is_over(), out, taken))
    };
    let at_once = read(rest.len());
    assert_eq!(at_once, read(usize::from(piece)));
    if let Ok((_, out, taken)) = at_once {
        assert!(out.len() as u64 <= CAPS.body && taken <= rest.len());
    }
});
