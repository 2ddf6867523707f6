//! Standard output and standard error. A reader that goes away is no error (see [`Stop`]).

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use portyard_core::exit::Exit;
use portyard_wire::escape::escape;
use serde::Serialize;

use crate::stop::Stop;

/// Buffered standard output. What must be seen at once needs a [`flush`](Out::flush).
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Takes standard output until dropped.
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(BUFFER, io::stdout().lock()))
    }

    /// Writes one line.
    pub fn line(&mut self, text: impl Display) -> Result<(), Stop> {
        check(writeln!(self.0, "{text}"))
    }

    /// Writes what a peer sent as one line of at most `max` characters that no terminal obeys.
    pub fn peer_line(&mut self, bytes: &[u8], max: usize) -> Result<(), Stop> {
        self.line(escape(bytes, max))
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        check(self.0.write_all(bytes))
    }

    /// Writes one JSON value on one line.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        let text = serde_json::to_string(value)
            .map_err(|error| Stop::fatal(Exit::Software, format!("cannot write JSON: {error}")))?;
        self.line(text)
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> Result<(), Stop> {
        check(self.0.flush())
    }
}

/// Writes one line about what is wrong to standard error. If that is gone too, nobody listens.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "portyard: {text}");
}

fn check(written: io::Result<()>) -> Result<(), Stop> {
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Stop::ReaderGone,
        _ => Stop::fatal(
            Exit::Io,
            format!("cannot write to standard output: {error}"),
        ),
    })
}

/// A pipe holds 64 KiB; much less than that keeps the first lines of a long list prompt.
const BUFFER: usize = 8 << 10;
