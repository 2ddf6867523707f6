//! A file that is only looked at: what is written to it stays in memory.
//!
//! A database that was not closed has to be recovered before it can be read, and whoever looks must
//! not do that to the file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The file, and what was written over it.
#[derive(Debug)]
pub struct Overlay {
    file: File,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    length: u64,
    /// How much of the file still counts: what was cut off once is zero when the length grows again.
    kept: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let over = Over {
            length,
            kept: length,
            blocks: HashMap::new(),
        };
        Ok(Self {
            file,
            over: Mutex::new(over),
        })
    }

    /// A block as it is in the file; what lies behind its end, or behind `kept`, is zero.
    fn block(&self, number: u64, kept: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let offset = number * BLOCK as u64 + filled as u64;
            match self.file.read_at(&mut block[filled..], offset) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        clear_from(&mut block, number, kept);
        Ok(block)
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        if offset.saturating_add(out.len() as u64) > over.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, part) in parts(offset, out.len()) {
            let file;
            let block = if let Some(block) = over.blocks.get(&number) {
                block
            } else {
                file = self.block(number, over.kept)?;
                &file
            };
            let length = part.len();
            out[part].copy_from_slice(&block[within..within + length]);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut over = self.over();
        if length < over.length {
            over.kept = over.kept.min(length);
            for (number, block) in &mut over.blocks {
                clear_from(block, *number, length);
            }
        }
        over.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        for (number, within, part) in parts(offset, data.len()) {
            let part = &data[part];
            if !over.blocks.contains_key(&number) {
                let block = self.block(number, over.kept)?;
                over.blocks.insert(number, block);
            }
            if let Some(block) = over.blocks.get_mut(&number) {
                block[within..within + part.len()].copy_from_slice(part);
            }
        }
        Ok(())
    }
}

/// Zeroes what of a block lies at `end` of the file or behind it.
fn clear_from(block: &mut [u8], number: u64, end: u64) {
    let keep = end.saturating_sub(number * BLOCK as u64);
    let keep = usize::try_from(keep).unwrap_or(BLOCK).min(BLOCK);
    block[keep..].fill(0);
}

/// Cuts a range of the file at the ends of blocks: the block, where in it, and which part of the
/// range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        #[expect(clippy::cast_possible_truncation, reason = "less than a block")]
        let within = (at % BLOCK as u64) as usize;
        let end = length.min(done + BLOCK - within);
        let part = done..end;
        done = end;
        (!part.is_empty()).then_some((at / BLOCK as u64, within, part))
    })
}

const BLOCK: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_written_over_a_file_is_read_and_leaves_it_alone() {
        let mut file = tempfile::tempfile().unwrap();
        let mut model: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        file.write_all(&model).unwrap();
        let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
        for (offset, length) in [(0, 10), (4_090, 12), (4_000, 5_000), (9_999, 1)] {
            overlay.write(offset as u64, &vec![7; length]).unwrap();
            model[offset..offset + length].fill(7);
            for (offset, length) in [(0, 10_000), (4_095, 2), (8_191, 1_000)] {
                let mut read = vec![0; length];
                overlay.read(offset as u64, &mut read).unwrap();
                assert_eq!(read, model[offset..offset + length]);
            }
        }
        overlay.set_len(4_097).unwrap();
        overlay.set_len(20_000).unwrap();
        let mut read = [9; 4];
        overlay.read(4_095, &mut read).unwrap();
        assert_eq!(read, [7, 7, 0, 0]);
        overlay.read(8_999, &mut read).unwrap();
        assert_eq!(read, [0; 4]);
        overlay.write(15_000, &[1]).unwrap();
        let mut read = [9; 3];
        overlay.read(14_999, &mut read).unwrap();
        assert_eq!(read, [0, 1, 0]);
        assert!(overlay.read(19_999, &mut read).is_err());
        let mut unchanged = vec![0; 10_000];
        file.read_exact_at(&mut unchanged, 0).unwrap();
        assert_eq!(unchanged[5], 5);
        assert_eq!(file.metadata().unwrap().len(), 10_000);
    }
}
