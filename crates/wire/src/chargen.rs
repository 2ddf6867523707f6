//! RFC 864: the character generator.
//!
//! Lines of 72 characters and CRLF, out of the ring of the 95 printable ASCII characters; each line
//! starts one character later in the ring than the one before, so the pattern repeats after 95
//! lines.

/// A place in the endless pattern: what one connection still has to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chargen {
    /// Always below [`PERIOD`].
    position: usize,
}

impl Chargen {
    /// The beginning of the pattern.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes that come next: at least 64 KiB, of which a write may take any part.
    pub fn chunk(&self) -> &'static [u8] {
        &REPEATED[self.position..]
    }

    /// Moves on by the `n` bytes that were written.
    pub fn advance(&mut self, n: usize) {
        self.position = (self.position + n % PERIOD) % PERIOD;
    }
}

/// One whole period of the pattern, [`PERIOD`] bytes.
pub fn pattern() -> &'static [u8] {
    &REPEATED[..PERIOD]
}

/// The answer to a datagram: 0 to 512 characters, how many is decided by `seed` (RFC 864, "UDP
/// Based").
pub fn datagram(seed: u64) -> &'static [u8] {
    let len = seed % (MAX_DATAGRAM as u64 + 1);
    &REPEATED[..usize::try_from(len).unwrap_or(0)]
}

#[expect(
    clippy::large_stack_arrays,
    reason = "runs at compile time only, for the static"
)]
const fn repeated() -> [u8; PERIOD * PERIODS] {
    let mut bytes = [0; PERIOD * PERIODS];
    let mut at = 0;
    while at < bytes.len() {
        let (line, column) = (at / LINE_LEN % RING, at % LINE_LEN);
        bytes[at] = match column {
            CHARACTERS => b'\r',
            CHARACTERS_AND_CR => b'\n',
            _ => printable((line + column) % RING),
        };
        at += 1;
    }
    bytes
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the place in the ring is below 95"
)]
const fn printable(place: usize) -> u8 {
    b' ' + place as u8
}

/// Bytes after which the pattern repeats.
pub const PERIOD: usize = RING * LINE_LEN;
/// Characters in a datagram at most (RFC 864).
pub const MAX_DATAGRAM: usize = 512;

const RING: usize = 95;
const CHARACTERS: usize = 72;
const CHARACTERS_AND_CR: usize = CHARACTERS + 1;
const LINE_LEN: usize = CHARACTERS + 2;
/// Enough for 64 KiB in one piece from any place in the first period.
const PERIODS: usize = 11;

static REPEATED: [u8; PERIOD * PERIODS] = repeated();

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_datagram_never_exceeds_512_characters() {
        assert_eq!(datagram(0), b"");
        assert_eq!(datagram(512).len(), 512);
        assert_eq!(datagram(513), b"");
        assert!(datagram(u64::MAX).len() <= MAX_DATAGRAM);
    }

    #[test]
    fn the_lines_are_those_of_rfc_864() {
        // RFC 864, "Example": the first two lines and the ones around the wrap of the ring.
        let lines: Vec<&[u8]> = pattern().split_inclusive(|&b| b == b'\n').collect();
        assert_eq!(lines.len(), 95);
        assert_eq!(
            lines[0],
            b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n"
        );
        assert_eq!(
            lines[1],
            b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh\r\n"
        );
        assert!(lines[23].ends_with(b"|}~\r\n") && lines[24].ends_with(b"|}~ \r\n"));
        assert!(lines[94].starts_with(b"~ !\""));
        assert!(lines.iter().all(|line| line.len() == LINE_LEN));
    }

    #[test]
    fn a_big_write_is_possible_from_any_place() {
        let mut chargen = Chargen::new();
        chargen.advance(PERIOD - 1);
        assert!(chargen.chunk().len() >= 64 * 1024);
        chargen.advance(usize::MAX);
        assert!(chargen.chunk().len() >= 64 * 1024);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_join_to_the_pattern(
            sizes in prop::collection::vec(0_usize..20_000, 1..20),
        ) {
            let (mut chargen, mut sent) = (Chargen::new(), Vec::new());
            for size in sizes {
                sent.extend_from_slice(&chargen.chunk()[..size]);
                chargen.advance(size);
            }
            prop_assert!(sent.iter().eq(pattern().iter().cycle().take(sent.len())));
        }
    }
}
