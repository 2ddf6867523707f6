//! Any line is a command that can be written out and parsed again, or a refusal in one safe line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::command::Command;

fuzz_target!(|line: &[u8]| {
    match Command::parse(line) {
        Ok(command) => {
            let written = command.to_string();
            assert_eq!(Command::parse(written.as_bytes()), Ok(command));
            assert!(!written.contains(char::is_control));
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.starts_with("error: ") && !text.contains(char::is_control));
            assert!(text.chars().count() <= 80);
        }
    }
});
