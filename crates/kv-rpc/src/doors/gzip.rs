//! gzip, held to a size: a bomb is refused before it is expanded.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Expands to at most `cap` bytes; `None` when it is more, or no gzip.
pub fn expand(bytes: &[u8], cap: usize) -> Option<Vec<u8>> {
    // Text shrinks to a tenth, hardly ever to a hundredth: what promises more is no text.
    let cap = cap.min(bytes.len().saturating_mul(RATIO_MAX));
    let mut out = Vec::new();
    let mut expanded = GzDecoder::new(bytes).take(cap as u64 + 1);
    expanded.read_to_end(&mut out).ok()?;
    (out.len() <= cap).then_some(out)
}

/// Shrinks.
pub fn shrink(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

const RATIO_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shrunk_expands_and_a_bomb_does_not() {
        let text = b"some text, ".repeat(100);
        let shrunk = shrink(&text).unwrap();
        assert_eq!(expand(&shrunk, 2000).as_deref(), Some(&text[..]));
        assert_eq!(expand(&shrunk, text.len() - 1), None);
        assert_eq!(expand(&shrunk[..10], 2000), None);
        // As small as it gets: a fast encoder does not even reach the ratio that is refused.
        let mut best = GzEncoder::new(Vec::new(), Compression::best());
        best.write_all(&vec![0; 10_000_000]).unwrap();
        let bomb = best.finish().unwrap();
        assert!(bomb.len() * RATIO_MAX < 10_000_000, "{}", bomb.len());
        assert!(expand(&bomb, usize::MAX).is_none());
    }
}
