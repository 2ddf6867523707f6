//! The commands: one call each, and what is printed of its result.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use portyard_core::config::Span;
use portyard_core::exit::Exit;
use portyard_wire::value::Value;

use super::pages::{self, Page, Pages};
use super::raised::{Kind, Raised};
use super::server::Server;
use super::transfer;
use super::watch::Watch;
use super::{Style, show, word};
use crate::out::{Out, complain};
use crate::stop::{Outcome, Stop};

/// What is asked of the store.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the value of a key.
    Get {
        /// The key.
        key: String,
    },
    /// Set a key, for good.
    #[command(override_usage = "set [OPTIONS] <KEY> <VALUE | --file FILE>")]
    Set {
        /// The key.
        key: String,
        #[command(flatten)]
        value: NewValue,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Whether a key is there.
    Exists {
        /// The key.
        key: String,
    },
    /// All keys, in the order in which they were first set.
    Keys,
    /// Keys and values, in the order in which the keys were first set.
    Scan {
        /// Only keys that begin so.
        prefix: Option<String>,
        /// No more than so many.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// The seconds until a key ends; null if it does not.
    Ttl {
        /// The key.
        key: String,
    },
    /// Let a key end.
    Expire {
        /// The key.
        key: String,
        /// When: seconds, or a span such as 30min.
        #[arg(value_name = "SPAN", value_parser = seconds)]
        after: f64,
    },
    /// Let a key stay that would end.
    Persist {
        /// The key.
        key: String,
    },
    /// Set a key that ends.
    Setex {
        /// The key.
        key: String,
        /// The value.
        #[arg(allow_negative_numbers = true)]
        value: String,
        /// When it ends: seconds, or a span such as 30min.
        #[arg(value_name = "SPAN", value_parser = seconds)]
        after: f64,
    },
    /// Set a key if its value is the expected one.
    #[command(override_usage = "cas [OPTIONS] <KEY> <EXPECTED> <VALUE | --file FILE>")]
    Cas {
        /// The key.
        key: String,
        /// The value that must be there; null: the key must not be there.
        #[arg(allow_negative_numbers = true)]
        expected: String,
        #[command(flatten)]
        value: NewValue,
    },
    /// Remove a key if its value is the expected one.
    Cad {
        /// The key.
        key: String,
        /// The value that must be there.
        #[arg(allow_negative_numbers = true)]
        expected: String,
    },
    /// Add to a number, and print the sum.
    Incr {
        /// The key.
        key: String,
        /// How much.
        #[arg(allow_negative_numbers = true, default_value_t = 1)]
        by: i64,
    },
    /// How many keys there are.
    Size,
    /// A value with its revision, its version and when it ends.
    Entry {
        /// The key.
        key: String,
    },
    Watch(Watch),
    Import(transfer::Import),
    Export(transfer::Export),
}

/// The value to be set.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct NewValue {
    /// The value.
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// The bytes of this file, - for standard input; text with --text, JSON with --json.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Command {
    /// Does it, and prints what comes of it. What the server refuses is told, and is no [`Stop`].
    pub fn run(self, server: &mut Server, style: Style) -> Outcome {
        let mut out = Out::new();
        let exit = self.ask(server, style, &mut out)?;
        out.flush()?;
        Ok(exit)
    }

    fn ask(self, server: &mut Server, style: Style, out: &mut Out) -> Outcome {
        match self {
            Self::Get { key } => Asked::new("get", &key, style)?
                .then(server, |value| show::value(&value, style, out)),
            Self::Set { key, value } => Asked::new("set", &key, style)?
                .with(value.read(style)?)
                .silently(server),
            Self::Delete { key } => Asked::new("delete", &key, style)?.silently(server),
            Self::Exists { key } => Asked::new("exists", &key, style)?.yes_or_no(server, out),
            Self::Ttl { key } => {
                Asked::new("ttl", &key, style)?.then(server, |value| out.line(show::exact(&value)?))
            }
            Self::Expire { key, after } => Asked::new("expire", &key, style)?
                .with(Value::Double(after))
                .yes_or_no(server, out),
            Self::Persist { key } => Asked::new("persist", &key, style)?.yes_or_no(server, out),
            Self::Setex { key, value, after } => Asked::new("setex", &key, style)?
                .with(word::value(&value, style)?)
                .with(Value::Double(after))
                .silently(server),
            Self::Cas {
                key,
                expected,
                value,
            } => Asked::new("cas", &key, style)?
                .with(word::value(&expected, style)?)
                .with(value.read(style)?)
                .yes_or_no(server, out),
            Self::Cad { key, expected } => Asked::new("cad", &key, style)?
                .with(word::value(&expected, style)?)
                .yes_or_no(server, out),
            Self::Incr { key, by } => Asked::new("incr", &key, style)?
                .with(Value::Int(by))
                .then(server, |value| out.line(show::exact(&value)?)),
            Self::Size => Asked::plain("size").then(server, |value| out.line(show::exact(&value)?)),
            Self::Entry { key } => {
                Asked::new("entry", &key, style)?.then(server, |value| entry(&value, style, out))
            }
            Self::Keys => Asked::plain("keys").then(server, |value| keys(&value, style, out)),
            Self::Scan { prefix, limit } => scan(server, prefix, limit, style, out),
            Self::Watch(watch) => watch.run(server, style, out),
            Self::Import(import) => import.run(server, out),
            Self::Export(export) => export.run(server, out),
        }
    }
}

impl NewValue {
    fn read(&self, style: Style) -> Result<Value, Stop> {
        match (&self.value, &self.file) {
            (Some(word), _) => Ok(word::value(word, style)?),
            (None, Some(path)) => Ok(word::contents(path, style)?),
            (None, None) => Err(Stop::fatal(Exit::Usage, "give a VALUE or --file FILE")),
        }
    }
}

/// A call that is about one key, or none.
struct Asked {
    method: &'static str,
    key: Option<String>,
    params: Vec<Value>,
}

impl Asked {
    fn plain(method: &'static str) -> Self {
        Self {
            method,
            key: None,
            params: Vec::new(),
        }
    }

    fn new(method: &'static str, key: &str, style: Style) -> Result<Self, Stop> {
        let value = word::key(key, style)?;
        Ok(Self {
            method,
            key: Some(show::key(&value)),
            params: vec![value],
        })
    }

    fn with(mut self, param: Value) -> Self {
        self.params.push(param);
        self
    }

    /// Calls, and shows the result.
    fn then(self, server: &mut Server, show: impl FnOnce(Value) -> Result<(), Stop>) -> Outcome {
        match server.call(self.method, self.params)? {
            Ok(value) => show(value).map(|()| Exit::Ok),
            Err(raised) => Ok(refused(&raised, self.key.as_deref())),
        }
    }

    fn silently(self, server: &mut Server) -> Outcome {
        self.then(server, |_| Ok(()))
    }

    /// Prints true or false; false is told by the exit code too.
    fn yes_or_no(self, server: &mut Server, out: &mut Out) -> Outcome {
        let mut exit = Exit::No;
        let called = self.then(server, |value| {
            if value == Value::Bool(true) {
                exit = Exit::Ok;
            }
            out.line(show::exact(&value)?)
        })?;
        Ok(if called == Exit::Ok { exit } else { called })
    }
}

/// Tells what the server says went wrong.
pub fn refused(raised: &Raised, key: Option<&str>) -> Exit {
    complain(&raised.words(key));
    match (raised.kind, key) {
        // Not about a key, so nothing is missing.
        (Kind::Missing, None) => Kind::Other.exit(),
        (kind, _) => kind.exit(),
    }
}

fn entry(value: &Value, style: Style, out: &mut Out) -> Result<(), Stop> {
    let Value::Map(members) = value else {
        return out.line(show::exact(value)?);
    };
    if style.json {
        return out.line(show::exact(value)?);
    }
    let rows: Vec<_> = members
        .iter()
        .map(|(name, value)| (show::key(name), show::cell(value)))
        .collect();
    show::table(&rows, out)
}

fn keys(value: &Value, style: Style, out: &mut Out) -> Result<(), Stop> {
    let Value::List(keys) = value else {
        return Err(pages::not_a("list of keys"));
    };
    for key in keys {
        if style.json {
            out.line(show::exact(key)?)?;
        } else {
            out.line(show::key(key))?;
        }
    }
    Ok(())
}

/// Page by page, so that a store of any size passes through little memory.
fn scan(
    server: &mut Server,
    prefix: Option<String>,
    limit: Option<u64>,
    style: Style,
    out: &mut Out,
) -> Outcome {
    let prefix = match prefix {
        Some(prefix) => word::key(&prefix, style)?,
        None => Value::Nil,
    };
    let mut left = limit.unwrap_or(u64::MAX);
    let mut pages = Pages::new(prefix);
    while left > 0 {
        let Page { entries, .. } = match pages.next(server, left)? {
            None => break,
            Some(Ok(page)) => page,
            Some(Err(raised)) => return Ok(refused(&raised, None)),
        };
        left = left.saturating_sub(entries.len() as u64);
        if style.json {
            for (key, value) in entries {
                out.line(show::exact(&transfer::line(key, value, Value::Nil))?)?;
            }
        } else {
            let rows: Vec<_> = entries
                .iter()
                .map(|(key, value)| (show::key(key), show::cell(value)))
                .collect();
            show::table(&rows, out)?;
        }
    }
    Ok(Exit::Ok)
}

/// A number of seconds, or a span.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => Span::from_str(text)
            .map_err(|error| error.to_string())?
            .0
            .as_secs_f64(),
    };
    if (0.0..=CENTURY).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("from 0 seconds to a hundred years".into())
    }
}

/// What kv-rpc takes at the most.
const CENTURY: f64 = 3.2e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_may_be_plain_seconds() {
        assert_eq!(seconds("1.5"), Ok(1.5));
        assert_eq!(seconds("2min"), Ok(120.0));
        for text in ["-1", "NaN", "inf", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
