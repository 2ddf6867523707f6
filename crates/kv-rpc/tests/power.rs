//! Power cuts, failing disks and flipped bits: what was acknowledged is there, what was not happened
//! whole or not at all, and what is wrong is refused.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::Arc;

use common::disk::{Fault, SimDisk};
use common::random::Random;
use common::{HandClock, all, set, wait};
use kv_rpc::store::{Batch, Disk, Entry, Health, Limits, Operation, Store, StoreError};
use portyard_wire::value::Value;

/// A power cut at a random call, a recovery, and another cut: thousands of times.
#[test]
fn what_is_acknowledged_survives_every_power_cut() {
    let empty = empty_image();
    let (mut acknowledged, mut begun) = (0, 0);
    for seed in 0..CRASHES {
        let life = life(&empty, seed, false);
        let life = life.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        acknowledged += life.acknowledged;
        begun += life.begun;
    }
    assert!(
        begun > 2 * CRASHES,
        "only {begun} stores opened before their power went"
    );
    assert!(
        acknowledged > 5 * CRASHES,
        "only {acknowledged} batches were acknowledged"
    );
}

/// The control: the same test must notice a disk that only claims to sync.
#[test]
fn a_disk_that_lies_is_caught() {
    let empty = empty_image();
    let caught = (0..50)
        .filter(|seed| life(&empty, *seed, true).is_err())
        .count();
    assert!(
        caught > 25,
        "only {caught} of 50 lives on a lying disk were noticed"
    );
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_or_written() {
    let empty = empty_image();
    for errno in [libc_errno::EIO, libc_errno::ENOSPC] {
        let mut random = Random(7);
        let calls = {
            let disk = SimDisk::new(empty.clone(), Fault::None, false);
            serve(&disk, &script(&mut random.clone()), 3).unwrap();
            disk.calls()
        };
        let script = script(&mut random);
        let states = states(&script);
        assert!(calls > 50, "the script writes too little: {calls} calls");
        for at in 1..=calls {
            let disk = SimDisk::new(empty.clone(), Fault::Error(at, errno), false);
            let served = serve(&disk, &script, 3).unwrap_or_default();
            assert_eq!(
                disk.calls_after_error(),
                0,
                "call {at} failed, others followed"
            );
            for image in [disk.view(), disk.after_power_cut(&mut random)] {
                let found = recover(image);
                let found = found.unwrap_or_else(|error| panic!("call {at}: {error}"));
                let kept = place(&states, &found);
                let kept = kept.unwrap_or_else(|| panic!("call {at}: a state that never was"));
                let possible = served.acknowledged..=served.submitted;
                assert!(possible.contains(&kept), "call {at}");
                assert!(served.seen <= found.0, "call {at}: read, and lost");
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    for killed in [false, true] {
        let mut random = Random(3);
        let disk = SimDisk::new(empty_image(), Fault::None, false);
        let store = start(disk.clone()).unwrap();
        for batch in script(&mut random) {
            wait(store.apply(batch)).unwrap();
        }
        let running = disk.view();
        drop(store);
        let image = if killed { running } else { disk.view() };
        flip_bits(&image, killed, &mut random);
    }
}

fn flip_bits(image: &[u8], killed: bool, random: &mut Random) {
    let right = recover(image.to_vec()).unwrap();
    let used: Vec<usize> = (0..image.len() / 64)
        .filter(|block| image[block * 64..][..64].iter().any(|byte| *byte != 0))
        .collect();
    let (mut refused, mut harmless) = (0, 0);
    let mut flip = |byte: usize, bit: u8| {
        let mut damaged = image.to_vec();
        damaged[byte] ^= 1 << bit;
        match recover(damaged) {
            Err(_) => refused += 1,
            Ok(found) if found == right => harmless += 1,
            Ok(_) if killed && (byte, bit) == LATEST => {}
            Ok(_) => panic!("bit {bit} of byte {byte} changed the data and nobody noticed"),
        }
    };
    for byte in 0..512 {
        for bit in 0..8 {
            flip(byte, bit);
        }
    }
    for _ in 0..FLIPS {
        let block = used[usize::try_from(random.below(used.len() as u64)).unwrap()];
        let byte = block * 64 + usize::try_from(random.below(64)).unwrap();
        flip(byte, u8::try_from(random.below(8)).unwrap());
    }
    assert!(
        refused > 100 && harmless > 100,
        "{refused} refused, {harmless} harmless"
    );
}

/// One store's life with three power cuts.
fn life(empty: &[u8], seed: u64, lies: bool) -> Result<Life, String> {
    let mut life = Life::default();
    let mut random = Random(seed);
    let mut image = empty.to_vec();
    let mut history: Vec<Batch> = Vec::new();
    for cut in 1..=3 {
        let fault = Fault::PowerCut(1 + random.below(120));
        let disk = SimDisk::new(image, fault, lies);
        let before = history.len();
        history.extend(script(&mut random));
        let burst = 1 + usize::try_from(random.below(4)).unwrap();
        let served = serve(&disk, &history[before..], burst);
        life.begun += u64::from(served.is_some());
        let served = served.unwrap_or_default();
        life.acknowledged += served.acknowledged as u64;
        image = disk.after_power_cut(&mut random);
        let found = recover(image.clone())
            .map_err(|error| format!("not opened after cut {cut} ({fault:?}): {error}"))?;
        let kept = place(&states(&history), &found)
            .ok_or_else(|| format!("a state that never was, after cut {cut} ({fault:?})"))?;
        let Served {
            acknowledged,
            submitted,
            seen,
        } = served;
        if !(before + acknowledged..=before + submitted).contains(&kept) || found.0 < seen {
            return Err(format!(
                "{kept} batches after cut {cut} ({fault:?}), of {before} and {acknowledged} \
                 acknowledged, {submitted} sent, {seen} seen"
            ));
        }
        history.truncate(kept);
    }
    Ok(life)
}

/// What happened in a life.
#[derive(Default)]
struct Life {
    /// How often the store opened.
    begun: u64,
    acknowledged: u64,
}

/// Applies batches, `burst` of them at a time, until one fails. `None` when the store did not open.
fn serve(disk: &SimDisk, script: &[Batch], burst: usize) -> Option<Served> {
    let store = start(disk.clone()).ok()?;
    let (mut acknowledged, mut submitted, mut failed) = (0, 0, false);
    wait(async {
        for batches in script.chunks(burst) {
            let promises: Vec<_> = batches.iter().map(|b| store.apply(b.clone())).collect();
            submitted += batches.len();
            for promise in promises {
                match promise.await {
                    Ok(_) if failed => panic!("acknowledged after a failure"),
                    Ok(_) => acknowledged += 1,
                    Err(StoreError::Failed { .. }) => failed = true,
                    Err(error) => panic!("{error}"),
                }
            }
            if failed {
                assert_eq!(&*store.failed().await, reason(&store.health()));
                let refused = store.apply(batches[0].clone()).await;
                let not_applied = matches!(
                    refused,
                    Err(StoreError::Failed {
                        maybe_applied: false,
                        ..
                    })
                );
                assert!(not_applied, "{refused:?}");
                break;
            }
        }
    });
    Some(Served {
        acknowledged,
        submitted,
        seen: store.revision(),
    })
}

/// How far a store came.
#[derive(Default)]
struct Served {
    acknowledged: usize,
    submitted: usize,
    /// The revision that readers saw last.
    seen: u64,
}

fn reason(health: &Health) -> &str {
    match health {
        Health::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// Opens an image, and reads everything.
fn recover(image: Vec<u8>) -> Result<Found, String> {
    let disk = SimDisk::new(image, Fault::None, false);
    let store = start(disk).map_err(|error| error.to_string())?;
    Ok((store.revision(), all(&store)))
}

fn start(disk: SimDisk) -> Result<Store, kv_rpc::store::OpenError> {
    let clock = Arc::new(HandClock::new());
    Store::start(Box::new(Disk::on(disk)?), Limits::default(), clock)
}

/// All entries with their revisions, and the revision of the whole.
type Found = (u64, Vec<(Value, Entry)>);

/// The states before the first batch and after each.
fn states(script: &[Batch]) -> Vec<Found> {
    let store = Store::memory(Limits::default(), Arc::new(HandClock::new())).unwrap();
    let mut states = vec![(0, Vec::new())];
    for batch in script {
        wait(store.apply(batch.clone())).unwrap();
        states.push((store.revision(), all(&store)));
    }
    states
}

fn place(states: &[Found], found: &Found) -> Option<usize> {
    states.iter().position(|state| state == found)
}

/// Batches that each change something, so that no two states are the same.
fn script(random: &mut Random) -> Vec<Batch> {
    let batches = 4 + random.below(8);
    let mut script = Vec::new();
    for _ in 0..batches {
        let mut operations = Vec::new();
        for _ in 0..random.below(5) {
            let key = i64::try_from(random.below(12)).unwrap();
            operations.push(match random.below(16) {
                0..8 => set(key, Value::Bytes(noise(random))),
                8..14 => Operation::Delete(key.into()),
                14 => Operation::Increment((100 + key).into(), 1),
                _ => Operation::Clear,
            });
        }
        operations.push(Operation::Increment("batches".into(), 1));
        script.push(operations.into());
    }
    script
}

fn noise(random: &mut Random) -> Vec<u8> {
    // Some records are larger than a page.
    let length = if random.below(4) == 0 { 9_000 } else { 100 };
    let length = random.below(length);
    (0..length)
        .map(|_| random.next().to_le_bytes()[0])
        .collect()
}

/// A store in which nothing was ever set. In a directory it gets its name when it is whole.
fn empty_image() -> Vec<u8> {
    let disk = SimDisk::new(Vec::new(), Fault::None, false);
    drop(start(disk.clone()).unwrap());
    disk.view()
}

mod libc_errno {
    pub const EIO: i32 = 5;
    pub const ENOSPC: i32 = 28;
}

/// The bit in redb's header that tells which of two commits is the latest. While a store is open, and
/// after it was killed, both are whole, so that this one bit can take the last commit back unseen.
const LATEST: (usize, u8) = (9, 0);
/// How many lives, with three power cuts each.
const CRASHES: u64 = 1_000;
/// How many bits are flipped besides those of the header.
const FLIPS: u64 = 3_000;
