//! The head of a request: one line, and fields.

use super::{Body, HttpError};
use crate::plain;

/// What a request may be at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of the head, its last line included.
    pub head: usize,
    /// Header fields.
    pub fields: usize,
    /// Bytes of the body, decoded from its chunks.
    pub body: u64,
}

/// The head of a request, as views into the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// `POST` and the like; case matters.
    pub method: &'a str,
    /// The target as it came: a path with its query, or a whole URI.
    pub target: &'a str,
    /// Whether the client speaks HTTP/1.1, and not 1.0.
    pub is_1_1: bool,
    /// Whether the connection is to go on after the answer.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// How the body is framed.
    pub body: Body,
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Head<'a> {
    /// Reads the head at the front of `bytes` and says how long it is; `None` while it is not
    /// complete. Empty lines before it are skipped, as some clients send one after a body.
    pub fn parse(bytes: &'a [u8], caps: &Caps) -> Result<Option<(Self, usize)>, HttpError> {
        let mut start = 0;
        while bytes[start..].starts_with(b"\r\n") {
            start += 2;
        }
        let Some(end) = find_end(&bytes[start..]) else {
            return if bytes.len() > caps.head {
                Err(HttpError::HeadTooLarge)
            } else {
                // What can only become an error is one at once.
                check_beginning(&bytes[start..]).map(|()| None)
            };
        };
        let end = start + end;
        if end > caps.head {
            return Err(HttpError::HeadTooLarge);
        }
        let mut lines = Lines(&bytes[start..end - 2]);
        let line = lines
            .next()
            .ok_or(HttpError::RequestLine)?
            .map_err(|_| HttpError::RequestLine)?;
        let (method, target, is_1_1) = request_line(line)?;
        let mut fields = Vec::with_capacity(16);
        let mut framing = Framing::default();
        for line in lines {
            if fields.len() == caps.fields {
                return Err(HttpError::HeadTooLarge);
            }
            let (name, value) = field(line?)?;
            framing.see(name, value);
            fields.push((name, value));
        }
        let head = Self {
            method,
            target,
            is_1_1,
            keep_alive: (is_1_1 || framing.keep_alive) && !framing.close,
            expects_continue: is_1_1 && framing.expects_continue,
            body: framing.body(is_1_1, caps.body)?,
            fields,
        };
        Ok(Some((head, end)))
    }

    /// The value of the first field of that name, which is written in lower case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// All values of that name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_bytes();
        let named = move |(other, _): &&(&[u8], &[u8])| other.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| *value)
    }

    /// All fields in their order, names as they came.
    pub fn fields(&self) -> &[(&'a [u8], &'a [u8])] {
        &self.fields
    }

    /// Whether a list-valued field names `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| lists(value, token))
    }

    /// The path without its query.
    pub fn path(&self) -> &'a str {
        self.target
            .split_once('?')
            .map_or(self.target, |(path, _)| path)
    }
}

/// What the fields say that decides where a request ends, and what follows it.
#[derive(Default)]
struct Framing<'a> {
    hosts: usize,
    codings: usize,
    coding: &'a [u8],
    lengths: usize,
    length: &'a [u8],
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Framing<'a> {
    fn see(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("host") {
            self.hosts += 1;
        } else if is("content-length") {
            self.lengths += 1;
            self.length = value;
        } else if is("transfer-encoding") {
            self.codings += 1;
            self.coding = value;
        } else if is("connection") {
            self.close |= lists(value, "close");
            self.keep_alive |= lists(value, "keep-alive");
        } else if is("expect") {
            self.expects_continue |= lists(value, "100-continue");
        }
    }

    fn body(&self, is_1_1: bool, cap: u64) -> Result<Body, HttpError> {
        if self.hosts > 1 || (is_1_1 && self.hosts == 0) {
            return Err(HttpError::Host);
        }
        match (self.codings, self.lengths) {
            (0, 0) => Ok(Body::None),
            (0, 1) => Body::sized(self.length, cap),
            (1, 0) if is_1_1 => {
                if self.coding != b"chunked" {
                    return Err(HttpError::TransferCoding);
                }
                Ok(Body::chunked(cap))
            }
            _ => Err(HttpError::Length),
        }
    }
}

/// Whether a value is a list that names `token`.
fn lists(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Behind the empty line.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let ends = memchr::memchr_iter(b'\n', bytes).map(|lf| lf + 1);
    ends.into_iter()
        .find(|end| bytes[..*end].ends_with(b"\r\n\r\n"))
}

/// Whether bytes can be the beginning of a request line: who speaks another protocol learns it
/// before the deadline.
fn check_beginning(bytes: &[u8]) -> Result<(), HttpError> {
    if bytes == b"\r" {
        return Ok(());
    }
    let method = bytes
        .iter()
        .take(METHOD_MAX + 1)
        .position(|byte| !is_token(*byte));
    match method {
        Some(0) => Err(HttpError::RequestLine),
        Some(at) if bytes[at] != b' ' => Err(HttpError::RequestLine),
        None if bytes.len() > METHOD_MAX => Err(HttpError::RequestLine),
        _ => Ok(()),
    }
}

fn request_line(line: &[u8]) -> Result<(&str, &str, bool), HttpError> {
    let mut spaces = memchr::memchr_iter(b' ', line);
    let (Some(first), Some(second), None) = (spaces.next(), spaces.next(), spaces.next()) else {
        return Err(HttpError::RequestLine);
    };
    let (method, target, version) = (
        &line[..first],
        &line[first + 1..second],
        &line[second + 1..],
    );
    let method_fits =
        (1..=METHOD_MAX).contains(&method.len()) && method.iter().all(|byte| is_token(*byte));
    let target_fits = !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
    // A lone CR in a line could end it for somebody else.
    if !method_fits || !target_fits || !version.iter().all(u8::is_ascii_graphic) {
        return Err(HttpError::RequestLine);
    }
    // RFC 3986 has no place for them, a fragment is not sent, and others may cut the target there.
    if plain::leading(target, *b"\"<>#", []) < target.len() {
        return Err(HttpError::Target);
    }
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ if version.starts_with(b"HTTP/") => return Err(HttpError::Version),
        _ => return Err(HttpError::RequestLine),
    };
    // Both are of ASCII.
    let text = |part| str::from_utf8(part).map_err(|_| HttpError::RequestLine);
    Ok((text(method)?, text(target)?, is_1_1))
}

/// The name and the value of a line that is a field.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HttpError> {
    let colon = memchr::memchr(b':', line).ok_or(HttpError::Field)?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    // A line that begins with a blank would be a folded one; a blank before the colon hides a name.
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(HttpError::Field);
    }
    if plain::leading(value, [0x7f], [b'\t']) < value.len() {
        return Err(HttpError::Field);
    }
    Ok((name, value))
}

/// Without the blanks around it (RFC 9110, 5.6.3): spaces and tabs, and nothing else that might pass for one.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    trim_end(bytes)
}

/// Without the blanks behind it.
pub(super) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Lines that end in CRLF. A CR within one is left for who reads it to refuse: it has a place nowhere.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], HttpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let line = memchr::memchr(b'\n', self.0).map(|end| self.0.split_at(end));
        match line {
            Some((line, rest)) if line.ends_with(b"\r") => {
                self.0 = &rest[1..];
                Some(Ok(&line[..line.len() - 1]))
            }
            _ => {
                self.0 = &[];
                Some(Err(HttpError::Field))
            }
        }
    }
}

const METHOD_MAX: usize = 32;
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        head: 1000,
        fields: 10,
        body: 100,
    };

    fn parse(text: &str) -> Result<Option<(Head<'_>, usize)>, HttpError> {
        Head::parse(text.as_bytes(), &CAPS)
    }

    #[test]
    fn a_request_is_read_and_what_follows_is_left() {
        let text = "\r\nPOST /RPC2?a=b HTTP/1.1\r\nHost: a\r\nX-Two:  b \t\r\nx-two: c\r\n\
                    Content-Length: 5\r\n\r\nhello";
        let (head, length) = parse(text).unwrap().unwrap();
        assert_eq!(
            (head.method, head.target, head.path()),
            ("POST", "/RPC2?a=b", "/RPC2")
        );
        assert_eq!(&text[length..], "hello");
        assert_eq!(head.values("x-two").collect::<Vec<_>>(), [b"b", b"c"]);
        assert!(head.keep_alive && head.is_1_1 && !head.expects_continue);
        for n in 0..length {
            assert_eq!(parse(&text[..n]), Ok(None), "{n}");
        }
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        let host = "Host: a\r\n";
        for (fields, error) in [
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n",
                HttpError::Length,
            ),
            ("Content-Length: 1, 1\r\n", HttpError::Length),
            ("Content-Length: +1\r\n", HttpError::Length),
            ("Content-Length: 0x1\r\n", HttpError::Length),
            ("Content-Length: \r\n", HttpError::Length),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                HttpError::Length,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                HttpError::Length,
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                HttpError::TransferCoding,
            ),
            ("Transfer-Encoding: xchunked\r\n", HttpError::TransferCoding),
            ("Transfer-Encoding: Chunked\r\n", HttpError::TransferCoding),
            ("Content-Length: 101\r\n", HttpError::BodyTooLarge),
            (
                "Content-Length: 99999999999999999999\r\n",
                HttpError::BodyTooLarge,
            ),
            ("Host: b\r\n", HttpError::Host),
            ("X : y\r\n", HttpError::Field),
            ("X: y\r\n z\r\n", HttpError::Field),
            ("X: y\nZ: a\r\n", HttpError::Field),
            ("X: y\rZ: a\r\n", HttpError::Field),
            ("X: \0\r\n", HttpError::Field),
            ("X: y\r\r\n", HttpError::Field),
            ("X: \x0cy\r\n", HttpError::Field),
            ("Content-Length: 1\x0c\r\n", HttpError::Field),
            ("Transfer-Encoding: chunked\x0c\r\n", HttpError::Field),
            (": y\r\n", HttpError::Field),
            ("X\r\n", HttpError::Field),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{host}{fields}\r\n");
            assert_eq!(parse(&text), Err(error), "{fields:?}");
        }
        for (text, error) in [
            ("GET / HTTP/1.1\r\n\r\n", HttpError::Host),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", HttpError::Version),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            (
                "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
                HttpError::RequestLine,
            ),
            (
                "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
                HttpError::RequestLine,
            ),
            ("GET /\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            (
                "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
                HttpError::RequestLine,
            ),
            ("GET /<b> HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                HttpError::Length,
            ),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn who_speaks_something_else_learns_it_at_once() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"\0\0\0\x05",
            b"{\"",
            b" GET",
            b"G\0",
            &[b'A'; 33],
        ] {
            assert_eq!(
                Head::parse(bytes, &CAPS),
                Err(HttpError::RequestLine),
                "{bytes:?}"
            );
        }
        assert_eq!(Head::parse(b"", &CAPS), Ok(None));
    }

    #[test]
    fn heads_and_fields_have_caps() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(1000));
        assert_eq!(parse(&long), Err(HttpError::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(10));
        assert_eq!(parse(&many), Err(HttpError::HeadTooLarge));
    }

    #[test]
    fn connections_go_on_as_the_version_and_the_field_say() {
        let keeps = |version: &str, field: &str| {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
            parse(&text).unwrap().unwrap().0.keep_alive
        };
        assert!(keeps("1.1", ""));
        assert!(!keeps("1.1", "Connection: Close\r\n"));
        assert!(!keeps("1.1", "Connection: x, close\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "Connection: keep-alive\r\n"));
    }
}
