//! Reads everything that an engine keeps, and checks it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::encoding::{decode, guess_key};
use super::error::OpenError;
use super::index::{Index, Record};
use super::persistence::{Persistence, State};

/// The entries of an engine. Refuses whatever cannot be right.
pub fn load(engine: &mut dyn Persistence) -> Result<Index, OpenError> {
    let mut index = Index::default();
    let mut faults = Vec::new();
    let state = read(engine, &mut faults, &mut |record| {
        let record = Arc::new(record);
        let double = index.find(&record.key).is_some();
        index.bytes += record.bytes;
        index.replace(&record.key, Some(record.clone()));
        !double
    })?;
    if faults.is_empty() {
        index.state = state;
        Ok(index)
    } else {
        Err(OpenError::Damaged(faults.join("; ")))
    }
}

/// Reads all records; `keep` says whether a record's key is new. What cannot be right goes to
/// `faults`, of which there are at most [`FAULTS_MAX`].
pub fn read(
    engine: &mut dyn Persistence,
    faults: &mut Vec<String>,
    keep: &mut dyn FnMut(Record) -> bool,
) -> Result<State, OpenError> {
    let mut seen = State::default();
    let mut latest = 0;
    let mut add = |fault: String| {
        if faults.len() < FAULTS_MAX {
            faults.push(fault);
        }
    };
    let each = &mut |place: u64, bytes: &[u8]| {
        seen.count += 1;
        seen.last_place = place;
        match decode(place, bytes) {
            Ok(record) => {
                latest = latest.max(record.entry.revision);
                seen.digest = seen.digest.wrapping_add(record.mark());
                let key = record.key.clone();
                if !keep(record) {
                    add(format!("record {place}: key {key} is there twice"));
                }
            }
            Err(fault) => {
                let key = guess_key(bytes).map_or_else(String::new, |key| format!(" of key {key}"));
                add(format!("record {place}{key}: {fault}"));
            }
        }
    };
    let state = unless_it_panics(|| engine.load(each))?;
    if faults.is_empty() {
        faults.extend(compare(&state, &seen, latest));
    }
    Ok(state)
}

/// Runs what reads bytes that may be damaged. redb holds its own invariants for given, and panics
/// where they do not hold.
pub fn unless_it_panics<T>(read: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = panic_text(&*panic);
        Err(OpenError::Damaged(format!("the file has no sense: {said}")))
    })
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".into())
}

fn compare(state: &State, seen: &State, latest: u64) -> Option<String> {
    if seen.count != state.count {
        let (seen, count) = (seen.count, state.count);
        return Some(format!("there are {seen} records, and there were {count}"));
    }
    if seen.digest != state.digest {
        return Some("records are not those that were there".into());
    }
    if seen.last_place > state.last_place || latest > state.revision {
        return Some("records are later than the last commit".into());
    }
    None
}

/// How many faults are told; a broken disk has thousands.
const FAULTS_MAX: usize = 100;
