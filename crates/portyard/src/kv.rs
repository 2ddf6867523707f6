//! `portyard kv`: the key/value store, from the command line, a script or a prompt.
//!
//! [`command`] is what can be asked, [`transfer`] moves many entries, [`prompt`] and [`script`] read
//! commands line by line. [`pages`] goes through a scan, [`watch`]
//! follows what happens. [`server`] makes the calls over one connection, whose protocol is a
//! [`door`]; [`raised`] is what a server says went wrong. [`word`] makes values of what is typed,
//! [`show`] the way back.

mod command;
mod door;
mod pages;
mod prompt;
mod raised;
mod script;
mod server;
mod show;
mod transfer;
mod watch;
mod word;

use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::Duration;

use portyard_core::config::{Size, Span};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};

use self::command::Command;
use self::door::Door;
use self::server::Server;
use crate::connect::Target;
use crate::stop::Outcome;
use crate::trust;

/// Read and change a key/value store.
///
/// A KEY is text, or with --json-key JSON. A VALUE is JSON when it can be read as JSON, or else
/// text: 5 is a number, '"5"' and hello are texts, {"$bytes": "AP8="} is bytes in base64. Values
/// are printed as JSON on one line.
///
/// Without COMMAND, commands are read line by line: at a terminal from a prompt, where Tab completes
/// commands and keys and the history stays from one time to the next; else from standard input.
///
/// The store has three doors, which show the same. Their default ports tell them apart; at another
/// port --door says which it is. HOST:PORT without a scheme is TCP.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_value_name = "COMMAND",
    subcommand_help_heading = "Commands"
)]
#[command(after_long_help = "\
Examples:
  portyard kv set greeting '\"hello\"'
  portyard kv get greeting --text
  portyard kv set picture --file cat.png
  portyard kv get picture --text > cat.png
  portyard kv setex session '{\"user\": 7}' 30min
  portyard kv scan user:
  portyard kv cas lock null '\"me\"' && echo 'the lock is ours'
  portyard kv keys --json | head
  portyard kv watch session: --json
  portyard kv export backup.jsonl
  portyard kv tcp://192.0.2.1:15001 import backup.jsonl
  portyard kv --door xml kv.example.org:8000 size
  portyard kv --tls --ca ca.pem --auth mutual --auth-key-file keys tcp://kv.example.org:15001
  printf 'incr a\\nget a\\n' | portyard kv

Exit codes: 0 done, 1 there is no such key, or the answer is false (exists, cas, expire, persist), 64
the command line is wrong or the server refuses an argument, 65 the answer is not what the protocol
says, a line of an import is wrong, or a watch has missed something, 68 unknown host, 69 nothing listens there or the store has
failed, 74 the connection broke or a file could not be read or written, 75 no answer in time or the
server is busy, 77 a key or certificate is refused, or the listener is read-only, 78 a file of keys or
certificates is wrong. Lines of commands: the first code that is not 0.")]
pub struct Args {
    /// Where to connect. [default: the door's port on this machine, tcp://127.0.0.1:15001]
    #[arg(value_parser = endpoint)]
    endpoint: Option<Endpoint>,
    /// The protocol. [default: the one of the endpoint's port, or else json]
    #[arg(long, value_enum, value_name = "DOOR")]
    door: Option<Door>,
    /// How long to wait: for the connection, for the server to take a piece, for a piece of an
    /// answer.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    timeout: Span,
    /// The longest answer that is taken; at most 2GiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = max_answer)]
    max_answer: Size,
    #[command(flatten)]
    style: Style,
    #[command(flatten)]
    trust: trust::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How words are read and values are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Style {
    /// Values are text, whatever they look like; texts and bytes are printed as they are.
    #[arg(long, global = true, conflicts_with = "json")]
    text: bool,
    /// Values must be JSON; lists and tables are printed as lines of JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Keys are JSON: 5, true, null, {"$bytes": "AP8="}.
    #[arg(long, global = true)]
    json_key: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    let door = args
        .door
        .or_else(|| args.endpoint.as_ref().and_then(Door::of))
        .unwrap_or(Door::Json);
    let endpoint = args.endpoint.unwrap_or_else(|| door.endpoint());
    // The kernel reads a timeout of zero as none.
    let timeout = args.timeout.0.max(Duration::from_millis(1));
    let target = Target::new(endpoint, Transport::Stream, timeout.max(RESOLVE))?;
    if target.transport != Transport::Stream {
        let message = format!(
            "{} takes datagrams; the store is behind a stream",
            target.endpoint
        );
        return Err(Fatal::new(Exit::Usage, message).into());
    }
    let trust = args.trust.load_for(&target, true)?;
    let max_answer = args.max_answer.bytes();
    let mut server = Server::new(target, trust, door, timeout, max_answer);
    match args.command {
        Some(command) => command.run(&mut server, args.style),
        None if io::stdin().is_terminal() => prompt::run(server, args.style),
        None => script::run(&mut server, args.style),
    }
}

impl Style {
    /// What a line says beside what holds for all lines.
    const fn and(self, line: Self) -> Self {
        // A line may ask for the other of the two.
        Self {
            text: line.text || self.text && !line.json,
            json: line.json || self.json && !line.text,
            json_key: self.json_key || line.json_key,
        }
    }
}

/// What stands before the command, unless it is a command that is spelt wrong.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::from_str(text).map_err(|error| {
        if text.contains([':', '/']) {
            error.to_string()
        } else {
            "this is neither a command nor an endpoint; 'portyard kv --help' lists both".into()
        }
    })
}

fn max_answer(text: &str) -> Result<Size, String> {
    let size = Size::from_str(text).map_err(|error| error.to_string())?;
    if (1..=LONGEST).contains(&size.0) {
        Ok(size)
    } else {
        Err("an answer has from 1 byte to 2GiB".into())
    }
}

const RESOLVE: Duration = Duration::from_secs(10);
const LONGEST: u64 = 2 << 30;
