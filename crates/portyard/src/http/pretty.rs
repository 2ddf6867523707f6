//! Text for a terminal: JSON with its lines, and no character that a terminal obeys.

use std::fmt::Write as _;

use serde::de::IgnoredAny;

/// The same JSON with a line for each value; order, numbers and repeated names stay as they are.
/// `None`: it is none, or too deep for serde_json (128).
pub fn json(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut all = text.chars().peekable();
    while let Some(char) = all.next() {
        if quoted {
            out.push(char);
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match char {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                out.push(char);
                while all.next_if(|next| BLANKS.contains(next)).is_some() {}
                if let Some(end) = all.next_if(|next| ['}', ']'].contains(next)) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                quoted = true;
                out.push(char);
            }
            other => out.push(other),
        }
    }
    out.push('\n');
    Some(out)
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Spells out what a terminal would obey, in a text that comes in pieces.
#[derive(Debug, Default)]
pub struct Screen {
    /// The beginning of a character, whose end has not come.
    rest: Vec<u8>,
}

impl Screen {
    /// What may be shown of these bytes.
    pub fn show(&mut self, bytes: &[u8]) -> String {
        let all = [&std::mem::take(&mut self.rest)[..], bytes].concat();
        let mut out = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for char in chunk.valid().chars() {
                push(&mut out, char);
            }
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(invalid) {
                self.rest = invalid.to_vec();
            } else {
                spell(&mut out, invalid);
            }
        }
        out
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        spell(&mut out, &std::mem::take(&mut self.rest));
        out
    }
}

fn push(out: &mut String, char: char) {
    match char {
        '\n' | '\t' => out.push(char),
        // Of a line end.
        '\r' => {}
        // What turns text around is as good as a lie.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
        }
        _ if char.is_control() => {
            let _ = write!(out, "\\x{:02x}", u32::from(char));
        }
        _ => out.push(char),
    }
}

fn spell(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// Whether more bytes may make a character of it.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Whether it looks like something that is not for people to read.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_order_numbers_and_strings() {
        let text = r#"{"b":1.50,"a":[ ],"c":[1,{"d":"x, {\"y\": [z]}"}],"b":{ }}"#;
        let pretty = "{\n  \"b\": 1.50,\n  \"a\": [],\n  \"c\": [\n    1,\n    {\n      \
                      \"d\": \"x, {\\\"y\\\": [z]}\"\n    }\n  ],\n  \"b\": {}\n}\n";
        assert_eq!(json(text).unwrap(), pretty);
        assert_eq!(json(pretty).unwrap(), pretty);
        assert_eq!(json("1e400").as_deref(), Some("1e400\n"));
    }

    #[test]
    fn what_is_no_json_stays_as_it_is() {
        for text in ["", "{", "[1,]", "x", "{}{}"] {
            assert_eq!(json(text), None, "{text}");
        }
        assert_eq!(json(&"[".repeat(100_000)), None);
    }

    #[test]
    fn no_terminal_obeys_what_is_shown() {
        let mut screen = Screen::default();
        let shown = screen.show(b"a\x1b[2J\r\n\tb\x07\xff \xe2\x80\xae");
        assert_eq!(shown, "a\\x1b[2J\n\tb\\x07\\xff \\u{202e}");
    }

    #[test]
    fn a_character_may_come_in_pieces() {
        let mut screen = Screen::default();
        let mut shown = String::new();
        for byte in "h\u{e9}\u{20ac}".as_bytes() {
            shown.push_str(&screen.show(&[*byte]));
        }
        shown.push_str(&screen.show(b"\xe2\x82"));
        shown.push_str(&screen.finish());
        assert_eq!(shown, "h\u{e9}\u{20ac}\\xe2\\x82");
    }
}
