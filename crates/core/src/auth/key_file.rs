//! The file of named keys.
//!
//! A line is a key: `NAME:base64:BYTES` or `NAME:text:WORDS`; empty lines and lines that begin with
//! `#` are skipped. All keys are accepted; the first is the one that a client proves with. So a key
//! is replaced by adding the new one at both ends, moving it to the front at the clients, and taking
//! the old one out.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portyard_wire::auth::{Key, Secret};
use portyard_wire::escape::escape;

use crate::files::{FileError, FilePlace, Links};

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read as a secret.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not a key.
    #[error("{place}:{line}: {why}")]
    Line {
        /// The file.
        place: FilePlace,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what to do.
        why: String,
    },
    /// There is none in it.
    #[error("{0} holds no key; make one with 'portyard keygen'")]
    Empty(FilePlace),
}

/// Reads the keys of a file, at most [`KEYS_MAX`] in at most [`FILE_MAX`] bytes. The file must be one
/// that nobody else can read, and no symbolic link.
pub fn read_keys(place: &FilePlace) -> Result<Vec<Key>, KeyFileError> {
    let bytes = place.read_secret(Links::Refused, FILE_MAX)?;
    parse(&bytes).map_err(|(line, why)| match line {
        0 => KeyFileError::Empty(place.clone()),
        line => KeyFileError::Line {
            place: place.clone(),
            line,
            why,
        },
    })
}

/// The line of a key file for these bytes.
pub fn key_line(name: &str, bytes: &[u8]) -> String {
    format!("{name}:base64:{}", STANDARD.encode(bytes))
}

/// Whether a text can name a key: 1 to 64 letters, digits, dots, dashes and underscores.
pub fn is_key_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Line 0 stands for the whole file.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, (usize, String)> {
    let mut keys = Vec::new();
    let mut names = HashSet::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        let key = parse_line(line).map_err(|why| (number + 1, why))?;
        if !names.insert(key.name().clone()) {
            return Err((number + 1, format!("a second key is named {}", key.name())));
        }
        if keys.len() == KEYS_MAX {
            return Err((number + 1, format!("more than {KEYS_MAX} keys")));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err((0, String::new()));
    }
    Ok(keys)
}

/// No message shows what may be a part of a key.
fn parse_line(line: &[u8]) -> Result<Key, String> {
    let form = "write NAME:base64:BYTES or NAME:text:WORDS";
    let mut parts = line.splitn(3, |byte| *byte == b':');
    let (Some(name), Some(coding), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("this is not a key; {form}"));
    };
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| is_key_name(name))
        .ok_or_else(|| {
            let shown = escape(name, NAME_MAX);
            format!("'{shown}' cannot name a key; use up to {NAME_MAX} of A-Z a-z 0-9 . _ -")
        })?;
    let bytes = match coding {
        b"text" => value.to_vec(),
        b"base64" => STANDARD
            .decode(value.trim_ascii())
            .map_err(|_| format!("the key of {name} is not base64"))?,
        _ => {
            return Err(format!(
                "the key of {name} is neither base64 nor text; {form}"
            ));
        }
    };
    if bytes.len() > KEY_MAX {
        return Err(format!("the key of {name} is longer than {KEY_MAX} bytes"));
    }
    let secret = Secret::new(bytes).map_err(|error| format!("{name}: {error}"))?;
    Ok(Key::new(name, secret))
}

/// The largest key file.
pub const FILE_MAX: u64 = 64 << 10;
/// The most keys in a file: each is tried for every proof.
pub const KEYS_MAX: usize = 64;
const NAME_MAX: usize = 64;
const KEY_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let keys = parse(text.as_bytes()).unwrap();
        keys.iter().map(|key| key.name().to_string()).collect()
    }

    #[test]
    fn keys_are_read_in_their_order() {
        let text = "# old and new\nnew:base64:c2VjcmV0\n\nold:text:two words: and more\r\n";
        assert_eq!(names(text), ["new", "old"]);
        assert_eq!(names(&key_line("a.b-c_1", b"\0\xff")), ["a.b-c_1"]);
    }

    #[test]
    fn a_wrong_line_is_named_and_no_key_is_shown() {
        for (text, line) in [
            ("", 0),
            ("# nothing\n", 0),
            ("canary", 1),
            ("\na b:text:canary", 2),
            (":text:canary", 1),
            ("a:base64:canary!", 1),
            ("a:hex:canary", 1),
            ("a:text:", 1),
            ("a:text:canary\na:text:canary", 2),
        ] {
            let (at, why) = parse(text.as_bytes()).unwrap_err();
            assert_eq!(at, line, "{text:?}");
            assert!(!why.contains("canary"), "{why}");
        }
    }

    #[test]
    fn counts_and_lengths_are_capped() {
        let many = |count: usize| {
            (0..count).fold(String::new(), |text, n| text + &format!("k{n}:text:x\n"))
        };
        assert_eq!(parse(many(KEYS_MAX).as_bytes()).unwrap().len(), KEYS_MAX);
        assert!(parse(many(KEYS_MAX + 1).as_bytes()).is_err());
        let long = |length: usize| format!("k:text:{}", "x".repeat(length));
        assert!(parse(long(KEY_MAX).as_bytes()).is_ok());
        assert!(parse(long(KEY_MAX + 1).as_bytes()).is_err());
    }
}
