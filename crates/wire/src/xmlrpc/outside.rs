//! What stands before and behind the one element of a document.
//!
//! expat reads it with the tokens of a document type, which is why "hello" is a name in the wrong
//! place (syntax error) and "{" is no token at all (not well-formed).

use super::document::{self, MARK, is_space};
use super::name::{is_name, is_name_start};
use super::scan::{Scanner, Stop};
use super::{Malformed, XmlError};

/// A token and where it ends.
enum Outside {
    /// White space, a comment or a processing instruction.
    Nothing(usize),
    /// `<?xml …?>`.
    Declaration(usize),
    /// `<!` and a name, which ends there.
    Markup(usize),
    /// `<` and the beginning of a name.
    Root,
    /// `%name;`.
    ParameterEntity,
    /// Another token of a document type.
    Other,
}

impl Scanner<'_> {
    /// Reads one token; true where the root element begins.
    pub(super) fn before_root(&mut self, at: usize) -> Result<bool, Stop> {
        let bytes = self.text.as_bytes();
        if at == bytes.len() && matches!(self.byte(at), Err(Stop::Unclosed)) {
            return Err(Stop::At(Malformed::NoElement, at));
        }
        if at == 0
            && let Some(end) = document::plain_declaration(bytes)
        {
            self.pass(end);
            return Ok(false);
        }
        match self.outside(at)? {
            Outside::Root => return Ok(true),
            Outside::Nothing(end) => self.pass(end),
            Outside::Declaration(end) if &bytes[..at] == MARK || at == 0 => {
                let start = at + "<?xml".len();
                let failed = |(what, found)| Stop::At(what, start + found);
                declares(&bytes[start..end - 2]).map_err(failed)?;
                self.pass(end);
            }
            Outside::Declaration(_) => return Err(Stop::At(Malformed::MisplacedDeclaration, at)),
            Outside::Markup(end) if &bytes[at..end] == b"<!DOCTYPE" => {
                return Err(Stop::Refused(XmlError::Doctype));
            }
            Outside::ParameterEntity => return Err(Stop::At(Malformed::ParameterEntity, at)),
            Outside::Markup(_) | Outside::Other => return Err(Stop::At(Malformed::Syntax, at)),
        }
        Ok(false)
    }

    /// Reads one token; true at the end of the document.
    pub(super) fn behind_root(&mut self, at: usize) -> Result<bool, Stop> {
        match self.outside(at) {
            Err(Stop::Unclosed) if at == self.text.len() => Ok(true),
            Ok(Outside::Nothing(end)) => {
                self.pass(end);
                Ok(false)
            }
            Ok(_) => Err(Stop::At(Malformed::Junk, at)),
            Err(stop) => Err(stop),
        }
    }

    fn outside(&self, at: usize) -> Result<Outside, Stop> {
        let text = self.text;
        match self.byte(at)? {
            b' ' | b'\t' | b'\r' | b'\n' => {
                let spaces = text.as_bytes()[at..]
                    .iter()
                    .take_while(|byte| is_space(**byte));
                Ok(Outside::Nothing(at + spaces.count()))
            }
            b'<' => self.markup(at),
            quote @ (b'"' | b'\'') => self.literal(at, quote),
            b'%' => self.percent(at),
            b'#' => {
                // The first character is waited for, the end of the name is not.
                self.byte(at + 1)?;
                let end = self.name(at + 1).or_else(ends(text.len()))?;
                self.followed_by(end, b" \t\r\n)>%|")
            }
            b')' => self.followed_by(at + 1, b" \t\r\n>,|)*?+"),
            b']' => match (self.byte(at + 1), self.byte(at + 2)) {
                (Ok(b']'), Err(Stop::Unclosed)) => Err(Stop::Unclosed),
                _ => Ok(Outside::Other),
            },
            b',' | b'[' | b'(' | b'|' | b'>' => Ok(Outside::Other),
            _ => self.word(at),
        }
    }

    fn markup(&self, at: usize) -> Result<Outside, Stop> {
        let next = match self.byte(at + 1) {
            // Of the first character of a name only the first byte counts.
            Err(Stop::Invalid(_) | Stop::PartialCharacter) if self.document.leads => {
                return Ok(Outside::Root);
            }
            next => next?,
        };
        match next {
            b'?' => {
                let (end, declares) = self.instruction(at)?;
                Ok(if declares {
                    Outside::Declaration(end)
                } else {
                    Outside::Nothing(end)
                })
            }
            b'!' => match self.mark(at + 2)? {
                b'-' => self.comment(at).map(Outside::Nothing),
                b'[' => Ok(Outside::Other),
                byte if is_keyword(byte) => self.keyword(at),
                _ => Err(Stop::Invalid(at + 2)),
            },
            byte if is_keyword(byte) || !byte.is_ascii() => Ok(Outside::Root),
            _ => Err(Stop::Invalid(at + 1)),
        }
    }

    /// `<!NAME`, up to the space behind it.
    fn keyword(&self, at: usize) -> Result<Outside, Stop> {
        let mut i = at + 3;
        loop {
            match self.mark(i)? {
                byte if is_keyword(byte) => i += 1,
                byte if is_space(byte) => return Ok(Outside::Markup(i)),
                b'%' => {
                    return match self.byte(i + 1) {
                        Ok(next) if is_space(next) || next == b'%' => Err(Stop::Invalid(i)),
                        Err(Stop::Unclosed) => Err(Stop::Unclosed),
                        _ => Ok(Outside::Markup(i)),
                    };
                }
                _ => return Err(Stop::Invalid(i)),
            }
        }
    }

    fn literal(&self, at: usize, quote: u8) -> Result<Outside, Stop> {
        let mut i = at + 1;
        loop {
            match self.byte(i)? {
                byte if byte == quote => return self.followed_by(i + 1, b" \t\r\n>%["),
                byte if self.is_illegal(i, byte) => return Err(Stop::Invalid(i)),
                _ => i += 1,
            }
        }
    }

    fn percent(&self, at: usize) -> Result<Outside, Stop> {
        let next = self.byte(at + 1)?;
        if is_space(next) || next == b'%' {
            return Ok(Outside::Other);
        }
        let end = self.name(at + 1)?;
        match self.byte(end)? {
            b';' => Ok(Outside::ParameterEntity),
            _ => Err(Stop::Invalid(end)),
        }
    }

    /// A name, or a word of the characters of names.
    fn word(&self, at: usize) -> Result<Outside, Stop> {
        let first = self.text[at..].chars().next().unwrap_or_default();
        if !is_name(first) {
            return Err(Stop::Invalid(at));
        }
        let end = self.name_rest(at).or_else(ends(self.text.len()))?;
        if is_name_start(first) {
            self.followed_by(end, b" \t\r\n>),|[%+*?")
        } else {
            self.followed_by(end, b" \t\r\n>),|[%")
        }
    }

    /// A token, when one of these or nothing stands at `at`.
    fn followed_by(&self, at: usize, allowed: &[u8]) -> Result<Outside, Stop> {
        match self.mark(at) {
            Ok(byte) if !allowed.contains(&byte) => Err(Stop::Invalid(at)),
            Ok(_) | Err(Stop::Unclosed) => Ok(Outside::Other),
            Err(stop) => Err(stop),
        }
    }
}

/// Checks a declaration, from behind `<?xml` to before `?>`.
fn declares(text: &[u8]) -> Result<(), (Malformed, usize)> {
    match document::declaration(text) {
        Ok(Some(name)) if document::is_utf_16(&text[name.clone()]) => {
            Err((Malformed::EncodingMismatch, name.start))
        }
        Ok(_) => Ok(()),
        Err(at) => Err((Malformed::Declaration, at)),
    }
}

/// A word may end with the text.
fn ends(len: usize) -> impl Fn(Stop) -> Result<usize, Stop> {
    move |stop| match stop {
        Stop::Unclosed => Ok(len),
        stop => Err(stop),
    }
}

fn is_keyword(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}
