//! Text with values of a request in it: `Hello, {{query.name|world}}!`.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::context::Context;
use crate::http::escape_html;

/// A template, ready to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value {
        name: Name,
        default: Option<String>,
        /// It is all of a value of JSON, rather than text in a string.
        is_bare: bool,
    },
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A parameter of the path.
    Path(String),
    /// A parameter of the query.
    Query(String),
    /// A header field, in lower case.
    Header(String),
    /// A part of the time of day: `iso`, `unix`, `ctime`, `year` and so on.
    Time(String),
    /// Another fact: `method`, `host`, `path`, `scheme`, `peer`, `id`.
    Fact(String),
}

/// How a value is made harmless where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// It is text, and the client knows.
    None,
    /// HTML and XML.
    Markup,
    /// Within a string of JSON.
    Json,
    /// Within a quoted field of CSV.
    Csv,
    /// A segment of a path, or a value of a query.
    Url,
    /// Segments of a path, with the slashes between them.
    Path,
}

impl Escape {
    /// What a content of this type needs; `None`: values have no safe place in it.
    pub fn for_type(content_type: &str) -> Option<Self> {
        let name = content_type.split(';').next().unwrap_or_default().trim();
        match name.to_ascii_lowercase().as_str() {
            "text/html" | "application/xml" | "text/xml" => Some(Self::Markup),
            "application/json" => Some(Self::Json),
            "text/csv" => Some(Self::Csv),
            "text/plain" => Some(Self::None),
            name if name.ends_with("+xml") => Some(Self::Markup),
            name if name.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }

    /// A value made harmless.
    pub fn apply(self, value: &str) -> String {
        let mut out = String::new();
        self.write(value, &mut out);
        out
    }

    fn write(self, value: &str, out: &mut String) {
        match self {
            Self::None => out.push_str(value),
            // XML has no way to say the control characters (XML 1.0, 2.2).
            Self::Markup => out.push_str(&escape_html(value).replace(is_unsayable, "\u{fffd}")),
            Self::Json => {
                // A string of JSON without its quotes; `<` so that it is harmless within a script too.
                let quoted = Value::from(value).to_string();
                out.push_str(&quoted[1..quoted.len() - 1].replace('<', "\\u003c"));
            }
            Self::Csv => {
                // Spreadsheets take these for formulas.
                if value.starts_with(['=', '+', '-', '@', '\t', '\r']) {
                    out.push('\'');
                }
                out.push_str(&value.replace('"', "\"\""));
            }
            Self::Url | Self::Path => {
                let plain: &[u8] = if self == Self::Path {
                    b"-._~/"
                } else {
                    b"-._~"
                };
                for byte in value.bytes() {
                    if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
                        out.push(byte.into());
                    } else {
                        // Writing into a String does not fail.
                        let _ = write!(out, "%{byte:02X}");
                    }
                }
            }
        }
    }
}

impl Template {
    /// Reads a template; `has_parameter` says which names the path has.
    pub fn parse(text: &str, has_parameter: impl Fn(&str) -> bool) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inner, behind)) = after.split_once("}}") else {
                return Err(format!("a template has {{{{ without }}}}: {after:.40}"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let (name, default) = match inner.split_once('|') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (inner, None),
            };
            let name = Name::parse(name.trim(), &has_parameter)?;
            parts.push(Part::Value {
                name,
                default,
                is_bare: false,
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self(parts))
    }

    /// The text with its values, each escaped; what has no value gets its default, or nothing. In a path of ours
    /// ([`Escape::Path`]) parameters are taken for as they were spelled, and stay so.
    pub fn fill(&self, escape: Escape, value_of: impl Fn(&Name) -> Option<String>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value {
                    name,
                    default,
                    is_bare,
                } => {
                    let value = value_of(name).filter(|value| !value.is_empty());
                    if escape == Escape::Path
                        && matches!(name, Name::Path(_))
                        && let Some(spelled) = &value
                    {
                        out.push_str(spelled);
                        continue;
                    }
                    let value = value.or_else(|| default.clone()).unwrap_or_default();
                    if *is_bare {
                        write_bare(&value, &mut out);
                        continue;
                    }
                    // The rest of a path has slashes, which stay what they are.
                    let is_path = matches!(name, Name::Path(_)) && escape == Escape::Url;
                    let escape = if is_path { Escape::Path } else { escape };
                    escape.write(&value, &mut out);
                }
            }
        }
        out
    }

    /// Reads what stands around each value, so that it can be made harmless there, or says of which that
    /// cannot be.
    pub fn place_values(&mut self, escape: Escape) -> Result<(), String> {
        let mut context = Context::new(escape);
        for part in &mut self.0 {
            match part {
                Part::Text(text) => context.read(text),
                Part::Value { name, is_bare, .. } => {
                    context
                        .check(name)
                        .map_err(|why| format!("{{{{{name}}}}} is not safe there: {why}"))?;
                    *is_bare = context.is_bare();
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is to be filled in.
    pub fn is_constant(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether it depends on the time of day.
    pub fn tells_time(&self) -> bool {
        let is_time = |part: &Part| {
            matches!(
                part,
                Part::Value {
                    name: Name::Time(_),
                    ..
                }
            )
        };
        self.0.iter().any(is_time)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(name) => write!(f, "path.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Time(part) => write!(f, "time.{part}"),
            Self::Fact(fact) => f.write_str(fact),
        }
    }
}

impl Name {
    fn parse(text: &str, has_parameter: impl Fn(&str) -> bool) -> Result<Self, String> {
        let (kind, name) = text.split_once('.').unwrap_or((text, ""));
        match (kind, name) {
            ("path", name) if !name.is_empty() => {
                if has_parameter(name) {
                    Ok(Self::Path(name.into()))
                } else {
                    Err(format!(
                        "{{{{path.{name}}}}}: the path has no parameter {{{name}}}"
                    ))
                }
            }
            ("query", name) if !name.is_empty() => Ok(Self::Query(name.into())),
            ("header", name) if !name.is_empty() => {
                if SECRET.contains(&name.to_ascii_lowercase().as_str()) {
                    return Err(format!("{{{{header.{name}}}}} would show a secret"));
                }
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            ("time", name) if TIMES.contains(&name) => Ok(Self::Time(name.into())),
            (fact, "") if FACTS.contains(&fact) => Ok(Self::Fact(fact.into())),
            _ => Err(format!(
                "{{{{{text}}}}} is not known; there are path.NAME, query.NAME, header.NAME, time. with \
                 one of {}, and {}",
                TIMES.join(" "),
                FACTS.join(" ")
            )),
        }
    }
}

/// Writes a value of JSON: what is a number, `true`, `false` or `null` as it is, and all else as a string.
fn write_bare(value: &str, out: &mut String) {
    let is_trimmed = !value.contains(|char: char| char.is_ascii_whitespace());
    let read = serde_json::from_str(value).ok().filter(|_| is_trimmed);
    if let Some(Value::Null | Value::Bool(_) | Value::Number(_)) = read {
        out.push_str(value);
    } else {
        out.push('"');
        Escape::Json.write(value, out);
        out.push('"');
    }
}

/// Whether no document of XML may hold a character.
fn is_unsayable(char: char) -> bool {
    matches!(char, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

const TIMES: &[&str] = &[
    "iso", "unix", "ctime", "year", "month", "day", "hour", "minute", "second",
];
const FACTS: &[&str] = &["method", "host", "path", "scheme", "peer", "id"];
/// Fields that are nobody's to show.
const SECRET: &[&str] = &["authorization", "cookie", "proxy-authorization"];

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, escape: Escape, value: &str) -> String {
        let template = Template::parse(text, |name| name == "id").unwrap();
        template.fill(escape, |_| Some(value.into()))
    }

    #[test]
    fn a_value_is_harmless_wherever_it_stands() {
        let bad = "<script>\"&'=\u{e4}";
        for (escape, expected) in [
            (Escape::None, "<script>\"&'=\u{e4}"),
            (Escape::Markup, "&lt;script&gt;&quot;&amp;&#39;=\u{e4}"),
            (Escape::Json, "\\u003cscript>\\\"&'=\u{e4}"),
            (Escape::Csv, "<script>\"\"&'=\u{e4}"),
            (Escape::Url, "%3Cscript%3E%22%26%27%3D%C3%A4"),
        ] {
            assert_eq!(fill("{{query.a}}", escape, bad), expected);
        }
        assert_eq!(fill("\"{{query.a}}\"", Escape::Csv, "=1+1"), "\"'=1+1\"");
        assert_eq!(fill("{{query.a}}", Escape::Json, "\n\0"), "\\n\\u0000");
        assert_eq!(
            fill("{{query.a}}", Escape::Markup, "\0\u{1}\t\n<\u{1b}\u{ffff}"),
            "\u{fffd}\u{fffd}\t\n&lt;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_value_outside_of_a_string_of_json_is_one_value() {
        let mut template = Template::parse("{\"a\": {{query.a}}}", |_| false).unwrap();
        template.place_values(Escape::Json).unwrap();
        for (value, expected) in [
            ("5", "5"),
            ("-1.5e3", "-1.5e3"),
            ("true", "true"),
            ("null", "null"),
            ("05", "\"05\""),
            (" 5", "\" 5\""),
            ("1e999", "\"1e999\""),
            ("", "\"\""),
            ("5, \"b\": 6", "\"5, \\\"b\\\": 6\""),
            ("[1]", "\"[1]\""),
            ("{}", "\"{}\""),
            ("\"x\"", "\"\\\"x\\\"\""),
        ] {
            let filled = template.fill(Escape::Json, |_| Some(value.into()));
            assert_eq!(filled, format!("{{\"a\": {expected}}}"));
        }
    }

    #[test]
    fn what_has_no_value_gets_its_default() {
        let template = Template::parse("a{{ query.x |b}}c{{query.y}}d", |_| false).unwrap();
        assert_eq!(template.fill(Escape::None, |_| None), "abcd");
        assert!(
            !template.is_constant() && Template::parse("a}b", |_| false).unwrap().is_constant()
        );
    }

    #[test]
    fn an_unknown_name_is_refused_when_it_is_read() {
        for text in [
            "{{",
            "{{x}}",
            "{{path.other}}",
            "{{query}}",
            "{{time.century}}",
            "{{header.Cookie}}",
            "{{}}",
        ] {
            assert!(
                Template::parse(text, |name| name == "id").is_err(),
                "{text}"
            );
        }
    }
}
