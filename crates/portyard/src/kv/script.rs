//! Commands line by line, from a file or another program.

use std::io::{self, BufRead, Read};

use clap::Parser;
use portyard_core::exit::Exit;

use super::command::Command;
use super::server::Server;
use super::{Style, word};
use crate::out::complain;
use crate::stop::{Outcome, Stop};

/// A line of commands.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_version_flag = true)]
pub struct Line {
    #[command(flatten)]
    style: Style,
    #[command(subcommand)]
    command: Command,
}

/// Does what each line of standard input says. What one cannot have does not keep the next from
/// being tried; the first code that is not 0 is the last word. A broken connection ends it.
pub fn run(server: &mut Server, style: Style) -> Outcome {
    let mut exit = Exit::Ok;
    while let Some(line) = next_line()? {
        let done = match Line::read(&line) {
            Said::Nothing => Exit::Ok,
            Said::Told(done) => done,
            Said::Line(line) => line.run(server, style)?,
        };
        if exit == Exit::Ok {
            exit = done;
        }
    }
    Ok(exit)
}

/// What a line is.
pub enum Said {
    /// Blank, or a comment.
    Nothing,
    /// Help, or a mistake, which has been told.
    Told(Exit),
    /// A command.
    Line(Box<Line>),
}

impl Line {
    /// Reads a line.
    pub fn read(line: &str) -> Said {
        if line.trim_start().starts_with('#') {
            return Said::Nothing;
        }
        let words = match word::split(line) {
            Ok((words, _)) if words.is_empty() => return Said::Nothing,
            Ok((words, _)) => words,
            Err(why) => {
                complain(why);
                return Said::Told(Exit::Usage);
            }
        };
        match Self::try_parse_from(words) {
            Ok(line) => Said::Line(Box::new(line)),
            Err(error) => {
                // Help is no mistake. Nothing can be done when nobody listens.
                let _ = error.print();
                Said::Told(if error.use_stderr() {
                    Exit::Usage
                } else {
                    Exit::Ok
                })
            }
        }
    }

    /// Does it, in the style of all lines and its own.
    pub fn run(self, server: &mut Server, style: Style) -> Outcome {
        self.command.run(server, style.and(self.style))
    }
}

/// The next line of standard input; `None` at the end. Nothing holds standard input in between: an
/// import may read on there.
fn next_line() -> Result<Option<String>, Stop> {
    let mut line = Vec::new();
    let read = io::stdin()
        .lock()
        .take(LINE_MAX + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| Stop::fatal(Exit::Io, format!("cannot read standard input: {error}")))?;
    if read as u64 > LINE_MAX {
        let message = format!("a line of the input is longer than {LINE_MAX} bytes");
        return Err(Stop::fatal(Exit::Usage, message));
    }
    let line = String::from_utf8(line)
        .map_err(|_| Stop::fatal(Exit::Usage, "a line of the input is no UTF-8 text"))?;
    Ok((read > 0).then_some(line))
}

const LINE_MAX: u64 = 64 << 20;
