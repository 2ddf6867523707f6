//! A stream is cut into the same messages in one piece and in many, by the decoder and by headers
//! alone; memory stays near what has arrived; each message survives being framed again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::framing::{Decoder, FrameError, Framing, Header, STEP};

fuzz_target!(|input: (bool, u16, u8, &[u8])| {
    let (python, cap, piece, stream) = input;
    let framing = if python {
        Framing::Python
    } else {
        Framing::U32
    };
    let whole = by_headers(framing, cap, stream);
    assert_eq!(decoded(framing, cap, stream, stream.len()), whole);
    assert_eq!(decoded(framing, cap, stream, piece.into()), whole);

    let mut written = Vec::new();
    for message in &whole.0 {
        let len = message.len() as u64;
        let header = Header::encode(framing, len).expect("under the cap");
        let header_len = header.len();
        let parsed = Header::parse(framing, len, &header);
        assert_eq!(parsed, Ok(Some(Header { len, header_len })));
        written.extend_from_slice(&header);
        written.extend_from_slice(message);
    }
    let again = decoded(framing, cap, &written, piece.into());
    assert_eq!(again, (whole.0, None));
});

type Messages = (Vec<Vec<u8>>, Option<FrameError>);

fn decoded(framing: Framing, cap: u16, stream: &[u8], piece: usize) -> Messages {
    let mut decoder = Decoder::new(framing, cap.into());
    let (mut messages, mut held) = (Vec::new(), 0);
    for piece in stream.chunks(piece.max(1)) {
        decoder.feed(piece);
        held += piece.len();
        assert!(decoder.memory() <= held + 2 * STEP);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    held -= message.len();
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error));
                    return (messages, Some(error));
                }
            }
        }
    }
    (messages, None)
}

/// As a service does that passes messages on.
fn by_headers(framing: Framing, cap: u16, mut stream: &[u8]) -> Messages {
    let mut messages = Vec::new();
    loop {
        match Header::parse(framing, cap.into(), stream) {
            Ok(Some(Header { len, header_len })) => {
                let Some(message) = stream[header_len..].get(..len as usize) else {
                    return (messages, None);
                };
                messages.push(message.to_vec());
                stream = &stream[header_len + message.len()..];
            }
            Ok(None) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}
