//! A person at a terminal: prompt, line editing, history, answers made safe to show.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use portyard_core::exit::Exit;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::lines;
use crate::ask::{MAX_DATAGRAM, Patience};
use crate::connect::Target;
use crate::connected::Connected;
use crate::out::{self, Out};
use crate::stop::{Outcome, Stop};
use crate::trust::Trust;

/// Lines over one connection.
pub fn stream(target: &Target, trust: &Trust, timeout: Duration) -> Outcome {
    let connected = trust.connect(target, timeout)?;
    let failed = |error: io::Error| Stop::Fatal(target.failure(&error));
    let mut prompt = Prompt::new(target)?;
    while let Some(mut line) = prompt.line()? {
        line.push('\n');
        let mut writer = &connected;
        let sent = writer
            .write_all(line.as_bytes())
            .and_then(|()| writer.flush());
        // A server that has closed may have said why.
        let (answer, state) = hear(&connected, line.as_bytes(), timeout).map_err(failed)?;
        show(&answer)?;
        match (state, sent) {
            (Heard::Closed, _) => {
                out::complain("the server closed the connection");
                return Ok(Exit::Ok);
            }
            (_, Err(error)) => return Err(failed(error)),
            (Heard::Silence, Ok(())) => {
                out::complain(&format!("no answer within {timeout:?}"));
            }
            (Heard::Answer, Ok(())) => {}
        }
    }
    Ok(Exit::Ok)
}

/// One datagram a line.
pub fn datagrams(target: &Target, patience: Patience) -> Outcome {
    let mut prompt = Prompt::new(target)?;
    while let Some(line) = prompt.line()? {
        if line.len() > MAX_DATAGRAM {
            out::complain(&format!("a datagram has at most {MAX_DATAGRAM} bytes"));
            continue;
        }
        match lines::round_trip(target, patience, line.as_bytes()) {
            Ok(answer) => show(&answer)?,
            // Services such as discard never answer; the person decides whether to go on.
            Err(fatal) if fatal.exit == Exit::TempFail => out::complain(&fatal.to_string()),
            Err(fatal) => return Err(fatal.into()),
        }
    }
    Ok(Exit::Ok)
}

struct Prompt(DefaultEditor);

impl Prompt {
    fn new(target: &Target) -> Result<Self, Stop> {
        let mut out = Out::new();
        out.line(format_args!("{}; ^D leaves", target.endpoint))?;
        out.flush()?;
        DefaultEditor::new()
            .map(Self)
            .map_err(|error| broken(&error))
    }

    /// The next line without its end; `None` when the person leaves (^D, ^C).
    fn line(&mut self) -> Result<Option<String>, Stop> {
        match self.0.readline("> ") {
            Ok(line) => {
                // The history lives in memory; a full one drops its oldest line.
                let _ = self.0.add_history_entry(&line);
                Ok(Some(line))
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
            Err(error) => Err(broken(&error)),
        }
    }
}

fn broken(error: &ReadlineError) -> Stop {
    Stop::fatal(
        Exit::Io,
        format!("cannot use the terminal: {error}; pipe the input instead"),
    )
}

/// How waiting for an answer ended.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Answer,
    Silence,
    Closed,
}

/// Reads one answer: what was sent comes back, or a line and then nothing for a moment.
fn hear(mut connected: &Connected, sent: &[u8], timeout: Duration) -> io::Result<(Vec<u8>, Heard)> {
    let deadline = Instant::now() + timeout;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let wait = if answer.ends_with(b"\n") {
            QUIET
        } else {
            deadline.saturating_duration_since(Instant::now())
        };
        if wait.is_zero() || answer.len() >= MAX_ANSWER {
            break;
        }
        connected.set_read_timeout(wait)?;
        match connected.read(&mut buffer) {
            Ok(0) => return Ok((answer, Heard::Closed)),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok((answer, Heard::Closed));
            }
            Err(error) => return Err(error),
        }
        if answer == sent {
            break;
        }
    }
    let heard = if answer.is_empty() {
        Heard::Silence
    } else {
        Heard::Answer
    };
    Ok((answer, heard))
}

fn show(answer: &[u8]) -> Result<(), Stop> {
    let mut out = Out::new();
    let mut rest = answer;
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n');
        let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
        out.peer_line(line.strip_suffix(b"\r").unwrap_or(line), MAX_SHOWN)?;
        rest = behind.strip_prefix(b"\n").unwrap_or(behind);
    }
    out.flush()
}

/// An answer of several lines has no pauses this long between them.
const QUIET: Duration = Duration::from_millis(50);
/// What one answer shows at most; a server that never ends comes back at the next line.
const MAX_ANSWER: usize = 64 << 10;
/// Characters of one line.
const MAX_SHOWN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_secs(10);

    fn pair() -> (Connected, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (
            Connected::plain(std::os::fd::OwnedFd::from(ours).into()),
            theirs,
        )
    }

    #[test]
    fn silence_and_closing_are_told_apart() {
        let (socket, theirs) = pair();
        let short = Duration::from_millis(10);
        assert_eq!(hear(&socket, b"x", short).unwrap().1, Heard::Silence);
        drop(theirs);
        assert_eq!(hear(&socket, b"x", SOON).unwrap().1, Heard::Closed);
    }

    #[test]
    fn an_echo_ends_the_wait_at_once() {
        let (socket, mut theirs) = pair();
        theirs.write_all(b"hi").unwrap();
        let started = Instant::now();
        assert_eq!(
            hear(&socket, b"hi", SOON).unwrap(),
            (b"hi".to_vec(), Heard::Answer)
        );
        assert!(started.elapsed() < SOON / 2);
    }

    #[test]
    fn several_lines_are_one_answer() {
        let (socket, mut theirs) = pair();
        theirs.write_all(b"a\nb\n").unwrap();
        let (answer, heard) = hear(&socket, b"ls\n", SOON).unwrap();
        assert_eq!((answer.as_slice(), heard), (&b"a\nb\n"[..], Heard::Answer));
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let (socket, mut theirs) = pair();
        let flood = std::thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        let (answer, _) = hear(&socket, b"", SOON).unwrap();
        assert!(answer.len() <= MAX_ANSWER + 4096);
        drop(socket);
        flood.join().unwrap();
    }
}
