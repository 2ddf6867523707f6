//! What a broker writes down about the descriptors that a service manager keeps for it: the manager
//! knows them by a name alone.
//!
//! A journal is notes, one behind the other, and only ever grows at its end. Each is a length in two
//! bytes, the number of the first descriptor in eight, a time in eight, and either the record of what
//! is kept there or nothing, where it is kept no longer. A writer that was killed may leave part of a
//! note, which counts for nothing.

use std::collections::BTreeMap;

use super::record::Record;

/// One note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The number of the first descriptor; those that follow it have the next ones.
    pub number: u64,
    /// When it was written, in milliseconds of a clock that outlives the writer.
    pub at: u64,
    /// What is kept there; `None`: nothing any more.
    pub record: Option<Record>,
}

impl Note {
    /// The bytes to append.
    pub fn encode(&self) -> Vec<u8> {
        let record = self.record.as_ref().map(Record::encode);
        let record = record.unwrap_or_default();
        // A record is at most a message long.
        let length = u16::try_from(NUMBERS_LEN + record.len()).unwrap_or(u16::MAX);
        let mut note = length.to_be_bytes().to_vec();
        note.extend(self.number.to_be_bytes());
        note.extend(self.at.to_be_bytes());
        note.extend(record);
        note
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, bytes) = bytes.split_first_chunk()?;
        let (at, bytes) = bytes.split_first_chunk()?;
        let record = match bytes {
            [] => None,
            bytes => Some(Record::read(bytes).ok()?),
        };
        Some(Self {
            number: u64::from_be_bytes(*number),
            at: u64::from_be_bytes(*at),
            record,
        })
    }
}

/// The notes that still hold at the end of a journal, by their numbers. What is not understood ends it.
pub fn replay(mut journal: &[u8]) -> Vec<Note> {
    let mut notes = BTreeMap::new();
    while let Some((length, rest)) = journal.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((note, rest)) = rest.split_at_checked(length) else {
            break;
        };
        let Some(note) = Note::decode(note) else {
            break;
        };
        match note.record {
            Some(_) => notes.insert(note.number, note),
            None => notes.remove(&note.number),
        };
        journal = rest;
    }
    notes.into_values().collect()
}

const NUMBERS_LEN: usize = 16;
