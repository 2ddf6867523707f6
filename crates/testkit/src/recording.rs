//! What was recorded of Python's XML-RPC server, case by case.
#![expect(
    clippy::unwrap_used,
    reason = "a recording that cannot be read fails the test"
)]

use std::collections::BTreeMap;

/// A dialogue with Python's own server.
pub struct Case<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Requests with their answers.
    pub exchanges: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads a recording, whose form is told by `crates/wire/tests/golden/xmlrpc/record.py`.
pub fn cases_of(recorded: &str) -> Vec<Case<'_>> {
    let mut frames: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let mut cases: Vec<Case<'_>> = Vec::new();
    let mut request = Vec::new();
    for line in recorded.lines() {
        let (word, bytes) = line.split_once('\t').unwrap();
        let answer = match word {
            "python" => continue,
            "case" => {
                cases.push(Case {
                    name: bytes,
                    exchanges: Vec::new(),
                });
                continue;
            }
            "request" => {
                request = read(bytes);
                continue;
            }
            "response" => read(bytes),
            _ => match (word.strip_prefix("frame of "), frames.get(word)) {
                (Some(word), _) => {
                    frames.entry(word).or_default().push(read(bytes));
                    continue;
                }
                (None, Some(halves)) => halves.join(&read(bytes)[..]),
                (None, None) => panic!("{line}"),
            },
        };
        let case = cases.last_mut().unwrap();
        case.exchanges.push((request.clone(), answer));
    }
    cases
}

/// Bytes with `\xNN` and `\{count*piece}`.
fn read(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((plain, escape)) = text.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        if let Some(run) = escape.strip_prefix('{') {
            let (run, rest) = run.split_once('}').unwrap();
            let (count, piece) = run.split_once('*').unwrap();
            bytes.extend(piece.repeat(count.parse().unwrap()).bytes());
            text = rest;
        } else {
            bytes.push(u8::from_str_radix(&escape[1..3], 16).unwrap());
            text = &escape[3..];
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
