//! One connection: a message out, its answers in.

use std::io::{self, ErrorKind, Read, Write};

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use portyard_wire::framing::{Decoder, FrameError, Framing, PYTHON_ONE_WRITE, python_header};

use crate::connect::Target;
use crate::connected::Connected;
use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// A dialogue of whole messages.
pub struct Exchange<'a> {
    target: &'a Target,
    connected: &'a Connected,
    answers: Decoder,
    answered: bool,
    raw: bool,
    out: Out,
    buffer: Vec<u8>,
}

impl<'a> Exchange<'a> {
    /// Takes answers of at most `max` bytes; with `raw` they are written as they are.
    pub fn new(target: &'a Target, connected: &'a Connected, max: usize, raw: bool) -> Self {
        Self {
            target,
            connected,
            answers: Decoder::new(Framing::Python, max),
            answered: false,
            raw,
            out: Out::new(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Sends `length` bytes of `content` as one message.
    pub fn send(&mut self, content: &mut impl Read, length: u64) -> Result<(), Fatal> {
        let header = python_header(length);
        let mut piece = header.to_vec();
        let mut left = length;
        // A short message goes with its header, as Python sends it.
        if left <= PYTHON_ONE_WRITE as u64 {
            content
                .take(left)
                .read_to_end(&mut piece)
                .map_err(|error| unreadable(&error))?;
            if (piece.len() - header.len()) as u64 != left {
                return Err(unreadable(&ErrorKind::UnexpectedEof.into()));
            }
            left = 0;
        }
        self.write(&piece)?;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = content.read(&mut buffer[..most]);
            let written = match read {
                // The message is begun, so there is no way back.
                Ok(0) => Err(unreadable(&ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    left -= read as u64;
                    self.write(&buffer[..read])
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(unreadable(&error)),
            };
            self.buffer = buffer;
            written?;
        }
        let mut stream = self.connected;
        stream.flush().map_err(|error| self.target.failure(&error))
    }

    /// Awaits `count` answers and shows each as it comes.
    pub fn receive(&mut self, count: u32) -> Result<(), Stop> {
        for _ in 0..count {
            let answer = self.next()?;
            if !self.answered && answer.starts_with(CHALLENGE) {
                let message = format!(
                    "{} wants a key first; give the one of its authkey with --auth python \
                     --auth-key-file FILE",
                    self.target.endpoint
                );
                return Err(Stop::fatal(Exit::NoPermission, message));
            }
            self.answered = true;
            if self.raw {
                self.out.bytes(&answer)?;
            } else {
                self.out.line(shown(&answer))?;
            }
            self.out.flush()?;
        }
        Ok(())
    }

    /// Ends the dialogue in order.
    pub fn finish(self) -> Outcome {
        self.connected
            .close_write()
            .map_err(|error| self.target.failure(&error))?;
        Ok(Exit::Ok)
    }

    fn next(&mut self) -> Result<Vec<u8>, Fatal> {
        let endpoint = &self.target.endpoint;
        loop {
            match self.answers.next() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error @ FrameError::TooLong { .. }) => {
                    let message = format!("{endpoint}: {error}; --max-message takes longer ones");
                    return Err(Fatal::new(Exit::Data, message));
                }
                Err(error) => return Err(Fatal::new(Exit::Data, format!("{endpoint}: {error}"))),
            }
            let mut stream = self.connected;
            match stream.read(&mut self.buffer) {
                Ok(0) if self.answers.at_boundary() => {
                    let message = format!("{endpoint} closed without an answer");
                    return Err(Fatal::new(Exit::Io, message));
                }
                Ok(0) => {
                    let message = format!("{endpoint} closed in the middle of a message");
                    return Err(Fatal::new(Exit::Io, message));
                }
                Ok(read) => self.answers.feed(&self.buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.target.failure(&error)),
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Fatal> {
        let mut stream = self.connected;
        stream
            .write_all(bytes)
            .map_err(|error| self.target.failure(&error))
    }
}

/// One line for an answer.
fn shown(answer: &[u8]) -> String {
    match pickle_protocol(answer) {
        Some(protocol) => {
            let length = answer.len();
            let preview = escape(answer, MAX_PREVIEW);
            format!("(pickle protocol {protocol}, {length} bytes, not opened) {preview}")
        }
        None => escape(answer, MAX_SHOWN),
    }
}

/// The protocol of a pickle, which its first two bytes tell from 2 on; the last is always STOP.
fn pickle_protocol(answer: &[u8]) -> Option<u8> {
    match answer {
        [0x80, protocol @ 2..=5, .., b'.'] => Some(*protocol),
        _ => None,
    }
}

fn unreadable(error: &io::Error) -> Fatal {
    let message = match error.kind() {
        ErrorKind::UnexpectedEof => "the file has become shorter while it was read".into(),
        _ => format!("cannot read what is to be sent: {error}"),
    };
    Fatal::new(Exit::Io, message)
}

/// How a Listener with an authkey begins.
const CHALLENGE: &[u8] = b"#CHALLENGE#";
const BUFFER: usize = 256 << 10;
/// Characters of a line; --raw has no such end.
const MAX_SHOWN: usize = 64 << 10;
const MAX_PREVIEW: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickles_are_told_and_other_bytes_are_not_taken_for_them() {
        // `pickle.dumps(4321, protocol)` of Python 3.8.18, 2 to 5.
        for (protocol, pickle) in [
            (2, &b"\x80\x02M\xe1\x10."[..]),
            (3, b"\x80\x03M\xe1\x10."),
            (4, b"\x80\x04\x95\x04\0\0\0\0\0\0\0M\xe1\x10."),
            (5, b"\x80\x05M\xe1\x10."),
        ] {
            assert_eq!(pickle_protocol(pickle), Some(protocol));
            assert!(shown(pickle).starts_with(&format!("(pickle protocol {protocol}, ")));
        }
        for other in [
            &b""[..],
            b"\x80",
            b"\x80\x04",
            b"\x80\x04x",
            b"\x80\x06.",
            b"hello.",
        ] {
            assert_eq!(pickle_protocol(other), None);
        }
    }

    #[test]
    fn an_answer_cannot_command_the_terminal() {
        assert_eq!(shown(b"\x1b[2J\n"), r"\x1b[2J\x0a");
    }
}
