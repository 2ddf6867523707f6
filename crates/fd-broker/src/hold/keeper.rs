//! The service manager's descriptor store: what would be lost with us is kept there, and comes back with
//! the next start (sd_notify(3), `FDSTORE=1`).
//!
//! The manager knows a descriptor by a name alone. What the names stand for is in a journal, which is
//! a descriptor in the store like the others: a file in memory, appended to before the manager hears of a
//! descriptor. So a process that is killed at any moment leaves a journal that its successor can read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};
use portyard_core::life::Notifier;
use portyard_core::listen::STORED;
use portyard_core::wire::hold::{Note, Record, replay};

/// The way to the store, and what is in it.
#[derive(Debug)]
pub struct Keeper {
    notifier: Notifier,
    journal: File,
    generation: u64,
    /// How long the journal is.
    length: u64,
    /// The number of the next descriptor.
    next: u64,
    /// What is kept, by the number of its first descriptor.
    kept: HashMap<u64, Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    note: Note,
    descriptors: usize,
}

/// Something that came back from the store.
#[derive(Debug)]
pub struct Returned {
    /// Its number, by which it is still kept.
    pub number: u64,
    /// What it is.
    pub record: Record,
    /// How long ago that was written.
    pub ago: Duration,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
}

impl Keeper {
    /// Takes up what an earlier process has left, as it came back. `None` when there is no store.
    pub fn start(
        notifier: &Notifier,
        stored: Vec<(String, OwnedFd)>,
    ) -> io::Result<Option<(Self, Vec<Returned>)>> {
        if notifier.store_size() == 0 {
            if !stored.is_empty() {
                tracing::warn!(
                    descriptors = stored.len(),
                    "the service manager has kept descriptors and says that it keeps none; they are \
                     closed"
                );
            }
            return Ok(None);
        }
        let mut left: HashMap<String, OwnedFd> = stored.into_iter().collect();
        let journals = left.keys().filter_map(|name| generation(name));
        let newest = journals.clone().max();
        for old in journals
            .filter(|old| Some(*old) != newest)
            .collect::<Vec<_>>()
        {
            left.remove(&journal_name(old));
            notifier.unstore(&journal_name(old));
        }
        let journal = newest.and_then(|number| Some((number, left.remove(&journal_name(number))?)));
        let mut keeper = match journal {
            Some((generation, journal)) => Self {
                notifier: notifier.clone(),
                length: File::from(journal.try_clone()?).metadata()?.len(),
                journal: journal.into(),
                generation,
                next: 1,
                kept: HashMap::new(),
            },
            None => Self::begin(notifier)?,
        };
        let returned = keeper.take_up(&mut left)?;
        for name in left.into_keys() {
            tracing::warn!(
                name,
                "the service manager has kept a descriptor that nobody knows of"
            );
            notifier.unstore(&name);
        }
        Ok(Some((keeper, returned)))
    }

    fn begin(notifier: &Notifier) -> io::Result<Self> {
        let mut keeper = Self {
            notifier: notifier.clone(),
            journal: new_journal()?,
            generation: 0,
            length: 0,
            next: 1,
            kept: HashMap::new(),
        };
        keeper.replace_journal()?;
        Ok(keeper)
    }

    /// Matches the journal with what has come back.
    fn take_up(&mut self, left: &mut HashMap<String, OwnedFd>) -> io::Result<Vec<Returned>> {
        let length = usize::try_from(self.length.min(JOURNAL_MAX)).unwrap_or(0);
        let mut bytes = vec![0; length];
        self.journal.read_exact_at(&mut bytes, 0)?;
        let now = milliseconds();
        let mut returned = Vec::new();
        for note in replay(&bytes) {
            let Some(record) = note.record.clone() else {
                continue;
            };
            let count = record.descriptors();
            let names = names(note.number, count);
            let descriptors: Vec<OwnedFd> = names.filter_map(|name| left.remove(&name)).collect();
            self.next = self.next.max(note.number + count as u64);
            let ago = Duration::from_millis(now.saturating_sub(note.at));
            let number = note.number;
            let whole = descriptors.len() == count;
            self.kept.insert(
                number,
                Kept {
                    note,
                    descriptors: count,
                },
            );
            if whole {
                returned.push(Returned {
                    number,
                    record,
                    ago,
                    descriptors,
                });
            } else {
                tracing::warn!(
                    ?record,
                    came = descriptors.len(),
                    "the service manager has not kept what it was given; raise FileDescriptorStoreMax"
                );
                self.forget(number);
            }
        }
        // Whatever a writer had left unfinished would hide what is appended behind it.
        self.replace_journal()?;
        Ok(returned)
    }

    /// Has something kept, and returns its number; an error where the store is full.
    pub fn keep(&mut self, record: Record, descriptors: &[BorrowedFd<'_>]) -> io::Result<u64> {
        let present: usize = self.kept.values().map(|kept| kept.descriptors).sum();
        // The journal takes a place, and while it is replaced two.
        let room = usize::try_from(self.notifier.store_size()).unwrap_or(usize::MAX);
        if present + descriptors.len() + 2 > room {
            return Err(io::Error::other(format!(
                "the service manager keeps no more than {room} descriptors; raise \
                 FileDescriptorStoreMax="
            )));
        }
        let number = self.next;
        self.next += descriptors.len() as u64;
        let note = Note {
            number,
            at: milliseconds(),
            record: Some(record),
        };
        self.write(&note)?;
        for (name, descriptor) in names(number, descriptors.len()).zip(descriptors) {
            self.notifier.store(&name, &[*descriptor])?;
        }
        self.kept.insert(
            number,
            Kept {
                note,
                descriptors: descriptors.len(),
            },
        );
        Ok(number)
    }

    /// Has something kept no longer.
    pub fn forget(&mut self, number: u64) {
        let Some(kept) = self.kept.remove(&number) else {
            return;
        };
        // In this order: of what is in the journal and not in the store, the next start only warns.
        for name in names(number, kept.descriptors) {
            self.notifier.unstore(&name);
        }
        let note = Note {
            number,
            at: milliseconds(),
            record: None,
        };
        if let Err(error) = self.write(&note) {
            tracing::warn!(%error, "the journal of what is kept cannot be written");
        }
    }

    /// Waits until the manager has read all that it was told; false when it has not in time.
    pub fn settle(&self) -> bool {
        self.notifier.barrier(SETTLE)
    }

    fn write(&mut self, note: &Note) -> io::Result<()> {
        if self.length > JOURNAL_LONG {
            self.replace_journal()?;
        }
        let bytes = note.encode();
        self.journal.write_all_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins a journal of only what still holds. The old one goes when the new one is kept.
    fn replace_journal(&mut self) -> io::Result<()> {
        let mut journal = new_journal()?;
        let mut bytes = Vec::new();
        for kept in self.kept.values() {
            bytes.extend(kept.note.encode());
        }
        journal.write_all(&bytes)?;
        let old = self.generation;
        self.generation += 1;
        let name = journal_name(self.generation);
        self.notifier.store(&name, &[journal.as_fd()])?;
        self.journal = journal;
        self.length = bytes.len() as u64;
        if old > 0 {
            self.notifier.unstore(&journal_name(old));
        }
        Ok(())
    }
}

fn new_journal() -> io::Result<File> {
    Ok(memfd_create("portyard-journal", MFdFlags::MFD_CLOEXEC)?.into())
}

fn journal_name(generation: u64) -> String {
    format!("{STORED}journal-{generation}")
}

fn generation(name: &str) -> Option<u64> {
    name.strip_prefix(STORED)?
        .strip_prefix("journal-")?
        .parse()
        .ok()
}

fn names(number: u64, count: usize) -> impl Iterator<Item = String> {
    (number..)
        .take(count)
        .map(|number| format!("{STORED}{number}"))
}

/// Milliseconds of the one clock that all processes share and nobody sets.
fn milliseconds() -> u64 {
    // The clock is always there (clock_gettime(2)).
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// How long the manager has for reading what it was told before the end.
const SETTLE: Duration = Duration::from_secs(5);
/// A journal that is longer is written anew.
const JOURNAL_LONG: u64 = 1 << 20;
/// No journal is longer than one that is about to be written anew.
const JOURNAL_MAX: u64 = 4 << 20;
