//! A client hello is the same byte by byte and whatever comes behind it, and what it says keeps to its
//! rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::client_hello::{HELLO_MAX, PROTOCOLS_MAX, parse};

fuzz_target!(|stream: &[u8]| {
    let whole = parse(stream);
    let window = &stream[..stream.len().min(HELLO_MAX)];
    let mut early = (0..=window.len()).map(|end| parse(&window[..end]));
    let early = early.find(|verdict| *verdict != Ok(None));
    assert_eq!(early.unwrap_or(Ok(None)), whole);
    let Ok(Some(hello)) = &whole else {
        assert!(whole.is_err() || stream.len() < HELLO_MAX);
        return;
    };
    if let Some(name) = &hello.server_name {
        assert!((1..=255).contains(&name.len()));
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    }
    assert!(hello.alpn.len() <= PROTOCOLS_MAX);
    assert!(hello.alpn.iter().all(|name| (1..=255).contains(&name.len())));
    let more = [stream, &[0; 100]].concat();
    assert_eq!(parse(&more), whole);
});
