//! Many entries: a file of lines out and in.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::jsonrpc::{Caps, json};
use portyard_wire::value::Value;
use tempfile::NamedTempFile;

use super::pages::{Pages, not_a};
use super::raised::{Kind, Raised};
use super::server::Server;
use super::show;
use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// Write all entries as lines of JSON: {"key": …, "value": …, "ttl": SECONDS}.
///
/// The entries are not those of one moment: what changes meanwhile may be in it or not.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The file, which must not be there yet; it appears when it is complete, readable by its owner
    /// alone. [default: standard output]
    file: Option<PathBuf>,
    /// Only keys that begin so.
    #[arg(long)]
    prefix: Option<String>,
}

/// Set the entries of lines as export writes them.
///
/// Many are under way at once. At an error the line is told; all lines before it are stored, and
/// --from goes on with it.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// The file. [default: standard input]
    file: Option<PathBuf>,
    /// The first line to take.
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
}

impl Export {
    /// Writes the entries.
    pub fn run(self, server: &mut Server, out: &mut Out) -> Outcome {
        let prefix = self.prefix.map_or(Value::Nil, Value::String);
        let Some(path) = self.file else {
            export(server, prefix, |line| out.line(line))?;
            return Ok(Exit::Ok);
        };
        let cannot = |error: io::Error| {
            let message = format!("cannot write {}: {error}", path.display());
            Stop::fatal(Exit::Io, message)
        };
        if path.symlink_metadata().is_ok() {
            return Err(in_the_way(&path));
        }
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut file = BufWriter::new(NamedTempFile::new_in(directory).map_err(cannot)?);
        let bar = bar(None);
        let count = export(server, prefix, |line| {
            bar.inc(1);
            writeln!(file, "{line}").map_err(cannot)
        })?;
        bar.finish_and_clear();
        let file = file
            .into_inner()
            .map_err(|error| cannot(error.into_error()))?;
        file.as_file().sync_all().map_err(cannot)?;
        file.persist_noclobber(&path)
            .map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => in_the_way(&path),
                _ => cannot(error.error),
            })?;
        out.line(format_args!("exported {}", entries(count)))?;
        Ok(Exit::Ok)
    }
}

fn export(
    server: &mut Server,
    prefix: Value,
    mut write: impl FnMut(String) -> Result<(), Stop>,
) -> Result<u64, Stop> {
    let mut count = 0;
    let mut pages = Pages::new(prefix);
    while let Some(page) = pages.next(server, u64::MAX)? {
        let page = page.map_err(|raised| fatal(&raised))?;
        for (key, _) in &page.entries {
            server.begin("ttl", vec![key.clone()])?;
        }
        for (key, value) in page.entries {
            let ttl = match server.answer()? {
                Ok(ttl @ (Value::Nil | Value::Int(_) | Value::Double(_))) => ttl,
                Ok(_) => return Err(not_a("time to live")),
                // It has ended since the scan.
                Err(raised) if raised.kind == Kind::Missing => continue,
                Err(raised) => return Err(fatal(&raised)),
            };
            let shown = show::key(&key);
            let line = show::exact(&line(key, value, ttl)).map_err(|stop| match stop {
                Stop::Fatal(fatal) => {
                    Stop::fatal(fatal.exit, format!("the entry {shown}: {fatal}"))
                }
                gone @ Stop::ReaderGone => gone,
            })?;
            write(line)?;
            count += 1;
        }
    }
    Ok(count)
}

/// An entry as a line says it.
pub fn line(key: Value, value: Value, ttl: Value) -> Value {
    let mut members = vec![("key".into(), key), ("value".into(), value)];
    if ttl != Value::Nil {
        members.push(("ttl".into(), ttl));
    }
    Value::Map(members)
}

impl Import {
    /// Sets the entries.
    pub fn run(self, server: &mut Server, out: &mut Out) -> Outcome {
        let (input, length): (Box<dyn BufRead>, _) = match &self.file {
            None => (Box::new(BufReader::new(io::stdin())), None),
            Some(path) => {
                let opened = File::open(path).and_then(|file| {
                    let length = file.metadata()?.len();
                    Ok((file, length))
                });
                let (file, length) = opened.map_err(|error| {
                    Stop::fatal(Exit::Io, format!("cannot read {}: {error}", path.display()))
                })?;
                (Box::new(BufReader::new(file)), Some(length))
            }
        };
        let name = self
            .file
            .as_ref()
            .map_or("standard input".into(), |path| path.display().to_string());
        let mut lines = Lines { input, number: 0 };
        let bar = bar(length);
        let imported = import(server, &mut lines, self.from, &bar);
        bar.finish_and_clear();
        match imported {
            Ok(count) => {
                out.line(format_args!("imported {}", entries(count)))?;
                Ok(Exit::Ok)
            }
            Err(Failed { line, count, why }) => {
                server.give_up();
                let message = format!(
                    "{name}, line {line}: {why}; what stands before it is stored ({}), and --from \
                     {line} goes on with it",
                    entries(count)
                );
                Err(Stop::fatal(why.exit, message))
            }
        }
    }
}

/// Why an import ends early.
struct Failed {
    line: u64,
    /// Entries that are stored for certain.
    count: u64,
    why: Fatal,
}

fn import(
    server: &mut Server,
    lines: &mut Lines,
    from: u64,
    bar: &ProgressBar,
) -> Result<u64, Failed> {
    let mut count = 0;
    loop {
        let mut batch = Vec::new();
        let (mut bytes, mut unfit, mut at_end) = (0, None, false);
        while batch.len() < WINDOW && bytes < WINDOW_BYTES && unfit.is_none() {
            let begun = match lines.next() {
                Ok(None) => {
                    at_end = true;
                    break;
                }
                Ok(Some(line)) => {
                    bar.inc(line.len() as u64 + 1);
                    bytes += line.len();
                    if lines.number < from || line.trim_ascii().is_empty() {
                        continue;
                    }
                    parsed(&line).and_then(|(method, params)| server.begin(method, params))
                }
                Err(error) => Err(error),
            };
            match begun {
                Ok(()) => batch.push(lines.number),
                Err(why) => unfit = Some(why),
            }
        }
        for line in batch {
            let failed = |why| Failed { line, count, why };
            match server.answer() {
                Ok(Ok(_)) => count += 1,
                Ok(Err(raised)) => {
                    return Err(failed(Fatal::new(raised.kind.exit(), raised.words(None))));
                }
                Err(broken) => return Err(failed(broken.into_fatal())),
            }
        }
        if let Some(why) = unfit {
            let line = lines.number;
            return Err(Failed { line, count, why });
        }
        if at_end {
            return Ok(count);
        }
    }
}

/// The call that sets what a line says.
fn parsed(line: &[u8]) -> Result<(&'static str, Vec<Value>), Fatal> {
    let wrong = |why: String| Fatal::new(Exit::Data, why);
    let caps = Caps {
        size: usize::MAX,
        batch: 0,
    };
    let entry = json::decode(line, &caps).map_err(|error| wrong(error.to_string()))?;
    let Value::Map(members) = entry else {
        return Err(wrong("this is no object".into()));
    };
    let (mut key, mut value, mut ttl) = (None, None, Value::Nil);
    for (name, member) in members {
        match name {
            Value::String(name) if name == "key" => key = Some(member),
            Value::String(name) if name == "value" => value = Some(member),
            Value::String(name) if name == "ttl" => ttl = member,
            other => {
                let name = show::key(&other);
                return Err(wrong(format!("{name} is none of key, value and ttl")));
            }
        }
    }
    let (Some(key), Some(value)) = (key, value) else {
        return Err(wrong("the key or the value is missing".into()));
    };
    match ttl {
        Value::Nil => Ok(("set", vec![key, value])),
        ttl @ (Value::Int(_) | Value::Double(_)) => Ok(("setex", vec![key, value, ttl])),
        _ => Err(wrong("the ttl is no number".into())),
    }
}

/// Numbered lines, none of them longer than any value.
struct Lines {
    input: Box<dyn BufRead>,
    /// Of the line that was read last, from 1 on.
    number: u64,
}

impl Lines {
    /// The next line without its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Fatal> {
        let mut line = Vec::new();
        self.number += 1;
        let read = (&mut self.input)
            .take(LINE_MAX + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| Fatal::new(Exit::Io, format!("it cannot be read: {error}")))?;
        if read as u64 > LINE_MAX {
            let message = format!("it is longer than {LINE_MAX} bytes");
            return Err(Fatal::new(Exit::Data, message));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok((read > 0).then_some(line))
    }
}

/// A bar over the bytes of a file, or a count where nobody knows how much will come. It is seen at a
/// terminal only.
fn bar(length: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let template = match length {
        Some(_) => "[{bar:30}] {bytes} of {total_bytes}, {eta} left",
        None => "{pos}, {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".into(),
        count => format!("{count} entries"),
    }
}

fn fatal(raised: &Raised) -> Stop {
    Stop::fatal(raised.kind.exit(), raised.words(None))
}

fn in_the_way(path: &Path) -> Stop {
    let message = format!("{} is there already; name another file", path.display());
    Stop::fatal(Exit::Usage, message)
}

/// Calls that are under way at once, and about their bytes.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 1 << 20;
const LINE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_sets_a_key_or_says_what_is_wrong() {
        let set = parsed(br#"{"key":"a","value":1,"ttl":null}"#).unwrap();
        assert_eq!(set, ("set", vec!["a".into(), Value::Int(1)]));
        let setex = parsed(br#"{"ttl":2.5,"value":null,"key":3}"#).unwrap();
        let expected = vec![Value::Int(3), Value::Nil, Value::Double(2.5)];
        assert_eq!(setex, ("setex", expected));
        for line in [
            "",
            "5",
            r#"{"key":1}"#,
            r#"{"key":1,"value":1,"ttl":"1"}"#,
            r#"{"key":1,"value":1,"tll":1}"#,
            r#"{"key":1,"value":1} x"#,
        ] {
            let error = parsed(line.as_bytes()).unwrap_err();
            assert_eq!(error.exit, Exit::Data, "{line}");
        }
    }
}
