//! A scan from page to page, so that a store of any size passes through little memory.

use portyard_core::exit::Exit;
use portyard_wire::value::Value;

use super::raised::Raised;
use super::server::{Broken, Server};
use crate::stop::Stop;

/// Entries of a scan.
pub struct Page {
    /// Keys and values.
    pub entries: Vec<(Value, Value)>,
    cursor: Value,
}

/// A scan from page to page.
pub struct Pages {
    prefix: Value,
    /// `None` behind the last page.
    cursor: Option<Value>,
    limit: u64,
}

impl Pages {
    /// From the first key on that begins so; from the first of all when it is nil.
    pub fn new(prefix: Value) -> Self {
        Self {
            prefix,
            cursor: Some(Value::Nil),
            limit: PAGE,
        }
    }

    /// The next page, of at most `most` entries.
    pub fn next(
        &mut self,
        server: &mut Server,
        most: u64,
    ) -> Result<Option<Result<Page, Raised>>, Stop> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let called = loop {
            let limit = i64::try_from(self.limit.min(most)).unwrap_or(i64::MAX);
            let params = vec![self.prefix.clone(), cursor.clone(), Value::Int(limit)];
            match server.call("scan", params) {
                // The values are large: fewer at once.
                Err(Broken::TooLong(_)) if self.limit > 1 => self.limit = (self.limit / 8).max(1),
                other => break other?,
            }
        };
        let page = match called {
            Ok(value) => Page::read(value).ok_or_else(|| not_a("page of a scan"))?,
            Err(raised) => return Ok(Some(Err(raised))),
        };
        self.cursor = (page.cursor != Value::Nil).then(|| page.cursor.clone());
        Ok(Some(Ok(page)))
    }
}

impl Page {
    fn read(value: Value) -> Option<Self> {
        let Value::Map(members) = value else {
            return None;
        };
        let (mut entries, mut cursor) = (None, None);
        for (name, value) in members {
            match (name, value) {
                (Value::String(name), Value::List(pairs)) if name == "entries" => {
                    entries = pairs.into_iter().map(pair).collect::<Option<Vec<_>>>();
                }
                (Value::String(name), value @ (Value::Nil | Value::String(_)))
                    if name == "cursor" =>
                {
                    cursor = Some(value);
                }
                _ => {}
            }
        }
        let page = Self {
            entries: entries?,
            cursor: cursor?,
        };
        // A page without entries that is not the last would never end.
        (page.cursor == Value::Nil || !page.entries.is_empty()).then_some(page)
    }
}

fn pair(value: Value) -> Option<(Value, Value)> {
    match value {
        Value::List(pair) => {
            let [key, value] = <[Value; 2]>::try_from(pair).ok()?;
            Some((key, value))
        }
        _ => None,
    }
}

/// The answer is not what the method says.
pub fn not_a(what: &str) -> Stop {
    let message = format!("the server answers with something that is no {what}; is it kv-rpc?");
    Stop::fatal(Exit::Data, message)
}

/// Entries of a page, if their values are small.
const PAGE: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_wire::jsonrpc::{Caps, json};

    #[test]
    fn a_scan_that_would_never_end_is_no_page() {
        let page = |text: &str| {
            let caps = Caps {
                size: 1 << 20,
                batch: 0,
            };
            Page::read(json::decode(text.as_bytes(), &caps).unwrap())
        };
        assert!(page(r#"{"entries":[["a",1]],"cursor":"1"}"#).is_some());
        assert!(page(r#"{"entries":[],"cursor":null}"#).is_some());
        for text in [
            r#"{"entries":[],"cursor":"1"}"#,
            r#"{"entries":[["a"]],"cursor":null}"#,
            r#"{"entries":[["a",1]]}"#,
            "[]",
        ] {
            assert!(page(text).is_none(), "{text}");
        }
    }
}
