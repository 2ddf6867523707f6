//! Where the time went.

use std::time::Duration;

use portyard_wire::escape::escape;
use serde_json::{Value, json};

use super::session::Hop;
use super::site::SHOWN;

/// A table with a line for each request, and one for all of them where there are several.
pub fn table(hops: &[Hop]) -> Vec<String> {
    let mut rows = vec![HEADINGS.map(String::from).to_vec()];
    let time = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let perhaps = |part: Option<Duration>| part.map_or("-".into(), time);
    for hop in hops {
        rows.push(vec![
            hop.method.to_string(),
            hop.status.as_u16().to_string(),
            perhaps(hop.lookup),
            perhaps(hop.connect),
            perhaps(hop.tls),
            time(hop.first),
            time(hop.total),
            hop.sent.to_string(),
            hop.received.to_string(),
            escape(hop.url.as_str().as_bytes(), SHOWN),
        ]);
    }
    if hops.len() > 1 {
        let total: Duration = hops.iter().map(|hop| hop.total).sum();
        let sent: u64 = hops.iter().map(|hop| hop.sent).sum();
        let received: u64 = hops.iter().map(|hop| hop.received).sum();
        let mut row = vec!["-".to_string(); HEADINGS.len()];
        row[0] = "all".into();
        row[6] = time(total);
        row[7] = sent.to_string();
        row[8] = received.to_string();
        row[9] = String::new();
        rows.push(row);
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|at| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Words to the left, numbers to the right.
                let cell = match at {
                    0 | 9 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                };
                line.push_str(&cell);
                line.push_str("  ");
            }
            line.trim_end().into()
        })
        .collect()
}

/// The same for programs, in seconds.
pub fn value(hop: &Hop) -> Value {
    let seconds = |time: Duration| time.as_secs_f64();
    json!({
        "method": hop.method.as_str(),
        "url": hop.url.as_str(),
        "status": hop.status.as_u16(),
        "lookup": hop.lookup.map(seconds),
        "connect": hop.connect.map(seconds),
        "tls": hop.tls.map(seconds),
        "first_byte": seconds(hop.first),
        "total": seconds(hop.total),
        "sent": hop.sent,
        "received": hop.received,
    })
}

const HEADINGS: [&str; 10] = [
    "METHOD",
    "STATUS",
    "LOOKUP",
    "CONNECT",
    "TLS",
    "FIRST BYTE",
    "TOTAL",
    "SENT",
    "RECEIVED",
    "URL",
];
