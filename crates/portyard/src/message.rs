//! `portyard message`: whole messages with a server of Python's `multiprocessing.connection`.

mod exchange;

use std::fs::File;
use std::io::{self, BufRead, Cursor, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use portyard_core::config::{Size, Span};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};

use self::exchange::Exchange;
use crate::connect::Target;
use crate::stop::{Outcome, Stop};
use crate::trust;

/// Send messages to a multiprocessing.connection.Listener of Python, or to the message service.
///
/// Each TEXT is one message, or the whole of --file is, or without both each line of standard
/// input without its line end. They go as send_bytes sends them: bytes behind their length, never
/// pickles. After each message its answer is awaited and printed as one line, with what a terminal
/// could obey spelled out. An answer that is a pickle is shown as one and never opened.
///
/// A Listener with an authkey wants --auth python. HOST:PORT without a scheme is TCP.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard message tcp://127.0.0.1:7020 hello
  printf 'one\\ntwo\\n' | portyard message 127.0.0.1:7020
  portyard message unix:/run/listener.sock --file picture.png --raw > answer
  portyard message --auth python --auth-key-file keys 127.0.0.1:6000 ping
  portyard message --auth python --auth-key-file keys --min-digest md5 127.0.0.1:6000 ping
  portyard message --count 0 127.0.0.1:6000 'nobody answers this'

At the other end, in Python:
  with Listener(('127.0.0.1', 6000), authkey=b'secret') as listener, listener.accept() as c:
      c.send_bytes(c.recv_bytes())
and in the file keys, which nobody else may read:
  any-name:text:secret

Exit codes: 0 done, 64 the command line is wrong, 65 the answer is not framed as the protocol says
or too long, 68 unknown host, 69 nothing listens there, 74 the connection broke or a file could not
be read, 75 no answer in time, 77 a key or certificate is refused, or a key is wanted, 78 a file of
keys or certificates is wrong.")]
pub struct Args {
    /// Where to connect.
    endpoint: Endpoint,
    /// The messages, in place of lines of standard input.
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Send this file as one message.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// Answers to await after each message; 0 for a server that gives none.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    count: u32,
    /// Write the bytes of the answers and nothing else.
    #[arg(long)]
    raw: bool,
    /// How long to wait: for the connection, for the server to take a piece, for a piece of an
    /// answer.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    timeout: Span,
    /// The longest answer that is taken, and the longest line of the input; at most 2GiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = max_message)]
    max_message: Size,
    #[command(flatten)]
    trust: trust::Options,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    let timeout = args.timeout.0.max(SHORTEST);
    let target = Target::new(args.endpoint, Transport::Stream, timeout.max(RESOLVE))?;
    if target.transport != Transport::Stream {
        let message = format!(
            "{} takes datagrams; messages go over a stream",
            target.endpoint
        );
        return Err(Stop::fatal(Exit::Usage, message));
    }
    let trust = args.trust.load(&target)?;
    let file = args.file.as_deref().map(open).transpose()?;
    let connected = trust.connect(&target, timeout)?;
    let mut exchange = Exchange::new(&target, &connected, args.max_message.bytes(), args.raw);
    if let Some((mut file, length)) = file {
        exchange.send(&mut file, length)?;
        exchange.receive(args.count)?;
    } else if args.texts.is_empty() {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input, args.max_message.0)? {
            exchange.send(&mut Cursor::new(&line), line.len() as u64)?;
            exchange.receive(args.count)?;
        }
    } else {
        for text in &args.texts {
            exchange.send(&mut Cursor::new(text), text.len() as u64)?;
            exchange.receive(args.count)?;
        }
    }
    exchange.finish()
}

/// A file and how long it is.
fn open(path: &Path) -> Result<(File, u64), Fatal> {
    let opened = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        Ok((file, metadata))
    });
    let shown = path.display();
    match opened {
        Ok((file, metadata)) if metadata.is_file() => Ok((file, metadata.len())),
        Ok(_) => {
            let message = format!("{shown} is not a regular file; pipe it in, or copy it to one");
            Err(Fatal::new(Exit::Usage, message))
        }
        Err(error) => Err(Fatal::new(
            Exit::Io,
            format!("cannot read {shown}: {error}"),
        )),
    }
}

/// The next line without its LF; `None` at the end.
fn next_line(input: &mut impl BufRead, max: u64) -> Result<Option<Vec<u8>>, Stop> {
    let mut line = Vec::new();
    let read = input
        .take(max + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| Stop::fatal(Exit::Io, format!("cannot read standard input: {error}")))?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > max {
        let message = format!("a line of the input is longer than {max} bytes (--max-message)");
        return Err(Stop::fatal(Exit::Usage, message));
    }
    Ok(Some(line))
}

fn max_message(text: &str) -> Result<Size, String> {
    let size = Size::from_str(text).map_err(|error| error.to_string())?;
    if (1..=LONGEST).contains(&size.0) {
        Ok(size)
    } else {
        Err("a message has from 1 byte to 2GiB".into())
    }
}

const RESOLVE: Duration = Duration::from_secs(10);
/// The kernel reads a timeout of zero as none.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_over_the_cap_is_refused_and_an_empty_one_is_a_message() {
        let mut input = &b"\nab\r\nabc"[..];
        assert_eq!(next_line(&mut input, 3).unwrap(), Some(vec![]));
        assert_eq!(next_line(&mut input, 3).unwrap(), Some(b"ab\r".to_vec()));
        assert_eq!(next_line(&mut input, 3).unwrap(), Some(b"abc".to_vec()));
        assert_eq!(next_line(&mut input, 3).unwrap(), None);
        assert!(next_line(&mut &b"abcd"[..], 3).is_err());
    }

    #[test]
    fn the_cap_itself_has_bounds() {
        assert!(max_message("2GiB").is_ok());
        for text in ["0", "2147483649", "x"] {
            assert!(max_message(text).is_err(), "{text}");
        }
    }
}
