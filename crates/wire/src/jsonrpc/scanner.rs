//! The grammar of JSON (RFC 8259), without any meaning.

use super::json::JsonError;
use crate::plain;
use crate::value::DEPTH_MAX;
use std::borrow::Cow;

/// A place in a text, and the steps on from there. Each step passes the whitespace before it.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A number as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    pub text: &'a str,
    /// There is neither a point nor an exponent.
    pub whole: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        if text.starts_with('\u{feff}') {
            return Err(JsonError::ByteOrderMark);
        }
        Ok(Self { text, at: 0 })
    }

    /// The first byte of what comes next.
    pub fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += rest.iter().take_while(|byte| blank(byte)).count();
        self.byte()
    }

    /// Passes one byte, if it is `wanted`.
    pub fn eat(&mut self, wanted: u8) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    /// Passes what stands between two items of a list or an object that ends with `end`; false
    /// when it has ended.
    pub fn another(&mut self, end: u8) -> Result<bool, JsonError> {
        if self.eat(b',') {
            return Ok(true);
        }
        if self.eat(end) {
            return Ok(false);
        }
        Err(self.expected("a comma or the end"))
    }

    pub fn key(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let key = self.string()?;
        if self.eat(b':') {
            return Ok(key);
        }
        Err(self.expected("a colon"))
    }

    /// Passes a value of any kind, which is wanted only if it is a string.
    pub fn text(&mut self) -> Result<Option<Cow<'a, str>>, JsonError> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        self.skip().map(|_| None)
    }

    /// Passes a value of any kind and returns how it was written, if that makes an id.
    pub fn id(&mut self) -> Result<Option<&'a str>, JsonError> {
        let first = self.peek();
        let json = self.skip()?;
        Ok(Some(json).filter(|_| matches!(first, Some(b'"' | b'-' | b'0'..=b'9' | b'n'))))
    }

    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if !self.eat(b'"') {
            return Err(self.expected("a string"));
        }
        let mut unescaped = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = &rest[..plain::leading(rest.as_bytes(), [b'"', b'\\'], [])];
            self.at += plain.len();
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    if unescaped.is_empty() {
                        return Ok(Cow::Borrowed(plain));
                    }
                    unescaped.push_str(plain);
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    unescaped.push_str(plain);
                    unescaped.push(self.escape()?);
                }
                _ => return Err(self.expected("the end of the string, or an escape")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let Some(letter) = self.byte() else {
            return Err(self.expected("an escape"));
        };
        let plain = match letter {
            b'"' | b'\\' | b'/' => letter.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(start),
            _ => return Err(self.expected("an escape")),
        };
        self.at += 1;
        Ok(plain)
    }

    /// The rest of the escape that began at `start`, and its second half, if it needs one.
    fn unicode(&mut self, start: usize) -> Result<char, JsonError> {
        self.at += 1;
        let mut code = self.four_digits()?;
        if (0xd800..0xdc00).contains(&code) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.four_digits()?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        char::from_u32(code).ok_or(JsonError::Surrogate { at: start })
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.expected("four hexadecimal digits"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    pub fn number(&mut self) -> Result<Number<'a>, JsonError> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        let leading_zero = self.byte() == Some(b'0');
        let whole_len = self.digits()?;
        if leading_zero && whole_len > 1 {
            self.at -= whole_len - 1;
            return Err(self.expected("no digit behind a leading zero"));
        }
        let mut whole = true;
        if self.byte() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        Ok(Number { text, whole })
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if len == 0 {
            return Err(self.expected("a digit"));
        }
        self.at += len;
        Ok(len)
    }

    /// Passes `null`, `true` or `false`.
    pub fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        self.peek();
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.expected(word))
    }

    /// Passes a value of any kind and returns how it was written.
    pub fn skip(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.at;
        self.skip_nested(NESTING_MAX)?;
        Ok(&self.text[start..self.at])
    }

    fn skip_nested(&mut self, nesting: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b'n') => self.word("null"),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(open @ (b'[' | b'{')) => {
                let nesting = nesting.checked_sub(1).ok_or(self.too_deep())?;
                self.at += 1;
                let end = if open == b'{' { b'}' } else { b']' };
                if self.eat(end) {
                    return Ok(());
                }
                loop {
                    if open == b'{' {
                        self.key()?;
                    }
                    self.skip_nested(nesting)?;
                    if !self.another(end)? {
                        return Ok(());
                    }
                }
            }
            _ => Err(self.expected("a value")),
        }
    }

    /// Nothing but whitespace may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the text")),
        }
    }

    pub fn expected(&self, expected: &'static str) -> JsonError {
        let at = self.at;
        JsonError::Syntax { at, expected }
    }

    pub fn too_deep(&self) -> JsonError {
        JsonError::Nesting { at: self.at }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes back to where it has been.
    pub fn rewind(&mut self, at: usize) {
        self.at = at;
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// How deep lists and objects may lie in each other. A value can be [`DEPTH_MAX`] deep, and each of
/// its maps can be written as two objects.
pub(super) const NESTING_MAX: usize = 2 * DEPTH_MAX;
