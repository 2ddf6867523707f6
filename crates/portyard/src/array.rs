//! `portyard array`: large arrays to and from the array services.
//!
//! [`send`] and [`receive`] are the two ways; [`portyard_wire::array`] is what is said beside the bytes, [`npy`] the
//! header of numpy's files, [`keep`] a file that is whole or not there.

mod keep;
mod npy;
mod receive;
mod send;

use std::time::Duration;

use clap::Subcommand;
use portyard_core::config::Span;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};

use crate::connect::Target;
use crate::out::Out;
use crate::stop::Outcome;

/// Send a file to an array sink, or receive one from an array source.
///
/// The bytes go in large pieces, whatever their number in little memory, and their CRC32C is
/// computed on the way. The end line says how many, how fast, and whether the checksums agree.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard array send big.npy
  portyard array recv tcp://127.0.0.1:7021 big.npy --npy '<f8'
  portyard array recv tcp://127.0.0.1:7021 big.bin --frame checked

Exit codes: 0 done, 64 the command line is wrong or the file is there already, 65 the checksums
differ or the bytes are not what was asked for, 68 unknown host, 69 nothing listens there or the
array is too large for the server, 74 the connection broke or the disk is full, 75 no answer in
time or no room at the server now, 77 a certificate or key is refused, 78 a file of keys or
certificates is wrong.")]
pub struct Args {
    #[command(subcommand)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Way {
    Send(send::Args),
    Recv(receive::Args),
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    match args.way {
        Way::Send(args) => send::run(args),
        Way::Recv(args) => receive::run(args),
    }
}

/// What is told at the end.
struct Summary {
    length: u64,
    elapsed: Duration,
    checksum: u32,
}

impl Summary {
    fn print(&self, done: &str, verdict: &str) -> Outcome {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.length as f64 / seconds.max(1e-9) / 1e6;
        let mut out = Out::new();
        out.line(format_args!(
            "{done} {} bytes in {seconds:.3} s, {rate:.1} MB/s, crc32c {:08x}, {verdict}",
            self.length, self.checksum
        ))?;
        out.flush()?;
        Ok(Exit::Ok)
    }
}

fn stream_target(endpoint: Endpoint, timeout: Duration) -> Result<Target, Fatal> {
    let target = Target::new(endpoint, Transport::Stream, timeout)?;
    if target.transport == Transport::Stream {
        return Ok(target);
    }
    let message = format!(
        "{} takes datagrams; arrays go over a stream",
        target.endpoint
    );
    Err(Fatal::new(Exit::Usage, message))
}

/// The kernel reads a timeout of zero as none.
fn patience(timeout: Span) -> Duration {
    timeout.0.max(Duration::from_millis(1))
}

/// Bytes that are read at once; far more than a socket holds.
const PIECE: usize = 1 << 20;
