//! `portyard keygen`: keys for those who prove a shared secret, and what a key file holds.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portyard_core::auth::{FILE_MAX, KEYS_MAX, KeyFileError, is_key_name, key_line, read_keys};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::{FileError, FilePlace, Links};
use portyard_wire::auth::Key;
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::out::{Out, complain};
use crate::save::{self, Existing, Lock, Saved};
use crate::stop::{Outcome, Stop};

/// Make a key for a key file, or tell which keys a file holds.
///
/// A key is random bytes that both ends know, and a name for logs and access rules. It is printed as
/// a line of a key file (NAME:base64:BYTES), or written to one with --out or --add. The default NAME
/// is of today (in UTC): key-2026-11-20.
///
/// A server accepts every key of its file; a client proves the first. So a key is replaced in four
/// steps, and no connection fails: (1) keygen --add at the server, and reload it; (2) copy the new
/// line to the clients' files, in front; (3) when all clients have it, take the old line out at the
/// server, and reload; (4) take it out at the clients. --add puts the new line in front, where a
/// client wants it and a server does not mind it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard keygen
  portyard keygen yard --out /etc/portyard/keys
  portyard keygen yard-2 --add /etc/portyard/keys
  portyard keygen --check /etc/portyard/keys
  portyard keygen alice --bytes 64 | ssh host 'umask 77; cat >alice.keys'

Exit codes: 0 done, 64 the command line is wrong, a file is in the way or the name is taken, 75
another run changes the same file, 77 permission denied, 78 the key file is not what it should be.")]
pub struct Args {
    /// What the key is called: up to 64 of A-Z a-z 0-9 . _ -
    name: Option<String>,
    /// How many random bytes; 32 are as many as the digests can use.
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(16..=1024))]
    bytes: u16,
    /// Write a new key file (mode 0600).
    #[arg(long, value_name = "FILE", conflicts_with = "add")]
    out: Option<PathBuf>,
    /// Put the key in front of those of a key file; the file keeps its mode and owner.
    #[arg(long, value_name = "FILE")]
    add: Option<PathBuf>,
    /// List the names and lengths of a file's keys, or say what is wrong with it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "bytes", "out", "add"])]
    check: Option<PathBuf>,
    /// With --check: one JSON object a key.
    #[arg(long, requires = "check")]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    if let Some(path) = &args.check {
        return check(path, args.json);
    }
    let name = match &args.name {
        Some(name) if is_key_name(name) => name.clone(),
        Some(name) => {
            let message = format!("'{name}' cannot name a key; use up to 64 of A-Z a-z 0-9 . _ -");
            return Err(Stop::fatal(Exit::Usage, message));
        }
        None => format!("key-{}", OffsetDateTime::now_utc().date()),
    };
    let line = make(&name, args.bytes)?;
    let mut out = Out::new();
    if let Some(path) = &args.out {
        let file = Saved {
            path,
            bytes: line.as_bytes(),
            secret: true,
        };
        save::all(
            &[file],
            Existing::Kept("--add puts a key in front of those it has"),
        )?;
        out.line(format_args!(
            "{}: the key {name}; a copy of the file goes to the other end",
            path.display()
        ))?;
    } else if let Some(path) = &args.add {
        let count = add(path, &name, &line)?;
        out.line(format_args!(
            "{}: {name} is now the first of {count} keys; reload the server, then give the line to \
             its clients",
            path.display()
        ))?;
    } else {
        out.bytes(line.as_bytes())?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// A line of a key file, with its end.
fn make(name: &str, length: u16) -> Result<Zeroizing<String>, Fatal> {
    let mut bytes = Zeroizing::new(vec![0; length.into()]);
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("the system gives no random bytes: {error}");
        Fatal::new(Exit::OsError, message)
    })?;
    let mut line = Zeroizing::new(key_line(name, &bytes));
    line.push('\n');
    Ok(line)
}

/// Puts a line in front of a key file; how many keys it has then.
fn add(path: &Path, name: &str, line: &str) -> Result<usize, Fatal> {
    let _lock = Lock::beside(path)?;
    let place = FilePlace::Path(path.into());
    let keys = match read_keys(&place) {
        Ok(keys) => keys,
        // A file with remarks only is as good a beginning as any.
        Err(KeyFileError::Empty(_)) => Vec::new(),
        Err(error) => return Err(unusable(&error)),
    };
    if keys.iter().any(|key| &**key.name() == name) {
        let message = format!(
            "{} has a key called {name} already; give this one another NAME",
            path.display()
        );
        return Err(Fatal::new(Exit::Usage, message));
    }
    let old = place
        .read_secret(Links::Refused, FILE_MAX)
        .map_err(|error| unusable(&error.into()))?;
    if keys.len() == KEYS_MAX || (line.len() + old.len()) as u64 > FILE_MAX {
        let message = format!(
            "{} is full: it has {} keys; take out those that nobody uses any more",
            path.display(),
            keys.len()
        );
        return Err(Fatal::new(Exit::Config, message));
    }
    let new = Zeroizing::new([line.as_bytes(), &old].concat());
    save::over(path, &new)?;
    Ok(keys.len() + 1)
}

fn check(path: &Path, json: bool) -> Outcome {
    let place = FilePlace::Path(path.into());
    let keys = read_keys(&place).map_err(|error| unusable(&error))?;
    let bytes = place
        .read_secret(Links::Refused, FILE_MAX)
        .map_err(|error| unusable(&error.into()))?;
    let mut out = Out::new();
    for (at, (key, length)) in keys.iter().zip(lengths(&bytes)).enumerate() {
        let name = key.name();
        if json {
            out.json(&json!({"name": &**name, "bytes": length, "first": at == 0}))?;
        } else {
            let first = if at == 0 {
                ", which a client proves"
            } else {
                ""
            };
            out.line(format_args!("{name}: {length} bytes{first}"))?;
        }
    }
    out.flush()?;
    for (key, length) in keys.iter().zip(lengths(&bytes)) {
        if length < SHORT {
            warn_of(path, key, length);
        }
    }
    Ok(Exit::Ok)
}

fn warn_of(path: &Path, key: &Key, length: usize) {
    complain(&format!(
        "{}: the key {} has only {length} bytes, and can be found by trying; replace it: \
         portyard keygen NAME --add {0}",
        path.display(),
        key.name()
    ));
}

/// The lengths of the keys of a file that has been found good, in their order.
fn lengths(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"))
        .map(|line| {
            let mut parts = line.splitn(3, |byte| *byte == b':').skip(1);
            match (parts.next(), parts.next()) {
                (Some(b"base64"), Some(value)) => {
                    let decoded = STANDARD.decode(value.trim_ascii()).map(Zeroizing::new);
                    decoded.map_or(0, |key| key.len())
                }
                (_, value) => value.map_or(0, <[u8]>::len),
            }
        })
}

fn unusable(error: &KeyFileError) -> Fatal {
    let exit = match error {
        KeyFileError::File(FileError::Unreadable { error, .. })
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            Exit::NoPermission
        }
        _ => Exit::Config,
    };
    Fatal::new(exit, error.to_string())
}

/// Below this a key is warned of: 128 bits cannot be tried.
const SHORT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_keys() {
        let text = b"# old\nnew:base64:c2VjcmV0\n\nold:text:two words: and more\r\n";
        assert_eq!(lengths(text).collect::<Vec<_>>(), [6, 19]);
    }

    #[test]
    fn keys_are_of_the_length_that_was_asked_for_and_differ() {
        let (one, other) = (make("a", 16).unwrap(), make("a", 16).unwrap());
        assert_ne!(one, other);
        assert_eq!(lengths(one.as_bytes()).collect::<Vec<_>>(), [16]);
    }
}
