//! Answers in either dialect.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::ext::ReasonPhrase;
use hyper::header::{HeaderName, HeaderValue, LOCATION};

use super::json::Writer;
use super::{ALLOW, CONNECTION, Dialect};
use crate::http::{Body, Problem, Response, escape_html, respond};

/// What an endpoint gives.
pub type Given = Result<Response, Refusal>;

/// Why an endpoint does not do what was asked.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    detail: Cow<'static, str>,
    form: Form,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the dialect tells errors.
    Usual,
    /// As plain text alone.
    Text,
}

impl Refusal {
    /// With a sentence for whoever sent the request.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            form: Form::Usual,
            headers: Vec::new(),
        }
    }

    /// 400.
    pub fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// As text alone.
    #[must_use]
    pub fn in_text(mut self) -> Self {
        self.form = Form::Text;
        self
    }

    /// With a field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What stood in the way before the endpoint was asked, or while it read the body.
    pub fn of(mut problem: Problem, dialect: Dialect) -> Self {
        let fields = std::mem::take(problem.headers_mut());
        let too_large = problem.status == StatusCode::PAYLOAD_TOO_LARGE;
        let mut refusal = if too_large && dialect == Dialect::Go {
            Self::bad("error parsing request body: http: request body too large")
        } else {
            Self::new(problem.status, problem.detail)
        };
        for (name, value) in &fields {
            if [ALLOW, CONNECTION].contains(name) {
                refusal.headers.push((name.clone(), value.clone()));
            }
        }
        refusal
    }

    /// As an answer.
    pub fn respond(self, dialect: Dialect) -> Response {
        let code = self.status.as_u16();
        let mut response = match (self.form, dialect) {
            (Form::Text, _) => plain(self.status, self.detail.into_owned()),
            (Form::Usual, Dialect::Go) => {
                let mut w = Writer::indented(dialect);
                w.object(|w| {
                    w.name(b"status_code");
                    w.raw(&code.to_string());
                    w.name(b"error");
                    w.text(go_reason(self.status).as_bytes());
                    if !self.detail.is_empty() {
                        w.name(b"detail");
                        w.text(self.detail.as_bytes());
                    }
                });
                json(self.status, dialect, w)
            }
            (Form::Usual, Dialect::Python) => {
                let reason = python_reason(self.status);
                let detail = escape_html(&self.detail);
                let page = format!(
                    "<!doctype html>\n<html lang=en>\n<title>{code} {reason}</title>\n\
                     <h1>{reason}</h1>\n<p>{detail}</p>\n"
                );
                html(self.status, page)
            }
        };
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl From<Refusal> for Given {
    fn from(refusal: Refusal) -> Self {
        Err(refusal)
    }
}

/// JSON.
pub fn json(status: StatusCode, dialect: Dialect, writer: Writer) -> Response {
    let content_type = match dialect {
        Dialect::Python => "application/json",
        Dialect::Go => "application/json; charset=utf-8",
    };
    respond(status, content_type, writer.finish())
}

/// HTML of our own making.
pub fn html(status: StatusCode, page: impl Into<Body>) -> Response {
    respond(status, HTML, page)
}

/// Text. Whoever chose it, no browser takes it for more.
pub fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    respond(status, TEXT, text)
}

/// Nothing but a status.
pub fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A status and no bytes, with the type that the dialect has when none is named.
pub fn empty(status: StatusCode, dialect: Dialect) -> Response {
    match dialect {
        Dialect::Python => html(status, ""),
        Dialect::Go => plain(status, ""),
    }
}

/// Leads elsewhere. Python's has a page for who does not follow.
pub fn redirect(status: StatusCode, location: &str, dialect: Dialect) -> Given {
    let mut response = match dialect {
        Dialect::Python => {
            let shown = escape_html(location);
            let page = format!(
                "<!doctype html>\n<html lang=en>\n<title>Redirecting</title>\n\
                 <h1>Redirecting</h1>\n<p>The answer is at <a href=\"{shown}\">{shown}</a>.\n"
            );
            html(status, page)
        }
        Dialect::Go => bare(status),
    };
    set(&mut response, LOCATION, location)?;
    Ok(response)
}

/// Sets a field to text that a client may have chosen.
pub fn set(response: &mut Response, name: HeaderName, value: &str) -> Result<(), Refusal> {
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        Refusal::bad(format!(
            "{name} cannot have a line end or a control character"
        ))
    })?;
    response.headers_mut().insert(name, value);
    Ok(())
}

/// To OPTIONS, in Python's dialect.
pub fn options(allow: &str) -> Response {
    let mut response = html(StatusCode::OK, "");
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// 405.
pub fn method_not_allowed(allow: &str, dialect: Dialect) -> Refusal {
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        match dialect {
            Dialect::Python => format!("This path knows the methods {allow}."),
            Dialect::Go => "Method Not Allowed\n".into(),
        },
    );
    let refusal = match HeaderValue::from_str(allow) {
        Ok(allow) => refusal.with(ALLOW, allow),
        Err(_) => refusal,
    };
    if dialect == Dialect::Go {
        refusal.in_text()
    } else {
        refusal
    }
}

/// 404.
pub fn nothing_there(dialect: Dialect) -> Refusal {
    match dialect {
        Dialect::Python => Refusal::new(StatusCode::NOT_FOUND, "There is nothing at this path."),
        Dialect::Go => Refusal::new(StatusCode::NOT_FOUND, "404 page not found\n").in_text(),
    }
}

/// To a path with `//` or `..`, in Go's dialect; with a page for who reads.
pub fn cleaned(path: &str, reads: bool) -> Response {
    let status = StatusCode::TEMPORARY_REDIRECT;
    let mut response = if reads {
        let shown = escape_html(path);
        html(
            status,
            format!("<a href=\"{shown}\">Temporary Redirect</a>.\n\n"),
        )
    } else {
        bare(status)
    };
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, path);
    }
    response
}

/// Gives the status line the words of the original: Python's are in capitals.
pub fn name_reason(response: &mut Response, dialect: Dialect) {
    let status = response.status();
    let reason = match dialect {
        Dialect::Python if status == StatusCode::OK => return,
        Dialect::Python => python_reason(status).to_ascii_uppercase(),
        Dialect::Go => go_reason(status).into_owned(),
    };
    if let Ok(reason) = ReasonPhrase::try_from(reason.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
}

fn python_reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        207 => "Multi Status",
        306 => "Switch Proxy",
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        416 => "Requested Range Not Satisfiable",
        425 => "Too Early",
        449 => "Retry With",
        511 => "Network Authentication Failed",
        _ => status.canonical_reason().unwrap_or("Unknown"),
    }
}

fn go_reason(status: StatusCode) -> Cow<'static, str> {
    match status.as_u16() {
        203 => "Non-Authoritative Information".into(),
        413 => "Request Entity Too Large".into(),
        414 => "Request URI Too Long".into(),
        416 => "Requested Range Not Satisfiable".into(),
        code => match status.canonical_reason() {
            Some(reason) => reason.into(),
            None => format!("status code {code}").into(),
        },
    }
}

/// HTML's type.
pub const HTML: &str = "text/html; charset=utf-8";
/// Text's type.
pub const TEXT: &str = "text/plain; charset=utf-8";
