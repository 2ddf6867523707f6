//! A stream is cut into the same lines whether it comes in one piece or byte by byte, and no line
//! exceeds the cap.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::line::{answer, find_line, split_terminator};

fuzz_target!(|input: (u8, &[u8])| {
    let (max, stream) = (usize::from(input.0), input.1);
    let whole = lines(stream, max);

    let mut joined = Vec::new();
    for line in &whole {
        let (content, terminator) = split_terminator(line);
        assert!(content.len() <= max && !terminator.is_empty() && !content.contains(&b'\n'));
        joined.extend_from_slice(content);
        joined.extend_from_slice(terminator);
    }
    assert!(stream.starts_with(&joined));
    assert_eq!(trickled(stream, max), whole);

    if let Ok(text) = str::from_utf8(stream) {
        let mut out = Vec::new();
        answer(text, b"\n", &mut out);
        assert_eq!(
            out.split_inclusive(|&byte| byte == b'\n').count(),
            text.lines().count()
        );
    }
});

/// The lines at the beginning of a stream, up to the end or the first that is too long.
fn lines(mut stream: &[u8], max: usize) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Ok(Some(len)) = find_line(stream, max) {
        let (line, rest) = stream.split_at(len);
        lines.push(line);
        stream = rest;
    }
    lines
}

/// The same with a buffer that grows by one byte at a time.
fn trickled(stream: &[u8], max: usize) -> Vec<Vec<u8>> {
    let (mut lines, mut buffer) = (Vec::new(), Vec::new());
    for &byte in stream {
        buffer.push(byte);
        match find_line(&buffer, max) {
            Ok(Some(len)) => {
                assert_eq!(len, buffer.len());
                lines.push(std::mem::take(&mut buffer));
            }
            Ok(None) => assert!(buffer.len() <= max + 1),
            Err(_) => break,
        }
    }
    lines
}
