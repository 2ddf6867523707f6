//! Any datagram is an index under the cap that can be written out and parsed again, or a refusal in
//! one safe line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::fib;

fuzz_target!(|input: (u32, &[u8])| {
    let (max, datagram) = input;
    match fib::parse(datagram, max) {
        Ok(n) => {
            assert!(n <= max);
            let mut padded = n.to_string().into_bytes();
            assert_eq!(fib::parse(&padded, max), Ok(n));
            padded.extend_from_slice(&[0; 8]);
            assert_eq!(fib::parse(&padded, max), Ok(n));
            // Beyond this the arithmetic takes longer than finding another input is worth.
            if (2..5_000).contains(&n) {
                let sum = fib::fibonacci(n - 1) + fib::fibonacci(n - 2);
                assert_eq!(fib::answer(n), sum.to_string());
            }
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.starts_with("error: ") && !text.contains(char::is_control));
        }
    }
});
