//! A header is the same byte by byte and as it is wanted, stays under its cap, and survives being
//! written and read in the version that can say it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::proxy::{Header, Transport, V1_MAX, V2_MAX, parse, wanted};

fuzz_target!(|stream: &[u8]| {
    let whole = parse(stream);
    let window = &stream[..stream.len().min(V2_MAX)];
    let mut early = (0..=window.len()).map(|n| parse(&window[..n]));
    let early = early.find(|verdict| *verdict != Ok(None));
    assert_eq!(early.unwrap_or(Ok(None)), whole);
    let mut read = 0;
    while parse(&window[..read]) == Ok(None) && read < window.len() {
        let more = wanted(&window[..read]);
        assert!(more > 0);
        read = window.len().min(read + more);
    }
    assert_eq!(parse(&window[..read]), whole);
    let Ok(Some((header, len))) = whole else {
        assert!(whole.is_err() || stream.len() < V2_MAX);
        return;
    };
    assert_eq!(read, len, "nothing behind the header is read");
    let v1 = stream.starts_with(b"PROXY ");
    assert!(len <= if v1 { V1_MAX } else { V2_MAX });

    let written = header.to_v2();
    let again = parse(&written);
    assert_eq!(again, Ok(Some((header.clone(), written.len()))));
    let line = header.to_v1();
    let (read, len) = parse(&line).expect("well-formed").expect("whole");
    assert!(len == line.len() && len <= V1_MAX);
    match header {
        Header::Inet {
            transport: Transport::Stream,
            ..
        } => assert_eq!(read, header),
        _ => assert_eq!(read, Header::Local),
    }
});
