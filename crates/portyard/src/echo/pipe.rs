//! A stream in a pipe: both directions at once, each to its own end.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use portyard_core::exit::{Exit, Fatal};

use crate::connect::Target;
use crate::connected::Connected;
use crate::out::Out;
use crate::stop::{Outcome, Stop};
use crate::trust::Trust;

/// Copies standard input to the server and the server's bytes to standard output.
///
/// While there is input the server may be silent; after its end each silence is at most `timeout`.
/// When the server closes first, what is left of the input is not waited for.
pub fn copy(target: Target, trust: &Trust, timeout: Duration) -> Outcome {
    let pipe = Arc::new(Pipe {
        connected: trust.connect(&target, timeout)?,
        target,
        timeout,
        output_waits: AtomicBool::new(false),
        sending: Mutex::new(Sending::Running),
    });
    let sender = Arc::clone(&pipe);
    // Not joined: it may wait for a terminal or a pipe that never ends, while the server is done.
    thread::Builder::new()
        .name("sender".into())
        .spawn(move || sender.finish(sender.send()))
        .map_err(|error| Stop::fatal(Exit::OsError, format!("cannot start a thread: {error}")))?;
    pipe.receive()?;
    match pipe.take_error() {
        Some(fatal) => Err(fatal.into()),
        None => Ok(Exit::Ok),
    }
}

/// What both directions share.
struct Pipe {
    target: Target,
    connected: Connected,
    timeout: Duration,
    /// Whether a slow reader of standard output holds everything up.
    output_waits: AtomicBool,
    sending: Mutex<Sending>,
}

/// How far the sending direction is.
enum Sending {
    Running,
    Over { at: Instant, error: Option<Fatal> },
}

impl Pipe {
    /// Input to server until its end; then the sending half is closed.
    fn send(&self) -> Result<(), Fatal> {
        let mut input = io::stdin().lock();
        let mut buffer = vec![0; BUFFER];
        let read = loop {
            match input.read(&mut buffer) {
                Ok(0) => break Ok(()),
                // A server that takes no more may still have an answer, which `receive` reads.
                Ok(length) => self.write(&buffer[..length])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let closed = self.connected.close_write();
        if let Err(error) = read {
            let message = format!("cannot read standard input: {error}");
            return Err(Fatal::new(Exit::Io, message));
        }
        closed.map_err(|error| self.target.failure(&error))
    }

    /// A stall is the server's fault only while we take what it sends.
    fn write(&self, mut bytes: &[u8]) -> Result<(), Fatal> {
        loop {
            let moved = if bytes.is_empty() {
                (&self.connected).flush().map(|()| 0)
            } else {
                (&self.connected).write(bytes)
            };
            match moved {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        && self.output_waits.load(Ordering::Relaxed) => {}
                Err(error) => return Err(self.target.failure(&error)),
            }
        }
    }

    /// Server to output until the server closes.
    fn receive(&self) -> Result<(), Stop> {
        let mut out = Out::new();
        let mut buffer = vec![0; BUFFER];
        let mut heard = Instant::now();
        loop {
            match (&self.connected).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.output_waits.store(true, Ordering::Relaxed);
                    out.bytes(&buffer[..length])?;
                    out.flush()?;
                    self.output_waits.store(false, Ordering::Relaxed);
                    heard = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.allow_silence(heard)?,
                Err(error) => return Err(self.target.failure(&error).into()),
            }
        }
    }

    fn allow_silence(&self, heard: Instant) -> Result<(), Stop> {
        let Sending::Over { at, .. } = *self.sending() else {
            return Ok(());
        };
        if at.max(heard).elapsed() < self.timeout {
            return Ok(());
        }
        let (endpoint, timeout) = (&self.target.endpoint, self.timeout);
        let message = format!(
            "{endpoint} neither answered nor closed within {timeout:?} after the end of the \
             input; some services never do (--timeout waits longer)"
        );
        Err(Stop::fatal(Exit::TempFail, message))
    }

    fn sending(&self) -> std::sync::MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<(), Fatal>) {
        *self.sending() = Sending::Over {
            at: Instant::now(),
            error: result.err(),
        };
    }

    fn take_error(&self) -> Option<Fatal> {
        match &mut *self.sending() {
            Sending::Over { error, .. } => error.take(),
            Sending::Running => None,
        }
    }
}

/// What a pipe of Linux holds.
const BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connected::tls_pair;
    use portyard_core::endpoint::{Endpoint, Transport};

    #[test]
    fn what_was_read_from_the_input_reaches_the_server_before_more_is_read() {
        let (connected, mut server) = tls_pair();
        let timeout = Duration::from_secs(20);
        connected.set_write_timeout(timeout).unwrap();
        server.sock.set_read_timeout(Some(timeout)).unwrap();
        let nowhere = Endpoint::Abstract("nowhere".into());
        let pipe = Pipe {
            connected,
            target: Target::new(nowhere, Transport::Stream, timeout).unwrap(),
            timeout,
            output_waits: AtomicBool::new(false),
            sending: Mutex::new(Sending::Running),
        };
        let reading = thread::spawn(move || server.read_exact(&mut vec![0; BUFFER]));
        pipe.write(&vec![b'x'; BUFFER]).unwrap();
        reading.join().unwrap().unwrap();
    }
}
