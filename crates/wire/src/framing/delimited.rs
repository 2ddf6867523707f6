//! Messages that end with a byte string of the operator's choice.

use super::FrameError;

/// What ends a message: at least one byte, for instance `"\0"` or `"\r\n\r\n"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiter(Vec<u8>);

impl Delimiter {
    /// Takes any bytes but none: nothing would end everywhere.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, EmptyDelimiter> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(EmptyDelimiter);
        }
        Ok(Self(bytes))
    }

    /// The delimiter itself, for a sender.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The length of the first message of `buf`, its delimiter included, or `None` while it is not
    /// complete. The content is that many bytes without the delimiter's.
    ///
    /// `max` counts the content. The error comes as soon as no further byte could help, so a caller
    /// who keeps what is incomplete holds at most `max` bytes and all but one of the delimiter's.
    pub fn find(&self, buf: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
        let Self(delimiter) = self;
        let window = &buf[..buf.len().min(max.saturating_add(delimiter.len()))];
        let found = window
            .windows(delimiter.len())
            .position(|candidate| candidate == delimiter);
        if let Some(content) = found {
            return Ok(Some(content + delimiter.len()));
        }
        // The delimiter may have begun at the end of what is there, at `max` at the latest.
        let begun = window.len().saturating_sub(delimiter.len() - 1)..=window.len().min(max);
        if window.len() <= max
            || begun
                .into_iter()
                .any(|at| delimiter.starts_with(&window[at..]))
        {
            return Ok(None);
        }
        Err(FrameError::NoDelimiter { max })
    }
}

/// A delimiter must have at least one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delimiter is empty; give it at least one byte")]
pub struct EmptyDelimiter;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(delimiter: &[u8], buf: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
        Delimiter::new(delimiter).unwrap().find(buf, max)
    }

    #[test]
    fn an_empty_delimiter_is_refused() {
        assert_eq!(Delimiter::new(""), Err(EmptyDelimiter));
    }

    #[test]
    fn content_over_the_cap_is_refused_with_and_without_its_end() {
        let refused = Err(FrameError::NoDelimiter { max: 3 });
        for buf in [&b"abcd"[..], b"abcd||", b"abc|x", b"abcx|", b"abcdefgh"] {
            assert_eq!(find(b"||", buf, 3), refused);
        }
        assert_eq!(
            find(b"\0", b"x", 0),
            Err(FrameError::NoDelimiter { max: 0 })
        );
    }

    #[test]
    fn the_delimiter_does_not_count() {
        assert_eq!(find(b"||", b"abc||rest", 3), Ok(Some(5)));
        assert_eq!(find(b"||", b"a||b||", 3), Ok(Some(3)));
        assert_eq!(find(b"\0", b"\0", 0), Ok(Some(1)));
    }

    #[test]
    fn a_delimiter_that_may_still_end_in_time_is_waited_for() {
        assert_eq!(find(b"||", b"", 0), Ok(None));
        assert_eq!(find(b"||", b"|", 0), Ok(None));
        assert_eq!(find(b"||", b"abc", 3), Ok(None));
        assert_eq!(find(b"||", b"abc|", 3), Ok(None));
        assert_eq!(find(b"||", b"abc", usize::MAX), Ok(None));
    }

    proptest! {
        #[test]
        fn bytes_one_by_one_give_the_same_verdict(
            delimiter in prop::collection::vec(prop::sample::select(&b"ab"[..]), 1..4),
            buf in prop::collection::vec(prop::sample::select(&b"abc"[..]), 0..30),
            max in 0_usize..20,
        ) {
            let early = (0..=buf.len())
                .map(|n| find(&delimiter, &buf[..n], max))
                .find(|verdict| *verdict != Ok(None));
            let whole = find(&delimiter, &buf, max);
            prop_assert_eq!(early.unwrap_or(Ok(None)), whole);
            match whole {
                Ok(None) => prop_assert!(buf.len() < max + delimiter.len()),
                Ok(Some(len)) => prop_assert!(buf[..len].ends_with(&delimiter)),
                Err(_) => {}
            }
        }
    }
}
