//! The state of the yard as lines of text. Pure; what is missing is left empty, and nothing in it is
//! obeyed by a terminal.

use portyard_wire::escape::escape;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

/// How much there is room for.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Characters of a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The table, and below it what somebody should look at.
pub fn lines(told: &Value) -> Vec<String> {
    let (rows, notes) = rows_and_notes(told);
    if rows.is_empty() {
        return vec![NOBODY.into()];
    }
    let widths = widths(&rows);
    let all = std::iter::once(head()).chain(rows.into_iter().map(|row| row.cells));
    let all = all.map(|cells| line(&cells, &widths, &[]));
    all.chain(notes).collect()
}

/// The same in a window: without what is least needed of each line, and if there are too many lines with
/// those first that somebody should look at.
pub fn fitted(told: &Value, window: Window) -> Vec<String> {
    let (mut rows, mut notes) = rows_and_notes(told);
    // The cursor has a line.
    let room = window.rows.saturating_sub(1).max(2);
    let count = rows.len();
    if count == 0 {
        return vec![cut(NOBODY, window.columns)];
    }
    if 1 + rows.len() + notes.len() > room {
        rows.sort_by_key(|row| row.is_ready);
        // A line says what is left out.
        let least = notes.len().min(room / 3);
        rows.truncate(room.saturating_sub(2 + least).max(1));
        let left = room.saturating_sub(2 + rows.len());
        let (more, others) = (count - rows.len(), notes.len().saturating_sub(left));
        notes.truncate(left);
        let mut said = Vec::new();
        if more > 0 {
            said.push(format!("{more} more of {count} daemons"));
        }
        if others > 0 {
            said.push(format!("{others} more notes"));
        }
        notes.push(format!("… {}: make the window higher", said.join(", ")));
    }
    let widths = widths(&rows);
    let mut left_out: Vec<usize> = Vec::new();
    let needed = |left_out: &[usize]| {
        let kept = widths.iter().enumerate();
        let kept = kept.filter(|(place, _)| !left_out.contains(place));
        kept.map(|(_, width)| width + GAP.len()).sum::<usize>() - GAP.len()
    };
    for column in LEAST_NEEDED {
        if needed(&left_out) > window.columns {
            left_out.push(column);
        }
    }
    let all = std::iter::once(head()).chain(rows.into_iter().map(|row| row.cells));
    let all = all.map(|cells| line(&cells, &widths, &left_out));
    all.chain(notes)
        .map(|line| cut(&line, window.columns))
        .collect()
}

/// What of a line fits into so many columns.
pub fn cut(line: &str, columns: usize) -> String {
    if line.width() <= columns {
        return line.into();
    }
    let mut width = 1;
    let fits = line.chars().take_while(|char| {
        width += char.width().unwrap_or(0);
        width <= columns
    });
    fits.chain(['…']).collect()
}

struct Row {
    cells: Vec<String>,
    is_ready: bool,
}

fn rows_and_notes(told: &Value) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for daemon in items(&told["daemons"]) {
        rows.push(Row {
            cells: row(daemon),
            is_ready: daemon["state"] == "ready",
        });
        let name = text(&daemon["name"]);
        if daemon["error"].is_string() {
            notes.push(format!("{name}: {}", text(&daemon["error"])));
        }
        for limit in items(&daemon["limits"]).filter(|limit| limit["now"] == true) {
            let listener = text(&limit["listener"]);
            let place = if listener.is_empty() {
                listener
            } else {
                format!(" of {listener}")
            };
            notes.push(format!(
                "{name}: limit {}{place} is met ({})",
                text(&limit["reason"]),
                limit["count"]
            ));
        }
        for one in items(&daemon["certificates"]) {
            let days = one["days_left"].as_i64().unwrap_or(i64::MAX);
            if days <= SOON {
                let when = match days {
                    ..=-1 => "has ended".to_owned(),
                    0 => "ends today".to_owned(),
                    1 => "ends in 1 day".to_owned(),
                    _ => format!("ends in {days} days"),
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
    (rows, notes)
}

fn head() -> Vec<String> {
    HEAD.map(String::from).to_vec()
}

fn widths(rows: &[Row]) -> [usize; HEAD.len()] {
    let mut widths = HEAD.map(UnicodeWidthStr::width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = cell.width().max(*width);
        }
    }
    widths
}

fn line(cells: &[String], widths: &[usize], left_out: &[usize]) -> String {
    let kept = cells.iter().zip(widths).enumerate();
    let padded =
        kept.filter(|(place, _)| !left_out.contains(place))
            .map(|(place, (cell, width))| {
                let gap = " ".repeat(width - cell.width());
                // Words on the left, figures on the right.
                if place < WORDS {
                    format!("{cell}{gap}")
                } else {
                    format!("{gap}{cell}")
                }
            });
    let line = padded.collect::<Vec<_>>().join(GAP);
    line.trim_end().to_owned()
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
    escape(value.as_str().unwrap_or_default().as_bytes(), TEXT_MAX)
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
const NOBODY: &str = "No daemon is named: add tables [[yard]] to rest-api's configuration.";
const GAP: &str = "  ";
/// Columns that can be left out: the program, bytes, since when.
const LEAST_NEEDED: [usize; 4] = [2, 8, 7, 3];
/// Characters of a text that a daemon tells.
const TEXT_MAX: usize = 512;
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
    fn a_window_shows_first_what_needs_a_look_and_is_never_too_small() {
        let daemon = |nth: usize| {
            let (state, error) = match nth {
                40 | 41 => (
                    "unreachable",
                    json!("nothing listens there; is it running?"),
                ),
                _ => ("ready", json!(null)),
            };
            json!({ "name": format!("daemon-{nth}"), "state": state, "program": "fd-broker",
                "version": "1.0.0", "uptime_seconds": 7200, "error": error })
        };
        let told = json!({ "daemons": (0..50).map(daemon).collect::<Vec<_>>() });
        for (columns, rows) in [(80, 24), (40, 10), (10, 5), (1, 1), (0, 0), (300, 24)] {
            let lines = fitted(&told, Window { columns, rows });
            assert!(lines.len() < rows.max(4), "{lines:#?}");
            assert!(
                lines.iter().all(|line| line.width() <= columns.max(1)),
                "{lines:#?}"
            );
        }
        let lines = fitted(
            &told,
            Window {
                columns: 80,
                rows: 24,
            },
        );
        assert_eq!(lines.len(), 23);
        assert_eq!(
            lines[..3],
            [
                "NAME       STATE        UP  CONNECTIONS  TAKEN/s  REFUSED/s  IN B/s  OUT B/s",
                "daemon-40  unreachable   -            -        -          -       -        -",
                "daemon-41  unreachable   -            -        -          -       -        -",
            ]
        );
        assert_eq!(
            lines[20..],
            [
                "daemon-40: nothing listens there; is it running?",
                "daemon-41: nothing listens there; is it running?",
                "… 31 more of 50 daemons: make the window higher",
            ]
        );
        // Where there is room, nothing is left out, and the order is that of the configuration.
        let all = fitted(
            &told,
            Window {
                columns: 200,
                rows: 99,
            },
        );
        assert_eq!(all, super::lines(&told));
    }

    #[test]
    fn columns_line_up_whatever_is_told() {
        let told = json!({ "daemons": [
            { "name": "a", "state": "ready", "program": "日本", "version": "\u{1b}[31m" },
            { "name": "b", "state": "ready", "program": "echo-tcp", "version": "1" },
        ]});
        let lines = lines(&told);
        assert!(lines[1].contains("日本 \\x1b[31m"), "{lines:?}");
        assert_eq!(lines[1].width(), lines[2].width());
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
