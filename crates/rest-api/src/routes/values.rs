//! What the placeholders of a template stand for in a request.

use portyard_wire::civil::Civil;

use super::pattern::{Captures, Pattern};
use super::template::{Escape, Name, Template};
use crate::http::Request;

/// Reads a template of a route with this pattern.
pub fn template(text: &str, pattern: &Pattern) -> Result<Template, String> {
    Template::parse(text, |name| pattern.has(name))
}

/// Fills a template in.
pub fn fill(template: &Template, escape: Escape, request: &Request, captures: &Captures) -> String {
    template.fill(escape, |name| value(name, request, captures))
}

fn value(name: &Name, request: &Request, captures: &Captures) -> Option<String> {
    match name {
        Name::Path(name) => {
            let found = captures.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.clone())
        }
        Name::Query(name) => request.parameter(name),
        Name::Header(name) => {
            let value = request.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into())
        }
        Name::Time(part) => Some(time(part, request)),
        Name::Fact(fact) => Some(match fact.as_str() {
            "method" => request.method.to_string(),
            "host" => request.host().into(),
            "path" => request.path().into(),
            "scheme" => request.scheme().into(),
            "peer" => match request.client.peer.ip() {
                Some(ip) => ip.to_canonical().to_string(),
                None => "local".into(),
            },
            _ => request.id().into(),
        }),
    }
}

fn time(part: &str, request: &Request) -> String {
    let clock = &request.client.home.clock;
    let now = clock.now();
    let offset = clock.offset(now);
    let civil = Civil::from_unix(now.seconds, offset);
    match part {
        "unix" => now.seconds.to_string(),
        "ctime" => clock.ctime(now).as_str().into(),
        "year" => civil.year.to_string(),
        "month" => civil.month.to_string(),
        "day" => civil.day.to_string(),
        "hour" => civil.hour.to_string(),
        "minute" => civil.minute.to_string(),
        "second" => civil.second.to_string(),
        _ => iso(&civil, offset),
    }
}

/// A moment as RFC 3339 writes it.
pub fn iso(civil: &Civil, offset: i32) -> String {
    let minutes = offset.abs() / 60;
    let sign = if offset < 0 { '-' } else { '+' };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{:02}:{:02}",
        civil.year,
        civil.month,
        civil.day,
        civil.hour,
        civil.minute,
        civil.second,
        minutes / 60,
        minutes % 60
    )
}
