//! `portyard health`: whether a daemon is well, for health checks of containers and scripts.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use portyard_core::config::Span;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};

use crate::connect::Target;
use crate::out::Out;
use crate::stop::Outcome;

/// Ask a daemon whether it is well.
///
/// Asks /healthz of its admin endpoint (admin.listen): whether every loop answers and every socket
/// accepts. With --ready, /readyz: whether it takes connections, which it no longer does while it
/// drains. Prints what it says.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard health tcp://127.0.0.1:9007
  portyard health --ready unix:/run/kv-rpc/admin.sock

In a compose file:
  healthcheck: {test: [\"CMD\", \"portyard\", \"health\", \"tcp://127.0.0.1:9007\"]}

Exit codes: 0 well, 1 not well, 65 the answer is none of a daemon's, 69 nothing answers there, 75 no answer
in time, 77 not allowed to ask.")]
pub struct Args {
    /// The daemon's admin endpoint.
    #[arg(value_name = "ENDPOINT")]
    endpoint: Endpoint,
    /// Ask whether it takes connections.
    #[arg(long)]
    ready: bool,
    /// How long to wait, in all. The daemon itself takes two seconds to find that it is not well.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    timeout: Span,
    /// Print nothing; the exit code says it.
    #[arg(long)]
    quiet: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let target = Target::new(args.endpoint.clone(), Transport::Stream, args.timeout.0)?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = ask(&target, path, args.timeout.0)?;
    let (is_well, said) = read(&answer).ok_or_else(|| {
        let message = format!(
            "{} does not answer as an admin endpoint does; is it the daemon's admin.listen?",
            target.endpoint
        );
        Fatal::new(Exit::Data, message)
    })?;
    if !args.quiet {
        let mut out = Out::new();
        out.peer_line(said, LINE_MAX)?;
        out.flush()?;
    }
    Ok(if is_well { Exit::Ok } else { Exit::No })
}

/// What the endpoint answers, to the end of the connection.
fn ask(target: &Target, path: &str, patience: Duration) -> Result<Vec<u8>, Fatal> {
    let failure = |error: &io::Error| target.failure(error);
    let until = Instant::now() + patience;
    let mut stream = target.stream(patience)?;
    // HTTP/1.0: the end of the answer is the end of the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let wait = |stream: &socket2::Socket| {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        stream.set_write_timeout(Some(left))?;
        stream.set_read_timeout(Some(left))
    };
    wait(&stream).map_err(|error| failure(&error))?;
    stream
        .write_all(request.as_bytes())
        .map_err(|error| failure(&error))?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < ANSWER_MAX {
        wait(&stream).map_err(|error| failure(&error))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(&error)),
        }
    }
    Ok(answer)
}

/// Whether the status says yes, and the first line of the body.
fn read(answer: &[u8]) -> Option<(bool, &[u8])> {
    let status = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let is_well = match status {
        b"200" => true,
        b"503" => false,
        _ => return None,
    };
    let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let body = answer[at + 4..].trim_ascii();
    Some((is_well, body.split(|&byte| byte == b'\n').next()?))
}

/// An answer is a head of hundreds of bytes and a line.
const ANSWER_MAX: usize = 16 << 10;
const LINE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_and_no_of_an_admin_endpoint_count() {
        let yes = b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
        assert_eq!(read(yes), Some((true, &b"ok"[..])));
        let no = b"HTTP/1.1 503 Service Unavailable\r\n\r\nloop 1 does not answer\nmore";
        assert_eq!(read(no), Some((false, &b"loop 1 does not answer"[..])));
        for odd in [
            &b""[..],
            b"HTTP/1.1 200",
            b"HTTP/1.1 404 Not Found\r\n\r\nno",
            b"220 mail.example.org\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n",
        ] {
            assert_eq!(read(odd), None);
        }
    }
}
