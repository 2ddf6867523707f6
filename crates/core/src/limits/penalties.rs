//! What sources have to pay for failed authentications: they are refused for a while.
//!
//! As OpenSSH's `PerSourcePenalties`: each failure adds a span, the sum runs off with time, and who
//! owes more than a minimum is refused. The table has a fixed number of places, so that failures
//! from everywhere take no memory; when it is full, who owes least is forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Prefix;

/// What each source owes.
#[derive(Debug, Default)]
pub struct Penalties {
    /// When each source has paid, in milliseconds from the same start as the `now` of the calls.
    // std's SipHash with random keys: the keys are chosen by peers.
    paid: Mutex<HashMap<Prefix, u64>>,
}

/// How much a failure costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// For each failure; zero: nothing is ever owed.
    pub each: Duration,
    /// Who owes no more than this is served.
    pub minimum: Duration,
    /// Nobody owes more.
    pub maximum: Duration,
}

impl Penalties {
    /// A failure of `source` at `now`. True when the source has just begun to be refused.
    pub fn add(&self, source: Prefix, now: u64, tariff: &Tariff) -> bool {
        if tariff.each.is_zero() {
            return false;
        }
        let mut paid = self.lock();
        if paid.len() >= SOURCES_MAX && !paid.contains_key(&source) {
            make_room(&mut paid, now);
        }
        let entry = paid.entry(source).or_insert(now);
        let before = entry.saturating_sub(now);
        let owed = (before + millis(tariff.each)).min(millis(tariff.maximum));
        *entry = now + owed;
        before <= millis(tariff.minimum) && owed > millis(tariff.minimum)
    }

    /// Whether `source` owes more than the minimum at `now`.
    pub fn refuses(&self, source: Prefix, now: u64, tariff: &Tariff) -> bool {
        let mut paid = self.lock();
        match paid.get(&source) {
            None => false,
            Some(at) if *at <= now => {
                paid.remove(&source);
                false
            }
            Some(at) => at - now > millis(tariff.minimum),
        }
    }

    /// How many sources owe something, or did when they were last looked at.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody owes anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Prefix, u64>> {
        // A time cannot be left half-changed by a panic.
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets who has paid, or else the half that owes least: looking for one at a time would make each
/// failure of a full table cost a walk through it.
fn make_room(paid: &mut HashMap<Prefix, u64>, now: u64) {
    paid.retain(|_, at| *at > now);
    if paid.len() >= SOURCES_MAX {
        let mut times: Vec<u64> = paid.values().copied().collect();
        let (_, median, _) = times.select_nth_unstable(SOURCES_MAX / 2);
        let median = *median;
        paid.retain(|_, at| *at > median);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4)
}

/// As many as OpenSSH keeps of each family; a few megabytes when full.
const SOURCES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const TARIFF: Tariff = Tariff {
        each: Duration::from_secs(5),
        minimum: Duration::from_secs(12),
        maximum: Duration::from_secs(20),
    };
    const SOURCE: Prefix = Prefix::V4(1);

    #[test]
    fn some_failures_are_free_and_the_debt_runs_off() {
        let penalties = Penalties::default();
        assert!(!penalties.add(SOURCE, 0, &TARIFF));
        assert!(!penalties.add(SOURCE, 0, &TARIFF));
        assert!(!penalties.refuses(SOURCE, 0, &TARIFF));
        assert!(penalties.add(SOURCE, 0, &TARIFF));
        assert!(penalties.refuses(SOURCE, 2_999, &TARIFF));
        assert!(!penalties.refuses(SOURCE, 3_000, &TARIFF));
        assert!(!penalties.refuses(Prefix::V4(2), 0, &TARIFF));
        assert!(!penalties.refuses(SOURCE, 15_000, &TARIFF));
        assert!(penalties.is_empty());
    }

    #[test]
    fn nobody_owes_more_than_the_maximum() {
        let penalties = Penalties::default();
        for _ in 0..100 {
            penalties.add(SOURCE, 0, &TARIFF);
        }
        assert!(penalties.refuses(SOURCE, 7_999, &TARIFF));
        assert!(!penalties.refuses(SOURCE, 8_000, &TARIFF));
    }

    #[test]
    fn no_price_no_penalty() {
        let penalties = Penalties::default();
        let free = Tariff {
            each: Duration::ZERO,
            ..TARIFF
        };
        for _ in 0..100 {
            assert!(!penalties.add(SOURCE, 0, &free));
        }
        assert!(penalties.is_empty());
    }

    #[test]
    fn a_flood_of_sources_takes_no_more_than_its_places() {
        let penalties = Penalties::default();
        for _ in 0..3 {
            penalties.add(SOURCE, 0, &TARIFF);
        }
        for n in 0..200_000_u32 {
            penalties.add(Prefix::V6(n.into()), 1, &TARIFF);
        }
        assert!(penalties.len() <= SOURCES_MAX);
        // Who owes most is remembered.
        assert!(penalties.refuses(SOURCE, 1, &TARIFF));
    }
}
