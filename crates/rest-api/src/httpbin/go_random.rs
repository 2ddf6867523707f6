//! Go's `math/rand` with a seed: an additive lagged Fibonacci generator, so that seeded answers are
//! those that go-httpbin gives.
//!
//! Go keeps 607 numbers in its source, the state after 7.8e12 steps from the seed 1. They are computed
//! here instead: a step is linear, so so many of them are one power of a polynomial.

use std::sync::OnceLock;

/// A generator.
pub struct GoRandom {
    state: Box<[u64; SIZE]>,
    tap: usize,
    feed: usize,
}

impl GoRandom {
    /// As `rand.New(rand.NewSource(seed))`. The first one of a process takes some milliseconds.
    pub fn seeded(seed: i64) -> Self {
        let cooked = COOKED.get_or_init(cook);
        let seed = u32::try_from(seed.rem_euclid(i64::from(MODULUS))).unwrap_or_default();
        let mut state = Box::new(fill(seed, 40, 20));
        for (word, cooked) in state.iter_mut().zip(cooked.iter()) {
            *word ^= cooked;
        }
        Self {
            state,
            tap: 0,
            feed: SIZE - TAP,
        }
    }

    /// As `Intn(256)`.
    pub fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[3]
    }

    /// As `Float64()`.
    pub fn float(&mut self) -> f64 {
        loop {
            let fraction = (self.next() & (u64::MAX >> 1)) as f64 / (1_u64 << 63) as f64;
            // Rounding may have made it 1, which Go draws again.
            if fraction < 1.0 {
                return fraction;
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.tap = (self.tap + SIZE - 1) % SIZE;
        self.feed = (self.feed + SIZE - 1) % SIZE;
        let sum = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = sum;
        sum
    }
}

/// A state of numbers from Lehmer's generator, three to a word.
fn fill(seed: u32, first: u32, second: u32) -> [u64; SIZE] {
    let mut x = if seed == 0 { 89_482_311 } else { seed };
    let mut step = || {
        let product = u64::from(x) * 48_271 % u64::from(MODULUS);
        x = u32::try_from(product).unwrap_or_default();
        product
    };
    for _ in 0..20 {
        step();
    }
    std::array::from_fn(|_| step() << first ^ step() << second ^ step())
}

/// The state after [`STEPS`] steps from the seed 1.
///
/// The numbers that the steps give are a sequence with `s(k) = s(k - 607) + s(k - 273)`; before it
/// stand those of the first state. So `x^607 = x^334 + 1`, and what stands `STEPS` places further on
/// is told by `x^STEPS` modulo that.
fn cook() -> Box<[u64; SIZE]> {
    let start = fill(1, 20, 10);
    // The step k writes to the place 333 - k, so that is where s(k) and s(k - 607) are.
    let place = |k: u64| (SIZE as u64 * 2 + 333 - k % SIZE as u64) % SIZE as u64;
    let index = |k: u64| usize::try_from(place(k)).unwrap_or_default();
    let mut sequence: Vec<u64> = (0..SIZE as u64).map(|k| start[index(k)]).collect();
    for k in SIZE..2 * SIZE {
        sequence.push(sequence[k - SIZE].wrapping_add(sequence[k - TAP]));
    }
    let power = power_of_x(STEPS);
    let mut cooked = Box::new([0; SIZE]);
    for i in 0..SIZE {
        let terms = power.iter().zip(&sequence[i..]);
        let sum = terms.fold(0_u64, |sum, (p, s)| sum.wrapping_add(p.wrapping_mul(*s)));
        cooked[index(STEPS + i as u64)] = sum;
    }
    cooked
}

/// `x` to a power, modulo `x^607 - x^334 - 1` and 2^64.
fn power_of_x(power: u64) -> Vec<u64> {
    let mut result = vec![0_u64; SIZE];
    result[0] = 1;
    for bit in (0..u64::BITS - power.leading_zeros()).rev() {
        let mut square = vec![0_u64; 2 * SIZE];
        for (i, a) in result.iter().enumerate() {
            for (place, b) in square[i..].iter_mut().zip(&result) {
                *place = place.wrapping_add(a.wrapping_mul(*b));
            }
        }
        if power >> bit & 1 == 1 {
            square.rotate_right(1);
        }
        for i in (SIZE..2 * SIZE).rev() {
            let above = std::mem::take(&mut square[i]);
            square[i - TAP] = square[i - TAP].wrapping_add(above);
            square[i - SIZE] = square[i - SIZE].wrapping_add(above);
        }
        square.truncate(SIZE);
        result = square;
    }
    result
}

static COOKED: OnceLock<Box<[u64; SIZE]>> = OnceLock::new();

const SIZE: usize = 607;
const TAP: usize = 273;
const STEPS: u64 = 7_800_000_000_000;
const MODULUS: u32 = (1 << 31) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded from go-httpbin built with Go 1.27: /bytes/24?seed=…
    #[test]
    fn seeded_bytes_are_those_of_go() {
        for (seed, expected) in [
            (0, "fa12f92afbe00f8508d0e83bab9cf8cebf42e25e8b14eafc"),
            (1, "210fc7bb818639ac48a4c6afa2f1581a8b9525e20fda6892"),
            (42, "b14b843edf61a58870d3f96fe7dc8c6d0479af10aa16c45b"),
            (
                1_234_567_890,
                "bfcd2afa15a2b372c707985a22024a8e58101cc0b54af388",
            ),
            (-12_345, "b59f8fa3a66c2155ca5a2b176e3e63ac0d2abeaefa74dbee"),
            (i64::MAX, "210fc7bb818639ac48a4c6afa2f1581a8b9525e20fda6892"),
        ] {
            let mut random = GoRandom::seeded(seed);
            let bytes: Vec<u8> = (0..24).map(|_| random.byte()).collect();
            assert_eq!(crate::httpbin::text::hex(&bytes), expected, "{seed}");
        }
    }

    // Recorded likewise: /unstable?seed=…&failure_rate=…, which fails below the rate.
    #[test]
    fn seeded_fractions_are_those_of_go() {
        for (seed, range) in [(1, 0.5..0.7), (2, 0.1..0.3), (3, 0.7..0.9), (4, 0.1..0.3)] {
            let float = GoRandom::seeded(seed).float();
            assert!(range.contains(&float), "{seed}: {float}");
        }
        // rand.New(rand.NewSource(1)).Float64()
        assert!((GoRandom::seeded(1).float() - 0.604_660_287_979_619_6).abs() < 1e-15);
    }
}
