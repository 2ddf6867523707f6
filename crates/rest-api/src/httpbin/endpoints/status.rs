//! Endpoints that answer with a status or fields that the client names.

use hyper::StatusCode;
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};

use super::{go_number, go_status, random_fraction};
use crate::http::{Interim, Response, Spelling, respond, spell};
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::echo::{borrowed, groups};
use crate::httpbin::go_random::GoRandom;
use crate::httpbin::json::Writer;
use crate::httpbin::{CONNECTION, Dialect, documents, text, weights};

/// `/status/{codes}`.
pub fn status(asked: &Asked) -> Given {
    let list = asked.parameter(0);
    let code = match (list.contains(','), asked.dialect) {
        (true, _) => {
            let choices = weights::parse(list);
            let choices = choices.ok_or_else(|| invalid(asked, list))?;
            weights::choose(&choices, random_fraction())
        }
        (false, Dialect::Python) => list.trim().parse().map_err(|_| invalid(asked, list))?,
        (false, Dialect::Go) => go_status(list, 100..=599)?,
    };
    let found = u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    let found = found.ok_or_else(|| {
        Refusal::bad(format!(
            "{code} is no status code: it must be from 200 to 999"
        ))
    })?;
    if found.is_informational() {
        return match asked.dialect {
            Dialect::Go if code != 101 => Ok(on_the_way(found, answer::plain(StatusCode::OK, ""))),
            _ => Err(Refusal::bad(format!(
                "{code} is no answer: it must be from 200 to 999"
            ))),
        };
    }
    with_status(asked, found)
}

/// An answer before which a status from 100 to 199 is told.
pub fn on_the_way(status: StatusCode, mut response: Response) -> Response {
    response.extensions_mut().insert(Interim(status));
    response
}

fn invalid(asked: &Asked, list: &str) -> Refusal {
    match asked.dialect {
        Dialect::Python => Refusal::bad("Invalid status code").in_text(),
        Dialect::Go => Refusal::bad(format!("invalid choice value: {}", text::go_quoted(list))),
    }
}

/// An answer with a status, and with what belongs to it.
pub fn with_status(asked: &Asked, status: StatusCode) -> Given {
    let dialect = asked.dialect;
    let realm = HeaderValue::from_static("Basic realm=\"Fake Realm\"");
    // Python's loses its type where it has fields of its own.
    let with = |name: HeaderName, value: HeaderValue, body: &'static str| {
        let mut response = match dialect {
            Dialect::Python => answer::bare(status).map(|_| body.into()),
            Dialect::Go => answer::plain(status, body),
        };
        response.headers_mut().insert(name, value);
        response
    };
    let prefix = asked.prefix();
    let lead = |path: &str| HeaderValue::from_str(&format!("{prefix}{path}"));
    let lead = |path: &str| lead(path).map_err(|_| Refusal::bad("the prefix is no text"));
    let info = HeaderName::from_static("x-more-info");
    Ok(match (status.as_u16(), dialect) {
        (301 | 302 | 303 | 305 | 307, _) => with(LOCATION, lead("/redirect/1")?, ""),
        (300 | 308, Dialect::Go) => {
            let template = if status == StatusCode::MULTIPLE_CHOICES {
                documents::CHOICES
            } else {
                documents::MOVED
            };
            let page = template.replace("{prefix}", prefix);
            with(LOCATION, lead("/image/jpeg")?, "").map(|_| page.into())
        }
        (401, _) => with(WWW_AUTHENTICATE, realm, ""),
        (402, _) => with(
            info,
            HeaderValue::from_static("RFC 9110, 15.5.3"),
            "Pay first, please!",
        ),
        (406, _) => not_acceptable(dialect),
        (407, _) => with(PROXY_AUTHENTICATE, realm, ""),
        (418, _) => {
            let what = HeaderValue::from_static("http://tools.ietf.org/html/rfc2324");
            let body = match dialect {
                Dialect::Python => documents::TEAPOT,
                Dialect::Go => "I'm a teapot!",
            };
            with(info, what, body)
        }
        (304, _) => answer::bare(status),
        _ => answer::empty(status, dialect),
    })
}

/// 406, with what there is.
fn not_acceptable(dialect: Dialect) -> Response {
    let (message, any, mut w) = match dialect {
        Dialect::Python => (
            "Client did not request a supported media type.",
            "image/*",
            Writer::line(dialect),
        ),
        Dialect::Go => (
            "Client did not request a supported media type",
            "image/",
            Writer::indented(dialect),
        ),
    };
    let types = [
        "image/webp",
        "image/svg+xml",
        "image/jpeg",
        "image/png",
        any,
    ];
    w.object(|w| {
        w.name(b"message");
        w.text(message.as_bytes());
        w.name(b"accept");
        w.list(|w| {
            for media in types {
                w.item();
                w.text(media.as_bytes());
            }
        });
    });
    match dialect {
        // The one JSON of httpbin that has no line end.
        Dialect::Python => {
            let mut body = w.finish();
            body.pop();
            respond(StatusCode::NOT_ACCEPTABLE, "application/json", body)
        }
        Dialect::Go => answer::json(StatusCode::NOT_ACCEPTABLE, dialect, w),
    }
}

/// `/unstable`: fails at a rate.
pub fn unstable(asked: &Asked) -> Given {
    let rate = match asked.argument("failure_rate") {
        None => 0.5,
        Some(rate) => {
            let rate = rate.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
            rate.ok_or_else(|| Refusal::bad("invalid failure rate: not in range [0, 1]"))?
        }
    };
    let fraction = match asked.argument("seed") {
        Some(seed) => GoRandom::seeded(go_number(&seed, "seed")?).float(),
        None => random_fraction(),
    };
    let status = if fraction < rate {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    Ok(answer::plain(status, ""))
}

/// `/response-headers`.
pub fn response_headers(asked: &Asked) -> Given {
    let arguments = asked.arguments();
    let mut fields = Vec::with_capacity(arguments.len());
    for (name, value) in &arguments {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let name = match (parsed, asked.dialect) {
            (Ok(name), _) => name,
            // It is told, and not sent.
            (Err(_), Dialect::Go) => continue,
            (Err(_), Dialect::Python) => {
                return Err(Refusal::bad(format!("{name:?} is no name of a field")));
            }
        };
        // They say where the answer ends, which is not for clients to choose.
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) {
            return Err(Refusal::bad(format!("{name} cannot be chosen")));
        }
        let value = HeaderValue::from_bytes(&field_bytes(value, asked.dialect));
        let value = value
            .map_err(|_| Refusal::bad(format!("the value of {name} has a control character")))?;
        fields.push((name, value));
    }
    let mut response = match asked.dialect {
        Dialect::Python => {
            let mut response = python_headers(&arguments);
            // The first of that name is ours.
            let names = std::iter::once("Content-Type");
            let names = names.chain(arguments.iter().map(|(name, _)| name.as_str()));
            spell(&mut response, &Spelling::of(names));
            response
        }
        Dialect::Go => go_headers(arguments),
    };
    for (name, value) in fields {
        if name == CONTENT_TYPE && asked.dialect == Dialect::Go {
            response.headers_mut().insert(name, value);
        } else {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}

/// The bytes of a field: WSGI makes a byte of each character, as far as they go.
fn field_bytes(value: &str, dialect: Dialect) -> Vec<u8> {
    let latin1: Option<Vec<u8>> = value.chars().map(|char| u8::try_from(char).ok()).collect();
    latin1
        .filter(|_| dialect == Dialect::Python)
        .unwrap_or_else(|| value.as_bytes().to_vec())
}

/// httpbin tells the length of its answer in its answer.
fn python_headers(arguments: &[(String, String)]) -> Response {
    let is_guarded = is_tricky(arguments, Dialect::Python);
    let mut length = 0;
    loop {
        let mut pairs = vec![
            ("Content-Type".to_owned(), b"application/json".to_vec()),
            ("Content-Length".to_owned(), length.to_string().into_bytes()),
        ];
        for (name, value) in arguments {
            // Names that differ in case alone are one field, called as the first is.
            let known = pairs.iter().map(|(name, _)| name);
            let known = known.clone().find(|known| known.eq_ignore_ascii_case(name));
            let name = known.unwrap_or(name).clone();
            pairs.push((name, value.clone().into_bytes()));
        }
        let w = Writer::indented(Dialect::Python);
        let mut w = if is_guarded { w.guarded() } else { w };
        all_groups(&mut w, &pairs);
        let body = w.finish();
        if body.len() == length {
            return respond(StatusCode::OK, "application/json", body);
        }
        length = body.len();
    }
}

fn go_headers(mut arguments: Vec<(String, String)>) -> Response {
    let json = "application/json; charset=utf-8";
    let is_guarded = is_tricky(&arguments, Dialect::Go);
    if !arguments.iter().any(|(name, _)| is_type(name)) {
        arguments.push(("Content-Type".into(), json.into()));
    }
    let escape = |text: String| {
        if is_guarded {
            text::escape_html(&text)
        } else {
            text
        }
    };
    let pairs = arguments.into_iter();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (escape(name), escape(value).into_bytes()))
        .collect();
    let mut w = Writer::indented(Dialect::Go);
    all_groups(&mut w, &pairs);
    respond(StatusCode::OK, json, w.finish())
}

/// An object of grouped values, at the top.
fn all_groups(w: &mut Writer, pairs: &[(String, Vec<u8>)]) {
    groups(w, None, borrowed(pairs));
}

fn is_type(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-type")
}

/// Whether one of the types that a client chose, in whatever case it writes the name, is dangerous.
fn is_tricky(arguments: &[(String, String)], dialect: Dialect) -> bool {
    let mut types = arguments.iter().filter(|(name, _)| is_type(name));
    types.any(|(_, media)| is_dangerous(media, dialect))
}

/// Whether a browser may take an answer of this type for more than text, or go-httpbin fears so.
pub fn is_dangerous(media: &str, dialect: Dialect) -> bool {
    let media = media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let octets = match dialect {
        Dialect::Python => "application/octet-stream",
        // Its slip of the pen; a browser knows no such type, and guesses none.
        Dialect::Go => "application/octet-string",
    };
    !["text/plain", "application/json", octets].contains(&media.as_str())
}
