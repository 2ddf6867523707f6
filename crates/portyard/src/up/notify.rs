//! What a daemon tells its supervisor: the receiving end of `sd_notify(3)`.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

/// One thing a daemon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`: it serves.
    Ready,
    /// `STOPPING=1`: it drains.
    Stopping,
    /// `STATUS=…`: how it is, for people.
    Status(String),
}

/// Where one daemon sends its notices.
#[derive(Debug)]
pub struct Inbox {
    socket: UnixDatagram,
    path: PathBuf,
}

/// A directory that only we can enter, so that only our children can send notices. Removed when
/// dropped.
pub fn directory() -> Result<TempDir, Fatal> {
    let make = |parent: &Path| {
        tempfile::Builder::new()
            .prefix("portyard-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
    };
    let preferred = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    preferred
        .into_iter()
        .chain([std::env::temp_dir(), PathBuf::from("/tmp")])
        // An empty variable is an unset one, and a relative path is none (XDG Base Directory).
        .filter(|parent| parent.is_absolute() && parent.as_os_str().len() <= MAX_PARENT)
        .find_map(|parent| make(&parent).ok())
        .ok_or_else(|| {
            Fatal::new(
                Exit::OsError,
                "cannot make a temporary directory; is there room in /tmp, or set TMPDIR",
            )
        })
}

impl Inbox {
    /// Opens the inbox of one daemon in the directory.
    pub fn open(directory: &Path, daemon: &str) -> Result<Self, Fatal> {
        let path = directory.join(daemon);
        match UnixDatagram::bind(&path) {
            Ok(socket) => Ok(Self { socket, path }),
            Err(error) => Err(Fatal::new(
                Exit::from_io(&error),
                format!("cannot open {}: {error}", path.display()),
            )),
        }
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next notices; several may come in one datagram. Can be cancelled.
    pub async fn next(&self) -> io::Result<Vec<Notice>> {
        // Descriptors that come along (FDSTORE, BARRIER) are closed by the kernel, as no room is
        // offered for them; closing is what BARRIER waits for.
        let mut buffer = [0; MAX_NOTICE];
        let length = self.socket.recv(&mut buffer).await?;
        Ok(parse(&buffer[..length]))
    }

    /// What is waiting, without waiting for more.
    pub fn waiting(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut buffer = [0; MAX_NOTICE];
        // The queue of a Unix datagram socket is short (net.unix.max_dgram_qlen); the bound is for
        // a daemon that sends faster than we read.
        for _ in 0..MAX_WAITING {
            match self.socket.try_recv(&mut buffer) {
                Ok(length) => notices.extend(parse(&buffer[..length])),
                Err(_) => break,
            }
        }
        notices
    }
}

fn parse(datagram: &[u8]) -> Vec<Notice> {
    datagram
        .split(|&byte| byte == b'\n')
        .filter_map(|line| match line {
            b"READY=1" => Some(Notice::Ready),
            b"STOPPING=1" => Some(Notice::Stopping),
            _ => line
                .strip_prefix(b"STATUS=")
                .map(|status| Notice::Status(escape(status, MAX_STATUS))),
        })
        .collect()
}

/// A socket address holds 107 bytes; our own names behind the parent take less than 40.
const MAX_PARENT: usize = 60;
const MAX_NOTICE: usize = 4096;
const MAX_STATUS: usize = 300;
const MAX_WAITING: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_do_not_need_is_passed_over() {
        assert_eq!(parse(b""), []);
        assert_eq!(parse(b"READY=0\nWATCHDOG=1\nMAINPID=7\nREADY=1x"), []);
    }

    #[test]
    fn several_notices_come_in_one_datagram() {
        assert_eq!(
            parse(b"READY=1\nSTATUS=serving \x1b[1m\nSTOPPING=1\n"),
            [
                Notice::Ready,
                Notice::Status(r"serving \x1b[1m".into()),
                Notice::Stopping
            ]
        );
    }

    #[test]
    fn only_we_can_enter_the_directory() {
        let directory = directory().unwrap();
        let mode = directory.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
