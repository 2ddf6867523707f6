//! Takes arrays, each with its size before it, and answers with a receipt once it is safe.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use portyard_core::config::Size;
use portyard_core::offload::Busy;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::sys::{Unnamed, Window};
use portyard_core::wire::array::{Receipt, Refusal, SIZE_LEN, decode_size};
use tokio::sync::Semaphore;

use crate::on_pool::OnPool;
use crate::options::Options;
use crate::store::Store;

/// The array-sink service.
pub struct ArraySink {
    max: u64,
    /// Absent: arrays are summed and thrown away.
    keeping: Option<Arc<Keeping>>,
}

struct Keeping {
    store: Store,
    /// A place for each array under way.
    places: Semaphore,
}

impl ArraySink {
    /// Takes `directory`, `max_array`, `min_free`, `max_files` and `max_uploads` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        let max = options.max_array;
        if !(1..=MAX_ARRAY_LIMIT).contains(&max.0) {
            return Err(format!(
                "options.max_array = \"{max}\" is not from 1B to {}",
                Size(MAX_ARRAY_LIMIT)
            ));
        }
        for (name, value, limit) in [
            ("max_files", options.max_files, MAX_FILES_LIMIT),
            ("max_uploads", options.max_uploads, MAX_UPLOADS_LIMIT),
        ] {
            if !(1..=limit).contains(&value) {
                return Err(format!("options.{name} = {value} is not from 1 to {limit}"));
            }
        }
        let keeping = options.directory.as_ref().map(|path| {
            let store = Store::open(path, options.min_free.0, options.max_files as usize)?;
            let places = Semaphore::new(options.max_uploads as usize);
            Ok::<_, String>(Arc::new(Keeping { store, places }))
        });
        Ok(Self {
            max: max.0,
            keeping: keeping.transpose()?,
        })
    }
}

impl StreamService for ArraySink {
    fn serve(&self, connection: Connection) -> Serving {
        let taking = Taking {
            connection,
            max: self.max,
            keeping: self.keeping.clone(),
        };
        Box::pin(async move { taking.run().await.unwrap_or_else(Ended::from) })
    }
}

struct Taking {
    connection: Connection,
    max: u64,
    keeping: Option<Arc<Keeping>>,
}

impl Taking {
    async fn run(mut self) -> io::Result<Ended> {
        loop {
            let Some(length) = self.read_size().await? else {
                self.connection.finish().await;
                return Ok(Ended::Done);
            };
            let receipt = if length > self.max {
                self.connection.count_bad_input();
                Receipt::Refused(Refusal::TooLarge)
            } else if let Some(keeping) = self.keeping.clone() {
                // Boxed: a connection that waits for its next array needs no room for one.
                Box::pin(self.keep(&keeping, length)).await?
            } else {
                let crc = self.discard(length).await?;
                Receipt::Taken { len: length, crc }
            };
            self.connection.write_all(&receipt.encode()).await?;
            if let Receipt::Refused(refusal) = receipt {
                tracing::debug!(peer = %self.connection.peer(), length, %refusal, "refused");
                self.connection.finish().await;
                return Ok(if refusal == Refusal::TooLarge {
                    Ended::Protocol
                } else {
                    Ended::Done
                });
            }
        }
    }

    /// The size of the next array; `None` when there is none.
    async fn read_size(&mut self) -> io::Result<Option<u64>> {
        let mut size = [0; SIZE_LEN];
        let mut read = 0;
        while read < SIZE_LEN {
            let into = &mut size[read..];
            match poll_fn(|cx| self.connection.poll_read(cx, into)).await? {
                0 if read == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => read += length,
            }
        }
        Ok(decode_size(&size))
    }

    /// Reads an array into the loop's buffer, again and again; its checksum.
    async fn discard(&mut self, length: u64) -> io::Result<u32> {
        let home = self.connection.home().clone();
        let (mut left, mut crc) = (length, 0);
        poll_fn(|cx| {
            home.with_buffer(|buffer| {
                while left > 0 {
                    let piece = &mut buffer[..];
                    let limit = usize::try_from(left).map_or(piece.len(), |l| l.min(piece.len()));
                    let read = ready!(self.read_piece(cx, &mut piece[..limit], &mut crc))?;
                    left -= read as u64;
                }
                Poll::Ready(Ok(crc))
            })
        })
        .await
    }

    /// Receives an array into its file, window by window, and has it kept; the receipt for that.
    ///
    /// All that may wait for the disk is done on the pool: finding room, making a window ready
    /// while the one before it fills, and bringing all of it to the disk.
    async fn keep(&mut self, keeping: &Arc<Keeping>, length: u64) -> io::Result<Receipt> {
        let refused = |refusal| Ok(Receipt::Refused(refusal));
        let Ok(_place) = keeping.places.try_acquire() else {
            return refused(Refusal::Busy);
        };
        let pool = self.connection.home().offload.clone();
        let (store, own) = (keeping.clone(), pool.clone());
        let begun = pool.run(move || {
            let file = OnPool::new(own, store.store.begin(length)?);
            next_window(file, Vec::new()).map_err(|error| store.store.refusal(&error))
        });
        let (mut file, mut window) = match begun.await {
            Ok(Ok(begun)) => begun,
            Ok(Err(refusal)) => return refused(refusal),
            Err(Busy) => return refused(Refusal::Busy),
        };
        let (mut left, mut crc, mut full) = (length, 0, Vec::new());
        while let Some(mut current) = window.take() {
            left -= current.len() as u64;
            if left == 0 {
                self.fill(&mut current, &mut crc).await?;
                full.push(current);
                break;
            }
            let before = std::mem::take(&mut full);
            let next = pool.go_on(move || next_window(file, before));
            self.fill(&mut current, &mut crc).await?;
            full.push(current);
            (file, window) = match next.await {
                Ok(Ok(next)) => next,
                Ok(Err(error)) => return refused(keeping.store.refusal(&error)),
                Err(Busy) => return refused(Refusal::Failed),
            };
        }
        // The peer has done its part; a slow disk is no silence of its own.
        self.connection.busy();
        let store = keeping.clone();
        let kept = pool.go_on(move || {
            // Here and now: a file with windows gets no name.
            full.into_iter().for_each(OnPool::drop_here);
            store.store.keep(&mut file)
        });
        match kept.await {
            Ok(Ok(name)) => {
                tracing::debug!(peer = %self.connection.peer(), length, name, "kept");
                Ok(Receipt::Taken { len: length, crc })
            }
            Ok(Err(refusal)) => refused(refusal),
            Err(Busy) => refused(Refusal::Failed),
        }
    }

    async fn fill(&mut self, window: &mut [u8], crc: &mut u32) -> io::Result<()> {
        let mut filled = 0;
        while filled < window.len() {
            let end = window.len().min(filled + PIECE);
            let piece = &mut window[filled..end];
            filled += poll_fn(|cx| self.read_piece(cx, piece, crc)).await?;
        }
        Ok(())
    }

    /// Reads a part of an array, which may not end here, and adds it to the checksum while it is
    /// still near the processor.
    fn read_piece(
        &mut self,
        cx: &mut Context<'_>,
        piece: &mut [u8],
        crc: &mut u32,
    ) -> Poll<io::Result<usize>> {
        let length = ready!(self.connection.poll_read(cx, piece))?;
        if length == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        *crc = crc32c::crc32c_append(*crc, &piece[..length]);
        Poll::Ready(Ok(length))
    }
}

/// The next window of a file, for which those that are full are given up.
fn next_window(mut file: OnPool<Unnamed>, full: Vec<OnPool<Window>>) -> io::Result<Ready> {
    full.into_iter().for_each(OnPool::drop_here);
    let window = file.window()?;
    let window = window.map(|window| OnPool::new(file.pool().clone(), window));
    Ok((file, window))
}

/// A file and its next window, if it is not at its end.
type Ready = (OnPool<Unnamed>, Option<OnPool<Window>>);

/// 1 TiB.
const MAX_ARRAY_LIMIT: u64 = 1 << 40;
/// They are counted for each array.
const MAX_FILES_LIMIT: u32 = 100_000;
/// Each may take three windows of memory.
const MAX_UPLOADS_LIMIT: u32 = 1000;
/// As much as is read at once; then it is still near the processor when it is summed.
const PIECE: usize = 256 * 1024;
