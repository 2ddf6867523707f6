//! A stamped message is recognised as ours whatever it holds, and an escaped one can be read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::ctime::Ctime;
use portyard_wire::escape::escape;
use portyard_wire::signature::is_own_answer;
use portyard_wire::timestamp;

fuzz_target!(|input: (i64, u8, &[u8])| {
    let (now, max, bytes) = input;
    let _ = is_own_answer(bytes, now);
    let ctime = Ctime::from_unix(now, 0);
    if ctime.as_bytes().len() == 24 && !ctime.as_str().contains('-') {
        let mut stamped = Vec::new();
        timestamp::stamp(&ctime, bytes, &mut stamped);
        assert_eq!(stamped.len(), timestamp::PREFIX_LEN + bytes.len());
        assert!(is_own_answer(&stamped, now));
    }

    let whole = escape(bytes, usize::MAX);
    assert!(!whole.contains(char::is_control));
    assert_eq!(unescape(&whole), bytes);
    let cut = escape(bytes, usize::from(max));
    assert!(cut.chars().count() <= usize::from(max));
    assert!(cut == whole || whole.starts_with(cut.strip_suffix('…').unwrap_or_default()));
});

/// The bytes that an escaped text stands for.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        rest = if let Some(hex) = escape.strip_prefix('x') {
            bytes.push(u8::from_str_radix(&hex[..2], 16).expect("two digits"));
            &hex[2..]
        } else if let Some(braced) = escape.strip_prefix("u{") {
            let (hex, rest) = braced.split_once('}').expect("a closing brace");
            let code = u32::from_str_radix(hex, 16).expect("digits");
            let c = char::from_u32(code).expect("a character");
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest
        } else {
            bytes.push(b'\\');
            escape.strip_prefix('\\').expect("a doubled backslash")
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
