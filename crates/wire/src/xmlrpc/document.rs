//! A document as characters: its encoding, where they end, and in which line one stands.

use super::{Malformed, XmlError};
use std::borrow::Cow;
use std::ops::Range;

/// The characters of a document, up to the first byte that is none.
pub(super) struct Document<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) end: End,
    /// The bytes behind the characters.
    pub(super) rest: usize,
    /// Whether the first of them is one that begins a character of several.
    pub(super) leads: bool,
}

/// What follows the characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Whole,
    /// A byte that is no character of the encoding.
    InvalidByte,
    /// The first bytes of a character, and no more.
    PartialCharacter,
}

impl<'a> Document<'a> {
    /// Decodes `bytes` as they declare it, UTF-8 otherwise.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, XmlError> {
        // The beginning of a byte order mark, or of UTF-16 without one.
        if let [0 | 0xef | 0xfe | 0xff] | [0xef, 0xbb] = bytes {
            let (what, line, column) = (Malformed::UnclosedToken, 1, 0);
            return Err(XmlError::Malformed { what, line, column });
        }
        if matches!(
            bytes,
            [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, ..] | [_, 0, ..]
        ) {
            return Err(XmlError::Encoding("UTF-16".into()));
        }
        if plain_declaration(bytes).is_some() {
            return Ok(Self::utf_8(bytes));
        }
        let name = encoding(bytes).unwrap_or("UTF-8");
        let is = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        // Names that expat does not know it asks Python for: hence the short ones.
        if is(&["ISO-8859-1", "ISO8859-1", "latin-1", "latin1"]) {
            return Ok(Self::latin_1(bytes));
        }
        if is(&["US-ASCII", "ASCII"]) {
            return Ok(Self::ascii(bytes));
        }
        // Bytes that say they are UTF-16 are not: the scanner tells where they say so.
        if is(&["UTF-8"]) || is(UTF_16) {
            return Ok(Self::utf_8(bytes));
        }
        Err(XmlError::Encoding(name.into()))
    }

    fn utf_8(bytes: &'a [u8]) -> Self {
        let (text, rest) = match str::from_utf8(bytes) {
            Ok(text) => (text, &[][..]),
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                (str::from_utf8(valid).unwrap_or_default(), rest)
            }
        };
        let width = match rest {
            [] => 0,
            [0xc0..=0xdf, ..] => 2,
            [0xe0..=0xef, ..] => 3,
            [0xf0..=0xf4, ..] => 4,
            _ => 1,
        };
        let end = match width {
            0 => End::Whole,
            _ if rest.len() < width => End::PartialCharacter,
            _ => End::InvalidByte,
        };
        let (text, rest) = (Cow::Borrowed(text), rest.len());
        Self {
            text,
            end,
            rest,
            leads: width > 1,
        }
    }

    fn latin_1(bytes: &'a [u8]) -> Self {
        // A mark of UTF-8 before the declaration stays what it is.
        let (mark, rest) = bytes.split_at(mark(bytes));
        let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
        text.push_str(str::from_utf8(mark).unwrap_or_default());
        text.extend(rest.iter().map(|&byte| char::from(byte)));
        Self {
            text: Cow::Owned(text),
            end: End::Whole,
            rest: 0,
            leads: false,
        }
    }

    fn ascii(bytes: &'a [u8]) -> Self {
        let mark = mark(bytes);
        let len = bytes[mark..]
            .iter()
            .take_while(|byte| byte.is_ascii())
            .count();
        let (text, rest) = bytes.split_at(mark + len);
        let end = if rest.is_empty() {
            End::Whole
        } else {
            End::InvalidByte
        };
        Self {
            text: Cow::Borrowed(str::from_utf8(text).unwrap_or_default()),
            end,
            rest: rest.len(),
            leads: false,
        }
    }

    /// The error `what` at the byte `at` of the text.
    pub(super) fn error(&self, what: Malformed, at: usize) -> XmlError {
        let (mut line, mut column) = (1, 0);
        let mut chars = self.text[..at].chars().peekable();
        while let Some(c) = chars.next() {
            // CR LF is one end of line.
            if c == '\n' || c == '\r' && chars.peek() != Some(&'\n') {
                line += 1;
                column = 0;
            } else if c != '\r' {
                column += 1;
            }
        }
        XmlError::Malformed { what, line, column }
    }
}

/// How long the declaration at the beginning is, if it is one of the two that nearly all write: they are
/// right, and name no encoding.
pub(super) fn plain_declaration(text: &[u8]) -> Option<usize> {
    let is = |declaration: &&&[u8]| text.starts_with(declaration);
    PLAIN.iter().find(is).map(|declaration| declaration.len())
}

/// Checks the declaration in `text`, from behind `<?xml` to before `?>`, and says where the name of
/// the encoding stands in it. The error is where it goes wrong.
pub(super) fn declaration(text: &[u8]) -> Result<Option<Range<usize>>, usize> {
    let mut encoding = None;
    let (version, mut at) = pseudo_attribute(text, 0)?;
    let Some((name, _)) = version else {
        return Err(at);
    };
    if &text[name.clone()] != b"version" {
        return Err(name.start);
    }
    let (mut next, rest) = pseudo_attribute(text, at)?;
    at = rest;
    if let Some((name, value)) = next.clone()
        && &text[name] == b"encoding"
    {
        if !text.get(value.start).is_some_and(u8::is_ascii_alphabetic) {
            return Err(value.start);
        }
        encoding = Some(value);
        (next, at) = pseudo_attribute(text, at)?;
    }
    let Some((name, value)) = next else {
        return Ok(encoding);
    };
    if &text[name.clone()] != b"standalone" {
        return Err(name.start);
    }
    if !matches!(&text[value.clone()], b"yes" | b"no") {
        return Err(value.start);
    }
    let end = skip_spaces(text, at);
    if end < text.len() {
        Err(end)
    } else {
        Ok(encoding)
    }
}

/// Whether the name of an encoding claims two bytes for each character.
pub(super) fn is_utf_16(name: &[u8]) -> bool {
    UTF_16
        .iter()
        .any(|other| other.as_bytes().eq_ignore_ascii_case(name))
}

/// Name and value of `name = "value"` at `at`, behind white space, and where it ends; `None` at the
/// end of the text.
fn pseudo_attribute(text: &[u8], at: usize) -> Result<(Option<Pair>, usize), usize> {
    if at == text.len() {
        return Ok((None, at));
    }
    let start = skip_spaces(text, at);
    if start == at {
        return Err(at);
    }
    if start == text.len() {
        return Ok((None, at));
    }
    let in_name = |byte: &u8| byte.is_ascii() && *byte != b'=' && !is_space(*byte);
    let len = text[start..]
        .iter()
        .take_while(|byte| in_name(byte))
        .count();
    let name = start..start + len;
    let equals = skip_spaces(text, name.end);
    if text.get(equals) != Some(&b'=') {
        return Err(equals);
    }
    if name.is_empty() {
        return Err(start);
    }
    let open = skip_spaces(text, equals + 1);
    let Some(&quote @ (b'"' | b'\'')) = text.get(open) else {
        return Err(open);
    };
    let start = open + 1;
    let in_value = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    let len = text[start..]
        .iter()
        .take_while(|byte| in_value(byte))
        .count();
    let value = start..start + len;
    if text.get(value.end) != Some(&quote) {
        return Err(value.end);
    }
    let end = value.end + 1;
    Ok((Some((name, value)), end))
}

/// The length of the byte order mark at the beginning.
pub(super) fn mark(bytes: &[u8]) -> usize {
    if bytes.starts_with(MARK) {
        MARK.len()
    } else {
        0
    }
}

type Pair = (Range<usize>, Range<usize>);

/// The encoding that a well-formed declaration at the beginning names.
fn encoding(bytes: &[u8]) -> Option<&str> {
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let text = bytes.strip_prefix(b"<?xml")?;
    let end = text.windows(2).position(|two| two == b"?>")?;
    let name = declaration(&text[..end]).ok()??;
    str::from_utf8(&text[name]).ok()
}

fn skip_spaces(text: &[u8], at: usize) -> usize {
    let spaces = text[at..].iter().take_while(|byte| is_space(**byte));
    at + spaces.count()
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The byte order mark, in UTF-8.
pub(super) const MARK: &[u8] = "\u{feff}".as_bytes();
const PLAIN: [&[u8]; 2] = [b"<?xml version='1.0'?>", b"<?xml version=\"1.0\"?>"];
const UTF_16: &[&str] = &["UTF-16", "UTF-16BE", "UTF-16LE"];
