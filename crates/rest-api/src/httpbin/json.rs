//! JSON as Python's `json.dumps` and Go's `encoding/json` write it, byte for byte.

use std::collections::BTreeMap;

use super::Dialect;

/// A value of JSON. Text is WTF-8, so that the lone surrogates that Python lets through survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is to be written.
    Number(String),
    /// A string.
    Text(Vec<u8>),
    /// An array.
    List(Vec<Value>),
    /// An object, sorted as both languages sort: by code point.
    Object(BTreeMap<Vec<u8>, Value>),
}

/// Writes JSON straight into bytes. Who writes an object gives its names in the order that they are to
/// have.
pub struct Writer {
    out: Vec<u8>,
    dialect: Dialect,
    /// Indented by two, rather than on one line.
    indented: bool,
    depth: usize,
    /// Nothing has been written into the innermost container.
    fresh: bool,
    /// `<`, `>` and `&` as escapes, where a browser may take the answer for HTML.
    guarded: bool,
}

impl Writer {
    /// What an answer is: indented, with a line end.
    pub fn indented(dialect: Dialect) -> Self {
        Self {
            out: Vec::with_capacity(1024),
            dialect,
            indented: true,
            depth: 0,
            fresh: true,
            guarded: false,
        }
    }

    /// One line of a stream. Go escapes what HTML would take for its own there.
    pub fn line(dialect: Dialect) -> Self {
        Self {
            indented: false,
            guarded: dialect == Dialect::Go,
            ..Self::indented(dialect)
        }
    }

    /// Escapes `<`, `>` and `&`: the same JSON, and no HTML.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// Whose JSON it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether it is indented, rather than on one line.
    pub fn is_indented(&self) -> bool {
        self.indented
    }

    /// The bytes, with a line end.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'\n');
        self.out
    }

    /// An object, which `inner` fills by [`Writer::name`] and values.
    pub fn object(&mut self, inner: impl FnOnce(&mut Self)) {
        self.container(b'{', b'}', inner);
    }

    /// An array, which `inner` fills by [`Writer::item`] and values.
    pub fn list(&mut self, inner: impl FnOnce(&mut Self)) {
        self.container(b'[', b']', inner);
    }

    /// The name of a member.
    pub fn name(&mut self, name: &[u8]) {
        self.item();
        self.text(name);
        self.out.push(b':');
        // Only Go's single lines have no space there.
        if self.indented || self.dialect == Dialect::Python {
            self.out.push(b' ');
        }
    }

    /// The place of an array's next value.
    pub fn item(&mut self) {
        if !self.fresh {
            self.out.push(b',');
            if !self.indented && self.dialect == Dialect::Python {
                self.out.push(b' ');
            }
        }
        self.fresh = false;
        if self.indented {
            self.new_line();
        }
    }

    /// A value.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.raw("null"),
            Value::Bool(true) => self.raw("true"),
            Value::Bool(false) => self.raw("false"),
            Value::Number(number) => self.raw(number),
            Value::Text(text) => self.text(text),
            Value::List(values) => self.list(|w| {
                for value in values {
                    w.item();
                    w.value(value);
                }
            }),
            Value::Object(members) => self.object(|w| {
                for (name, value) in members {
                    w.name(name);
                    w.value(value);
                }
            }),
        }
    }

    /// What is JSON already: a number, `true`.
    pub fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A string, of UTF-8 or WTF-8. What is neither is replaced.
    pub fn text(&mut self, text: &[u8]) {
        self.out.push(b'"');
        let mut rest = text;
        let special = self.special();
        loop {
            let is_special = |byte: &u8| SPECIAL[usize::from(*byte)] & special != 0;
            let plain = rest.iter().position(is_special).unwrap_or(rest.len());
            self.out.extend_from_slice(&rest[..plain]);
            rest = &rest[plain..];
            let Some(&byte) = rest.first() else { break };
            if byte < 0x80 {
                self.escape(byte);
                rest = &rest[1..];
            } else {
                let (unit, length) = code_point(rest);
                self.wide(unit);
                rest = &rest[length..];
            }
        }
        self.out.push(b'"');
    }

    /// Which kinds of bytes do not stand for themselves.
    fn special(&self) -> u8 {
        let guarded = if self.guarded { MARKUP } else { 0 };
        let delete = match self.dialect {
            Dialect::Python => DELETE,
            Dialect::Go => 0,
        };
        ALWAYS | guarded | delete
    }

    fn escape(&mut self, byte: u8) {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            12 => b'f',
            _ => return self.unit(u16::from(byte)),
        };
        self.out.extend_from_slice(&[b'\\', short]);
    }

    /// A code point beyond ASCII.
    fn wide(&mut self, point: u32) {
        let char = char::from_u32(point);
        if self.dialect == Dialect::Go {
            match char {
                // JavaScript once took them for line ends.
                Some('\u{2028}' | '\u{2029}') => self.unit(low(point)),
                char => {
                    let mut buffer = [0; 4];
                    let char = char.unwrap_or('\u{fffd}').encode_utf8(&mut buffer);
                    self.out.extend_from_slice(char.as_bytes());
                }
            }
            return;
        }
        match char {
            Some(char) => {
                let mut buffer = [0; 2];
                for unit in char.encode_utf16(&mut buffer) {
                    self.unit(*unit);
                }
            }
            None => self.unit(low(point)),
        }
    }

    fn unit(&mut self, unit: u16) {
        self.out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            self.out.push(HEX[usize::from(unit >> shift & 15)]);
        }
    }

    fn container(&mut self, open: u8, close: u8, inner: impl FnOnce(&mut Self)) {
        self.out.push(open);
        self.depth += 1;
        self.fresh = true;
        inner(self);
        self.depth -= 1;
        if self.indented && !self.fresh {
            self.new_line();
        }
        self.fresh = false;
        self.out.push(close);
    }

    fn new_line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + 2 * self.depth, b' ');
    }
}

/// The code point at the front, and how long it is: WTF-8, and U+FFFD for what is not even that.
fn code_point(text: &[u8]) -> (u32, usize) {
    let length = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let Some(bytes) = text.get(..length) else {
        return (0xfffd, 1);
    };
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(char) = text.chars().next()
    {
        return (u32::from(char), length);
    }
    match *bytes {
        // A lone surrogate.
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf] => (
            0xd000 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f),
            3,
        ),
        _ => (0xfffd, 1),
    }
}

/// The lower 16 bits, of what has no more.
fn low(point: u32) -> u16 {
    u16::try_from(point & 0xffff).unwrap_or_default()
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// What is escaped, or beyond ASCII, in all JSON.
const ALWAYS: u8 = 1;
/// What HTML would take for its own.
const MARKUP: u8 = 2;
const DELETE: u8 = 4;
/// Of what kind each byte is.
const SPECIAL: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        kinds[byte] = match byte {
            0x22 | 0x5c | 0..0x20 | 0x80.. => ALWAYS,
            0x3c | 0x3e | 0x26 => MARKUP,
            0x7f => DELETE,
            _ => 0,
        };
        byte += 1;
    }
    kinds
};

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        let object = |members: &[(&str, Value)]| {
            let members = members.iter().cloned();
            Value::Object(members.map(|(n, v)| (n.as_bytes().to_vec(), v)).collect())
        };
        object(&[
            ("z", Value::List(vec![])),
            ("é", Value::Null),
            ("a", object(&[])),
            (
                "m",
                Value::List(vec![
                    Value::Bool(true),
                    Value::Number("1.5".into()),
                    object(&[(
                        "k",
                        Value::Text(b"<b>&\"\\/\x08\x0c\n\r\t\x01\x7f".to_vec()),
                    )]),
                ]),
            ),
            ("t", Value::Text("\u{2028}😀 \u{fffd}".as_bytes().to_vec())),
        ])
    }

    // Python 3.11: json.dumps(value, sort_keys=True, indent=2) + "\n".
    const PYTHON: &str = r#"{
  "a": {},
  "m": [
    true,
    1.5,
    {
      "k": "<b>&\"\\/\b\f\n\r\t\u0001\u007f"
    }
  ],
  "t": "\u2028\ud83d\ude00 \ufffd",
  "z": [],
  "\u00e9": null
}
"#;

    #[test]
    fn it_is_written_as_python_writes_it() {
        let mut writer = Writer::indented(Dialect::Python);
        writer.value(&sample());
        assert_eq!(String::from_utf8(writer.finish()).unwrap(), PYTHON);
        let mut writer = Writer::line(Dialect::Python);
        writer.value(&sample());
        let line = String::from_utf8(writer.finish()).unwrap();
        assert!(
            line.starts_with(r#"{"a": {}, "m": [true, 1.5, {"k": "#),
            "{line}"
        );
    }

    #[test]
    fn it_is_written_as_go_writes_it() {
        let mut writer = Writer::indented(Dialect::Go);
        writer.value(&sample());
        let expected = PYTHON
            .replace(r"\u007f", "\x7f")
            .replace(r"\ud83d\ude00 \ufffd", "😀 \u{fffd}")
            .replace(r"\u00e9", "é");
        assert_eq!(String::from_utf8(writer.finish()).unwrap(), expected);
        let mut writer = Writer::line(Dialect::Go);
        writer.value(&sample());
        let line = String::from_utf8(writer.finish()).unwrap();
        let start = r#"{"a":{},"m":[true,1.5,{"k":"\u003cb\u003e\u0026\"#;
        assert!(line.starts_with(start), "{line}");
    }

    #[test]
    fn lone_surrogates_and_broken_bytes_do_no_harm() {
        for (dialect, expected) in [
            (Dialect::Python, "\"\\ud800x\\ufffd\\ufffd\"\n"),
            (Dialect::Go, "\"\u{fffd}x\u{fffd}\u{fffd}\"\n"),
        ] {
            let mut writer = Writer::indented(dialect);
            writer.text(b"\xed\xa0\x80x\xff\xe2");
            assert_eq!(String::from_utf8(writer.finish()).unwrap(), expected);
        }
    }
}
