//! A stream is cut into the same messages whether it comes in one piece or byte by byte, no message
//! contains the delimiter or exceeds the cap, and together they are the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::framing::Delimiter;

fuzz_target!(|input: (u8, [u8; 3], u8, &[u8])| {
    let (len, bytes, max, stream) = input;
    let Ok(delimiter) = Delimiter::new(&bytes[..usize::from(len % 4)]) else {
        assert_eq!(len % 4, 0);
        return;
    };
    let (max, end) = (usize::from(max), delimiter.as_bytes());
    let (mut rest, mut joined, mut buffer) = (stream, Vec::new(), Vec::new());
    let mut trickle = stream.iter();
    while let Ok(Some(len)) = delimiter.find(rest, max) {
        let content = rest[..len].strip_suffix(end).expect("a message ends so");
        assert!(content.len() <= max);
        assert!(!content.windows(end.len()).any(|window| window == end));
        joined.extend_from_slice(content);
        joined.extend_from_slice(end);
        loop {
            buffer.push(*trickle.next().expect("it is in the stream"));
            match delimiter.find(&buffer, max) {
                Ok(Some(found)) => {
                    assert_eq!((found, &buffer[..]), (len, &rest[..len]));
                    buffer.clear();
                    break;
                }
                Ok(None) => assert!(buffer.len() < max + end.len()),
                Err(error) => panic!("{error}, but only byte by byte"),
            }
        }
        rest = &rest[len..];
    }
    assert!(stream.starts_with(&joined));
});
