//! Endpoints that tell a request back.

use hyper::header::{TRANSFER_ENCODING, USER_AGENT};
use hyper::{Method, StatusCode, Version};

use super::random;
use crate::http::{Response, respond};
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::echo::{self, Content, Extra};
use crate::httpbin::json::Writer;
use crate::httpbin::{Dialect, text};

/// `/get`, `/head`.
pub fn get(asked: &Asked) -> Response {
    let w = echo::head(asked, false);
    answer::json(StatusCode::OK, asked.dialect, w)
}

/// `/post`, `/put`, `/patch`, `/delete`.
pub async fn body(mut asked: Asked) -> Given {
    let content = Content::of(&mut asked).await?;
    let w = echo::whole(&asked, &content, true, false);
    Ok(answer::json(StatusCode::OK, asked.dialect, w))
}

/// `/anything`.
pub async fn anything(mut asked: Asked) -> Given {
    if asked.dialect == Dialect::Go && asked.method == Method::HEAD {
        return Ok(get(&asked));
    }
    let content = Content::of(&mut asked).await?;
    let w = echo::whole(&asked, &content, true, true);
    Ok(answer::json(StatusCode::OK, asked.dialect, w))
}

/// `/headers`.
pub fn headers(asked: &Asked) -> Response {
    object(asked, |w| echo::headers(w, asked))
}

/// `/ip`.
pub fn ip(asked: &Asked) -> Response {
    if asked.argument("format").as_deref() == Some("text") {
        return answer::plain(StatusCode::OK, format!("{}\n", asked.origin()));
    }
    object(asked, |w| echo::member(w, "origin", &asked.origin()))
}

/// `/user-agent`.
pub fn user_agent(asked: &Asked) -> Response {
    let agent = asked.field(&USER_AGENT);
    object(asked, |w| match (agent, asked.dialect) {
        (None, Dialect::Python) => {
            w.name(b"user-agent");
            w.raw("null");
        }
        (agent, _) => echo::member(w, "user-agent", &agent.unwrap_or_default()),
    })
}

/// `/uuid`: a random one (RFC 9562, 5.4).
pub fn uuid(asked: &Asked) -> Response {
    let mut bytes: [u8; 16] = random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = text::hex(&bytes);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    object(asked, |w| echo::member(w, "uuid", &parts.join("-")))
}

/// `/env`.
pub fn environment(asked: &Asked) -> Response {
    object(asked, |w| {
        w.name(b"env");
        w.object(|w| {
            for (name, value) in asked.environment() {
                echo::member(w, name, value);
            }
        });
    })
}

/// `/hostname`: what the configuration says, not what the host is called.
pub fn hostname(asked: &Asked) -> Response {
    object(asked, |w| {
        echo::member(w, "hostname", &asked.options().hostname);
    })
}

/// `/version`: which service it is, and no more, as that helps attackers alone.
pub fn version(asked: &Asked) -> Response {
    let service = match asked.dialect {
        Dialect::Python => "rest-api",
        // What its clients look for.
        Dialect::Go => "go-httpbin",
    };
    object(asked, |w| echo::member(w, "service", service))
}

/// `/upload`: counts a body and forgets it.
pub async fn upload(mut asked: Asked) -> Given {
    let mut received = 0;
    loop {
        match asked.body.next().await {
            Ok(Some(piece)) => received += piece.len() as u64,
            Ok(None) => break,
            Err(problem) => return Err(Refusal::of(problem, asked.dialect)),
        }
    }
    let w = echo::with_extra(&asked, Extra::Number("bytes_received", received), true);
    Ok(answer::json(StatusCode::OK, asked.dialect, w))
}

/// `/dump/request`: the request as text, close to how it came.
pub async fn dump(mut asked: Asked) -> Given {
    let body = asked.read().await?;
    let version = match asked.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        _ => "1.1",
    };
    let mut out = format!("{} {} HTTP/{version}\r\n", asked.method, asked.target());
    let mut fields = asked.fields();
    fields.sort();
    // Host comes first, and what frames the body next.
    let is_first = |name: &str| name == "Host" || name == "Transfer-Encoding";
    fields.sort_by_key(|(name, _)| !is_first(name));
    for (name, value) in &fields {
        out.extend([name, ": ", value, "\r\n"]);
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    if asked
        .headers
        .get(TRANSFER_ENCODING)
        .is_some_and(|coding| coding == "chunked")
    {
        if !body.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            out.extend_from_slice(&body);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
    } else {
        out.extend_from_slice(&body);
    }
    Ok(respond(StatusCode::OK, answer::TEXT, out))
}

/// An object of JSON.
fn object(asked: &Asked, inner: impl FnOnce(&mut Writer)) -> Response {
    let mut w = Writer::indented(asked.dialect);
    w.object(inner);
    answer::json(StatusCode::OK, asked.dialect, w)
}
