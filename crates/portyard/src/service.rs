//! `portyard service`: the services database by name or by port.

mod database;

use std::path::PathBuf;

use portyard_core::exit::Exit;
use portyard_wire::escape::escape;

use self::database::{Entry, Key};
use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// Look up a service by name or port in the services database.
///
/// Prints one line for each protocol that has it: name, PORT/PROTOCOL, aliases and comment. Names
/// are compared exactly, aliases count. The first line is what getservbyname and getservbyport
/// of C and Python answer.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard service echo
  portyard service domain udp
  portyard service 123
  portyard service 7 tcp --json
  portyard service myapp --file ./services

Exit codes: 0 found, 1 not in the database, 64 the command line is wrong, 69 there is no database
(on Debian the package netbase has it).")]
pub struct Args {
    /// The name (or an alias), or the port.
    #[arg(value_name = "NAME|PORT")]
    key: String,
    /// Only this protocol: tcp, udp, or another one the file knows.
    protocol: Option<String>,
    /// The database.
    #[arg(long, value_name = "FILE", default_value = "/etc/services")]
    file: PathBuf,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let key = key(&args.key)?;
    let mut out = Out::new();
    let mut found = false;
    for entry in database::read(&args.file)? {
        if entry.matches(&key, args.protocol.as_deref()) {
            found = true;
            if args.json {
                out.json(&entry)?;
            } else {
                out.peer_line(line(&entry).as_bytes(), MAX_LINE)?;
            }
        }
    }
    out.flush()?;
    if found {
        return Ok(Exit::Ok);
    }
    let protocol = args.protocol.as_deref().unwrap_or("any protocol");
    let file = args.file.display();
    let what = match key {
        Key::Name(name) => format!("service '{}'", escape(name.as_bytes(), 80)),
        Key::Port(port) => format!("service on port {port}"),
    };
    let message = format!("no {what} for {protocol} in {file}");
    Err(Stop::fatal(Exit::No, escape(message.as_bytes(), MAX_LINE)))
}

/// A number is a port; everything else is a name.
fn key(text: &str) -> Result<Key, Stop> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Key::Name(text.into()));
    }
    text.parse().map(Key::Port).map_err(|_| {
        Stop::fatal(
            Exit::Usage,
            format!("'{text}' is not a port; ports go from 0 to 65535"),
        )
    })
}

fn line(entry: &Entry) -> String {
    let mut line = format!("{:<16} {}/{}", entry.name, entry.port, entry.protocol);
    for alias in &entry.aliases {
        line.push(' ');
        line.push_str(alias);
    }
    if !entry.comment.is_empty() {
        line.push_str("  # ");
        line.push_str(&entry.comment);
    }
    line
}

/// Characters of a line; comments in the file may be of any length.
const MAX_LINE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_port_and_the_rest_a_name() {
        assert!(matches!(key("70000"), Err(Stop::Fatal(_))));
        assert!(matches!(key("7"), Ok(Key::Port(7))));
        assert!(matches!(key("3com-tsmux"), Ok(Key::Name(_))));
    }
}
