//! The bytes that are sent, so that each one that comes back can be checked.

/// An endless stream of bytes in which neighbouring messages differ.
#[derive(Debug)]
pub struct Pattern {
    /// One period and then [`CHUNK`] more bytes of the next, so that any chunk is one slice.
    bytes: Vec<u8>,
}

impl Pattern {
    /// Computes the pattern.
    pub fn new() -> Self {
        // A linear congruential generator (Knuth's constants): cheap, and no two stretches alike.
        let mut state: u64 = 1;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect();
        let mut bytes = period.clone();
        bytes.extend(period.iter().cycle().take(CHUNK));
        Self { bytes }
    }

    /// The bytes from a position of the stream on; `length` is at most [`CHUNK`].
    pub fn at(&self, position: u64, length: usize) -> &[u8] {
        // The remainder is below the period, which is a usize.
        let start = usize::try_from(position % PERIOD as u64).unwrap_or(0);
        &self.bytes[start..start + length.min(CHUNK)]
    }
}

/// The longest piece handed out at once.
pub const CHUNK: usize = 64 << 10;
/// A prime, so that messages of a usual size come round at a different place each time.
const PERIOD: usize = 65_521;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_goes_on_where_the_one_before_ended() {
        let pattern = Pattern::new();
        let whole = pattern.at(65_000, CHUNK);
        assert_eq!(&whole[..1000], pattern.at(65_000, 1000));
        assert_eq!(&whole[1000..3000], pattern.at(66_000, 2000));
        assert_eq!(pattern.at(0, 64), pattern.at(PERIOD as u64 * 7, 64));
        assert_ne!(pattern.at(0, 64), pattern.at(64, 64));
    }
}
