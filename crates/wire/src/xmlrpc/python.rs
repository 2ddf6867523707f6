//! How Python prints.

use std::fmt::{Display, Write as _};

/// `repr(text)`: in single quotes, or in double quotes when it holds single ones only; what cannot
/// be printed as `\n`, `\x1b` or `\u200b`.
pub fn python_repr(text: &str) -> String {
    repr_of_at_most(usize::MAX, text)
}

/// The first `max` characters of it.
pub(super) fn repr_of_at_most(max: usize, text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut repr = String::with_capacity(text.len().min(max) + 2);
    repr.push(quote);
    // Each character takes one of the result at least.
    for c in text.chars().take(max) {
        match c {
            '\\' => repr.push_str("\\\\"),
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            ' '..='~' if c == quote => {
                repr.push('\\');
                repr.push(c);
            }
            ' '..='~' => repr.push(c),
            _ if is_printable(c) => repr.push(c),
            _ => {
                let _ = match u32::from(c) {
                    code @ ..0x100 => write!(repr, "\\x{code:02x}"),
                    code @ 0x100..0x10000 => write!(repr, "\\u{code:04x}"),
                    code => write!(repr, "\\U{code:08x}"),
                };
            }
        }
    }
    repr.push(quote);
    if let Some((end, _)) = repr.char_indices().nth(max) {
        repr.truncate(end);
    }
    repr
}

/// `str(class):str(exception)`, as Python's server reports what a method raises.
pub(super) fn class(name: &str, text: impl Display) -> String {
    format!("<class '{name}'>:{text}")
}

/// `repr(value)`: the shortest digits that give the same double, with an exponent when it is below
/// -4 or above 15.
pub(super) fn write_float(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("nan");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "inf" } else { "-inf" });
        return;
    }
    let magnitude = value.abs();
    let _ = if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        write!(out, "{digits}e{sign}{exponent:0>2}")
    } else {
        // The debug form ends with .0 where the number is whole.
        write!(out, "{value:?}")
    };
}

/// What `str.isprintable` says. The standard library asks the same of a character before it prints
/// it in a string, and escapes besides those that change the one before them, at the beginning only.
fn is_printable(c: char) -> bool {
    let mut buffer = [b'a'; 5];
    let len = 1 + c.encode_utf8(&mut buffer[1..]).len();
    let text = str::from_utf8(&buffer[..len]).unwrap_or_default();
    !text.escape_debug().any(|c| c == '\\')
}

/// How much of a text an error shows, where Python shows all of it.
pub(super) const SHOWN_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: f64) -> String {
        let mut out = String::new();
        write_float(value, &mut out);
        out
    }

    #[test]
    fn texts_are_quoted_as_by_python() {
        // Each printed by Python 3.11: print(repr(text)).
        for (text, repr) in [
            ("nokey", "'nokey'"),
            ("", "''"),
            ("it's", "\"it's\""),
            ("say \"hi\"", "'say \"hi\"'"),
            ("it's \"it\"", "'it\\'s \"it\"'"),
            ("a\\b\n\r\t\0", "'a\\\\b\\n\\r\\t\\x00'"),
            ("\u{7f}\u{a0}\u{ad}", "'\\x7f\\xa0\\xad'"),
            ("äß€\u{200b}\u{2028}\u{feff}", "'äß€\\u200b\\u2028\\ufeff'"),
            (
                "e\u{301}\u{301} 🦀\u{10ffff}",
                "'e\u{301}\u{301} 🦀\\U0010ffff'",
            ),
            ("\u{e000}\u{378}", "'\\ue000\\u0378'"),
        ] {
            assert_eq!(python_repr(text), repr);
        }
    }

    #[test]
    fn doubles_are_printed_as_by_python() {
        // Each printed by Python 3.11: print(repr(value)).
        for (value, repr) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.000_099_999, "9.9999e-05"),
            (1e15, "1000000000000000.0"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (1e300, "1e+300"),
            (5e-324, "5e-324"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (-f64::NAN, "nan"),
        ] {
            assert_eq!(float(value), repr);
        }
    }
}
