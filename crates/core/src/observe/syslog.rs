//! Log lines for the local syslog daemon, in the form of RFC 5424, over `/dev/log`.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};

use tracing::Level;

/// A connection to the local syslog daemon, made anew after it went away.
#[derive(Debug)]
pub struct Syslog {
    program: &'static str,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Syslog {
    /// A log for this program; nothing is opened before the first line.
    pub fn new(program: &'static str) -> Self {
        Self {
            program,
            socket: Mutex::new(None),
        }
    }

    /// Sends one line. A daemon that does not listen loses it: a log must not stop the work.
    pub fn send(&self, level: Level, message: &str) {
        let line = format(
            self.program,
            level,
            &jiff::Timestamp::now().to_string(),
            message,
        );
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..2 {
            if socket.is_none() {
                *socket = connect().ok();
            }
            let Some(open) = socket.as_ref() else { return };
            match open.send(line.as_bytes()) {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The daemon was restarted: its socket is another one now.
                Err(_) => *socket = None,
            }
        }
    }
}

/// `<PRI>1 TIME HOST APP PID MSGID SD MSG` (RFC 5424, 6). The host is left to the daemon, which
/// knows it better.
fn format(program: &str, level: Level, time: &str, message: &str) -> String {
    let priority = FACILITY_DAEMON * 8 + severity(level);
    format!(
        "<{priority}>1 {time} - {program} {} - - {message}",
        std::process::id()
    )
}

/// The severity numbers of syslog(3), which journald's `<N>` prefixes share.
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect("/dev/log")?;
    Ok(socket)
}

const FACILITY_DAEMON: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_fields_of_rfc_5424() {
        let line = format("echo-tcp", Level::WARN, "2026-11-20T11:41:40Z", "text");
        let pid = std::process::id();
        assert_eq!(
            line,
            format!("<28>1 2026-11-20T11:41:40Z - echo-tcp {pid} - - text")
        );
    }
}
