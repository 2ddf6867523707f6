//! A backup from a daemon that serves: it hands the file out on its admin endpoint.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind::{ConnectionRefused, NotFound};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};

use crate::state::BACKUP_PAGE;
use crate::store::{self, OpenError};

/// Has the daemon behind this admin endpoint make a backup, and gives it its name when it is whole.
/// False when no daemon answers there.
pub fn fetch(admin: Option<&Endpoint>, file: &Path) -> Result<bool, Fatal> {
    let connected = match admin {
        Some(Endpoint::Unix(path)) => UnixStream::connect(path),
        Some(Endpoint::Abstract(name)) => {
            SocketAddr::from_abstract_name(name).and_then(|name| UnixStream::connect_addr(&name))
        }
        _ => return Ok(false),
    };
    let place = admin.map(ToString::to_string).unwrap_or_default();
    let stream = match connected {
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(false),
        connected => connected.map_err(lost(&place))?,
    };
    let new = beside(file);
    let fetched = transfer(stream, &place, &new).and_then(|()| finish(&new, file));
    if fetched.is_err() {
        // What is half there is of no use; that it stays is no worse.
        let _ = fs::remove_file(&new);
    }
    fetched.map(|()| true)
}

/// Why data that is in use cannot be had.
pub fn unreachable(locked: &OpenError) -> Fatal {
    let message = format!(
        "{locked}; or give it admin.listen = \"unix:/PATH\" and name its configuration with --config, \
         and it makes backups while it serves"
    );
    Fatal::new(Exit::Unavailable, message)
}

fn transfer(mut stream: UnixStream, place: &str, new: &Path) -> Result<(), Fatal> {
    let lost = || lost(place);
    stream
        .set_write_timeout(Some(ANSWER_WAIT))
        .map_err(lost())?;
    stream.set_read_timeout(Some(MAKING_WAIT)).map_err(lost())?;
    let request =
        format!("GET {BACKUP_PAGE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(lost())?;
    let mut answer = BufReader::new(stream);
    let head = Head::read(&mut answer).map_err(lost())?;
    answer
        .get_ref()
        .set_read_timeout(Some(ANSWER_WAIT))
        .map_err(lost())?;
    if head.status != 200 {
        let mut why = String::new();
        // What it says is all there is to know.
        let _ = answer.take(WHY_MAX).read_to_string(&mut why);
        let exit = match head.status {
            403 => Exit::NoPermission,
            404 => Exit::Unavailable,
            _ => Exit::TempFail,
        };
        let why = format!(
            "{place} answers {}: {}",
            head.status,
            why.trim_end().escape_debug()
        );
        return Err(Fatal::new(exit, why));
    }
    let mut options = OpenOptions::new();
    let _ = fs::remove_file(new);
    let written =
        |error: io::Error| Fatal::new(Exit::from_io(&error), format!("{}: {error}", new.display()));
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .map_err(written)?;
    let copied = io::copy(&mut answer.take(head.length), &mut out).map_err(written)?;
    if copied < head.length {
        let why = format!(
            "{place} has sent {copied} of {} bytes; try again",
            head.length
        );
        return Err(Fatal::new(Exit::TempFail, why));
    }
    out.sync_all().map_err(written)
}

/// Gives a file that holds a good store its name, for good.
fn finish(new: &Path, file: &Path) -> Result<(), Fatal> {
    let report = store::verify(new).map_err(|error| super::failed(&error))?;
    super::good(new, &report)?;
    let named = fs::rename(new, file).and_then(|()| {
        let parent = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    });
    named.map_err(|error| {
        Fatal::new(
            Exit::from_io(&error),
            format!("{}: {error}", file.display()),
        )
    })
}

fn lost(place: &str) -> impl FnOnce(io::Error) -> Fatal {
    move |error| Fatal::new(Exit::from_io(&error), format!("{place}: {error}"))
}

fn beside(file: &Path) -> PathBuf {
    let mut name: OsString = file.into();
    name.push(".new");
    name.into()
}

/// What matters of an answer's head.
struct Head {
    status: u16,
    length: u64,
}

impl Head {
    fn read(answer: &mut impl BufRead) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP");
        let mut head = answer.take(HEAD_MAX);
        let mut line = String::new();
        let mut next = |line: &mut String| {
            line.clear();
            head.read_line(line)?;
            line.ends_with("\r\n").then_some(()).ok_or_else(none)
        };
        next(&mut line)?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let status = status.and_then(|code| code.parse().ok()).ok_or_else(none)?;
        let mut length = None;
        loop {
            next(&mut line)?;
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let length = length.ok_or_else(none)?;
        Ok(Self { status, length })
    }
}

/// How long the daemon may take for writing a backup before it sends the first byte.
const MAKING_WAIT: Duration = Duration::from_secs(3600);
/// How long nothing may move.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
const HEAD_MAX: u64 = 16 << 10;
const WHY_MAX: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> io::Result<(u16, u64)> {
        Head::read(&mut text.as_bytes()).map(|head| (head.status, head.length))
    }

    #[test]
    fn an_answer_that_does_not_say_how_long_it_is_is_none() {
        let good = "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 12\r\n\r\nrest";
        assert_eq!(head(good).unwrap(), (200, 12));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n",
            "SSH-2.0-x\r\nContent-Length: 12\r\n\r\n",
        ] {
            assert!(head(bad).is_err(), "{bad}");
        }
        let long = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(4_000));
        assert!(head(&long).is_err());
    }
}
