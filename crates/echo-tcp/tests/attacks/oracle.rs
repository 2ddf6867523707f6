//! What an attacker brings along: luck, and one broken digest.

use std::sync::Mutex;

use crate::victim::{Process, SECRET};

/// Makes HMAC-MD5 proofs, as if nothing were left of MD5. It is Python's HMAC, so that our own does
/// not test itself.
pub struct Forger(Mutex<Process>);

impl Forger {
    pub fn new() -> Self {
        Self(Mutex::new(Process::start((3, 13), SCRIPT, &[SECRET])))
    }

    pub fn hmac_md5(&self, message: &[u8]) -> Vec<u8> {
        let mut process = self.0.lock().unwrap();
        let hex: Vec<_> = message.iter().map(|byte| format!("{byte:02x}")).collect();
        process.tell(&hex.concat());
        let line = process.line();
        let digits = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        (0..line.len()).step_by(2).map(digits).collect()
    }
}

/// Bytes that look random and are the same in each run (xorshift64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }
}

const SCRIPT: &str = r"
import hmac, sys
for line in sys.stdin:
    message = bytes.fromhex(line.strip())
    print(hmac.new(sys.argv[1].encode('ascii'), message, 'md5').hexdigest())
    sys.stdout.flush()
";
