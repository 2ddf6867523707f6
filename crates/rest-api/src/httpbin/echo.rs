//! A request told back, as JSON.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::answer::Refusal;
use super::asked::Asked;
use super::json::{Value, Writer};
use super::{Dialect, loads, multipart, text};

/// Named values, in the order in which they came.
pub type Pairs = Vec<(String, Vec<u8>)>;

/// What is in a body.
#[derive(Default)]
pub struct Content {
    /// What is no form.
    data: Vec<u8>,
    /// Fields of a form.
    form: Pairs,
    /// Files of a form.
    files: Pairs,
    /// What it is as JSON.
    json: Option<Value>,
}

impl Content {
    /// Reads a request's body.
    pub async fn of(asked: &mut Asked) -> Result<Self, Refusal> {
        let body = asked.read().await?;
        let content_type = asked.content_type();
        match asked.dialect {
            Dialect::Python => Ok(Self::python(&content_type, &body)),
            Dialect::Go => Self::go(&content_type, &body, asked.query())
                .map_err(|why| Refusal::bad(format!("error parsing request body: {why}"))),
        }
    }

    /// As httpbin reads it: a form by its type, anything else as data, and as JSON if it is some. What
    /// is malformed is left out.
    fn python(content_type: &str, body: &[u8]) -> Self {
        let mut content = Self::default();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match media.to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => {
                if std::str::from_utf8(body).is_ok() {
                    let pairs = text::parameters(body).into_iter();
                    content.form = pairs
                        .map(|(name, value)| (name, value.into_bytes()))
                        .collect();
                }
            }
            // Without a boundary it is no form to werkzeug.
            "multipart/form-data" if multipart::boundary(content_type).is_some() => {
                for part in multipart::parse(content_type, body).unwrap_or_default() {
                    let media = part.content_type.as_deref().unwrap_or(OCTETS);
                    if part.filename.is_none() {
                        let text = String::from_utf8_lossy(part.content).into_owned();
                        content.form.push((part.name, text.into_bytes()));
                    } else if content.files.iter().all(|(name, _)| *name != part.name) {
                        // The original keeps the first file of each name.
                        content.files.push((part.name, safe(part.content, media)));
                    }
                }
            }
            _ => {
                content.json = loads::loads(body, Dialect::Python).ok();
                content.data = safe(body, OCTETS);
            }
        }
        content
    }

    /// As go-httpbin reads it: by its type, which must keep its word.
    fn go(content_type: &str, body: &[u8], query: Option<&str>) -> Result<Self, String> {
        let mut content = Self::default();
        if body.is_empty() {
            return Ok(content);
        }
        content.data = body.to_vec();
        let media = content_type.split(';').next().unwrap_or_default();
        // Go reads the query where it reads a form.
        if ["application/x-www-form-urlencoded", "multipart/form-data"].contains(&media)
            && let Some(why) = query.and_then(text::go_fault)
        {
            return Err(why);
        }
        match media {
            "text/html" | "text/plain" => {}
            "application/x-www-form-urlencoded" => {
                let body = String::from_utf8_lossy(body);
                if let Some(why) = text::go_fault(&body) {
                    return Err(why);
                }
                let pairs = text::go_parameters(&body).into_iter();
                content.form = pairs
                    .map(|(name, value)| (name, value.into_bytes()))
                    .collect();
            }
            "multipart/form-data" => {
                for part in multipart::parse(content_type, body)? {
                    if !part.is_form || part.name.is_empty() {
                        continue;
                    }
                    let is_file = part.filename.is_some_and(|name| !name.is_empty());
                    let into = if is_file {
                        &mut content.files
                    } else {
                        &mut content.form
                    };
                    into.push((part.name, part.content.to_vec()));
                }
            }
            "application/json" => content.json = Some(loads::loads(body, Dialect::Go)?),
            media => {
                let media = if media.is_empty() { OCTETS } else { media };
                content.data = data_url(media, &URL_SAFE.encode(body));
            }
        }
        Ok(content)
    }
}

/// Text as it is, anything else as a `data:` URL.
fn safe(bytes: &[u8], media: &str) -> Vec<u8> {
    if std::str::from_utf8(bytes).is_ok() {
        bytes.to_vec()
    } else {
        data_url(media, &STANDARD.encode(bytes))
    }
}

fn data_url(media: &str, base64: &str) -> Vec<u8> {
    format!("data:{media};base64,{base64}").into_bytes()
}

/// What is told besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extra<'a> {
    /// A flag, such as `gzipped`.
    Flag(&'a str),
    /// A number, such as `bytes_received`.
    Number(&'a str, u64),
}

/// What the answer to `/get` tells; `with_method` where the endpoint tells that too.
pub fn head(asked: &Asked, with_method: bool) -> Writer {
    let mut w = Writer::indented(asked.dialect);
    w.object(|w| {
        arguments(w, asked);
        headers(w, asked);
        if with_method || asked.dialect == Dialect::Go {
            member(w, "method", asked.method.as_str());
        }
        member(w, "origin", &asked.origin());
        member(w, "url", &asked.url());
    });
    w
}

/// What the compressed endpoints and `/upload` tell.
pub fn with_extra(asked: &Asked, extra: Extra<'_>, with_url: bool) -> Writer {
    let mut w = Writer::indented(asked.dialect);
    let write = |w: &mut Writer| match extra {
        Extra::Flag(name) => {
            w.name(name.as_bytes());
            w.raw("true");
        }
        Extra::Number(name, number) => {
            w.name(name.as_bytes());
            w.raw(&number.to_string());
        }
    };
    w.object(|w| match asked.dialect {
        Dialect::Go => {
            arguments(w, asked);
            headers(w, asked);
            member(w, "method", asked.method.as_str());
            member(w, "origin", &asked.origin());
            member(
                w,
                "url",
                &if with_url { asked.url() } else { String::new() },
            );
            write(w);
        }
        Dialect::Python => {
            if with_url {
                arguments(w, asked);
            }
            // All of them come before `headers`, as names are sorted.
            write(w);
            headers(w, asked);
            member(w, "method", asked.method.as_str());
            member(w, "origin", &asked.origin());
            if with_url {
                member(w, "url", &asked.url());
            }
        }
    });
    w
}

/// What `/zstd` tells in Python's dialect: its flag is behind all else.
pub fn with_extra_behind(asked: &Asked, flag: &str) -> Writer {
    let mut w = Writer::indented(asked.dialect);
    w.object(|w| {
        headers(w, asked);
        member(w, "method", asked.method.as_str());
        member(w, "origin", &asked.origin());
        w.name(flag.as_bytes());
        w.raw("true");
    });
    w
}

/// What is told of a request with a body. Python's `/delay` leaves `json` out, and only `/anything`
/// has `method`.
pub fn whole(asked: &Asked, content: &Content, with_json: bool, with_method: bool) -> Writer {
    let mut w = Writer::indented(asked.dialect);
    let json = content.json.as_ref().unwrap_or(&Value::Null);
    w.object(|w| {
        arguments(w, asked);
        match asked.dialect {
            Dialect::Python => {
                w.name(b"data");
                w.text(&content.data);
                groups(w, "files", borrowed(&content.files));
                groups(w, "form", borrowed(&content.form));
                headers(w, asked);
                if with_json {
                    w.name(b"json");
                    w.value(json);
                }
                if with_method {
                    member(w, "method", asked.method.as_str());
                }
                member(w, "origin", &asked.origin());
                member(w, "url", &asked.url());
            }
            Dialect::Go => {
                headers(w, asked);
                member(w, "method", asked.method.as_str());
                member(w, "origin", &asked.origin());
                member(w, "url", &asked.url());
                w.name(b"data");
                w.text(&content.data);
                groups(w, "files", borrowed(&content.files));
                groups(w, "form", borrowed(&content.form));
                w.name(b"json");
                w.value(json);
            }
        }
    });
    w
}

/// The lines of a stream, which differ in their number alone.
pub fn lines(asked: &Asked) -> impl Fn(u64) -> Vec<u8> + use<> {
    let dialect = asked.dialect;
    let make = |id: &str| {
        let mut w = Writer::line(dialect);
        w.object(|w| {
            let number = |w: &mut Writer| {
                w.name(b"id");
                w.raw(id);
            };
            match dialect {
                Dialect::Python => {
                    member(w, "url", &asked.url());
                    arguments(w, asked);
                    headers(w, asked);
                    member(w, "origin", &asked.origin());
                    number(w);
                }
                Dialect::Go => {
                    number(w);
                    arguments(w, asked);
                    headers(w, asked);
                    member(w, "origin", &asked.origin());
                    member(w, "url", &asked.url());
                }
            }
        });
        w.finish()
    };
    let (empty, one) = (make(""), make("0"));
    // Where they differ is where the number goes.
    let at = empty.iter().zip(&one).take_while(|(a, b)| a == b).count();
    move |id| {
        let number = id.to_string();
        [&empty[..at], number.as_bytes(), &empty[at..]].concat()
    }
}

/// The fields of the request, as the member `headers`.
pub fn headers(w: &mut Writer, asked: &Asked) {
    let fields = asked.fields();
    let fields = fields.iter();
    groups(
        w,
        "headers",
        fields.map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
}

fn arguments(w: &mut Writer, asked: &Asked) {
    let arguments = asked.arguments();
    let arguments = arguments.iter();
    groups(
        w,
        "args",
        arguments.map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
}

/// Pairs, borrowed.
pub fn borrowed(pairs: &[(String, Vec<u8>)]) -> impl Iterator<Item = (&str, &[u8])> {
    pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
}

/// A member of text.
pub fn member(w: &mut Writer, name: &str, value: &str) {
    w.name(name.as_bytes());
    w.text(value.as_bytes());
}

/// An object that has a value for each name: in Python's dialect a list only of several, in Go's always.
/// It is the member `name` of the object that is being written, if there is one.
pub fn groups<'a>(
    w: &mut Writer,
    name: impl Into<Option<&'a str>>,
    pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) {
    if let Some(name) = name.into() {
        w.name(name.as_bytes());
    }
    let dialect = w.dialect();
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    if dialect == Dialect::Python && !w.is_indented() {
        // Python's lines keep the order in which the names came.
        let mut places = HashMap::new();
        for (name, _) in &pairs {
            let next = places.len();
            places.entry(*name).or_insert(next);
        }
        pairs.sort_by_key(|(name, _)| places.get(name).copied());
    } else {
        pairs.sort_by_key(|(name, _)| *name);
    }
    w.object(|w| {
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            w.name(group[0].0.as_bytes());
            if group.len() == 1 && dialect == Dialect::Python {
                w.text(group[0].1);
                continue;
            }
            w.list(|w| {
                for (_, value) in group {
                    w.item();
                    w.text(value);
                }
            });
        }
    });
}

const OCTETS: &str = "application/octet-stream";
