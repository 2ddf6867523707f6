//! The tags and the text of a document, cut as expat cuts them.
//!
//! expat finds the end of a token before it looks at what the token says, and it names the first
//! byte that cannot be part of one. Each function here does the same, so that an error is found at
//! the same place.

use super::document::{Document, End, mark};
use super::parts::resolve;
use super::{Caps, Malformed, XmlError};
use crate::plain;
use std::collections::BTreeSet;
use std::ops::Range;

/// Reads a document front to back.
pub(super) struct Scanner<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) text: &'a str,
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

/// Which side of the root element.
#[derive(Clone, Copy)]
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
            open: Vec::with_capacity(8),
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
        loop {
            i += plain::leading(&bytes[i..], [b'<', b'&', b']', 0xef], [b'\t', b'\n', b'\r']);
            match bytes.get(i) {
                None | Some(b'<' | b'&') => break,
                Some(b']') if bytes[i..].starts_with(b"]]>") => return Err(Stop::Invalid(i + 2)),
                Some(&byte) if self.is_illegal(i, byte) => return Err(Stop::Invalid(i)),
                Some(_) => i += 1,
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

    /// Goes on behind a token that says nothing.
    pub(super) fn pass(&mut self, end: usize) {
        self.at = end;
    }
}

struct Attribute {
    name: Range<usize>,
    value: Range<usize>,
}

pub(super) fn too_much(what: &'static str, max: usize) -> Stop {
    Stop::Refused(XmlError::TooMuch { what, max })
}

const OPEN_CDATA: &[u8] = b"<![CDATA[";
