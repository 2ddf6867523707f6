//! A disk in memory that can lose power, fail and lie.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::random::Random;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

/// When a disk stops being a good one, counted in writes, syncs and changes of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never.
    None,
    /// Power goes at this call: it and all that follow fail.
    PowerCut(u64),
    /// This call fails, and all others succeed.
    Error(u64, i32),
}

struct Inner {
    /// What a process sees.
    view: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// What was written since the last sync.
    pending: Vec<Pending>,
    calls: u64,
    fault: Fault,
    /// Whether a sync is only claimed.
    lies: bool,
    /// Writes and syncs after the call that failed.
    after_error: u64,
}

#[derive(Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl SimDisk {
    pub fn new(image: Vec<u8>, fault: Fault, lies: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            view: image.clone(),
            durable: image,
            pending: Vec::new(),
            calls: 0,
            fault,
            lies,
            after_error: 0,
        })))
    }

    /// What is on it while it has power.
    pub fn view(&self) -> Vec<u8> {
        self.0.lock().unwrap().view.clone()
    }

    /// What is on it after a loss of power: all that was synced, and of the rest any sectors.
    pub fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let inner = self.0.lock().unwrap();
        let mut image = inner.durable.clone();
        // Sometimes nearly all, sometimes nearly nothing gets through.
        let share = random.below(101);
        for pending in &inner.pending {
            match pending {
                Pending::Length(length) if random.below(100) < share => {
                    image.resize(usize::try_from(*length).unwrap(), 0);
                }
                Pending::Length(_) => {}
                Pending::Write(offset, data) => {
                    let mut at = usize::try_from(*offset).unwrap();
                    let mut rest = data.as_slice();
                    while !rest.is_empty() {
                        let (sector, more) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                        if random.below(100) < share && at + sector.len() <= image.len() {
                            image[at..at + sector.len()].copy_from_slice(sector);
                        }
                        at += sector.len();
                        rest = more;
                    }
                }
            }
        }
        image
    }

    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    pub fn calls_after_error(&self) -> u64 {
        self.0.lock().unwrap().after_error
    }
}

impl Inner {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.fault {
            Fault::PowerCut(at) if self.calls >= at => Err(io::Error::other("no power")),
            Fault::Error(at, errno) if self.calls == at => Err(io::Error::from_raw_os_error(errno)),
            Fault::Error(at, _) if self.calls > at => {
                self.after_error += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn has_power(&self) -> bool {
        !matches!(self.fault, Fault::PowerCut(at) if self.calls > at)
    }
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        let begin = usize::try_from(offset).unwrap();
        let found = inner.view.get(begin..begin + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let called = inner.call();
        if inner.has_power() {
            inner.pending.push(Pending::Length(length));
        }
        called?;
        inner.view.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.call()?;
        if !inner.lies {
            let Inner { view, durable, .. } = &mut *inner;
            durable.clone_from(view);
            inner.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let called = inner.call();
        if inner.has_power() {
            // Of a write that failed any part may have arrived.
            inner.pending.push(Pending::Write(offset, data.into()));
        }
        called?;
        let begin = usize::try_from(offset).unwrap();
        inner.view[begin..begin + data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// What a disk writes whole.
const SECTOR: usize = 512;
