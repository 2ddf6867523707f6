//! `portyard yard`: what the daemons do, as a rest-api with service `yard` tells it.

mod fetch;
mod table;

use std::io::{IsTerminal as _, stdout};
use std::thread::sleep;
use std::time::Duration;

use portyard_core::config::Span;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::Exit;
use portyard_core::files::FilePlace;

use crate::connect::Target;
use crate::http::login;
use crate::out::{Out, complain};
use crate::stop::{Outcome, Stop};
use crate::trust;
use fetch::Fetcher;
use table::Window;

/// Show the state of all daemons of a machine.
///
/// Asks a rest-api with a listener of service yard, which asks the admin endpoints of the daemons
/// that its configuration names. A line for each: its state, program and version, how long it has
/// been up, its connections, and what it takes, refuses, receives and sends each second. Below stand
/// limits that are met at this moment, certificates that end within 30 days, and why a daemon does not
/// answer.
///
/// On a terminal, --watch shows it in place, and as much of it as fits into the window: daemons that are
/// not ready come first then, and what is least needed is left out.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard yard
  portyard yard --watch
  portyard yard --json | jq '.daemons[] | select(.state != \"ready\") | .name'
  portyard yard unix:/run/rest-api/yard.sock
  portyard yard tcp://yard.example.org:18082 --tls --token /etc/portyard/token

Exit codes: 0 all are ready, 1 one is not, 64 the command line is wrong, 65 the answer is not what a
yard tells, 69 nothing answers there, 75 no answer in time, 77 a key or a certificate is refused.")]
pub struct Args {
    /// Where the rest-api's service yard listens; the http:// address of its page does as well.
    #[arg(value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:18082", value_parser = place)]
    endpoint: Endpoint,
    /// Print what the API tells, as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Show it again and again, until interrupted.
    #[arg(long)]
    watch: bool,
    /// How long to wait between two times.
    #[arg(long, value_name = "SPAN", default_value = "2s", requires = "watch", value_parser = every)]
    every: Span,
    /// How long to wait for an answer.
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    timeout: Span,
    /// A file with the key that a private listener demands, as text or in base64. Readable by its
    /// owner alone; credential:NAME is a file in $CREDENTIALS_DIRECTORY.
    #[arg(long, value_name = "FILE")]
    token: Option<FilePlace>,
    #[command(flatten)]
    trust: trust::Options,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let target = Target::new(args.endpoint.clone(), Transport::Stream, args.timeout.0)?;
    if target.transport != Transport::Stream {
        let message = format!(
            "{} takes datagrams; a yard is told of over a stream",
            target.endpoint
        );
        return Err(Stop::fatal(Exit::Usage, message));
    }
    let fetcher = Fetcher {
        trust: args.trust.load(&target)?,
        target,
        timeout: args.timeout.0,
        token: args.token.as_ref().map(login::token).transpose()?,
    };
    let in_place = args.watch && !args.json && stdout().is_terminal();
    let mut exit = Exit::Ok;
    loop {
        match fetcher.fetch() {
            Ok(told) => {
                // One at a time: whoever watches may go away in between.
                let mut out = Out::new();
                if args.json {
                    out.json(&told)?;
                } else if in_place {
                    show(&mut out, &table::fitted(&told, window()))?;
                } else {
                    for line in table::lines(&told) {
                        out.line(line)?;
                    }
                    if args.watch {
                        out.line("")?;
                    }
                }
                out.flush()?;
                exit = if table::is_ready(&told) {
                    Exit::Ok
                } else {
                    Exit::No
                };
            }
            // A watch goes on: that is what it is for.
            Err(fatal) if args.watch && fatal.exit != Exit::NoPermission => {
                if in_place {
                    let mut out = Out::new();
                    show(
                        &mut out,
                        &[table::cut(&fatal.to_string(), window().columns)],
                    )?;
                    out.flush()?;
                } else {
                    complain(&fatal.to_string());
                }
            }
            Err(fatal) => return Err(fatal.into()),
        }
        if !args.watch {
            return Ok(exit);
        }
        sleep(args.every.0);
    }
}

/// Writes lines over those of the time before, without a moment at which there are none.
fn show(out: &mut Out, lines: &[String]) -> Result<(), Stop> {
    out.bytes(HOME)?;
    for line in lines {
        out.bytes(line.as_bytes())?;
        out.bytes(NEXT)?;
    }
    out.bytes(CLEAR)
}

fn window() -> Window {
    let size = terminal_size::terminal_size();
    let (columns, rows) = size.map_or((80, 24), |(columns, rows)| (columns.0, rows.0));
    Window {
        columns: usize::from(columns),
        rows: usize::from(rows),
    }
}

/// An endpoint, or what stands in the address bar above the page.
fn place(text: &str) -> Result<Endpoint, String> {
    let url = match url::Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => url,
        _ => return text.parse().map_err(|error| format!("{error}")),
    };
    let port = url.port_or_known_default().unwrap_or_default();
    let endpoint = format!("tcp://{}:{port}", url.host_str().unwrap_or_default());
    if url.scheme() == "https" {
        return Err(format!("write {endpoint} --tls"));
    }
    endpoint.parse().map_err(|error| format!("{error}"))
}

/// A watch asks a server for as long as nobody ends it.
fn every(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    if span.0 < EVERY_LEAST {
        return Err(format!("at least {EVERY_LEAST:?}"));
    }
    Ok(span)
}

/// The cursor to the top.
const HOME: &[u8] = b"\x1b[H";
/// Nothing behind this on the line, and to the next.
const NEXT: &[u8] = b"\x1b[K\r\n";
/// Nothing below.
const CLEAR: &[u8] = b"\x1b[J";
const EVERY_LEAST: Duration = Duration::from_millis(50);
