//! `GET /hello?name=`: a greeting, as HTML, text or JSON.

use hyper::StatusCode;
use hyper::header::{HeaderValue, VARY};
use serde_json::json;

use crate::http::{Answer, Offer, Problem, Request, choose, escape_html, respond};

/// Greets.
pub fn answer(request: &Request) -> Answer {
    let name = request.parameter("name").filter(|name| !name.is_empty());
    let name = name.as_deref().unwrap_or("world");
    let form = choose(&request.headers, FORMS).ok_or_else(|| Problem::not_acceptable(FORMS))?;
    let text = match form {
        0 => [HTML[0], &escape_html(name), HTML[1]].concat(),
        1 => format!("Hello, {name}!\n"),
        _ => format!("{}\n", json!({ "hello": name })),
    };
    let mut response = respond(StatusCode::OK, FORMS[form].content_type, text);
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// What stands around the name.
const HTML: [&str; 2] = [
    "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Hello</title><p>Hello, ",
    "!</p></html>\n",
];
const FORMS: &[Offer] = &[
    Offer::new("text/html; charset=utf-8", &[]),
    Offer::new("text/plain; charset=utf-8", &[]),
    Offer::new("application/json", &[]),
];
