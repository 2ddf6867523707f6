//! How a file is shown. What certificates say comes from others, so no terminal obeys it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use portyard_core::tls::Facts;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Finding;
use super::item::{Contents, Item, List};
use super::judge::{moment, whole_days};
use crate::out::Out;
use crate::stop::Stop;

/// For people.
pub fn text(
    out: &mut Out,
    path: &Path,
    contents: &Contents,
    findings: &[Finding],
    now: SystemTime,
) -> Result<(), Stop> {
    let count = contents.items.len();
    for (at, item) in contents.items.iter().enumerate() {
        let part = if count == 1 {
            String::new()
        } else {
            format!(" ({} of {count})", at + 1)
        };
        say(out, &format!("{}: {item}{part}", path.display()))?;
        for (name, value) in rows(item, now) {
            say(out, &format!("  {name:<12} {value}"))?;
        }
    }
    if count == 0 {
        say(out, &format!("{}:", path.display()))?;
    }
    for finding in findings {
        let mark = if finding.fails { "FAILS" } else { "note" };
        say(out, &format!("  {mark}: {}", finding.text))?;
    }
    out.line("")
}

/// For programs: one object.
pub fn json(
    out: &mut Out,
    path: &Path,
    contents: &Contents,
    findings: &[Finding],
    now: SystemTime,
) -> Result<(), Stop> {
    let items: Vec<_> = contents
        .items
        .iter()
        .map(|item| object(item, now))
        .collect();
    let texts = |fails: bool| -> Vec<_> {
        let of_kind = findings.iter().filter(|finding| finding.fails == fails);
        of_kind.map(|finding| finding.text.as_str()).collect()
    };
    out.json(&json!({
        "file": path.display().to_string(),
        "items": items,
        "fails": texts(true),
        "notes": texts(false),
    }))
}

fn rows(item: &Item, now: SystemTime) -> Vec<(&'static str, String)> {
    match item {
        Item::Certificate(certificate) => certificate_rows(&certificate.facts, now),
        Item::Key(key) => {
            let kind = key.as_ref().map(|half| half.key.to_string());
            vec![("key", kind.unwrap_or_else(|| "of an unknown kind".into()))]
        }
        Item::List(list) => list_rows(list),
        Item::Request { subject, key } => {
            let key = key.as_ref().map(ToString::to_string);
            vec![
                ("subject", or_none(subject)),
                ("key", key.unwrap_or_else(|| "of an unknown kind".into())),
            ]
        }
        Item::Other(_) => Vec::new(),
    }
}

fn certificate_rows(facts: &Facts, now: SystemTime) -> Vec<(&'static str, String)> {
    let left = match facts.not_after.duration_since(now) {
        Ok(left) => format!("{} days left", whole_days(left)),
        Err(past) => format!("ended {} days ago", whole_days(past.duration())),
    };
    let (begin, end) = (minute(facts.not_before), minute(facts.not_after));
    let listed = |usages: Option<String>| usages.unwrap_or_else(|| "not limited".into());
    let usages = facts.usages.as_ref().map(|usages| usages.join(", "));
    let extended = facts
        .extended_usages
        .as_ref()
        .map(|usages| usages.join(", "));
    vec![
        ("subject", or_none(&facts.subject)),
        ("issuer", or_none(&facts.issuer)),
        ("names", or_none(&facts.names.join(", "))),
        ("valid", format!("{begin} to {end} UTC ({left})")),
        ("key", facts.key.to_string()),
        ("key usage", listed(usages)),
        ("for", listed(extended)),
        ("authority", if facts.is_ca { "yes" } else { "no" }.into()),
        ("serial", facts.serial.clone()),
        ("signature", facts.signature.clone()),
        ("pin", pin(facts)),
    ]
}

fn list_rows(list: &List) -> Vec<(&'static str, String)> {
    let next = list.next_update.map(|next| minute(moment(next)) + " UTC");
    vec![
        ("issuer", or_none(&list.issuer)),
        (
            "number",
            or_none(list.number.as_deref().unwrap_or_default()),
        ),
        ("made", minute(moment(list.this_update)) + " UTC"),
        ("next by", next.unwrap_or_else(|| "not said".into())),
        ("revoked", list.count.to_string()),
    ]
}

fn object(item: &Item, now: SystemTime) -> Value {
    match item {
        Item::Certificate(certificate) => {
            let facts = &certificate.facts;
            let days_left = match facts.not_after.duration_since(now) {
                Ok(left) => i128::from(whole_days(left)),
                Err(past) => -i128::from(whole_days(past.duration())),
            };
            json!({
                "type": "certificate",
                "subject": facts.subject,
                "issuer": facts.issuer,
                "names": facts.names,
                "not_before": seconds(facts.not_before),
                "not_after": seconds(facts.not_after),
                // Some 3.7 million at most.
                "days_left": i64::try_from(days_left).unwrap_or(i64::MAX),
                "key": facts.key.to_string(),
                "bits": facts.key.bits,
                "key_usage": facts.usages,
                "extended_key_usage": facts.extended_usages,
                "authority": facts.is_ca,
                "serial": facts.serial,
                "signature": facts.signature,
                "pin": pin(facts),
            })
        }
        Item::Key(half) => json!({
            "type": "private key",
            "key": half.as_ref().map(|half| half.key.to_string()),
            "bits": half.as_ref().map(|half| half.key.bits),
        }),
        Item::List(list) => json!({
            "type": "revocation list",
            "issuer": list.issuer,
            "number": list.number,
            "this_update": list.this_update,
            "next_update": list.next_update,
            "revoked": list.count,
        }),
        Item::Request { subject, key } => json!({
            "type": "certificate request",
            "subject": subject,
            "key": key.as_ref().map(ToString::to_string),
        }),
        Item::Other(label) => json!({"type": label}),
    }
}

/// As `--pin` takes it.
fn pin(facts: &Facts) -> String {
    let start = String::from("sha256:");
    facts
        .fingerprint
        .iter()
        .fold(start, |text, byte| format!("{text}{byte:02x}"))
}

fn minute(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!("{} {:02}:{:02}", time.date(), time.hour(), time.minute())
}

fn seconds(time: SystemTime) -> i64 {
    let whole = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => whole(since),
        Err(before) => -whole(before.duration()),
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() {
        "none".into()
    } else {
        text.into()
    }
}

fn say(out: &mut Out, text: &str) -> Result<(), Stop> {
    out.peer_line(text.as_bytes(), LINE_MAX)
}

/// Characters of a line; a certificate may have hundreds of names.
const LINE_MAX: usize = 4096;
