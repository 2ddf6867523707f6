//! `portyard resolve`: names to addresses, addresses to names.

use std::net::IpAddr;

use portyard_core::config::Span;
use portyard_core::exit::Exit;
use serde_json::json;

use crate::lookup::{self, Family};
use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// Resolve a name to its addresses, or an address to its name.
///
/// Asks the system's resolver (getaddrinfo, getnameinfo), so hosts file, DNS and the rest of
/// nsswitch.conf count, as for every other program. Addresses come one a line, in the order in which
/// a client should try them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard resolve localhost
  portyard resolve -6 example.org
  portyard resolve 127.0.0.1
  portyard resolve ::1 --json

Exit codes: 0 found, 64 the command line is wrong, 68 nobody knows the name or address, 75 the name
server did not answer in time.")]
pub struct Args {
    /// A host name, or an IPv4 or IPv6 address.
    #[arg(value_name = "NAME|ADDRESS")]
    subject: String,
    /// IPv4 only.
    #[arg(short = '4', conflicts_with = "v6")]
    v4: bool,
    /// IPv6 only.
    #[arg(short = '6')]
    v6: bool,
    /// How long to wait for the answer.
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    timeout: Span,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let family = match (args.v4, args.v6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        _ => Family::Any,
    };
    let mut out = Out::new();
    let subject = args.subject.as_str();
    if let Ok(address) = subject.parse::<IpAddr>() {
        if !family.holds(address) {
            return Err(Stop::fatal(
                Exit::Usage,
                format!("{address} is not of the family asked for; leave out -4 or -6"),
            ));
        }
        let name = lookup::name(address, args.timeout.0)?;
        if args.json {
            out.json(&json!({"address": address.to_string(), "name": name}))?;
        } else {
            out.peer_line(name.as_bytes(), MAX_NAME)?;
        }
    } else {
        let addresses = lookup::addresses(subject, family, args.timeout.0)?;
        if args.json {
            let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            out.json(&json!({"name": subject, "addresses": texts}))?;
        } else {
            for address in addresses {
                out.line(address)?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// Four times what a DNS name may have, as each byte may need an escape.
const MAX_NAME: usize = 1024;
