//! Words that a person types, and what values they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::jsonrpc::{Caps, json};
use portyard_wire::value::Value;

use super::Style;

/// A key: text, or JSON with --json-key.
pub fn key(word: &str, style: Style) -> Result<Value, Fatal> {
    if style.json_key {
        return decoded(word).map_err(|error| {
            let message = format!("the key is no JSON: {error} (--json-key)");
            Fatal::new(Exit::Usage, message)
        });
    }
    Ok(Value::from(word))
}

/// A value: JSON if it is JSON, else text.
pub fn value(word: &str, style: Style) -> Result<Value, Fatal> {
    if style.text {
        return Ok(Value::from(word));
    }
    match decoded(word) {
        Ok(value) => Ok(value),
        Err(error) if style.json => Err(Fatal::new(
            Exit::Usage,
            format!("the value is no JSON: {error} (--json)"),
        )),
        Err(_) => Ok(Value::from(word)),
    }
}

/// The bytes of a file, `-` for standard input; text with --text, JSON with --json.
pub fn contents(path: &Path, style: Style) -> Result<Value, Fatal> {
    let shown = path.display();
    let unreadable =
        |error: io::Error| Fatal::new(Exit::Io, format!("cannot read {shown}: {error}"));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
    };
    if read.map_err(unreadable)? as u64 > FILE_MAX {
        let message = format!("{shown} has more than {FILE_MAX} bytes, and no value is so large");
        return Err(Fatal::new(Exit::Usage, message));
    }
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes)
            .map_err(|_| Fatal::new(Exit::Usage, format!("{shown} is no UTF-8 text (--text)")))
    };
    if style.text {
        text(bytes).map(Value::String)
    } else if style.json {
        value(&text(bytes)?, style)
    } else {
        Ok(Value::Bytes(bytes))
    }
}

/// The words of a line, as a shell has them: blanks separate, quotes keep together, and a backslash
/// outside of single quotes takes what follows as it is. A word that begins as a list or an object
/// of JSON goes to its end, without quotes around it. Also where the last word begins.
pub fn split(line: &str) -> Result<(Vec<String>, usize), &'static str> {
    let (mut words, mut rest, mut begin) = (Vec::new(), line, line.len());
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok((words, begin));
        }
        begin = line.len() - rest.len();
        let (word, behind) = match json_word(rest) {
            Some(length) => {
                let (word, behind) = rest.split_at(length);
                (word.to_owned(), behind)
            }
            None => shell_word(rest)?,
        };
        words.push(word);
        rest = behind;
        if rest.starts_with(char::is_whitespace) {
            // A word is over, and the next may be empty so far.
            begin = line.len();
        }
    }
}

/// How long the JSON is that a word begins with, when it ends where a word may end.
fn json_word(rest: &str) -> Option<usize> {
    if !rest.starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    let length = values.byte_offset();
    let behind = &rest[length..];
    (behind.is_empty() || behind.starts_with(char::is_whitespace)).then_some(length)
}

fn shell_word(rest: &str) -> Result<(String, &str), &'static str> {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return Ok((word, &rest[at..])),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let (_, next) = chars.next().ok_or("nothing follows the backslash")?;
                word.push(next);
            }
            (_, c) => word.push(c),
        }
    }
    match quote {
        None => Ok((word, "")),
        Some(_) => Err("a quote is not closed"),
    }
}

fn decoded(word: &str) -> Result<Value, json::JsonError> {
    let caps = Caps {
        size: usize::MAX,
        batch: 0,
    };
    json::decode(word.as_bytes(), &caps)
}

/// Four times what kv-rpc takes by default.
const FILE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_json_if_it_can_be() {
        let plain = Style::default();
        for (word, expected) in [
            ("5", Value::Int(5)),
            ("5.0", Value::Double(5.0)),
            ("null", Value::Nil),
            ("\"5\"", Value::from("5")),
            ("[1]", Value::List(vec![Value::Int(1)])),
            ("{\"$bytes\":\"AA==\"}", Value::Bytes(vec![0])),
            ("hello", Value::from("hello")),
            ("[1", Value::from("[1")),
            ("", Value::from("")),
        ] {
            assert_eq!(value(word, plain).unwrap(), expected, "{word}");
        }
        let text = Style {
            text: true,
            ..plain
        };
        assert_eq!(value("5", text).unwrap(), Value::from("5"));
        let json = Style {
            json: true,
            ..plain
        };
        assert!(value("hello", json).is_err());
        assert_eq!(key("5", plain).unwrap(), Value::from("5"));
        let json_key = Style {
            json_key: true,
            ..plain
        };
        assert_eq!(key("5", json_key).unwrap(), Value::Int(5));
    }

    #[test]
    fn lines_are_split_as_a_shell_does_and_json_stays_whole() {
        for (line, expected, begin) in [
            ("", &[][..], 0),
            ("get a", &["get", "a"], 4),
            ("get a ", &["get", "a"], 6),
            ("  get\t'a b'", &["get", "a b"], 6),
            (r#"set "a\"b" 'c\d'"#, &["set", "a\"b", "c\\d"], 11),
            (
                r#"set a {"b": [1, 2]} --x"#,
                &["set", "a", r#"{"b": [1, 2]}"#, "--x"],
                20,
            ),
            ("set a [1, 2]x", &["set", "a", "[1,", "2]x"], 10),
            ("set a ''", &["set", "a", ""], 6),
        ] {
            let expected = expected.iter().map(|&word| word.into()).collect();
            assert_eq!(split(line), Ok((expected, begin)), "{line}");
        }
        assert!(split("get 'a").is_err());
        assert!(split("get \\").is_err());
    }
}
