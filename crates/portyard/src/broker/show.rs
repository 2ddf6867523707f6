//! A broker's state, for a person or a program to read.

use portyard_core::wire::escape::escape;
use serde_json::{Value, json};

use crate::out::Out;
use crate::stop::Stop;

/// The workers of all pools.
pub fn workers(status: &Value, as_json: bool, out: &mut Out) -> Result<(), Stop> {
    if as_json {
        return out.json(&status["pools"]);
    }
    let mut rows = vec![titles(&[
        "POOL",
        "WORKER",
        "PROTOCOL",
        "PID",
        "AGE",
        "STATE",
        "CONNECTIONS",
        "OFFERED",
        "TAKEN",
        "REFUSED",
        "REDELIVERED",
    ])];
    for pool in list(&status["pools"]) {
        for worker in list(&pool["workers"]) {
            rows.push(vec![
                text(&pool["name"]),
                text(&worker["name"]),
                text(&worker["protocol"]),
                text(&worker["pid"]),
                span(&worker["age_seconds"]),
                text(&worker["state"]),
                format!(
                    "{}/{}",
                    text(&worker["connections"]),
                    text(&worker["capacity"])
                ),
                text(&worker["offered"]),
                text(&worker["taken"]),
                text(&worker["refused"]),
                text(&worker["redelivered"]),
            ]);
        }
    }
    table(&rows, out)?;
    for pool in list(&status["pools"]) {
        out.line(format_args!(
            "{}: {} waiting, {} arrived, {} done, {} redelivered, {} lost",
            text(&pool["name"]),
            text(&pool["waiting"]),
            text(&pool["arrived"]),
            text(&pool["done"]),
            text(&pool["redelivered"]),
            text(&pool["lost"]),
        ))?;
    }
    Ok(())
}

/// Who waits.
pub fn queue(status: &Value, as_json: bool, out: &mut Out) -> Result<(), Stop> {
    if as_json {
        return out.json(&status["waiting"]);
    }
    let mut rows = vec![titles(&["POOL", "LISTENER", "PEER", "WAITING"])];
    for one in list(&status["waiting"]) {
        rows.push(vec![
            text(&one["pool"]),
            text(&one["listener"]),
            text(&one["peer"]),
            span(&one["waiting_seconds"]),
        ]);
    }
    table(&rows, out)
}

/// Where the broker listens, and what it holds.
pub fn listeners(status: &Value, as_json: bool, out: &mut Out) -> Result<(), Stop> {
    if as_json {
        return out.json(&json!({ "listeners": status["listeners"], "held": status["held"] }));
    }
    let mut rows = vec![titles(&["LISTENER", "ENDPOINT", "POOL"])];
    for one in list(&status["listeners"]) {
        rows.push(vec![
            text(&one["name"]),
            text(&one["endpoint"]),
            text(&one["pool"]),
        ]);
    }
    table(&rows, out)?;
    if list(&status["held"]).is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut rows = vec![titles(&[
        "HELD",
        "ENDPOINT",
        "KIND",
        "BY",
        "AGE",
        "EXPIRES",
        "RETRIEVED",
    ])];
    for one in list(&status["held"]) {
        let by = match &one["origin"]["uid"] {
            Value::Null => text(&one["origin"]),
            uid => format!("uid {uid}"),
        };
        let expires = match &one["expires_in_seconds"] {
            Value::Null => "never".into(),
            seconds => span(seconds),
        };
        for socket in list(&one["sockets"]) {
            rows.push(vec![
                text(&one["name"]),
                text(&socket["endpoint"]),
                text(&socket["kind"]),
                by.clone(),
                span(&one["age_seconds"]),
                expires.clone(),
                text(&one["retrieved"]),
            ]);
        }
    }
    table(&rows, out)
}

/// What became of a request about workers.
pub fn told(name: &str, what: &str, count: u32, as_json: bool, out: &mut Out) -> Result<(), Stop> {
    if as_json {
        return out.json(&json!({ "name": name, "workers": count }));
    }
    let workers = if count == 1 { "worker" } else { "workers" };
    let name = escape(name.as_bytes(), SHOWN);
    out.line(format_args!("{name} {what}: {count} {workers}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|title| (*title).into()).collect()
}

/// A name may be the worker's own choice: no terminal obeys it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => escape(text.as_bytes(), SHOWN),
        other => other.to_string(),
    }
}

/// Seconds as people read them.
fn span(value: &Value) -> String {
    let seconds = value.as_f64().unwrap_or(0.0);
    if seconds < 60.0 {
        format!("{seconds:.1}s")
    } else if seconds < 3600.0 {
        format!("{:.0}min", (seconds / 60.0).floor())
    } else if seconds < 86_400.0 {
        format!("{:.0}h", (seconds / 3600.0).floor())
    } else {
        format!("{:.0}d", (seconds / 86_400.0).floor())
    }
}

fn table(rows: &[Vec<String>], out: &mut Out) -> Result<(), Stop> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = width - cell.chars().count() + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', gap));
        }
        out.line(line.trim_end())?;
    }
    Ok(())
}

const SHOWN: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        let shown = |seconds: f64| span(&json!(seconds));
        assert_eq!(shown(0.04), "0.0s");
        assert_eq!(shown(119.9), "1min");
        assert_eq!(shown(7_300.0), "2h");
        assert_eq!(shown(200_000.0), "2d");
    }

    #[test]
    fn a_name_is_not_obeyed_by_a_terminal() {
        assert!(!text(&json!("\u{1b}[2J")).contains('\u{1b}'));
    }
}
