//! The seam between the committer with its index, and whatever keeps data.
//!
//! An engine moves bytes: it knows places, records and the state of the whole, nothing of keys, times
//! or conditions. What it must promise is small, and all that the store promises rests on it.
//!
//! A log of our own fits here, and so does a remote keeper that this process alone writes to. One that
//! others write to as well does not: index and committer hold that nothing changes behind them, so
//! that would be another `Store`, not another engine. Backups come from the index, for any engine.

use super::error::OpenError;

/// What is true of the whole store, written with every commit and checked when it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// The latest revision.
    pub revision: u64,
    /// The latest place that a key got, 0 if none did.
    pub last_place: u64,
    /// How many records there are.
    pub count: u64,
    /// The sum of [`State::mark`] over all records: a record that was lost, or that an earlier one has
    /// come back for, is missed by it.
    pub digest: u64,
}

/// What one commit changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// Places to empty.
    pub removed: Vec<u64>,
    /// Places to fill, in order, with records; some are filled already.
    pub put: Vec<(u64, Vec<u8>)>,
    /// The state afterwards.
    pub state: State,
}

/// An engine. The store calls it from one thread at a time.
pub trait Persistence: Send + 'static {
    /// One word for what it is.
    fn name(&self) -> &'static str;

    /// Whether a commit survives the loss of power. If not, it is given no records.
    fn durable(&self) -> bool;

    /// Gives every record with its place, in the order of places, and returns the state. Called once,
    /// before the first commit.
    fn load(&mut self, each: &mut dyn FnMut(u64, &[u8])) -> Result<State, OpenError>;

    /// Makes the changes, all or none, and returns once they are safe. After an error the store calls
    /// [`Persistence::abandon`] and nothing else: what failed to reach the disk once is not tried
    /// again, as the kernel may have forgotten that it is missing.
    fn commit(&mut self, changes: Changes) -> Result<(), String>;

    /// Ends in peace. Everything is safe already.
    fn close(self: Box<Self>) -> Result<(), String>;

    /// Ends after an error, without another write.
    fn abandon(self: Box<Self>);
}

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory;

impl State {
    /// What a record adds to the digest. Place and revision tell which record it is; that its content
    /// is right, its own checksum tells.
    pub fn mark(place: u64, revision: u64) -> u64 {
        // The finish of SplitMix64, so that marks do not cancel each other.
        let mut mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ revision.rotate_left(32);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Persistence for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn durable(&self) -> bool {
        false
    }

    fn load(&mut self, _: &mut dyn FnMut(u64, &[u8])) -> Result<State, OpenError> {
        Ok(State::default())
    }

    fn commit(&mut self, _: Changes) -> Result<(), String> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }

    fn abandon(self: Box<Self>) {}
}
