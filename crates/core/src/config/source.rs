//! The text of a configuration file, and the way from a byte in it to a line.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::ConfigError;
use crate::sandbox::hint;

/// A configuration's text and where it came from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    path: Option<PathBuf>,
    text: String,
}

impl Source {
    /// Reads a file of at most 1 MiB.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let fail = |message: String| ConfigError {
            path: Some(path.into()),
            place: None,
            message,
        };
        let unreadable = |e: std::io::Error| {
            fail(format!(
                "cannot be read: {e}{}; name a readable file with --config",
                hint(&e)
            ))
        };
        let mut text = String::new();
        let mut file = File::open(path).map_err(unreadable)?.take(MAX_BYTES + 1);
        file.read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(fail(format!(
                "is larger than {MAX_BYTES} bytes; is it the right file?"
            )));
        }
        Ok(Self {
            path: Some(path.into()),
            text,
        })
    }

    /// A text that is not in a file.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self {
            path: None,
            text: text.into(),
        }
    }

    /// The file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Turns the text into a value, or says where and why it cannot be.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| self.parse_error(&error))
    }

    fn parse_error(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().trim_end().replace('\n', " ");
        match error.span() {
            Some(span) => self.error(&span, message),
            None => ConfigError {
                path: self.path.clone(),
                place: None,
                message,
            },
        }
    }

    /// Turns the text into two values: what stands in the tables of these names, and the rest.
    pub fn parse_apart<T, S>(&self, tables: &[&str]) -> Result<(T, S), ConfigError>
    where
        T: DeserializeOwned,
        S: DeserializeOwned,
    {
        let wrong = |error: toml::de::Error| self.parse_error(&error);
        let mut root = DeTable::parse(&self.text).map_err(wrong)?;
        let mut apart = DeTable::new();
        for &table in tables {
            if let Some((name, value)) = root.get_mut().remove_entry(table) {
                apart.insert(name, value);
            }
        }
        let apart = Spanned::new(root.span(), apart);
        let apart = S::deserialize(Deserializer::from(apart)).map_err(wrong)?;
        let rest = T::deserialize(Deserializer::from(root)).map_err(wrong)?;
        Ok((rest, apart))
    }

    /// An error at a place in the text. A span of `0..0` stands for "not from this text".
    pub fn error(&self, span: &Range<usize>, message: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            place: self.place(span),
            message: message.into(),
        }
    }

    /// Line and column (from 1) of the start of a span.
    pub fn place(&self, span: &Range<usize>) -> Option<(usize, usize)> {
        if *span == (0..0) {
            return None;
        }
        let before = self.text.get(..span.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Some((line, column))
    }

    /// `FILE:LINE` of a span, or what stands for it when it is not from a file.
    pub fn locate(&self, span: &Range<usize>) -> String {
        match (&self.path, self.place(span)) {
            (Some(path), Some((line, _))) => format!("{}:{line}", path.display()),
            (None, Some((line, _))) => format!("line {line}"),
            _ => "built-in default".into(),
        }
    }
}

/// No configuration written by hand comes near this; a device or a log named by mistake does.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its parsing is looked at")]
        grace: super::super::Span,
    }

    #[test]
    fn an_unknown_key_names_line_and_known_keys() {
        let error = Source::from_text("\ngrace = '1s'\ngarce = '1s'\n")
            .parse::<Sample>()
            .unwrap_err();
        assert_eq!(error.place.unwrap().0, 3);
        assert!(
            error.message.contains("garce") && error.message.contains("grace"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_unit_names_line_and_remedy() {
        let error = Source::from_text("grace = '10'")
            .parse::<Sample>()
            .unwrap_err();
        assert_eq!(error.place, Some((1, 9)));
        assert!(error.message.contains("\"30s\""), "{error}");
    }

    #[test]
    fn a_table_apart_keeps_its_places() {
        let source = Source::from_text("[store]\ngrace = '1s'\n");
        let (_, apart): (NoKeys, Apart) = source.parse_apart(&["store", "more"]).unwrap();
        assert!(apart.store.is_some());
        let source = Source::from_text("\n[store]\ngrace = '10'\n");
        let error = source.parse_apart::<NoKeys, Apart>(&["store"]).unwrap_err();
        assert_eq!(error.place, Some((3, 9)));
        let source = Source::from_text("[stroe]\n");
        let error = source.parse_apart::<NoKeys, Apart>(&["store"]).unwrap_err();
        assert_eq!(error.place, Some((1, 2)));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoKeys {}

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Apart {
        store: Option<Sample>,
    }

    #[test]
    fn a_missing_file_says_so() {
        let error = Source::read(Path::new("/nonexistent.toml")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nonexistent.toml: cannot be read"),
            "{error}"
        );
    }
}
