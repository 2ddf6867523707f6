//! Who gets the next connection.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::worker::{Worker, WorkerId};

/// The rule by which a pool picks among the workers that have room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one with the fewest connections for its weight; among equals, who has waited longest.
    #[default]
    Least,
    /// One after the other, whatever their weight.
    RoundRobin,
    /// One after the other, each as often as its weight says, evenly spread.
    Weighted,
    /// The same for the same source, as long as that one has room. Who comes or goes changes only his
    /// own share.
    SourceHash,
}

/// Picks one of the `candidates`, all of which have room. `source` is a hash of where from.
pub(super) fn pick<'a>(
    balance: Balance,
    source: u64,
    candidates: impl Iterator<Item = (&'a WorkerId, &'a mut Worker)>,
) -> Option<(&'a WorkerId, &'a mut Worker)> {
    match balance {
        Balance::Least => candidates.reduce(|best, other| {
            if is_lighter(other.1, best.1) {
                other
            } else {
                best
            }
        }),
        Balance::RoundRobin => candidates.min_by_key(|(_, worker)| worker.picked),
        Balance::Weighted => {
            // Smooth weighted round robin: each gains its weight, the richest pays for all.
            let mut total = 0;
            let richest = candidates
                .map(|(id, worker)| {
                    let weight = i64::from(worker.joining.weight);
                    total += weight;
                    worker.share += weight;
                    (id, worker)
                })
                .max_by_key(|(id, worker)| (worker.share, Reverse(**id)));
            richest.map(|(id, worker)| {
                worker.share -= total;
                (id, worker)
            })
        }
        Balance::SourceHash => candidates
            .map(|(id, worker)| (score(source, worker), id, worker))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, id, worker)| (id, worker)),
    }
}

/// Whether `a` has fewer connections for its weight than `b`.
fn is_lighter(a: &Worker, b: &Worker) -> bool {
    // (load + 1) / weight, compared without a division.
    let cost = |this: &Worker, other: &Worker| {
        (u64::from(this.load()) + 1) * u64::from(other.joining.weight)
    };
    (cost(a, b), a.picked) < (cost(b, a), b.picked)
}

/// Rendezvous hashing: the worker that scores highest for a source has it, and by weight more sources.
fn score(source: u64, worker: &Worker) -> f64 {
    let mixed = mix(source ^ name_hash(&worker.joining.name));
    // In (0, 1): the upper 53 bits, and half of the last place.
    let unit = ((mixed >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0;
    f64::from(worker.joining.weight) / -unit.ln()
}

/// FNV-1a: names are the operator's, so nobody chooses them to collide.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Spreads the bits (the finish of SplitMix64).
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
