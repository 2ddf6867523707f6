//! Bytes of a peer made safe for one line of text on a terminal or in a log.

use std::fmt::Write as _;

/// `bytes` as one line of at most `max` characters.
///
/// Text stays as it is, a backslash is doubled, and what could move a cursor, break the line or
/// reorder it is spelled out: control characters and bytes that are no UTF-8 as `\xNN`, other
/// unsafe characters as `\u{…}`. When something was left out, the last character is `…`; an escape
/// is never cut in two.
pub fn escape(bytes: &[u8], max: usize) -> String {
    // A character takes at most four bytes, so this many decide the result: a long input costs no
    // more than a short one.
    let bytes = &bytes[..bytes.len().min(max.saturating_add(1).saturating_mul(4))];
    let mut line = Line {
        text: String::new(),
        chars: 0,
        fits_with_mark: 0,
        max,
    };
    for chunk in bytes.utf8_chunks() {
        let whole = chunk.valid().chars().all(|c| line.push(&spell(c)))
            && chunk
                .invalid()
                .iter()
                .all(|byte| line.push(&Spelled::Escape(format!("\\x{byte:02x}"))));
        if !whole {
            return line.cut();
        }
    }
    line.text
}

/// The line so far, and where it would have to be cut to make room for the mark.
struct Line {
    text: String,
    chars: usize,
    fits_with_mark: usize,
    max: usize,
}

impl Line {
    /// Appends one character or escape; false when it does not fit.
    fn push(&mut self, spelled: &Spelled) -> bool {
        let added = spelled.chars();
        if self.chars + added > self.max {
            return false;
        }
        match spelled {
            Spelled::Plain(c) => self.text.push(*c),
            Spelled::Escape(escape) => self.text.push_str(escape),
        }
        self.chars += added;
        if self.chars < self.max {
            self.fits_with_mark = self.text.len();
        }
        true
    }

    fn cut(mut self) -> String {
        self.text.truncate(self.fits_with_mark);
        if self.max > 0 {
            self.text.push('…');
        }
        self.text
    }
}

/// How one character appears.
enum Spelled {
    Plain(char),
    /// ASCII.
    Escape(String),
}

impl Spelled {
    fn chars(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Escape(escape) => escape.len(),
        }
    }
}

fn spell(c: char) -> Spelled {
    let mut escape = String::new();
    match c {
        '\\' => escape.push_str("\\\\"),
        '\0'..='\x1f' | '\x7f' => {
            let _ = write!(escape, "\\x{:02x}", u32::from(c));
        }
        _ if is_unsafe(c) => {
            let _ = write!(escape, "\\u{{{:x}}}", u32::from(c));
        }
        _ => return Spelled::Plain(c),
    }
    Spelled::Escape(escape)
}

/// Characters beyond ASCII that control a terminal, end a line or change the direction of the text
/// around them.
fn is_unsafe(c: char) -> bool {
    matches!(
        c,
        '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}' | '\u{200f}'
            | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        for (bytes, text) in [
            (&b"\x1b[2J"[..], r"\x1b[2J"),
            (b"a\r\nb\0", r"a\x0d\x0ab\x00"),
            (b"\x7f", r"\x7f"),
            (b"\xff\xc3", r"\xff\xc3"),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            ("user\u{202e}gnp".as_bytes(), r"user\u{202e}gnp"),
            (
                "\u{2066}\u{200f}\u{61c}".as_bytes(),
                r"\u{2066}\u{200f}\u{61c}",
            ),
            ("a\u{2028}b".as_bytes(), r"a\u{2028}b"),
            (br"\x1b", r"\\x1b"),
        ] {
            assert_eq!(escape(bytes, 100), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_before_the_cap_and_marked() {
        assert_eq!(escape(b"abcdef", 5), "abcd…");
        assert_eq!(escape(b"abcde", 5), "abcde");
        assert_eq!(
            escape(b"abc\x1bd", 5),
            "abc…",
            "an escape is not cut in two"
        );
        assert_eq!(escape(b"abc", 1), "…");
        assert_eq!(escape(b"abc", 0), "");
        assert_eq!(escape("äöüß€".as_bytes(), 3), "äö…");
        assert_eq!(escape("🦀🦀🦀".as_bytes(), 2), "🦀…");
    }

    #[test]
    fn text_of_any_language_stays_readable() {
        assert_eq!(escape("Grüße, 世界 🦀".as_bytes(), 100), "Grüße, 世界 🦀");
    }

    proptest! {
        #[test]
        fn the_result_is_short_and_harmless(bytes: Vec<u8>, max in 0_usize..50) {
            let text = escape(&bytes, max);
            prop_assert!(text.chars().count() <= max);
            prop_assert!(!text.chars().any(|c| c.is_control() || is_unsafe(c)));
        }

        #[test]
        fn a_shorter_cap_shows_a_beginning_of_the_whole(bytes: Vec<u8>, max in 1_usize..50) {
            let (whole, cut) = (escape(&bytes, usize::MAX), escape(&bytes, max));
            prop_assert!(cut == whole || whole.starts_with(cut.strip_suffix('…').unwrap()));
        }
    }
}
