//! Python's `random.Random`: the Mersenne Twister (MT19937), seeded and read as Python does it, so that
//! seeded bytes are those that Python's clients compute for themselves.

/// A generator.
pub struct PythonRandom {
    state: Box<[u32; SIZE]>,
    at: usize,
}

impl PythonRandom {
    /// As `random.Random(seed)` for an integer of any size; its sign does not count. `None`: not an
    /// integer that Python reads.
    pub fn seeded(decimal: &str) -> Option<Self> {
        parse_integer(decimal).map(|words| Self::from_key(&words))
    }

    /// As Python seeds it with an integer of these 32-bit words, the lowest first.
    pub fn from_key(key: &[u32]) -> Self {
        let mut state = Box::new([0; SIZE]);
        state[0] = 19_650_218;
        for i in 1..SIZE {
            state[i] = 1_812_433_253_u32
                .wrapping_mul(mix(state[i - 1]))
                .wrapping_add(low(i));
        }
        let key = if key.is_empty() { &[0] } else { key };
        let (mut i, mut j) = (1, 0);
        for _ in 0..SIZE.max(key.len()) {
            state[i] = (state[i] ^ mix(state[i - 1]).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(low(j));
            i = wrap(&mut state, i);
            j = (j + 1) % key.len();
        }
        for _ in 1..SIZE {
            state[i] =
                (state[i] ^ mix(state[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(low(i));
            i = wrap(&mut state, i);
        }
        state[0] = 0x8000_0000;
        Self { state, at: SIZE }
    }

    /// As `randint(0, 255)`.
    pub fn byte(&mut self) -> u8 {
        loop {
            // Nine bits, because 256 itself takes nine; what is above is drawn again.
            if let Ok(byte) = u8::try_from(self.next() >> 23) {
                return byte;
            }
        }
    }

    fn next(&mut self) -> u32 {
        if self.at == SIZE {
            self.turn();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }

    fn turn(&mut self) {
        for i in 0..SIZE {
            let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % SIZE] & 0x7fff_ffff;
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % SIZE] ^ y >> 1 ^ odd;
        }
        self.at = 0;
    }
}

fn mix(word: u32) -> u32 {
    word ^ word >> 30
}

/// The lower 32 bits of an index; none here has more.
fn low(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn wrap(state: &mut [u32; SIZE], i: usize) -> usize {
    if i + 1 < SIZE {
        return i + 1;
    }
    state[0] = state[SIZE - 1];
    1
}

/// The magnitude of an integer as Python's `int()` reads it, in words, the lowest first.
fn parse_integer(text: &str) -> Option<Vec<u32>> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let grouped = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b'_').collect();
    let good = (1..=DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if grouped || !good {
        return None;
    }
    let mut words: Vec<u32> = Vec::new();
    for digit in digits {
        let mut carry = u64::from(digit - b'0');
        for word in &mut words {
            let sum = u64::from(*word) * 10 + carry;
            *word = u32::try_from(sum & 0xffff_ffff).unwrap_or_default();
            carry = sum >> 32;
        }
        if carry > 0 {
            words.push(u32::try_from(carry).unwrap_or_default());
        }
    }
    Some(words)
}

const SIZE: usize = 624;
/// The longest integer that Python reads.
const DIGITS_MAX: usize = 4300;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(seed: &str) -> String {
        let mut random = PythonRandom::seeded(seed).unwrap();
        let bytes: Vec<u8> = (0..24).map(|_| random.byte()).collect();
        crate::httpbin::text::hex(&bytes)
    }

    // Python 3.6 to 3.13 agree: r = random.Random(seed); bytes(r.randint(0, 255) for _ in range(24)).
    #[test]
    fn seeded_bytes_are_those_of_python() {
        for (seed, expected) in [
            ("0", "c5d71484f8cf9bf4b76f47904730804b9e3225a9f133b5de"),
            ("1", "4420823cfde6f1c26b30f90ec7dd01e4887534a20f0b0d04"),
            ("5", "82b70eee7f1a5039bef07ec2347f066ed08f5dc7512447e3"),
            ("10", "10dbf70769ecfb8e5211faa7267fb816d747b5c3d79186e9"),
            (" 4_2 ", "390c8c7d7247342cd8100f2f6f770d65d670e58e0351d8ae"),
            (
                "1234567890",
                "52e3709c822ae146dd5113bd9b93972fb253e57bd8c45d4a",
            ),
            (
                "4294967296",
                "39b3d5080ba9e7074626dda0afc3f5ec523c9f468fb44d5d",
            ),
            (
                "18446744073709551623",
                "2ba718e7e8faad99fdb5e54cf3d2223abd9ac80e326cacd4",
            ),
            ("-3", "7942bdf22106f0847762f0f3cb4d764dc7072051159a0f89"),
            (
                "1000000000000000000000000000000",
                "fa3fb20ba84ad3e845d9a60075dff96e94fd1d3e0e8c0adb",
            ),
        ] {
            assert_eq!(hex(seed), expected, "{seed}");
        }
    }

    // sum(r.randint(0, 255) for _ in range(100_000)) with seed 7.
    #[test]
    fn the_state_turns_as_pythons_does() {
        let mut random = PythonRandom::seeded("7").unwrap();
        let sum: u64 = (0..100_000).map(|_| u64::from(random.byte())).sum();
        assert_eq!(sum, SUM);
    }

    #[test]
    fn what_is_no_integer_seeds_nothing() {
        for seed in [
            "",
            " ",
            "1.5",
            "x",
            "1__0",
            "_1",
            "1_",
            "0x10",
            "--1",
            &"1".repeat(4301),
        ] {
            assert!(PythonRandom::seeded(seed).is_none(), "{seed}");
        }
    }

    const SUM: u64 = 12_730_063;
}
