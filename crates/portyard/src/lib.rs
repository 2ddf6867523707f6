//! `portyard`: the command-line client of the Portyard daemons, and the yard in one command.
//!
//! A subcommand is a file (or a directory) of its name with an `Args` and a `run`. Below them lie
//! [`lookup`] (names to addresses), [`connect`] and [`connected`] (streams), [`trust`] (TLS and keys),
//! [`ask`] (a datagram and its answer, over [`datagrams`]), [`out`] (standard output), [`save`] (files
//! that appear whole), [`progress`] (bars) and [`catalog`] (which service has which port). `up`, `bench`,
//! `http` and `yard` run on tokio; the others block, each wait with its deadline.

mod array;
mod ask;
mod bench;
mod broker;
mod catalog;
mod cert;
mod cidr;
mod connect;
mod connected;
mod datagrams;
mod echo;
mod health;
mod http;
mod keygen;
mod kv;
mod lookup;
mod message;
mod out;
mod progress;
mod resolve;
mod save;
mod service;
mod stop;
mod time;
mod trust;
mod up;
mod yard;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use portyard_core::exit::Exit;

use crate::stop::{Outcome, Stop};

/// The whole of the program: does what the command line says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no error. Nothing can be done when
            // neither stream can be written to.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Ok.into()
            };
        }
    };
    match arguments.command.run() {
        Ok(exit) => exit.into(),
        Err(Stop::ReaderGone) => Exit::Ok.into(),
        Err(Stop::Fatal(fatal)) => {
            out::complain(&fatal.to_string());
            fatal.exit.into()
        }
    }
}

/// The command line, for man pages and completions.
pub fn command_line() -> clap::Command {
    Arguments::command()
}

#[derive(Parser)]
#[command(name = "portyard", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Echo(echo::Args),
    Time(time::Args),
    Message(message::Args),
    Array(array::Args),
    Kv(kv::Args),
    Http(Box<http::Args>),
    Broker(broker::Args),
    Service(service::Args),
    Resolve(resolve::Args),
    Cidr(cidr::Args),
    Up(up::Args),
    Bench(bench::Args),
    Yard(yard::Args),
    Health(health::Args),
    Cert(cert::Args),
    Keygen(keygen::Args),
    #[command(hide = true)]
    ExecActivated(up::exec_activated::Args),
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Self::Echo(args) => echo::run(args),
            Self::Time(args) => time::run(args),
            Self::Message(args) => message::run(args),
            Self::Array(args) => array::run(args),
            Self::Kv(args) => kv::run(args),
            Self::Http(args) => http::run(&args),
            Self::Broker(args) => broker::run(&args),
            Self::Service(args) => service::run(&args),
            Self::Resolve(args) => resolve::run(&args),
            Self::Cidr(args) => cidr::run(&args),
            Self::Up(args) => up::run(&args),
            Self::Bench(args) => bench::run(args),
            Self::Yard(args) => yard::run(&args),
            Self::Health(args) => health::run(&args),
            Self::Cert(args) => cert::run(&args),
            Self::Keygen(args) => keygen::run(&args),
            Self::ExecActivated(args) => up::exec_activated::run(args),
        }
    }
}

const ABOUT: &str = "The command-line client of the Portyard daemons, and the yard in one command";

const LONG_ABOUT: &str = "\
The command-line client of the Portyard daemons, and the yard in one command.

Talks to echo, time, message, array, key/value, HTTP and other network services, answers questions
about services, names and networks, loads a server, and starts the whole yard. 'portyard COMMAND
--help' has examples.

An ENDPOINT is tcp://HOST:PORT, udp://HOST:PORT, unix:/PATH or unix:@NAME (Linux's abstract names).
IPv6 addresses stand in brackets: tcp://[::1]:7007. Without a scheme, HOST:PORT takes the transport
that the command says. A SPAN of time is a number and a unit: 250ms, 1s, 2min.";

const EXIT_CODES: &str = "\
Exit codes (the names are those of sysexits.h):
   0  everything asked for was done
   1  the answer is \"no\" (cidr --contains, kv exists, health, http --fail), there is no such entry
      (service) or key (kv), or something would fail (cert show)
  64  EX_USAGE        the command line is wrong
  65  EX_DATAERR      the peer's answer is not what the protocol says
  68  EX_NOHOST       the host name is not known
  69  EX_UNAVAILABLE  nothing answers there, or a port is taken
  70  EX_SOFTWARE     a fault of ours
  71  EX_OSERR        the kernel refused a resource
  74  EX_IOERR        reading or writing failed
  75  EX_TEMPFAIL     no answer in time; trying again later may help
  77  EX_NOPERM       permission denied: by this system, or a key or certificate is refused
  78  EX_CONFIG       a configuration is wrong

When the reader of standard output goes away (as head does), the command ends with 0.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_examples() {
        for command in Arguments::command().get_subcommands() {
            if !command.is_hide_set() {
                let help = command.clone().render_long_help().to_string();
                assert!(help.contains("Examples:"), "{}", command.get_name());
            }
        }
    }
}
