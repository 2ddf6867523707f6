//! JSON as Python's `json.loads` and Go's `json.Decoder` read it.

use super::Dialect;
use super::json::Value;

/// Reads a document, or says what is wrong with it. Python wants nothing behind it, and takes `NaN`
/// and `Infinity`; Go reads the first value and leaves the rest.
pub fn loads(text: &[u8], dialect: Dialect) -> Result<Value, &'static str> {
    let mut reader = Reader {
        text,
        at: 0,
        dialect,
    };
    if dialect == Dialect::Python && std::str::from_utf8(text).is_err() {
        return Err("the text is not UTF-8");
    }
    let value = reader.value(0)?;
    reader.space();
    if dialect == Dialect::Python && reader.at < text.len() {
        return Err("there is more behind the value");
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
}

impl Reader<'_> {
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.text[self.at..].starts_with(word.as_bytes());
        if is_next {
            self.at += word.len();
        }
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Value, &'static str> {
        if depth > DEPTH_MAX {
            return Err("the values are nested too deeply");
        }
        self.space();
        match self.peek() {
            Some(b'"') => self.text().map(Value::Text),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("null") => Ok(Value::Null),
            _ if self.take("true") => Ok(Value::Bool(true)),
            _ if self.take("false") => Ok(Value::Bool(false)),
            _ if self.dialect == Dialect::Python && self.take("NaN") => number("NaN"),
            _ if self.dialect == Dialect::Python && self.take("Infinity") => number("Infinity"),
            Some(_) => Err("no value begins so"),
            None => Err("the text ends where a value should be"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, &'static str> {
        self.at += 1;
        let mut members = std::collections::BTreeMap::new();
        self.space();
        if self.take("}") {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err("a name in an object must be a string");
            }
            let name = self.text()?;
            self.space();
            if !self.take(":") {
                return Err("a name in an object lacks its colon");
            }
            let value = self.value(depth + 1)?;
            members.insert(name, value);
            self.space();
            match () {
                () if self.take(",") => {}
                () if self.take("}") => return Ok(Value::Object(members)),
                () => return Err("an object does not go on with a comma or end"),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, &'static str> {
        self.at += 1;
        let mut values = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Value::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.space();
            match () {
                () if self.take(",") => {}
                () if self.take("]") => return Ok(Value::List(values)),
                () => return Err("an array does not go on with a comma or end"),
            }
        }
    }

    /// A string, as WTF-8.
    fn text(&mut self) -> Result<Vec<u8>, &'static str> {
        self.at += 1;
        let mut out = Vec::new();
        let mut high = None;
        loop {
            let byte = self.peek().ok_or("a string does not end")?;
            self.at += 1;
            let point = match byte {
                b'"' => {
                    flush(&mut out, high.take());
                    return Ok(out);
                }
                b'\\' => self.escape()?,
                0..0x20 => return Err("a control character stands in a string"),
                byte => {
                    flush(&mut out, high.take());
                    out.push(byte);
                    continue;
                }
            };
            match (high.take(), point) {
                (Some(high), 0xdc00..=0xdfff) => {
                    push(
                        &mut out,
                        0x1_0000 + ((high - 0xd800) << 10) + (point - 0xdc00),
                    );
                }
                (before, 0xd800..=0xdbff) => {
                    flush(&mut out, before);
                    high = Some(point);
                }
                (before, point) => {
                    flush(&mut out, before);
                    push(&mut out, point);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<u32, &'static str> {
        let byte = self.peek().ok_or("a string does not end")?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => u32::from(byte),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4);
                let digits = digits.ok_or("a string does not end")?;
                self.at += 4;
                digits.iter().try_fold(0, |sum, digit| {
                    let digit = (*digit as char).to_digit(16);
                    digit
                        .map(|digit| sum * 16 + digit)
                        .ok_or("an escape is not of four digits")
                })?
            }
            _ => return Err("there is no such escape"),
        })
    }

    fn number(&mut self) -> Result<Value, &'static str> {
        let start = self.at;
        self.take("-");
        if self.dialect == Dialect::Python && self.take("Infinity") {
            return number("-Infinity");
        }
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while matches!(reader.peek(), Some(b'0'..=b'9')) {
                reader.at += 1;
            }
            reader.at - from
        };
        if !self.take("0") && digits(self) == 0 {
            return Err("a number has no digits");
        }
        let whole = self.at - start;
        let before = self.at;
        if self.take(".") && digits(self) == 0 {
            return self.no_fraction(before, start);
        }
        let before = self.at;
        if self.take("e") || self.take("E") {
            let _ = self.take("+") || self.take("-");
            if digits(self) == 0 {
                return self.no_fraction(before, start);
            }
        }
        let text = self.slice(start);
        let is_integer = self.at - start == whole;
        match self.dialect {
            Dialect::Python if is_integer => {
                if text.len() > DIGITS_MAX {
                    return Err("an integer has too many digits");
                }
                number(if text == "-0" { "0" } else { text })
            }
            Dialect::Python => Ok(Value::Number(python_float(
                text.parse().unwrap_or(f64::NAN),
            ))),
            Dialect::Go => {
                let float: f64 = text.parse().unwrap_or(f64::NAN);
                if !float.is_finite() {
                    return Err("a number is too large");
                }
                Ok(Value::Number(go_float(float)))
            }
        }
    }

    /// Python ends the number before what does not belong to it; Go does not have it.
    fn no_fraction(&mut self, end: usize, start: usize) -> Result<Value, &'static str> {
        if self.dialect == Dialect::Go {
            return Err("a number breaks off");
        }
        self.at = end;
        let text = self.slice(start);
        if text.contains(['.', 'e', 'E']) {
            Ok(Value::Number(python_float(
                text.parse().unwrap_or(f64::NAN),
            )))
        } else {
            number(text)
        }
    }

    fn slice(&self, start: usize) -> &str {
        // A number is of ASCII alone.
        std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default()
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the last expression of what may fail"
)]
fn number(text: &str) -> Result<Value, &'static str> {
    Ok(Value::Number(text.into()))
}

fn flush(out: &mut Vec<u8>, high: Option<u32>) {
    if let Some(high) = high {
        push(out, high);
    }
}

/// Appends a code point, a surrogate too.
fn push(out: &mut Vec<u8>, point: u32) {
    if let Some(char) = char::from_u32(point) {
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let byte = |bits: u32| u8::try_from(0x80 | (bits & 0x3f)).unwrap_or_default();
        out.extend_from_slice(&[0xed, byte(point >> 6), byte(point)]);
    }
}

/// A float as Python's `repr` writes it: the shortest digits that lead back to it.
pub fn python_float(float: f64) -> String {
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let (sign, digits, exponent) = decompose(float);
    if (-4..16).contains(&exponent) {
        let text = plain(&digits, exponent);
        let point = if text.contains('.') { "" } else { ".0" };
        return format!("{sign}{text}{point}");
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let mark = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{mark}{:02}", exponent.abs())
}

/// A float as Go's `encoding/json` writes it.
fn go_float(float: f64) -> String {
    let (sign, digits, exponent) = decompose(float);
    let magnitude = float.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        return format!("{sign}{}", plain(&digits, exponent));
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    if exponent < 0 {
        // The zero in front of one digit is dropped there, but not behind `+`.
        return format!("{sign}{first}{point}{rest}e{exponent}");
    }
    format!("{sign}{first}{point}{rest}e+{exponent:02}")
}

/// Sign, shortest digits, and the exponent of the first.
fn decompose(float: f64) -> (&'static str, String, i32) {
    let text = format!("{:e}", float.abs());
    // Rust writes every finite float so.
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if float.is_sign_negative() { "-" } else { "" };
    (
        sign,
        digits.replace('.', ""),
        exponent.parse().unwrap_or_default(),
    )
}

fn plain(digits: &str, exponent: i32) -> String {
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let places = |count: i32| usize::try_from(count).unwrap_or_default();
    if exponent < 0 {
        format!("0.{}{digits}", "0".repeat(places(-exponent - 1)))
    } else if exponent + 1 >= length {
        format!("{digits}{}", "0".repeat(places(exponent + 1 - length)))
    } else {
        let (whole, rest) = digits.split_at(places(exponent + 1));
        format!("{whole}.{rest}")
    }
}

/// How deeply values may be nested. Python gives up at about a thousand.
const DEPTH_MAX: usize = 512;
/// The longest integer that Python reads (`sys.int_info.default_max_str_digits`).
const DIGITS_MAX: usize = 4300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::httpbin::json::Writer;

    fn again(text: &str, dialect: Dialect) -> Option<String> {
        let value = loads(text.as_bytes(), dialect).ok()?;
        let mut writer = Writer::line(dialect);
        writer.value(&value);
        Some(
            String::from_utf8(writer.finish())
                .unwrap()
                .trim_end()
                .into(),
        )
    }

    // Python 3.11: json.dumps(json.loads(text), sort_keys=True).
    #[test]
    fn numbers_come_back_as_python_has_them() {
        for (text, expected) in [
            ("1", "1"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1.0", "1.0"),
            ("1.10", "1.1"),
            ("1e5", "100000.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("123456789012345678.0", "1.2345678901234568e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1E400", "Infinity"),
            ("-1e400", "-Infinity"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("[NaN, Infinity, -Infinity]", "[NaN, Infinity, -Infinity]"),
        ] {
            assert_eq!(
                again(text, Dialect::Python).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        let long = "9".repeat(4300);
        assert_eq!(again(&long, Dialect::Python), Some(long.clone()));
        assert_eq!(again(&format!("{long}9"), Dialect::Python), None);
    }

    #[test]
    fn what_python_does_not_read_is_refused() {
        for text in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "-",
            "nul",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
            "1 2",
            "\u{feff}1",
            "[",
            "{",
            "{\"a\":",
            "-Inf",
        ] {
            assert_eq!(again(text, Dialect::Python), None, "{text:?}");
        }
        assert!(loads(b"\"\xff\"", Dialect::Python).is_err());
        let deep = "[".repeat(100_000);
        assert!(loads(deep.as_bytes(), Dialect::Python).is_err());
        assert!(loads(deep.as_bytes(), Dialect::Go).is_err());
    }

    #[test]
    fn strings_keep_their_surrogates_and_the_last_of_equal_names_counts() {
        for (text, expected) in [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ud83d""#),
            (r#""\ud83dx\ude00""#, r#""\ud83dx\ude00""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ud83d\ud83d\ude00""#),
            (r#""\u0041\/\b""#, r#""A/\b""#),
            (r#"{"b":1,"a":2,"b":[]}"#, r#"{"a": 2, "b": []}"#),
        ] {
            assert_eq!(
                again(text, Dialect::Python).as_deref(),
                Some(expected),
                "{text}"
            );
        }
    }

    // Go 1.27: json.NewDecoder(text).Decode(&any), then json.Marshal.
    #[test]
    fn go_has_floats_alone_and_reads_one_value() {
        for (text, expected) in [
            ("1.0 trailing", "1"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("100000000000000000000", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("0.0000001", "1e-7"),
            ("0.000001", "0.000001"),
            ("-0", "-0"),
            (r#"{"b":1,"a":"<"}"#, r#"{"a":"\u003c","b":1}"#),
        ] {
            assert_eq!(
                again(text, Dialect::Go).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        for text in ["NaN", "1e999", "1.", "foo"] {
            assert_eq!(again(text, Dialect::Go), None, "{text}");
        }
    }
}
