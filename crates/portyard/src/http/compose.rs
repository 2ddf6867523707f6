//! From the words of a command line to a request.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use hyper::Method;
use hyper::header::HeaderName;
use portyard_core::exit::{Exit, Fatal};
use serde::de::IgnoredAny;
use url::Url;

use super::content::{Content, Piece, unreadable};
use super::form::{Multipart, type_of};
use super::item::{Item, Text};
use super::session::Field;
use super::site;

/// The words of the command line, by what they mean.
pub struct Words {
    /// The method, if it is said.
    pub method: Option<Method>,
    /// The URL.
    pub url: Url,
    /// What follows.
    pub items: Vec<Item>,
}

/// What data becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A JSON object.
    Json,
    /// A form, with files as multipart.
    Form,
    /// A form as multipart.
    Multipart,
}

/// What a request carries.
#[derive(Debug, Default)]
pub struct Load {
    /// Header fields in their order, and names that are not to be sent.
    pub fields: Vec<(String, Option<String>)>,
    /// The body.
    pub content: Content,
    /// Whether its data are JSON, so that JSON is likely to be wanted back.
    pub is_json: bool,
}

impl Words {
    /// `[METHOD] URL [ITEM…]`. The first word is a method if another follows and it is one of the
    /// usual in any case, or is in capitals.
    pub fn read(words: &[String]) -> Result<Self, Fatal> {
        let (method, words) = match words {
            [first, rest @ ..] if !rest.is_empty() && is_method(first) => {
                (Some(method(first)?), rest)
            }
            all => (None, all),
        };
        let [url, items @ ..] = words else {
            return Err(Fatal::new(Exit::Usage, "a URL is missing"));
        };
        let items = items
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<Item>, _>>()
            .map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?;
        let mut url = site::typed(url)?;
        for item in &items {
            if let Item::Query { name, value } = item {
                let value = read(value)?;
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        Ok(Self { method, url, items })
    }
}

impl Load {
    /// What the items and `--data` say.
    pub fn new(items: &[Item], data: Option<&str>, shape: Shape) -> Result<Self, Fatal> {
        let mut load = Self::default();
        let mut values: Vec<(&str, Value)> = Vec::new();
        for item in items {
            match item {
                Item::Header { name, value } => {
                    let value = value.as_ref().map(read).transpose()?;
                    load.fields.push((name.clone(), value));
                }
                Item::Query { .. } => {}
                Item::Field { name, value } => values.push((name, Value::Text(read(value)?))),
                Item::Json { name, value } => {
                    let text = read(value)?;
                    if serde_json::from_str::<IgnoredAny>(&text).is_err() {
                        let message = format!(
                            "{name}:= wants JSON, and '{text}' is none; = makes it a string"
                        );
                        return Err(Fatal::new(Exit::Usage, message));
                    }
                    values.push((name, Value::Json(text)));
                }
                Item::File {
                    name,
                    path,
                    filename,
                    content_type,
                } => {
                    let last = path
                        .file_name()
                        .map(|last| last.to_string_lossy().into_owned());
                    let file = Value::File {
                        piece: Piece::of_file(path)?,
                        filename: filename.clone().or(last).unwrap_or_default(),
                        content_type: match content_type {
                            Some(given) => given.clone(),
                            None => type_of(path).into(),
                        },
                    };
                    values.push((name, file));
                }
            }
        }
        match data {
            Some(_) if !values.is_empty() => {
                return Err(Fatal::new(
                    Exit::Usage,
                    "the body comes from --data or from items such as name=value, not from both",
                ));
            }
            Some(data) => load.content = raw(data)?,
            None if values.is_empty() && shape != Shape::Multipart => {}
            None => {
                let has_file = values
                    .iter()
                    .any(|(_, value)| matches!(value, Value::File { .. }));
                load.content = match shape {
                    Shape::Json if !has_file => object(&values),
                    Shape::Form if !has_file => form(&values),
                    _ => multipart(&values)?,
                };
                load.is_json = shape == Shape::Json && !has_file;
            }
        }
        for (name, value) in &load.fields {
            check(name, value.as_deref())?;
        }
        Ok(load)
    }

    /// All fields of the request: those of ours that are not given otherwise, then those given.
    pub fn compose(&self, ours: &[(&str, String)]) -> Vec<Field> {
        let is_given = |name: &str| {
            self.fields
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        let content_type = self.content.content_type.clone();
        let content_type = content_type.map(|content_type| ("Content-Type", content_type));
        let ours = ours
            .iter()
            .map(|(name, value)| (*name, value.clone()))
            .chain(content_type)
            .filter(|(name, _)| !is_given(name))
            .map(|(name, value)| Field {
                name: name.into(),
                value: value.into(),
                is_given: false,
            });
        let given = self.fields.iter().filter_map(|(name, value)| {
            Some(Field {
                name: name.clone(),
                value: value.clone()?.into(),
                is_given: true,
            })
        });
        ours.chain(given).collect()
    }
}

enum Value {
    Text(String),
    Json(String),
    File {
        piece: Piece,
        filename: String,
        content_type: String,
    },
}

/// A header field as curl takes it: `Name: value`, `Name:` for none of that name, `Name;` for an
/// empty one.
pub fn header(text: &str) -> Result<Item, String> {
    match text.parse() {
        Ok(item @ Item::Header { .. }) => Ok(item),
        Ok(_) | Err(_) => Err("write a field as 'Name: value'".into()),
    }
}

/// A method by its name; case counts, except for the usual ones.
pub fn method(name: &str) -> Result<Method, Fatal> {
    let upper = name.to_ascii_uppercase();
    let name = if USUAL.contains(&&*upper) {
        &*upper
    } else {
        name
    };
    if name == "CONNECT" {
        let message =
            "CONNECT is what proxies are asked; name one with --proxy, and a method for the server";
        return Err(Fatal::new(Exit::Usage, message));
    }
    Method::from_bytes(name.as_bytes())
        .map_err(|_| Fatal::new(Exit::Usage, format!("'{name}' cannot be a method")))
}

fn is_method(word: &str) -> bool {
    let upper = word.to_ascii_uppercase();
    USUAL.contains(&&*upper)
        || (!word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'-'))
}

/// What HTTP itself says is not said by hand, or two programs could read the request differently.
fn check(name: &str, value: Option<&str>) -> Result<(), Fatal> {
    let wrong = |why: &str| Fatal::new(Exit::Usage, format!("the field {name}: {why}"));
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(wrong("this cannot be the name of a field"));
    }
    if ["content-length", "transfer-encoding"].contains(&&*name.to_ascii_lowercase()) {
        return Err(wrong("it follows from the body and cannot be given"));
    }
    if name.eq_ignore_ascii_case("host") && value.is_none() {
        return Err(wrong("every request needs it"));
    }
    if value.unwrap_or_default().contains(['\r', '\n', '\0']) {
        return Err(wrong("a value is one line"));
    }
    Ok(())
}

fn raw(data: &str) -> Result<Content, Fatal> {
    if let Some(path) = data.strip_prefix('@') {
        let path = Path::new(path);
        return Ok(Content {
            pieces: vec![Piece::of_file(path)?],
            content_type: Some(type_of(path).into()),
        });
    }
    let is_json = data.trim_start().starts_with(['{', '['])
        && serde_json::from_str::<IgnoredAny>(data).is_ok();
    let content_type = if is_json {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    };
    Ok(Content::whole(data.to_owned(), content_type))
}

fn object(values: &[(&str, Value)]) -> Content {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut members: Vec<(String, String)> = Vec::new();
    for (name, value) in values {
        let value = match value {
            Value::Text(text) => quote(text),
            Value::Json(json) => json.clone(),
            // Files make it a form.
            Value::File { .. } => continue,
        };
        let name = quote(name);
        match members.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => members.push((name, value)),
        }
    }
    let members: Vec<String> = members
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    Content::whole(format!("{{{}}}", members.join(", ")), "application/json")
}

fn form(values: &[(&str, Value)]) -> Content {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in values {
        if let Value::Text(text) | Value::Json(text) = value {
            pairs.append_pair(name, text);
        }
    }
    Content::whole(pairs.finish(), "application/x-www-form-urlencoded")
}

fn multipart(values: &[(&str, Value)]) -> Result<Content, Fatal> {
    let mut form = Multipart::new()?;
    for (name, value) in values {
        match value {
            Value::Text(text) | Value::Json(text) => form.field(name, text),
            Value::File {
                piece,
                filename,
                content_type,
            } => {
                if content_type.contains(['\r', '\n']) {
                    return Err(Fatal::new(Exit::Usage, "a type is one line"));
                }
                form.file(name, filename, content_type, piece.clone());
            }
        }
    }
    Ok(form.finish())
}

/// A text, which may be in a file; there the line end at its end does not count.
fn read(text: &Text) -> Result<String, Fatal> {
    let path = match text {
        Text::Given(text) => return Ok(text.clone()),
        Text::OfFile(path) => path,
    };
    let failed = |error: io::Error| unreadable(path, &error);
    let mut text = String::new();
    let mut file = File::open(path).map_err(failed)?.take(TEXT_MAX + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > TEXT_MAX {
        let message = format!(
            "{} is larger than {TEXT_MAX} bytes; send it as a file",
            path.display()
        );
        return Err(Fatal::new(Exit::Usage, message));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// RFC 9110, 9.3, and PATCH (RFC 5789).
const USUAL: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];
const TEXT_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Words, Fatal> {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        Words::read(&words)
    }

    fn load(line: &str, shape: Shape) -> Load {
        let words = words(line).unwrap();
        Load::new(&words.items, None, shape).unwrap()
    }

    fn body(load: &Load) -> &str {
        match &load.content.pieces[..] {
            [Piece::Whole(bytes)] => std::str::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_method_stands_before_the_url_or_not_at_all() {
        let read = |line| {
            let words = words(line).unwrap();
            (
                words.method.map(|method| method.to_string()),
                words.url.to_string(),
            )
        };
        let said = |method: &str| Some(method.to_string());
        assert_eq!(read("localhost"), (None, "http://localhost/".into()));
        assert_eq!(read("GET localhost").0, said("GET"));
        assert_eq!(read("delete localhost").0, said("DELETE"));
        assert_eq!(read("M-SEARCH localhost").0, said("M-SEARCH"));
        assert_eq!(read("GET"), (None, "http://get/".into()));
        assert_eq!(
            read("example.org a==b&c q==\u{e4}"),
            (None, "http://example.org/?a=b%26c&q=%C3%A4".into())
        );
        assert!(words("CONNECT localhost:1").is_err());
        assert!(words("localhost word").is_err());
    }

    #[test]
    fn items_make_json_or_a_form() {
        let line = "x a=1 b:=[1,2.50] c=\"q\" a=2";
        let json = load(line, Shape::Json);
        assert_eq!(body(&json), r#"{"a": "2", "b": [1,2.50], "c": "\"q\""}"#);
        assert!(json.is_json);
        let form = load("x a=1&2 b=\u{e4} a=x", Shape::Form);
        assert_eq!(body(&form), "a=1%262&b=%C3%A4&a=x");
        let multipart = load("x a=1", Shape::Multipart);
        let content_type = multipart.content.content_type.unwrap();
        assert!(content_type.starts_with("multipart/form-data; boundary="));
        assert!(!load("x A:b q==1", Shape::Json).content.is_some());
    }

    #[test]
    fn given_fields_take_the_place_of_ours() {
        let load = load("x accept:a Content-Type:b User-Agent: a=1", Shape::Json);
        let fields = load.compose(&[("Accept", "*/*".into()), ("User-Agent", "we".into())]);
        let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
        assert_eq!(names, ["accept", "Content-Type"]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_sent() {
        for line in [
            "x Content-Length:5",
            "x transfer-encoding:chunked",
            "x Host:",
            "x a\u{e4}:b",
        ] {
            let words = words(line).unwrap();
            let error = Load::new(&words.items, None, Shape::Json).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{line}");
        }
        let items = [Item::Header {
            name: "a".into(),
            value: Some(Text::Given("b\r\nc: d".into())),
        }];
        assert!(Load::new(&items, None, Shape::Json).is_err());
        let items = words("x a=b").unwrap().items;
        assert!(Load::new(&items, Some("c"), Shape::Json).is_err());
        assert!(Load::new(&words("x a:=b").unwrap().items, None, Shape::Json).is_err());
    }

    #[test]
    fn raw_data_have_the_type_that_they_look_like() {
        let kind = |data| raw(data).unwrap().content_type.unwrap();
        assert_eq!(kind("{\"a\": 1}"), "application/json");
        assert_eq!(kind("a=1"), "text/plain; charset=utf-8");
        assert_eq!(kind("@-"), "application/octet-stream");
    }
}
