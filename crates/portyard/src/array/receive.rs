//! `portyard array recv`: an array into a file, whole or not at all.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use indicatif::ProgressBar;
use portyard_core::config::{Size, Span};
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};

use super::keep::Keep;
use super::npy::Layout;
use super::{PIECE, Summary, patience, stream_target};
use crate::connect::Target;
use crate::connected::Connected;
use crate::progress::{self, When};
use crate::stop::Outcome;
use crate::trust;
use portyard_wire::array::SIZE_LEN;

/// Receive an array into a file.
///
/// The file appears under its name only when everything has come and is on the disk, and a frame
/// with a checksum agrees; else nothing is left behind. What the service sends before and behind
/// the bytes is --frame, as in the service's configuration. With --npy the file gets the header that
/// numpy.load wants.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard array recv tcp://127.0.0.1:7021 big.bin
  portyard array recv tcp://127.0.0.1:7021 big.npy --npy '<f8'
  portyard array recv tcp://127.0.0.1:7021 grid.npy --npy '<f8:1000,1000' --frame checked
  portyard array recv unix:/run/source.sock big.bin --frame sized --force

In Python: numpy.load('big.npy', mmap_mode='r')")]
pub struct Args {
    /// The array-source service.
    endpoint: Endpoint,
    /// The file to be made.
    file: PathBuf,
    /// What stands around the bytes.
    #[arg(long, value_enum, default_value_t = Frame::Raw)]
    frame: Frame,
    /// Write a .npy header for items of this type before the bytes, such as '<f8' or '<i4:10,20'.
    /// [default shape: one direction, as many items as come]
    #[arg(long, value_name = "DTYPE[:SHAPE]")]
    npy: Option<Layout>,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
    /// The largest array that is taken.
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    max_size: Size,
    /// How long to wait: for the connection, and for a piece.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    timeout: Span,
    /// Show how far it is on standard error.
    #[arg(long, value_enum, default_value_t = When::Auto)]
    progress: When,
    #[command(flatten)]
    trust: trust::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Frame {
    /// Nothing: the bytes, until the server closes.
    Raw,
    /// Their number before them.
    Sized,
    /// Their number before them and their CRC32C behind.
    Checked,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    let timeout = patience(args.timeout);
    let target = stream_target(args.endpoint, timeout)?;
    let trust = args.trust.load(&target)?;
    let mut keep = Keep::begin(&args.file, args.force)?;
    let connected = trust.connect(&target, timeout)?;
    let mut arriving = Arriving {
        target: &target,
        connected: &connected,
        max: args.max_size.0,
    };
    let started = Instant::now();
    let size = match args.frame {
        Frame::Raw => None,
        Frame::Sized | Frame::Checked => Some(arriving.size()?),
    };
    let layout = args.npy.as_ref();
    // A size that cannot be right is found out before anything is stored.
    if let (Some(layout), Some(size)) = (layout, size) {
        shape(layout, size)?;
    }
    keep.reserve(size.unwrap_or_default())?;
    if let Some(layout) = layout {
        // The right one comes when the number of items is known; it is as long.
        write(&mut keep, &layout.header(&[0]))?;
    }
    let bar = progress::bar(args.progress, size);
    let (length, checksum) = arriving.copy(&mut keep, size, &bar)?;
    let verdict = if args.frame == Frame::Checked {
        arriving.check(checksum)?;
        "checksum ok"
    } else {
        "no checksum to compare with"
    };
    if let Some(layout) = layout {
        let header = layout.header(&shape(layout, length)?);
        keep.file
            .seek(SeekFrom::Start(0))
            .map_err(|error| keep.failure(&error))?;
        write(&mut keep, &header)?;
    }
    keep.keep()?;
    bar.finish_and_clear();
    let summary = Summary {
        length,
        elapsed: started.elapsed(),
        checksum,
    };
    summary.print("received", verdict)
}

/// The connection while an array comes.
struct Arriving<'a> {
    target: &'a Target,
    connected: &'a Connected,
    max: u64,
}

impl Arriving<'_> {
    fn size(&mut self) -> Result<u64, Fatal> {
        let size = u64::from_be_bytes(self.exactly::<SIZE_LEN>("before the size of the array")?);
        if size > self.max {
            return Err(self.too_large(size));
        }
        Ok(size)
    }

    /// Copies `size` bytes, or all until the server closes; returns how many, and their checksum.
    fn copy(
        &mut self,
        keep: &mut Keep,
        size: Option<u64>,
        bar: &ProgressBar,
    ) -> Result<(u64, u32), Fatal> {
        let mut buffer = vec![0; PIECE];
        let (mut length, mut checksum) = (0_u64, 0);
        loop {
            let left = size.map_or(u64::MAX, |size| size - length);
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let filled = self.fill(&mut buffer[..most], bar)?;
            length += filled as u64;
            if length > self.max {
                return Err(self.too_large(length));
            }
            checksum = crc32c::crc32c_append(checksum, &buffer[..filled]);
            write(keep, &buffer[..filled])?;
            match size {
                Some(size) if length == size => return Ok((length, checksum)),
                Some(size) if filled < most => {
                    let endpoint = &self.target.endpoint;
                    let message = format!(
                        "{endpoint} closed after {length} of {size} bytes; nothing is kept"
                    );
                    return Err(Fatal::new(Exit::Io, message));
                }
                None if filled < most => return Ok((length, checksum)),
                _ => {}
            }
        }
    }

    /// Fills the buffer as far as bytes come before the end.
    fn fill(&mut self, buffer: &mut [u8], bar: &ProgressBar) -> Result<usize, Fatal> {
        let mut stream = self.connected;
        let mut filled = 0;
        while filled < buffer.len() {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => {
                    filled += length;
                    bar.inc(length as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.target.failure(&error)),
            }
        }
        Ok(filled)
    }

    fn check(&mut self, checksum: u32) -> Result<(), Fatal> {
        let said = u32::from_be_bytes(self.exactly::<CHECKSUM_LEN>("before the checksum")?);
        if said == checksum {
            return Ok(());
        }
        let endpoint = &self.target.endpoint;
        let message = format!(
            "{endpoint}: what came has the crc32c {checksum:08x}, and {said:08x} was sent: it was \
             changed on the way; nothing is kept"
        );
        Err(Fatal::new(Exit::Data, message))
    }

    fn exactly<const N: usize>(&mut self, when: &str) -> Result<[u8; N], Fatal> {
        let mut bytes = [0; N];
        let mut stream = self.connected;
        stream.read_exact(&mut bytes).map_err(|error| {
            if error.kind() == ErrorKind::UnexpectedEof {
                let message = format!("{} closed {when}", self.target.endpoint);
                Fatal::new(Exit::Io, message)
            } else {
                self.target.failure(&error)
            }
        })?;
        Ok(bytes)
    }

    fn too_large(&self, size: u64) -> Fatal {
        let message = format!(
            "{} sends {size} bytes or more, and {} are allowed; --max-size takes larger arrays",
            self.target.endpoint, self.max
        );
        Fatal::new(Exit::Data, message)
    }
}

fn shape(layout: &Layout, length: u64) -> Result<Vec<u64>, Fatal> {
    layout
        .shape_of(length)
        .map_err(|why| Fatal::new(Exit::Data, format!("--npy: {why}; nothing is kept")))
}

fn write(keep: &mut Keep, bytes: &[u8]) -> Result<(), Fatal> {
    let written: io::Result<()> = keep.file.write_all(bytes);
    written.map_err(|error| keep.failure(&error))
}

/// A CRC32C.
const CHECKSUM_LEN: usize = 4;
