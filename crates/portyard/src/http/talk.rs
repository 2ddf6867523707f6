//! What `--verbose` tells on standard error.

use std::fmt::Write as _;

use hyper::{Method, Version};
use portyard_wire::escape::escape;
use url::Url;

use super::answer::Answer;
use super::site::target;

/// Tells what goes on, or not.
#[derive(Debug, Clone, Copy)]
pub struct Talk {
    /// Whether to.
    pub is_verbose: bool,
}

impl Talk {
    /// One line about what is done.
    pub fn note(self, text: &str) {
        if self.is_verbose {
            eprint_all(&format!("* {text}\n"));
        }
    }

    /// The heads of a request and its answers.
    pub fn exchange(
        self,
        method: &Method,
        url: &Url,
        fields: &[(String, Vec<u8>)],
        answer: &Answer,
    ) {
        if !self.is_verbose {
            return;
        }
        let mut text = String::new();
        if answer.version == Version::HTTP_2 {
            let _ = writeln!(text, "> {method} {} HTTP/2", target(url));
            for (name, value) in fields {
                push_field(&mut text, "> ", name.as_bytes(), value);
            }
        } else {
            push_head(&mut text, "> ", &answer.request);
        }
        text.push_str(">\n");
        for head in &answer.interim {
            push_head(&mut text, "< ", head);
            text.push_str("<\n");
        }
        let _ = writeln!(text, "< {}", status_line(answer));
        for (name, value) in &answer.fields {
            push_field(&mut text, "< ", name.as_bytes(), value);
        }
        text.push_str("<\n");
        eprint_all(&text);
    }
}

/// The first line of an answer.
pub fn status_line(answer: &Answer) -> String {
    let version = match answer.version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    };
    let reason = escape(answer.reason.as_bytes(), LINE_MAX);
    let line = format!("{version} {} {reason}", answer.status.as_u16());
    line.trim_end().into()
}

/// A line `Name: value` that no terminal obeys.
pub fn field_line(name: &[u8], value: &[u8]) -> String {
    let name = escape(name, LINE_MAX);
    format!("{name}: {}", escape(value, LINE_MAX))
}

fn push_head(text: &mut String, mark: &str, head: &[u8]) {
    for (number, line) in head.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.iter().position(|byte| *byte == b':') {
            _ if line.is_empty() => {}
            Some(colon) if number > 0 => {
                push_field(text, mark, &line[..colon], line[colon + 1..].trim_ascii());
            }
            _ => {
                let _ = writeln!(text, "{mark}{}", escape(line, LINE_MAX));
            }
        }
    }
}

/// What is shown is often passed on to others, so it holds nothing that opens anything.
fn push_field(text: &mut String, mark: &str, name: &[u8], value: &[u8]) {
    let value = match name.to_ascii_lowercase().as_slice() {
        b"authorization" | b"proxy-authorization" => {
            let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            [scheme, b" (hidden)"].concat()
        }
        b"cookie" => b"(hidden)".to_vec(),
        b"set-cookie" => {
            let name = value.split(|byte| *byte == b'=').next().unwrap_or_default();
            let rest = value.iter().position(|byte| *byte == b';');
            let rest = rest.map_or(&[][..], |at| &value[at..]);
            [name, b"=(hidden)", rest].concat()
        }
        _ => value.to_vec(),
    };
    let _ = writeln!(text, "{mark}{}", field_line(name, &value));
}

/// If nobody reads standard error, nobody wants to know.
fn eprint_all(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

const LINE_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut text = String::new();
        let head = b"GET /a:b HTTP/1.1\r\nHost: h:1\r\nAuthorization: Basic c2VjcmV0\r\n\
                     cookie: a=secret\r\nSet-Cookie: a=secret; Path=/\r\n\r\n";
        push_head(&mut text, "> ", head);
        assert!(!text.contains("secret") && !text.contains("c2Vj"), "{text}");
        assert!(text.contains("> Authorization: Basic (hidden)\n"), "{text}");
        assert!(
            text.contains("> Set-Cookie: a=(hidden); Path=/\n"),
            "{text}"
        );
        assert!(text.contains("> Host: h:1\n"), "{text}");
    }
}
