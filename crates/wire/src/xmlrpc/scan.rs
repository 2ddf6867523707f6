//! The tags and the text of a document, cut as expat cuts them.
//!
//! expat finds the end of a token before it looks at what the token says, and it names the first
//! byte that cannot be part of one. Each function here does the same, so that an error is found at
//! the same place.

use super::document::{Document, End, is_space, mark};
use super::name::{NAME, is_name, is_name_start};
use super::{Caps, Malformed, XmlError};
use std::collections::BTreeSet;
use std::ops::Range;

/// Reads a document front to back.
pub(super) struct Scanner<'a> {
    document: &'a Document<'a>,
    text: &'a str,
    /// Where the next token begins.
    at: usize,
    place: Place,
    /// The names of the elements that are open.
    open: Vec<&'a str>,
    /// The element that ended where it began.
    empty: Option<&'a str>,
    caps: Caps,
    elements: usize,
    attributes: usize,
}

/// What a document consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Start(&'a str),
    End(&'a str),
    /// Text, with whatever ends its lines.
    Text(&'a str),
    /// The character that a reference stands for.
    Char(char),
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum Stop {
    /// This byte of the text cannot be part of it.
    Invalid(usize),
    /// The document ends within it.
    Unclosed,
    /// The document ends within it, and within a character.
    PartialCharacter,
    /// Something else, at a byte of the text.
    At(Malformed, usize),
    /// Something besides the form.
    Refused(XmlError),
}

#[derive(Clone, Copy)]
/// Which side of the root element.
enum Place {
    Before,
    Within,
    Behind,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(document: &'a Document<'a>, caps: Caps) -> Self {
        Self {
            document,
            text: &document.text,
            at: mark(document.text.as_bytes()),
            place: Place::Before,
            open: Vec::new(),
            empty: None,
            caps,
            elements: 0,
            attributes: 0,
        }
    }

    /// The next token, or `None` behind a document that is well-formed.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, XmlError> {
        if let Some(name) = self.empty.take() {
            self.close();
            return Ok(Some(Token::End(name)));
        }
        loop {
            let at = self.at;
            let token = match self.place {
                Place::Before => self.before_root(at).map(|root| {
                    if root {
                        self.place = Place::Within;
                    }
                    None
                }),
                Place::Within => self.content(at),
                Place::Behind => match self.behind_root(at) {
                    Ok(true) => return Ok(None),
                    Ok(false) => Ok(None),
                    Err(stop) => Err(stop),
                },
            };
            match token {
                Ok(None) => {}
                Ok(token) => return Ok(token),
                Err(stop) => return Err(self.error(stop, at)),
            }
        }
    }

    /// The error for a token that began at `at`.
    fn error(&self, stop: Stop, at: usize) -> XmlError {
        let (what, at) = match stop {
            Stop::Invalid(at) if at == self.text.len() => (Malformed::InvalidByte, at),
            Stop::Invalid(at) => (Malformed::InvalidToken, at),
            Stop::Unclosed => (Malformed::UnclosedToken, at),
            Stop::PartialCharacter => (Malformed::PartialCharacter, at),
            Stop::At(what, at) => (what, at),
            Stop::Refused(error) => return error,
        };
        self.document.error(what, at)
    }

    /// One piece of what stands in elements; `None` for what means nothing.
    fn content(&mut self, at: usize) -> Result<Option<Token<'a>>, Stop> {
        match self.byte(at) {
            Ok(b'<') => {}
            Ok(b'&') => {
                let end = self.reference(at)?;
                self.at = end;
                let c = resolve(&self.text[at..end]).map_err(|what| Stop::At(what, at))?;
                return Ok(Some(Token::Char(c)));
            }
            Ok(_) => return self.run(at).map(Some),
            // A CR waits for its LF to the end.
            Err(Stop::Unclosed) => {
                let at = at - usize::from(self.text.ends_with('\r'));
                return Err(Stop::At(Malformed::NoElement, at));
            }
            Err(stop) => return Err(stop),
        }
        match self.byte(at + 1)? {
            b'/' => self.end_tag(at).map(Some),
            b'!' => match self.mark(at + 2)? {
                b'-' => {
                    self.at = self.comment(at)?;
                    Ok(None)
                }
                b'[' => self.cdata(at).map(Some),
                _ => Err(Stop::Invalid(at + 2)),
            },
            b'?' => {
                let (end, declares) = self.instruction(at)?;
                if declares {
                    return Err(Stop::At(Malformed::MisplacedDeclaration, at));
                }
                self.at = end;
                Ok(None)
            }
            _ => self.start_tag(at).map(Some),
        }
    }

    /// Text up to the next tag or reference.
    fn run(&mut self, at: usize) -> Result<Token<'a>, Stop> {
        let bytes = self.text.as_bytes();
        let mut i = at;
        while let Some(&byte) = bytes.get(i) {
            match byte {
                b'<' | b'&' => break,
                b']' if bytes[i..].starts_with(b"]]>") => return Err(Stop::Invalid(i + 2)),
                _ if self.is_illegal(i, byte) => return Err(Stop::Invalid(i)),
                _ => i += 1,
            }
        }
        self.at = i;
        Ok(Token::Text(&self.text[at..i]))
    }

    fn start_tag(&mut self, at: usize) -> Result<Token<'a>, Stop> {
        let mut i = self.name(at + 1)?;
        let name = &self.text[at + 1..i];
        let mut attributes = Vec::new();
        let empty = loop {
            let next = self.skip_spaces(i);
            // A name may only begin behind a space.
            let byte = if next == i {
                self.mark(next)
            } else {
                self.byte(next)
            };
            match byte? {
                b'>' => {
                    i = next + 1;
                    break false;
                }
                b'/' if self.mark(next + 1)? == b'>' => {
                    i = next + 2;
                    break true;
                }
                b'/' => return Err(Stop::Invalid(next + 1)),
                _ if next == i => return Err(Stop::Invalid(next)),
                _ => {
                    let attribute = self.attribute(next)?;
                    i = attribute.value.end + 1;
                    if self.attributes + attributes.len() >= self.caps.attributes {
                        let max = self.caps.attributes;
                        return Err(too_much("attributes", max));
                    }
                    attributes.push(attribute);
                }
            }
        };
        if !attributes.is_empty() {
            self.attributes += attributes.len();
            self.check(&attributes, at)?;
        }
        if self.elements == self.caps.elements {
            return Err(too_much("elements", self.caps.elements));
        }
        self.elements += 1;
        self.at = i;
        self.open.push(name);
        if empty {
            self.empty = Some(name);
        }
        Ok(Token::Start(name))
    }

    /// The attribute whose name begins at `at`.
    fn attribute(&self, at: usize) -> Result<Attribute, Stop> {
        let name = at..self.name(at)?;
        let equals = self.skip_spaces(name.end);
        if self.mark(equals)? != b'=' {
            return Err(Stop::Invalid(equals));
        }
        let open = self.skip_spaces(equals + 1);
        let quote = self.mark(open)?;
        if quote != b'"' && quote != b'\'' {
            return Err(Stop::Invalid(open));
        }
        let mut i = open + 1;
        loop {
            match self.byte(i)? {
                byte if byte == quote => break,
                b'&' => i = self.reference(i)?,
                byte if byte == b'<' || self.is_illegal(i, byte) => return Err(Stop::Invalid(i)),
                _ => i += 1,
            }
        }
        let value = open + 1..i;
        Ok(Attribute { name, value })
    }

    /// What expat looks at when the tag that begins at `tag` is complete.
    fn check(&self, attributes: &[Attribute], tag: usize) -> Result<(), Stop> {
        let mut names = BTreeSet::new();
        for Attribute { name, value } in attributes {
            if !names.insert(&self.text[name.clone()]) {
                return Err(Stop::At(Malformed::DuplicateAttribute, name.start));
            }
            let mut at = value.start;
            while let Some(found) = self.text[at..value.end].find('&') {
                at += found;
                let end = self.reference(at)?;
                match resolve(&self.text[at..end]) {
                    Ok(_) => at = end,
                    Err(what @ Malformed::CharacterNumber) => return Err(Stop::At(what, at)),
                    Err(what) => return Err(Stop::At(what, tag)),
                }
            }
        }
        Ok(())
    }

    fn end_tag(&mut self, at: usize) -> Result<Token<'a>, Stop> {
        let end = self.name(at + 2)?;
        let name = &self.text[at + 2..end];
        let close = self.skip_spaces(end);
        if self.mark(close)? != b'>' {
            return Err(Stop::Invalid(close));
        }
        if self.open.last() != Some(&name) {
            return Err(Stop::At(Malformed::MismatchedTag, at + 2));
        }
        self.at = close + 1;
        self.close();
        Ok(Token::End(name))
    }

    fn close(&mut self) {
        self.open.pop();
        if self.open.is_empty() {
            self.place = Place::Behind;
        }
    }

    fn cdata(&mut self, at: usize) -> Result<Token<'a>, Stop> {
        let bytes = self.text.as_bytes();
        let start = at + OPEN_CDATA.len();
        // Six characters are waited for, whatever the first of them are.
        if bytes.len() + self.document.rest < start {
            return Err(Stop::Unclosed);
        }
        let same = bytes[at..]
            .iter()
            .zip(OPEN_CDATA)
            .take_while(|(a, b)| a == b);
        let same = same.count();
        if same < OPEN_CDATA.len() {
            return Err(Stop::Invalid(at + same));
        }
        let mut i = start;
        while let Some(&byte) = bytes.get(i) {
            if byte == b']' && bytes[i..].starts_with(b"]]>") {
                self.at = i + 3;
                return Ok(Token::Text(&self.text[start..i]));
            }
            if self.is_illegal(i, byte) {
                return Err(Stop::Invalid(i));
            }
            i += 1;
        }
        match self.document.end {
            End::InvalidByte => Err(Stop::Invalid(i)),
            End::PartialCharacter => Err(Stop::At(Malformed::PartialCharacter, i)),
            // What may have been the end of a line or of the section is waited for.
            End::Whole => {
                let rest = &self.text[start..];
                let waits = ["]]", "]", "\r"]
                    .into_iter()
                    .find(|end| rest.ends_with(end));
                let at = i - waits.map_or(0, str::len);
                Err(Stop::At(Malformed::UnclosedCdata, at))
            }
        }
    }

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
    fn reference(&self, at: usize) -> Result<usize, Stop> {
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
        self.byte(at)?;
        match self.char(at) {
            Some(c) if is_name_start(c) => {}
            _ => return Err(Stop::Invalid(at)),
        }
        self.name_rest(at)
    }

    /// Where the characters of a name end, from `at` on. There is something behind them.
    pub(super) fn name_rest(&self, at: usize) -> Result<usize, Stop> {
        let mut i = at;
        loop {
            let byte = self.byte(i)?;
            if byte.is_ascii() {
                if !NAME[usize::from(byte)] {
                    return Ok(i);
                }
                i += 1;
                continue;
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

    fn skip_spaces(&self, at: usize) -> usize {
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

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn leads(&self) -> bool {
        self.document.leads
    }

    /// Goes on behind a token that says nothing.
    pub(super) fn pass(&mut self, end: usize) {
        self.at = end;
    }
}

struct Attribute {
    name: Range<usize>,
    value: Range<usize>,
}

/// The character that a well-formed reference stands for.
fn resolve(reference: &str) -> Result<char, Malformed> {
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

pub(super) fn too_much(what: &'static str, max: usize) -> Stop {
    Stop::Refused(XmlError::TooMuch { what, max })
}

const OPEN_CDATA: &[u8] = b"<![CDATA[";
