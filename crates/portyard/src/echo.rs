//! `portyard echo`: talk to a server, line by line or as a pipe.

mod interactive;
mod lines;
mod pipe;

use std::io::IsTerminal;
use std::time::Duration;

use portyard_core::config::Span;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::Exit;

use crate::ask::Patience;
use crate::connect::Target;
use crate::stop::{Outcome, Stop};
use crate::trust;

/// Talk to an echo server, or to any other that answers lines.
///
/// At a terminal: a prompt with line editing and a history for the session; each line is sent and
/// its answer printed, what a terminal could obey is spelled out. ^D and ^C leave.
///
/// In a pipe: standard input goes to the server as it is and the server's answer to standard
/// output. At the end of the input the sending half is closed, and what the server still has to say
/// is copied until it closes too. Over UDP, and with --datagram, each line of the input is one
/// datagram, whose answer is awaited, with retries, and printed as one line.
///
/// HOST:PORT without a scheme is TCP.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard echo
  portyard echo tcp://[::1]:7007
  echo hi | portyard echo
  portyard echo < big.bin | cmp - big.bin
  echo 90 | portyard echo udp://127.0.0.1:3715
  printf 'date\\nos\\n' | portyard echo tcp://127.0.0.1:7015
  portyard echo unix:/run/echo.sock
  echo hi | portyard echo --datagram unix:@time
  portyard echo --tls --ca ca.pem tcp://localhost:7007
  portyard echo --tls --pin sha256:9f86d0… tcp://192.0.2.1:7007
  portyard echo --auth mutual --auth-key-file keys tcp://localhost:7007

Exit codes: 0 done, 64 the command line is wrong, 65 the server does not speak TLS or the key
dialogue as it should, 68 unknown host, 69 nothing listens there, 74 the connection broke, 75 no
answer in time, 77 the server's certificate is not trusted, or it does not take our key or
certificate, 78 a file of keys or certificates is wrong.")]
pub struct Args {
    /// Where to connect.
    #[arg(default_value = "tcp://127.0.0.1:7007")]
    endpoint: Endpoint,
    /// A Unix socket takes datagrams, not a stream.
    #[arg(long)]
    datagram: bool,
    /// How long to wait: for the connection, for the answer to a line, for a datagram's answer (each
    /// try), and at the end of the input for the server to go on. [default: 5s, datagrams 1s]
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// Datagrams sent at most for one answer.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    tries: u8,
    #[command(flatten)]
    trust: trust::Options,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    if args.datagram && matches!(args.endpoint, Endpoint::Tcp(_)) {
        return Err(Stop::fatal(
            Exit::Usage,
            format!(
                "{} is a stream; --datagram is for Unix sockets",
                args.endpoint
            ),
        ));
    }
    let transport = if args.datagram {
        Transport::Datagram
    } else {
        Transport::Stream
    };
    let given = args.timeout.map(|span| span.0.max(SHORTEST));
    let target = Target::new(args.endpoint, transport, given.unwrap_or(RESOLVE))?;
    let trust = args.trust.load(&target)?;
    let terminal = std::io::stdin().is_terminal();
    match target.transport {
        Transport::Stream | Transport::SeqPacket => {
            let timeout = given.unwrap_or(STREAM_TIMEOUT);
            if terminal {
                interactive::stream(&target, &trust, timeout)
            } else {
                pipe::copy(target, &trust, timeout)
            }
        }
        Transport::Datagram => {
            let patience = Patience {
                tries: args.tries,
                timeout: given.unwrap_or(DATAGRAM_TIMEOUT),
            };
            if terminal {
                interactive::datagrams(&target, patience)
            } else {
                lines::exchange(&target, patience)
            }
        }
    }
}

const RESOLVE: Duration = Duration::from_secs(10);
/// A stream's server may have to work for its answer.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// A datagram may be lost, so ask again soon.
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(1);
/// The kernel reads a timeout of zero as none.
const SHORTEST: Duration = Duration::from_millis(1);
