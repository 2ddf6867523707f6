//! The items of a command line that make up a request, as httpie spells them.

use std::path::PathBuf;
use std::str::FromStr;

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `Name:value`; without a value the field is not sent even if it is by default. `Name;` sends it
    /// empty.
    Header {
        /// As it was spelled.
        name: String,
        /// `None`: the field is left out.
        value: Option<Text>,
    },
    /// `name==value`, added to the URL.
    Query {
        /// The parameter.
        name: String,
        /// Its value.
        value: Text,
    },
    /// `name=value`: a string of a JSON object, or a field of a form.
    Field {
        /// The field.
        name: String,
        /// Its value.
        value: Text,
    },
    /// `name:=json`: any JSON value.
    Json {
        /// The member.
        name: String,
        /// Its value as JSON text.
        value: Text,
    },
    /// `name@path`: a file of a form.
    File {
        /// The field.
        name: String,
        /// Where the file is.
        path: PathBuf,
        /// What the server is told that it is called, if not the last part of the path.
        filename: Option<String>,
        /// Its type, if not the one that its name suggests.
        content_type: Option<String>,
    },
}

/// Text of the command line, or of a file that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// As it stands there.
    Given(String),
    /// The text of this file.
    OfFile(PathBuf),
}

/// Why a text is no item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Nothing in it says what it is.
    #[error(
        "'{0}' is no item: write Name:value for a header field, name==value for a query parameter, \
         name=value or name:=json for data, name@path for a file"
    )]
    Unclear(String),
    /// It has no name.
    #[error("'{0}' has no name before its {1}")]
    NoName(String, &'static str),
    /// A file is to be read, but not which.
    #[error("'{0}' names no file after its @")]
    NoFile(String),
}

/// The longer of those that begin alike come first.
const SEPARATORS: [&str; 10] = [":=@", "==@", "=@", ":=", "==", ":@", "@", "=", ":", ";"];

impl FromStr for Item {
    type Err = ItemError;

    fn from_str(text: &str) -> Result<Self, ItemError> {
        let (name, separator, rest) = split(text)?;
        if name.is_empty() {
            return Err(ItemError::NoName(text.into(), separator));
        }
        let of_file = || match rest {
            "" => Err(ItemError::NoFile(text.into())),
            path => Ok(Text::OfFile(path.into())),
        };
        let given = || Text::Given(rest.into());
        Ok(match separator {
            ":=@" => Self::Json {
                name,
                value: of_file()?,
            },
            "==@" => Self::Query {
                name,
                value: of_file()?,
            },
            "=@" => Self::Field {
                name,
                value: of_file()?,
            },
            ":@" => Self::Header {
                name,
                value: Some(of_file()?),
            },
            ":=" => Self::Json {
                name,
                value: given(),
            },
            "==" => Self::Query {
                name,
                value: given(),
            },
            "=" => Self::Field {
                name,
                value: given(),
            },
            "@" => file(text, name, rest)?,
            ";" if rest.is_empty() => Self::Header {
                name,
                value: Some(given()),
            },
            ";" => return Err(ItemError::Unclear(text.into())),
            _ => Self::Header {
                name,
                value: (!rest.trim().is_empty()).then(|| Text::Given(rest.trim().into())),
            },
        })
    }
}

/// The name, the separator that comes first, and what follows. A backslash before a character of a
/// separator makes it one of the name.
fn split(text: &str) -> Result<(String, &'static str, &str), ItemError> {
    let mut name = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        if char == '\\' {
            let next = rest[1..].chars().next();
            if let Some(next) = next.filter(|next| ":=@;\\".contains(*next)) {
                name.push(next);
                rest = &rest[2..];
                continue;
            }
        }
        if let Some(separator) = SEPARATORS.iter().find(|s| rest.starts_with(**s)) {
            return Ok((name, separator, &rest[separator.len()..]));
        }
        name.push(char);
        rest = &rest[char.len_utf8()..];
    }
    Err(ItemError::Unclear(text.into()))
}

fn file(text: &str, name: String, rest: &str) -> Result<Item, ItemError> {
    let (mut path, mut filename, mut content_type) = (rest, None, None);
    while let Some((before, parameter)) = path.rsplit_once(';') {
        match parameter.split_once('=') {
            Some(("type", value)) => content_type = Some(value.into()),
            Some(("filename", value)) => filename = Some(value.into()),
            // A path may hold a semicolon itself.
            _ => break,
        }
        path = before;
    }
    if path.is_empty() {
        return Err(ItemError::NoFile(text.into()));
    }
    Ok(Item::File {
        name,
        path: path.into(),
        filename,
        content_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        text.parse().unwrap()
    }

    fn given(text: &str) -> Text {
        Text::Given(text.into())
    }

    #[test]
    fn the_first_separator_decides() {
        let header = |name: &str, value: Option<&str>| Item::Header {
            name: name.into(),
            value: value.map(given),
        };
        assert_eq!(
            item("Authorization: Bearer a=b"),
            header("Authorization", Some("Bearer a=b"))
        );
        assert_eq!(item("Accept:"), header("Accept", None));
        assert_eq!(item("X-Empty;"), header("X-Empty", Some("")));
        let query = Item::Query {
            name: "to".into(),
            value: given("http://x/?a=b"),
        };
        assert_eq!(item("to==http://x/?a=b"), query);
        let field = Item::Field {
            name: "mail".into(),
            value: given("me@example.org"),
        };
        assert_eq!(item("mail=me@example.org"), field);
        let json = Item::Json {
            name: "on".into(),
            value: given("true"),
        };
        assert_eq!(item("on:=true"), json);
    }

    #[test]
    fn values_may_be_in_files() {
        let of = |text: &str| match item(text) {
            Item::Header { value, .. } => value.unwrap(),
            Item::Query { value, .. } | Item::Field { value, .. } | Item::Json { value, .. } => {
                value
            }
            Item::File { .. } => panic!("{text}"),
        };
        for text in ["A:@f", "a==@f", "a=@f", "a:=@f"] {
            assert_eq!(of(text), Text::OfFile("f".into()), "{text}");
        }
        let file = Item::File {
            name: "a".into(),
            path: "b;c.png".into(),
            filename: Some("d".into()),
            content_type: Some("image/png".into()),
        };
        assert_eq!(item("a@b;c.png;filename=d;type=image/png"), file);
    }

    #[test]
    fn a_backslash_makes_a_separator_part_of_the_name() {
        let field = Item::Field {
            name: "a:b=c\\d".into(),
            value: given("\\e"),
        };
        assert_eq!(item(r"a\:b\=c\d=\e"), field);
    }

    #[test]
    fn what_is_no_item_says_how_to_write_one() {
        let error = |text: &str| text.parse::<Item>().unwrap_err();
        assert_eq!(error("word"), ItemError::Unclear("word".into()));
        assert_eq!(error("a;b"), ItemError::Unclear("a;b".into()));
        assert_eq!(error("=x"), ItemError::NoName("=x".into(), "="));
        assert_eq!(error("a@"), ItemError::NoFile("a@".into()));
        assert_eq!(error("a=@"), ItemError::NoFile("a=@".into()));
    }
}
