//! What tags, text and references are made of.

use super::Malformed;
use super::document::{End, is_space};
use super::name::{is_ascii_name, is_name, is_name_start};
use super::scan::{Scanner, Stop};

impl Scanner<'_> {
    /// Where the comment ends that begins at `at` with `<!-`.
    pub(super) fn comment(&self, at: usize) -> Result<usize, Stop> {
        if self.mark(at + 3)? != b'-' {
            return Err(Stop::Invalid(at + 3));
        }
        let mut i = at + 4;
        loop {
            let byte = self.byte(i)?;
            if self.is_illegal(i, byte) {
                return Err(Stop::Invalid(i));
            }
            i += 1;
            if byte == b'-' && self.byte(i)? == b'-' {
                return match self.mark(i + 1)? {
                    b'>' => Ok(i + 2),
                    _ => Err(Stop::Invalid(i + 1)),
                };
            }
        }
    }

    /// Where the processing instruction ends that begins at `at`, and whether it is a declaration.
    pub(super) fn instruction(&self, at: usize) -> Result<(usize, bool), Stop> {
        let end = self.name(at + 2)?;
        let target = &self.text[at + 2..end];
        let next = self.byte(end)?;
        if next != b'?' && !is_space(next) || target != "xml" && target.eq_ignore_ascii_case("xml")
        {
            return Err(Stop::Invalid(end));
        }
        if next == b'?' && self.mark(end + 1)? != b'>' {
            return Err(Stop::Invalid(end + 1));
        }
        let mut i = end;
        loop {
            let byte = self.byte(i)?;
            if self.is_illegal(i, byte) {
                return Err(Stop::Invalid(i));
            }
            i += 1;
            if byte == b'?' && self.byte(i)? == b'>' {
                return Ok((i + 1, target == "xml"));
            }
        }
    }

    /// Where the reference ends that begins at `at`.
    pub(super) fn reference(&self, at: usize) -> Result<usize, Stop> {
        if self.byte(at + 1)? != b'#' {
            let end = self.name(at + 1)?;
            return match self.byte(end)? {
                b';' => Ok(end + 1),
                _ => Err(Stop::Invalid(end)),
            };
        }
        let hex = self.mark(at + 2)? == b'x';
        let digits = at + 2 + usize::from(hex);
        let mut i = digits;
        loop {
            match self.mark(i)? {
                b'0'..=b'9' => i += 1,
                b'a'..=b'f' | b'A'..=b'F' if hex => i += 1,
                b';' if i > digits => return Ok(i + 1),
                _ => return Err(Stop::Invalid(i)),
            }
        }
    }

    /// Where the name ends that begins at `at`. There is something behind it.
    pub(super) fn name(&self, at: usize) -> Result<usize, Stop> {
        // Nearly all begin with a letter of ASCII.
        if !self.byte(at)?.is_ascii_alphabetic() {
            match self.char(at) {
                Some(c) if is_name_start(c) => {}
                _ => return Err(Stop::Invalid(at)),
            }
        }
        self.name_rest(at)
    }

    /// Where the characters of a name end, from `at` on. There is something behind them.
    pub(super) fn name_rest(&self, at: usize) -> Result<usize, Stop> {
        let mut i = at;
        loop {
            let rest = self.text.as_bytes()[i..].iter();
            i += rest.take_while(|byte| is_ascii_name(**byte)).count();
            if self.byte(i)?.is_ascii() {
                return Ok(i);
            }
            match self.char(i) {
                Some(c) if is_name(c) => i += c.len_utf8(),
                _ => return Err(Stop::Invalid(i)),
            }
        }
    }

    fn char(&self, at: usize) -> Option<char> {
        self.text.get(at..)?.chars().next()
    }

    pub(super) fn skip_spaces(&self, at: usize) -> usize {
        let spaces = self.text.as_bytes()[at..].iter();
        at + spaces.take_while(|byte| is_space(**byte)).count()
    }

    /// The byte at `at`, or what stops whoever needs one there.
    pub(super) fn byte(&self, at: usize) -> Result<u8, Stop> {
        match self.text.as_bytes().get(at) {
            Some(&byte) => Ok(byte),
            None => Err(match self.document.end {
                End::Whole => Stop::Unclosed,
                End::InvalidByte => Stop::Invalid(self.text.len()),
                End::PartialCharacter => Stop::PartialCharacter,
            }),
        }
    }

    /// The byte at `at`, where only ASCII may stand: a character that is cut off is the wrong one.
    pub(super) fn mark(&self, at: usize) -> Result<u8, Stop> {
        self.byte(at).map_err(|stop| match stop {
            Stop::PartialCharacter => Stop::Invalid(at),
            stop => stop,
        })
    }

    /// Whether the character that `byte` at `at` begins is none of XML's.
    pub(super) fn is_illegal(&self, at: usize, byte: u8) -> bool {
        match byte {
            b'\t' | b'\n' | b'\r' => false,
            ..b' ' => true,
            // U+FFFE and U+FFFF.
            0xef => matches!(
                self.text.as_bytes().get(at + 1..at + 3),
                Some([0xbf, 0xbe | 0xbf])
            ),
            _ => false,
        }
    }
}

/// The character that a well-formed reference stands for.
pub(super) fn resolve(reference: &str) -> Result<char, Malformed> {
    let name = reference.trim_start_matches('&').trim_end_matches(';');
    let Some(number) = name.strip_prefix('#') else {
        return match name {
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "amp" => Ok('&'),
            "quot" => Ok('"'),
            "apos" => Ok('\''),
            _ => Err(Malformed::UndefinedEntity),
        };
    };
    let code = match number.strip_prefix('x') {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    code.ok()
        .and_then(char::from_u32)
        .filter(|&c| is_char(c))
        .ok_or(Malformed::CharacterNumber)
}

/// Whether XML has this character.
pub(super) fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}
