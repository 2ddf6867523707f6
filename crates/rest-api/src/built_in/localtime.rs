//! `GET /localtime`: the time of day where the server is, as XML, JSON, CSV, HTML or text, by what the
//! client accepts or by a suffix of the path.

use std::fmt::Write as _;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, VARY};
use portyard_wire::civil::Civil;

use crate::http::{Answer, Offer, Problem, Request, choose, respond};

/// What the path asks for.
#[derive(Clone, Copy)]
pub enum Wish {
    /// What the client accepts.
    Negotiated,
    /// A form, by its place.
    Form(usize),
}

impl Wish {
    /// That of a suffix of the path; `None` where the path is another.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        if suffix.is_empty() {
            return Some(Self::Negotiated);
        }
        let place = SUFFIXES.iter().position(|known| *known == suffix)?;
        Some(Self::Form(place))
    }
}

/// Tells the time.
pub fn answer(request: &Request, wish: Wish) -> Answer {
    let chosen = match wish {
        Wish::Negotiated => choose(&request.headers, FORMS),
        Wish::Form(form) => Some(form),
    };
    let chosen = chosen.ok_or_else(|| Problem::not_acceptable(FORMS))?;
    let clock = &request.client.home.clock;
    let now = clock.now();
    let offset = clock.offset(now);
    let civil = Civil::from_unix(now.seconds, offset);
    let text = write(chosen, &civil, offset);
    let mut response = respond(StatusCode::OK, FORMS[chosen].content_type, text);
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(wish, Wish::Negotiated) {
        fields.append(VARY, HeaderValue::from_static("accept"));
    }
    Ok(response)
}

fn write(form: usize, civil: &Civil, offset: i32) -> String {
    let fields = [
        ("year", civil.year.to_string()),
        ("month", civil.month.to_string()),
        ("day", civil.day.to_string()),
        ("hour", civil.hour.to_string()),
        ("minute", civil.minute.to_string()),
        ("second", civil.second.to_string()),
    ];
    let zone = {
        let minutes = offset.abs() / 60;
        let sign = if offset < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    };
    let iso = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{zone}",
        civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
    );
    let mut out = String::new();
    // Writing into a String does not fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = out.write_fmt(text);
    };
    match form {
        0 => {
            line(format_args!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<localtime>\n"
            ));
            for (name, value) in &fields {
                line(format_args!("  <{name}>{value}</{name}>\n"));
            }
            line(format_args!("</localtime>\n"));
        }
        1 => {
            line(format_args!("{{"));
            for (name, value) in &fields {
                line(format_args!("\"{name}\":{value},"));
            }
            line(format_args!("\"offset\":{offset},\"iso\":\"{iso}\"}}\n"));
        }
        2 => {
            let (names, values): (Vec<_>, Vec<_>) =
                fields.iter().map(|(n, v)| (*n, v.as_str())).unzip();
            line(format_args!(
                "{}\r\n{}\r\n",
                names.join(","),
                values.join(",")
            ));
        }
        3 => line(format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Local time</title>\
             <p><time datetime=\"{iso}\">{iso}</time></p></html>\n"
        )),
        _ => line(format_args!("{iso}\n")),
    }
    out
}

const FORMS: &[Offer] = &[
    Offer::new("application/xml", &["text/xml"]),
    Offer::new("application/json", &[]),
    Offer::new("text/csv; charset=utf-8; header=present", &[]),
    Offer::new("text/html; charset=utf-8", &[]),
    Offer::new("text/plain; charset=utf-8", &[]),
];

/// In the order of the forms.
const SUFFIXES: [&str; 5] = [".xml", ".json", ".csv", ".html", ".txt"];
