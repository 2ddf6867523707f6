//! `portyard array send`: a file to an array sink, and the receipt for it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portyard_core::config::Span;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};

use super::npy::{self, Header};
use super::{PIECE, Summary, patience, stream_target};
use crate::connect::Target;
use crate::connected::{Connected, Sent, Until};
use crate::out;
use crate::progress::{self, When};
use crate::stop::{Outcome, Stop};
use crate::trust;
use portyard_wire::array::{RECEIPT_LEN, Receipt, Refusal, UnknownRefusal};

/// Send a file to an array sink, and compare the receipt with what was sent.
///
/// A .npy file goes as it is, header and all, so that the other end gets a .npy file too; with
/// --data-only its array alone goes. The server may refuse (too large, no room, busy) before all is
/// sent; then the rest stays here.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard array send big.npy
  portyard array send big.npy tcp://127.0.0.1:7022 --data-only
  portyard array send samples.bin --tls --ca ca.pem tcp://sink.example:7022
  portyard array send big.npy --progress never

At the other end, in Python, without a daemon:
  size = int.from_bytes(recv_exactly(8), 'big')
  data = recv_exactly(size)
  send(struct.pack('>QI', size, crc32c(data)))")]
pub struct Args {
    /// The file.
    file: PathBuf,
    /// The array-sink service.
    #[arg(default_value = "tcp://127.0.0.1:7022")]
    endpoint: Endpoint,
    /// Of a .npy file send the array without the header.
    #[arg(long)]
    data_only: bool,
    /// How long to wait: for the connection, for the server to take a piece, and for the receipt,
    /// before which it may have to write everything to its disk.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    timeout: Span,
    /// Show how far it is on standard error.
    #[arg(long, value_enum, default_value_t = When::Auto)]
    progress: When,
    #[command(flatten)]
    trust: trust::Options,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    let timeout = patience(args.timeout);
    let target = stream_target(args.endpoint, timeout)?;
    let trust = args.trust.load(&target)?;
    let mut source = Source::open(&args.file, args.data_only)?;
    let connected = trust.connect(&target, timeout)?;
    let sending = Sending {
        target: &target,
        connected: &connected,
        timeout,
    };
    let started = Instant::now();
    let bar = progress::bar(args.progress, Some(source.length));
    let sent = sending.send(&mut source, &bar)?;
    let receipt = sending.receipt()?;
    bar.finish_and_clear();
    match receipt {
        Receipt::Taken { len, crc } if (len, crc) == (source.length, sent) => {
            let summary = Summary {
                length: len,
                elapsed: started.elapsed(),
                checksum: crc,
            };
            summary.print("sent", "checksum ok")
        }
        Receipt::Taken { len, crc } => Err(Stop::fatal(
            Exit::Data,
            format!(
                "{} has {len} bytes with crc32c {crc:08x}, and {} with {sent:08x} were sent: what \
                 it has is not the array",
                target.endpoint, source.length
            ),
        )),
        Receipt::Refused(refusal) => Err(refused(&target, refusal).into()),
    }
}

/// The bytes to be sent.
struct Source {
    file: File,
    length: u64,
}

impl Source {
    fn open(path: &Path, data_only: bool) -> Result<Self, Fatal> {
        let shown = path.display();
        let failed = |error: io::Error| unreadable(path, &error);
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let message = format!("{shown} is not a regular file, so its size is not known");
            return Err(Fatal::new(Exit::Usage, message));
        }
        let mut front = Vec::new();
        let mut beginning = (&file).take(npy::FRONT_LEN);
        beginning.read_to_end(&mut front).map_err(failed)?;
        let header = Header::parse(&front);
        let (mut offset, mut length) = (0, metadata.len());
        if data_only {
            let wrong = |why: String| Fatal::new(Exit::Data, format!("{shown}: {why}"));
            let header = header.map_err(wrong)?.ok_or_else(|| {
                wrong("it is not a .npy file; without --data-only it goes as it is".into())
            })?;
            describe(&header);
            offset = header.offset;
            length = data_length(&header, length.saturating_sub(offset)).map_err(wrong)?;
        } else if let Ok(Some(header)) = header {
            describe(&header);
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Self { file, length })
    }
}

/// How much of `there` bytes behind the header is the array.
fn data_length(header: &Header, there: u64) -> Result<u64, String> {
    if header.has_objects() {
        return Err("its items are Python objects, which mean nothing as bytes".into());
    }
    match header.data_len() {
        Some(length) if length > there => Err(format!(
            "it is cut short: {length} bytes belong to its shape, and {there} are there"
        )),
        Some(length) => Ok(length),
        None => Ok(there),
    }
}

/// Says what is sent, for the person at the other end to know.
fn describe(header: &Header) {
    let descr = portyard_wire::escape::escape(header.descr.as_bytes(), MAX_DESCR);
    out::complain(&format!(
        "an array of type {descr} and shape {}",
        npy::tuple(&header.shape[..header.shape.len().min(MAX_DIMENSIONS)])
    ));
}

/// The connection while it takes an array.
struct Sending<'a> {
    target: &'a Target,
    connected: &'a Connected,
    timeout: Duration,
}

impl Sending<'_> {
    /// Sends size and bytes, unless the server answers before they are all sent; returns the
    /// checksum of what was read.
    fn send(&self, source: &mut Source, bar: &indicatif::ProgressBar) -> Result<u32, Fatal> {
        let mut checksum = 0;
        let mut left = source.length;
        let mut buffer = vec![0; PIECE];
        if !self.push(&source.length.to_be_bytes(), None)? {
            return Ok(checksum);
        }
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let read = match source.file.read(&mut buffer[..most]) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other,
            };
            let read = read.map_err(|error| unreadable(Path::new("the file"), &error))?;
            checksum = crc32c::crc32c_append(checksum, &buffer[..read]);
            if !self.push(&buffer[..read], Some(bar))? {
                return Ok(checksum);
            }
            left -= read as u64;
        }
        // Inside TLS the last piece may still be here.
        self.push(&[], None)?;
        Ok(checksum)
    }

    /// Sends a piece; `false` when the server has something to say instead, or is gone.
    fn push(&self, mut bytes: &[u8], bar: Option<&indicatif::ProgressBar>) -> Result<bool, Fatal> {
        loop {
            match self.connected.send_watching(bytes, self.timeout) {
                Ok(Sent::Taken(length)) => {
                    bytes = &bytes[length..];
                    if let Some(bar) = bar {
                        bar.inc(length as u64);
                    }
                }
                Ok(Sent::Answered) => return Ok(false),
                // It may have said why before it closed.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(self.target.failure(&error)),
            }
            if bytes.is_empty() {
                return Ok(true);
            }
        }
    }

    fn receipt(&self) -> Result<Receipt, Fatal> {
        let endpoint = &self.target.endpoint;
        let mut bytes = [0; RECEIPT_LEN];
        let mut until = Until {
            connected: self.connected,
            deadline: Instant::now() + self.timeout,
        };
        match until.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                let message = format!(
                    "{endpoint} closed without a receipt; whether it has the array is not known"
                );
                return Err(Fatal::new(Exit::Io, message));
            }
            Err(error) => return Err(self.target.failure(&error)),
        }
        match Receipt::decode(&bytes) {
            Ok(Some(receipt)) => Ok(receipt),
            Ok(None) => Err(Fatal::new(Exit::Software, "a whole receipt is incomplete")),
            Err(UnknownRefusal { code }) => {
                let message =
                    format!("{endpoint} refused the array for a reason not known here, {code}");
                Err(Fatal::new(Exit::Data, message))
            }
        }
    }
}

fn refused(target: &Target, refusal: Refusal) -> Fatal {
    let (exit, why) = match refusal {
        Refusal::TooLarge => (Exit::Unavailable, "it is larger than its max_array"),
        Refusal::NoRoom => (Exit::TempFail, "there is no room left"),
        Refusal::Busy => (Exit::TempFail, "too many arrays are under way; try again"),
        Refusal::Failed => (
            Exit::Io,
            "it could not be stored; the server's log says why",
        ),
    };
    Fatal::new(
        exit,
        format!("{} refused the array: {why}", target.endpoint),
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Fatal {
    let shown = path.display();
    let message = match error.kind() {
        ErrorKind::UnexpectedEof => format!("{shown} has become shorter while it was read"),
        _ => format!("cannot read {shown}: {error}"),
    };
    Fatal::new(Exit::Io, message)
}

const MAX_DESCR: usize = 200;
/// numpy has at most 64.
const MAX_DIMENSIONS: usize = 64;
