//! The state of the yard as lines of text. Pure; what is missing is left empty.

use serde_json::Value;

/// The table, and below it what somebody should look at.
pub fn lines(told: &Value) -> Vec<String> {
    let mut rows = vec![HEAD.map(String::from).to_vec()];
    let mut notes = Vec::new();
    for daemon in items(&told["daemons"]) {
        rows.push(row(daemon));
        let name = text(&daemon["name"]);
        if let Some(error) = daemon["error"].as_str() {
            notes.push(format!("{name}: {error}"));
        }
        for limit in items(&daemon["limits"]).filter(|limit| limit["now"] == true) {
            let listener = limit["listener"]
                .as_str()
                .filter(|listener| !listener.is_empty());
            let place = listener
                .map(|listener| format!(" of {listener}"))
                .unwrap_or_default();
            notes.push(format!(
                "{name}: limit {}{place} is met ({})",
                text(&limit["reason"]),
                limit["count"]
            ));
        }
        for one in items(&daemon["certificates"]) {
            let days = one["days_left"].as_i64().unwrap_or(i64::MAX);
            if days <= SOON {
                let when = if days < 0 {
                    "has ended".to_owned()
                } else {
                    format!("ends in {days} days")
                };
                notes.push(format!(
                    "{name}: {} {} of {} {when} ({})",
                    text(&one["kind"]),
                    text(&one["name"]),
                    text(&one["listener"]),
                    text(&one["file"])
                ));
            }
        }
    }
    if rows.len() == 1 {
        return vec!["No daemon is named: add tables [[yard]] to rest-api's configuration.".into()];
    }
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: Vec<String>| {
        let cells = row.iter().zip(widths).enumerate();
        let padded = cells.map(|(place, (cell, width))| {
            let gap = " ".repeat(width - cell.chars().count());
            // Words on the left, figures on the right.
            if place < WORDS {
                format!("{cell}{gap}")
            } else {
                format!("{gap}{cell}")
            }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    rows.into_iter().map(line).chain(notes).collect()
}

/// Whether every daemon serves.
pub fn is_ready(told: &Value) -> bool {
    items(&told["daemons"]).all(|daemon| daemon["state"] == "ready")
}

fn row(daemon: &Value) -> Vec<String> {
    let rates = &daemon["rates"];
    let rate = |names: [&str; 2]| {
        let each = names.iter().filter_map(|name| rates[name].as_f64());
        let sum = each.fold(0.0, |sum, rate| sum + rate);
        short(sum, 1000.0, &["", "k", "M", "G"])
    };
    let bytes = |name: &str| {
        let rate = rates[name].as_f64().unwrap_or(0.0);
        short(rate, 1024.0, &["", "Ki", "Mi", "Gi"])
    };
    let connections = &daemon["connections"]["present"];
    let is_there = daemon["state"] != "unreachable" && daemon["state"] != "unknown";
    let if_there = |cell: String| if is_there { cell } else { "-".into() };
    vec![
        text(&daemon["name"]),
        text(&daemon["state"]),
        format!("{} {}", text(&daemon["program"]), text(&daemon["version"]))
            .trim()
            .to_owned(),
        if_there(span(daemon["uptime_seconds"].as_u64().unwrap_or(0))),
        if_there(connections.to_string()),
        if_there(rate(["accepted", "datagrams"])),
        if_there(rate(["refused", "dropped"])),
        if_there(bytes("received_bytes")),
        if_there(bytes("sent_bytes")),
    ]
}

/// Three figures and a unit.
fn short(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut place = 0;
    while value >= step && place + 1 < units.len() {
        value /= step;
        place += 1;
    }
    let digits = usize::from(value < 100.0 && value.fract() >= 0.05);
    format!("{value:.digits$}{}", units[place])
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}min", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

const HEAD: [&str; 9] = [
    "NAME",
    "STATE",
    "PROGRAM",
    "UP",
    "CONNECTIONS",
    "TAKEN/s",
    "REFUSED/s",
    "IN B/s",
    "OUT B/s",
];
/// Columns of words.
const WORDS: usize = 3;
/// Days before the end of a certificate from which it is told.
const SOON: i64 = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_for_each_daemon_and_below_what_needs_a_look() {
        let told = json!({ "daemons": [
            {
                "name": "echo", "state": "ready", "program": "echo-tcp", "version": "1.0",
                "uptime_seconds": 7200, "connections": { "present": 12 },
                "rates": { "accepted": 1500.0, "received_bytes": 2048.0, "sent_bytes": 0.5 },
                "limits": [
                    { "listener": "front", "reason": "rate", "count": 7, "now": true },
                    { "listener": "front", "reason": "idle", "count": 7, "now": false },
                ],
                "certificates": [
                    { "kind": "certificate", "name": "a", "listener": "front", "file": "a.pem", "days_left": 3 },
                    { "kind": "certificate", "name": "b", "listener": "front", "file": "b.pem", "days_left": 300 },
                ],
            },
            { "name": "t", "state": "unreachable", "error": "nothing listens there" },
        ]});
        assert_eq!(
            lines(&told),
            [
                "NAME  STATE        PROGRAM       UP  CONNECTIONS  TAKEN/s  REFUSED/s  IN B/s  OUT B/s",
                "echo  ready        echo-tcp 1.0  2h           12     1.5k          0     2Ki      0.5",
                "t     unreachable                 -            -        -          -       -        -",
                "echo: limit rate of front is met (7)",
                "echo: certificate a of front ends in 3 days (a.pem)",
                "t: nothing listens there",
            ]
        );
        assert!(!is_ready(&told));
    }

    #[test]
    fn whatever_else_is_told_does_no_harm() {
        for odd in [
            json!(null),
            json!({ "daemons": [null, 5, { "rates": [], "limits": 7 }] }),
        ] {
            assert!(!lines(&odd).is_empty());
        }
    }
}
