//! Where a line ends in the bytes that have arrived, under a cap.
//!
//! The functions look at a buffer the caller owns, so a connection that has sent nothing needs
//! none.

/// No line of at most `max` bytes can begin with what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error: line longer than {max} bytes")]
pub struct LineTooLong {
    /// The cap that was exceeded, in bytes of content.
    pub max: usize,
}

/// The length of the first line of `buf`, its terminator included, or `None` while the line is not
/// complete.
///
/// The terminator is LF, and a CR right before it belongs to it. `max` counts the content without
/// the terminator. The error comes as soon as no further byte could help, so a caller who keeps
/// what is incomplete never holds more than `max + 1` bytes.
pub fn find_line(buf: &[u8], max: usize) -> Result<Option<usize>, LineTooLong> {
    // The longest line allowed is `max` bytes, CR and LF.
    let window = &buf[..buf.len().min(max.saturating_add(2))];
    if let Some(lf) = window.iter().position(|&byte| byte == b'\n') {
        let (content, _) = split_terminator(&window[..=lf]);
        return if content.len() > max {
            Err(LineTooLong { max })
        } else {
            Ok(Some(lf + 1))
        };
    }
    let content = window.strip_suffix(b"\r").unwrap_or(window);
    if content.len() > max || window.len() > max.saturating_add(1) {
        return Err(LineTooLong { max });
    }
    Ok(None)
}

/// A line as its content and its terminator: `"\r\n"`, `"\n"`, or `""` when it ends without LF.
pub fn split_terminator(line: &[u8]) -> (&[u8], &[u8]) {
    let len = if line.ends_with(b"\r\n") {
        2
    } else {
        usize::from(line.ends_with(b"\n"))
    };
    line.split_at(line.len() - len)
}

/// Appends the lines of `text`, each ended as `question` ends: with CRLF after CRLF, and with LF
/// after LF or nothing.
///
/// So a terminal that sends CRLF reads CRLF, and a script reads what it would write. Empty text
/// appends nothing.
pub fn answer(text: &str, question: &[u8], out: &mut Vec<u8>) {
    let terminator: &[u8] = if question.ends_with(b"\r\n") {
        b"\r\n"
    } else {
        b"\n"
    };
    for line in text.lines() {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(terminator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_over_the_cap_is_refused_with_and_without_its_end() {
        let refused = Err(LineTooLong { max: 3 });
        for buf in [
            &b"abcd"[..],
            b"abcd\n",
            b"abcd\r\n",
            b"abcdefgh",
            b"abc\r\r",
            b"abc\rx",
            b"abc\r\r\n",
        ] {
            assert_eq!(
                find_line(buf, 3),
                refused,
                "{:?}",
                buf.escape_ascii().to_string()
            );
        }
        assert_eq!(find_line(b"x", 0), Err(LineTooLong { max: 0 }));
    }

    #[test]
    fn the_terminator_does_not_count() {
        assert_eq!(find_line(b"abc\nrest", 3), Ok(Some(4)));
        assert_eq!(find_line(b"abc\r\nrest", 3), Ok(Some(5)));
        assert_eq!(find_line(b"\r\n", 0), Ok(Some(2)));
    }

    #[test]
    fn a_line_that_may_still_end_in_time_is_waited_for() {
        assert_eq!(find_line(b"", 0), Ok(None));
        assert_eq!(find_line(b"abc", 3), Ok(None));
        assert_eq!(find_line(b"abc\r", 3), Ok(None));
        assert_eq!(find_line(b"abc", usize::MAX), Ok(None));
    }

    #[test]
    fn a_lone_cr_is_content() {
        assert_eq!(split_terminator(b"a\rb\n"), (&b"a\rb"[..], &b"\n"[..]));
        assert_eq!(split_terminator(b"a\r"), (&b"a\r"[..], &b""[..]));
        assert_eq!(split_terminator(b"a\r\n"), (&b"a"[..], &b"\r\n"[..]));
        assert_eq!(split_terminator(b"\n"), (&b""[..], &b"\n"[..]));
        assert_eq!(split_terminator(b""), (&b""[..], &b""[..]));
    }

    #[test]
    fn an_answer_ends_its_lines_as_the_question_did() {
        for (question, expected) in [
            (&b"q\r\n"[..], &b"a\r\nb\r\n"[..]),
            (b"q\n", b"a\nb\n"),
            (b"q\r", b"a\nb\n"),
            (b"q", b"a\nb\n"),
        ] {
            let mut out = Vec::new();
            answer("a\nb", question, &mut out);
            assert_eq!(out, expected);
        }
    }

    /// Bytes in which line ends are common.
    fn chatter() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(&b"ab\r\n\x00"[..]), 0..40)
    }

    proptest! {
        #[test]
        fn no_line_exceeds_the_cap_and_each_ends_with_its_only_lf(
            buf in chatter(),
            max in 0_usize..20,
        ) {
            if let Ok(Some(len)) = find_line(&buf, max) {
                let (content, terminator) = split_terminator(&buf[..len]);
                prop_assert!(content.len() <= max && !terminator.is_empty());
                prop_assert!(!content.contains(&b'\n'));
            }
        }

        #[test]
        fn bytes_one_by_one_give_the_same_verdict(buf in chatter(), max in 0_usize..20) {
            let early = (0..=buf.len()).map(|n| find_line(&buf[..n], max)).find(|v| *v != Ok(None));
            prop_assert_eq!(early.unwrap_or(Ok(None)), find_line(&buf, max));
        }

        #[test]
        fn what_is_incomplete_stays_small(buf in chatter(), max in 0_usize..20) {
            if find_line(&buf, max) == Ok(None) {
                prop_assert!(buf.len() <= max + 1);
            }
        }
    }
}
