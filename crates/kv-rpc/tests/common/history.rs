//! Histories of single keys, and whether they fit one order in which each call happened at one
//! moment between its begin and its end.

use std::collections::HashSet;

/// A call on one key, and what it returned.
#[derive(Clone, Debug)]
pub struct Call {
    pub begin: u64,
    /// When the answer came; [`NEVER`] when none did.
    pub end: u64,
    pub what: What,
}

/// What a key has.
pub type State = Option<i64>;

#[derive(Clone, Copy, Debug)]
pub enum What {
    Get(Option<i64>),
    Set(i64),
    /// Whether something was there.
    Delete(bool),
    Add(i64, i64),
    /// From, to, and whether it was so.
    Swap(i64, i64, bool),
    /// Calls without an answer: they happened once after they began, or never.
    LostDelete,
    LostAdd(i64),
    LostSwap(i64, i64),
}

/// Wing and Gong's search with Lowe's memory: try every call that began before any other ended, and
/// forget no state that led nowhere.
pub fn linearizable(history: &[Call]) -> bool {
    let mut seen = HashSet::new();
    let done = vec![0; history.len().div_ceil(64)];
    search(history, &done, None, &mut seen)
}

fn search(
    history: &[Call],
    done: &[u64],
    state: State,
    seen: &mut HashSet<(Vec<u64>, State)>,
) -> bool {
    let is_done = |index: usize| done[index / 64] & (1 << (index % 64)) != 0;
    let left = || (0..history.len()).filter(|index| !is_done(*index));
    let first_end = left().map(|index| history[index].end).min();
    // What is left without an answer may never have happened.
    let Some(first_end) = first_end.filter(|end| *end != NEVER) else {
        return true;
    };
    if !seen.insert((done.to_vec(), state)) {
        return false;
    }
    left().any(|index| {
        let call = &history[index];
        let next = (call.begin <= first_end)
            .then(|| step(call.what, state))
            .flatten();
        next.is_some_and(|state| {
            let mut done = done.to_vec();
            done[index / 64] |= 1 << (index % 64);
            search(history, &done, state, seen)
        })
    })
}

/// The state after a call, if it could return that.
fn step(what: What, state: State) -> Option<State> {
    match what {
        What::Get(found) => (found == state).then_some(state),
        What::Set(value) => Some(Some(value)),
        What::Delete(found) => (found == state.is_some()).then_some(None),
        What::Add(by, sum) => (state.unwrap_or(0) + by == sum).then_some(Some(sum)),
        What::Swap(from, to, true) => (state == Some(from)).then_some(Some(to)),
        What::Swap(from, _, false) => (state != Some(from)).then_some(state),
        What::LostDelete => Some(None),
        What::LostAdd(by) => Some(Some(state.unwrap_or(0) + by)),
        What::LostSwap(from, to) => Some(if state == Some(from) { Some(to) } else { state }),
    }
}

/// The end of a call that was never answered.
pub const NEVER: u64 = u64::MAX;
