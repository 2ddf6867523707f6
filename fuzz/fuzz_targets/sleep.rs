//! Any line is a duration under the cap that survives being answered and parsed again, or a refusal
//! in one safe line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::sleep;
use std::time::Duration;

fuzz_target!(|input: (u64, u32, &[u8])| {
    let (seconds, nanos, line) = input;
    let max = Duration::new(seconds, nanos % 1_000_000_000);
    match sleep::parse(line, max) {
        Ok(duration) => {
            assert!(duration <= max);
            let answer = sleep::answer(duration);
            let number = answer
                .strip_prefix("slept ")
                .expect("the answer begins with its verb");
            assert_eq!(sleep::parse(number.as_bytes(), max), Ok(duration));
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.starts_with("error: ") && !text.contains(char::is_control));
        }
    }
});
