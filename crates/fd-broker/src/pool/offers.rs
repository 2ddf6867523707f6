//! The offers of a pool that workers have not answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::connections::{ConnectionId, Connections, State};
use super::worker::WorkerId;

/// Offers without an answer, of all workers together.
#[derive(Debug, Default)]
pub struct Offers {
    /// By age; those that were answered go when they come to the front.
    by_age: VecDeque<ConnectionId>,
    open: usize,
}

impl Offers {
    /// How many there are.
    pub fn open(&self) -> usize {
        self.open
    }

    /// One is made.
    pub fn push(&mut self, connection: ConnectionId) {
        self.open += 1;
        self.by_age.push_back(connection);
    }

    /// One has been answered, and its connection is no longer `Offered`: forgets the answered ones at
    /// the front.
    pub fn answered<T>(&mut self, connections: &Connections<T>) {
        self.open -= 1;
        if self.open == 0 {
            self.by_age.clear();
            return;
        }
        while let Some(&id) = self.by_age.front() {
            let key = connections.key(id);
            if key.is_some_and(|key| matches!(connections[key].state, State::Offered(..))) {
                break;
            }
            self.by_age.pop_front();
        }
    }

    /// The workers that have let one stay for so long, each once.
    pub fn overdue<T>(
        &self,
        connections: &Connections<T>,
        timeout: Duration,
        now: Instant,
    ) -> Vec<WorkerId> {
        let mut overdue = Vec::new();
        for &id in &self.by_age {
            // Others have been answered.
            if let Some(key) = connections.key(id)
                && let State::Offered(worker, at) = connections[key].state
            {
                if now.duration_since(at) < timeout {
                    break;
                }
                if !overdue.contains(&worker) {
                    overdue.push(worker);
                }
            }
        }
        overdue
    }
}
