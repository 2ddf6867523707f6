//! `portyard broker`: who works for fd-broker, who waits, who is to finish, and what it holds.

mod ask;
mod hold;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use portyard_core::config::Span;
use portyard_core::exit::Exit;
use portyard_core::life::runtime_directory;
use portyard_core::wire::operate::Request;

use self::ask::Broker;
use crate::out::Out;
use crate::stop::Outcome;

/// See and steer fd-broker: its workers, its queue, its listeners, and what it holds.
///
/// Asks a running broker over its control socket, which answers its own user and root; about sockets that
/// it holds, whom its rules allow. Workers have the names that they give themselves, or PROTOCOL-PID.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard broker workers
  portyard broker queue --json
  portyard broker drain web-2          no new connections for this worker; it finishes what it has
  portyard broker drain default        the same for all workers of a pool
  portyard broker resume web-2
  portyard broker watch --every 2s
  portyard broker --socket /run/fd-broker/control.sock listeners
  portyard broker store web tcp://0.0.0.0:80 'tcp://[::]:80' --expiry 1h
  portyard broker retrieve web -- gunicorn app:app
  portyard broker delete web

Exit codes: 0 done, 64 the command line is wrong, 69 no broker answers there or an address is in use,
75 no answer in time, 77 it does not let this user operate it or no rule allows it, or it knows no worker
of that name, 78 nothing is held under that name, or something is already.")]
pub struct Args {
    /// The broker's control socket.
    ///
    /// Without it: control.sock in the runtime directory, which is fd-broker in $XDG_RUNTIME_DIR, or
    /// in ~/.local/state.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    keys: hold::Keys,
    #[command(subcommand)]
    what: What,
}

/// What is asked for.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// The workers: process, age, connections, what they took, refused and lost to others.
    Workers,
    /// The connections that wait for a worker, the next one first.
    Queue,
    /// Where the broker listens, for which pool, and what it holds for others.
    Listeners,
    /// Give workers of this name, or of the pool of this name, nothing new.
    Drain {
        /// The name.
        name: String,
    },
    /// Give them connections again.
    Resume {
        /// The name.
        name: String,
    },
    /// The workers, again and again.
    Watch {
        /// How often.
        #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = parse_span)]
        every: Span,
        /// So many times; without it until interrupted.
        #[arg(long, value_name = "N")]
        times: Option<u64>,
    },
    #[command(flatten)]
    Hold(hold::What),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => runtime_directory("fd-broker").join("control.sock"),
    };
    let mut out = Out::new();
    if let What::Hold(what) = &args.what {
        return hold::run(what, &socket, &args.keys, args.json, &mut out);
    }
    let broker = Broker::connect(&socket)?;
    match &args.what {
        What::Workers => show::workers(&broker.status()?, args.json, &mut out)?,
        What::Queue => show::queue(&broker.status()?, args.json, &mut out)?,
        What::Listeners => show::listeners(&broker.status()?, args.json, &mut out)?,
        What::Drain { name } => {
            let count = broker.tell(Request::Drain(name))?;
            show::told(name, "drains", count, args.json, &mut out)?;
        }
        What::Resume { name } => {
            let count = broker.tell(Request::Resume(name))?;
            show::told(name, "serves", count, args.json, &mut out)?;
        }
        // Has been answered above, over a connection of its own.
        What::Hold(_) => {}
        What::Watch { every, times } => {
            let mut left = times.unwrap_or(u64::MAX);
            while left > 0 {
                show::workers(&broker.status()?, args.json, &mut out)?;
                left -= 1;
                if left > 0 {
                    if !args.json {
                        out.line("")?;
                    }
                    out.flush()?;
                    std::thread::sleep(every.0.max(SHORTEST));
                }
            }
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn parse_span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// A broker has more to do than to be watched.
const SHORTEST: Duration = Duration::from_millis(100);
