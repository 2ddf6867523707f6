//! How fast the store is on a disk: `cargo run --release -p kv-rpc --example store_speed -- DIRECTORY`.
//!
//! Writers wait for each answer before they send the next batch, a single set of 100 bytes.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kv_rpc::store::{Key, Limits, Metrics, Operation, Store, SystemClock};
use portyard_wire::value::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args()
        .nth(1)
        .ok_or("name a directory on the disk to measure")?;
    let place = tempfile::tempdir_in(Path::new(&place))?;
    println!(
        "{:<8} {:>8} {:>10} {:>12} {:>10}",
        "engine", "writers", "sets/s", "sets/commit", "commit µs"
    );
    for writers in [1, 32, 64] {
        let memory = Store::memory(Limits::default(), Arc::new(SystemClock))?;
        measure("memory", &memory, writers)?;
        let directory = place.path().join(writers.to_string());
        let disk = Store::open(&directory, Limits::default(), Arc::new(SystemClock))?;
        measure("redb", &disk, writers)?;
        if writers == 64 {
            read(&disk);
            let keys = disk.len();
            drop(disk);
            let begin = Instant::now();
            Store::open(&directory, Limits::default(), Arc::new(SystemClock))?;
            println!("opened {keys} keys in {:?}", begin.elapsed());
        }
    }
    Ok(())
}

fn measure(engine: &str, store: &Store, writers: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let begin = Instant::now();
    let sets = runtime.block_on(async {
        let tasks = (0..writers).map(|writer| {
            let store = store.clone();
            async move {
                let mut sets = 0_u64;
                while begin.elapsed() < TIME {
                    let key = format!("writer {writer} key {}", sets % 5_000);
                    let value = Value::Bytes(vec![b'x'; 100]);
                    let set = Operation::set(key.as_str(), value);
                    store.apply(set.into()).await?;
                    sets += 1;
                }
                Ok::<_, kv_rpc::store::StoreError>(sets)
            }
        });
        let mut set = tokio::task::JoinSet::new();
        for task in tasks {
            set.spawn(task);
        }
        let mut sum = 0;
        while let Some(sets) = set.join_next().await {
            sum += sets??;
        }
        Ok::<_, Box<dyn Error>>(sum)
    })?;
    let rate = sets as f64 / begin.elapsed().as_secs_f64();
    let Metrics {
        commits,
        commit_microseconds,
        ..
    } = store.metrics();
    let commits = commits.load(Ordering::Relaxed) as f64;
    let took = commit_microseconds.sum.load(Ordering::Relaxed) as f64 / commits;
    let batch = sets as f64 / commits;
    println!("{engine:<8} {writers:>8} {rate:>10.0} {batch:>12.1} {took:>10.0}");
    Ok(())
}

fn read(store: &Store) {
    let key = Key::from("writer 1 key 1");
    let begin = Instant::now();
    let mut gets = 0;
    while begin.elapsed() < TIME {
        for _ in 0..1_000 {
            std::hint::black_box(store.get(&key));
            gets += 1;
        }
    }
    println!(
        "gets/s of one thread: {:.0}",
        f64::from(gets) / begin.elapsed().as_secs_f64()
    );
}

const TIME: Duration = Duration::from_secs(3);
