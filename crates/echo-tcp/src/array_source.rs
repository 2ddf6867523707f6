//! Sends an array of numbers, a file's or computed ones, raw or with its size and checksum.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use portyard_core::observe::Throttle;
use portyard_core::serve::{Connection, Ended, Serving, StreamService, Sum};
use portyard_core::wire::array::{VALUE_LEN, Values, encode_size};

use crate::on_pool::OnPool;
use crate::options::{Frame, Options};

/// The array-source service.
pub struct ArraySource {
    content: Content,
    frame: Frame,
    faults: Arc<Throttle>,
}

/// What there is to send.
#[derive(Clone)]
enum Content {
    /// The file that stands there when a connection begins.
    File(Arc<Path>),
    /// So many computed numbers.
    Values(Values, u64),
}

impl ArraySource {
    /// Takes `file` or `count`, `start` and `step`, and `frame` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        Ok(Self {
            content: content(options)?,
            frame: options.frame,
            faults: Arc::default(),
        })
    }
}

fn content(options: &Options) -> Result<Content, String> {
    if let Some(path) = &options.file {
        if options.count.is_some() {
            return Err("options.file and options.count are both there; take one out".into());
        }
        // Each connection opens it again: a file that is replaced is served as it is then.
        open(path).map_err(|error| {
            format!(
                "options.file = \"{}\" cannot be served: {error}; name a regular file that this \
                 user may read",
                path.display()
            )
        })?;
        return Ok(Content::File(path.as_path().into()));
    }
    let count = options.count.unwrap_or(DEFAULT_COUNT);
    if count > MAX_COUNT {
        return Err(format!(
            "options.count = {count} is more than {MAX_COUNT}, which are 1 TiB"
        ));
    }
    let (start, step) = (options.start, options.step);
    for (name, value) in [("start", start), ("step", step)] {
        if !value.is_finite() {
            return Err(format!("options.{name} = {value} is not a finite number"));
        }
    }
    Ok(Content::Values(Values { start, step }, count))
}

/// The file and its length. Never waits for a writer, as opening a pipe would.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    Ok((file, metadata.len()))
}

impl StreamService for ArraySource {
    fn serve(&self, mut connection: Connection) -> Serving {
        let (content, frame, faults) = (self.content.clone(), self.frame, self.faults.clone());
        Box::pin(async move {
            match send(&mut connection, content, frame, &faults).await {
                Ok(()) => {
                    connection.finish().await;
                    Ended::Done
                }
                Err(error) => {
                    tracing::debug!(peer = %connection.peer(), %error, "not all of it was sent");
                    // An end in order would say that this was all.
                    connection.reset_on_close();
                    Ended::Broken
                }
            }
        })
    }
}

async fn send(
    connection: &mut Connection,
    content: Content,
    frame: Frame,
    faults: &Throttle,
) -> io::Result<()> {
    let sum = (frame == Frame::Checked).then_some(crc32c::crc32c_append as Sum);
    let crc = match content {
        Content::File(path) => {
            let place = path.clone();
            let opened = connection.home().offload.run(move || open(&place)).await;
            let (file, length) = match opened.map_err(io::Error::other)? {
                Ok(opened) => opened,
                Err(error) => {
                    if let Some(held) = faults.pass() {
                        tracing::warn!(file = %path.display(), %error, held, "cannot be served");
                    }
                    return Err(error);
                }
            };
            begin(connection, frame, length).await?;
            let file = OnPool::new(connection.home().offload.clone(), Arc::new(file));
            Box::pin(connection.send_file(&file, length, sum)).await?
        }
        Content::Values(values, count) => {
            let length = count * VALUE_LEN as u64;
            begin(connection, frame, length).await?;
            send_values(connection, values, length, sum).await?
        }
    };
    if frame == Frame::Checked {
        connection.write_all(&crc.to_be_bytes()).await?;
    }
    Ok(())
}

async fn begin(connection: &mut Connection, frame: Frame, length: u64) -> io::Result<()> {
    match frame {
        Frame::Raw => Ok(()),
        Frame::Sized | Frame::Checked => connection.write_all(&encode_size(length)).await,
    }
}

/// Computes the numbers as the peer takes them. Nothing is kept but how far it is.
async fn send_values(
    connection: &mut Connection,
    values: Values,
    length: u64,
    sum: Option<Sum>,
) -> io::Result<u32> {
    let (mut sent, mut crc) = (0, 0);
    while sent < length {
        let write = |cx: &mut Context<'_>| {
            let home = connection.home().clone();
            home.with_buffer(|buffer| {
                let piece = piece(values, sent, length, buffer);
                let taken = ready!(connection.poll_write(cx, piece))?;
                if let Some(sum) = sum {
                    crc = sum(crc, &piece[..taken]);
                }
                Poll::Ready(Ok::<_, io::Error>(taken))
            })
        };
        sent += poll_fn(write).await? as u64;
    }
    Ok(crc)
}

/// What follows the first `sent` bytes of an array of `length` bytes, at most as much as fits into
/// `buffer`.
fn piece(values: Values, sent: u64, length: u64, buffer: &mut [u8]) -> &[u8] {
    let within = |bytes: u64, cap: usize| usize::try_from(bytes).map_or(cap, |b| b.min(cap));
    let first = sent / VALUE_LEN as u64;
    let start = first * VALUE_LEN as u64;
    let size = within(length - start, buffer.len().min(PIECE));
    let written = values.write(first, &mut buffer[..size]);
    // The peer may have taken a part of the first number.
    &buffer[within(sent - start, VALUE_LEN)..written]
}

/// Without a file and without `count`.
const DEFAULT_COUNT: u64 = 1_000_000;
const MAX_COUNT: u64 = 1 << 37;
/// Small enough to stay near the processor, a multiple of a number's length.
const PIECE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_which_a_part_was_taken_goes_on_where_it_was() {
        let values = Values {
            start: 0.1,
            step: 0.7,
        };
        let mut whole = [0; 160];
        values.write(0, &mut whole);
        for taken in 1..=24 {
            let mut got = Vec::new();
            while got.len() < whole.len() {
                let piece = piece(values, got.len() as u64, 160, &mut [0; 24]).to_vec();
                got.extend_from_slice(&piece[..piece.len().min(taken)]);
            }
            assert_eq!(got, whole, "{taken} at a time");
        }
    }
}
