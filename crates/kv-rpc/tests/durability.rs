//! What the running daemon has acknowledged is there again, whatever ended it: SIGKILL, a disk that
//! fails, a disk that is full.
//!
//! How often it is killed says `PORTYARD_CRASHES`; `scripts/kv-crash` sets it.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use common::history::{Call, NEVER, What, linearizable};
use common::ledger::Ledger;
use common::random::Random;
use common::rpc::{NoResult, Rpc, daemon};
use portyard_testkit::{Daemon, DaemonBuilder, Finished, eventually};
use redb::{Database, TableDefinition};
use serde_json::{Value, json};

#[test]
fn what_was_acknowledged_survives_kill_9_under_eight_writers() {
    let crashes = std::env::var("PORTYARD_CRASHES").map_or(200, |text| text.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut random = Random(seed());
    let mut ledgers = books();
    for _ in 0..crashes {
        let running = daemon(&data).start();
        settle(&running, &mut ledgers);
        let (address, count) = (running.address("json-rpc"), AtomicU64::new(0));
        let until = 1 + random.below(100);
        thread::scope(|scope| {
            for ledger in &mut ledgers {
                let count = &count;
                scope.spawn(move || ledger.write(address, count, 10));
            }
            eventually("enough is acknowledged", || {
                count.load(Ordering::SeqCst) >= until
            });
            running.kill();
        });
    }
    let running = daemon(&data).start();
    settle(&running, &mut ledgers);
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.acknowledged).sum();
    assert!(acknowledged >= crashes, "{acknowledged} in {crashes} lives");
    println!("{acknowledged} acknowledged writes survived {crashes} kills");
}

#[test]
fn every_key_is_linearizable_over_the_door_though_the_daemon_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut random = Random(seed());
    let clock = AtomicU64::new(0);
    for round in 0..10 {
        let mut histories = vec![Vec::new(); usize::try_from(KEYS).unwrap()];
        for life in 0..3 {
            let running = daemon(&data).start();
            let (address, begun) = (running.address("json-rpc"), AtomicU64::new(0));
            let until = 30 + random.below(60);
            thread::scope(|scope| {
                let user = |user| {
                    let (clock, begun) = (&clock, &begun);
                    let random = Random(random.0 ^ (round * 1_000 + life * 10 + user));
                    scope.spawn(move || use_door(address, round, clock, begun, random))
                };
                let users: Vec<_> = (0..USERS).map(user).collect();
                eventually("enough is begun", || begun.load(Ordering::SeqCst) >= until);
                running.kill();
                for user in users {
                    for (key, call) in user.join().unwrap() {
                        histories[usize::try_from(key).unwrap()].push(call);
                    }
                }
            });
        }
        for history in histories {
            assert!(linearizable(&history), "{history:#?}");
        }
    }
}

#[test]
fn after_an_error_of_the_disk_nothing_is_acknowledged_and_nothing_acknowledged_is_missing() {
    for (call, error) in [
        ("fdatasync", "EIO"),
        ("fdatasync", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let mut ledgers = books();
        // One call of one thread fails, and all that follow would succeed.
        let inject = format!("inject={call}:error={error}:when=41");
        let trace = format!("trace={call}");
        let options = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null"];
        let options = options.into_iter().chain(["-e", &trace, "-e", &inject]);
        let finished = fail_under_load(daemon(&data).wrap(options), &mut ledgers, 10);
        assert_eq!(
            finished.code,
            Some(74),
            "{call} {error}: {}",
            finished.stderr
        );
        let text = match error {
            "EIO" => "Input/output error",
            _ => "No space left on device",
        };
        assert!(
            finished.stderr.contains("nothing more is acknowledged")
                && finished.stderr.contains(text),
            "{}",
            finished.stderr
        );
        settle(&daemon(&data).start(), &mut ledgers);
    }
}

#[test]
fn a_full_disk_ends_the_daemon_and_loses_nothing_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let (disk, saved) = (place.path().join("disk"), place.path().join("saved"));
    fs::create_dir(&disk).unwrap();
    // The disk goes with its namespace, so what is on it is saved before.
    let script = format!(
        "mount -t tmpfs -o size=8m none {disk} && \"$@\"; code=$?; cp -a {disk}/data {saved}; exit $code",
        disk = disk.display(),
        saved = saved.display()
    );
    let wrap = ["unshare", "-rm", "sh", "-c", &script, "sh"];
    let mut ledgers = books();
    let finished = fail_under_load(
        daemon(&disk.join("data")).wrap(wrap),
        &mut ledgers,
        64 << 10,
    );
    assert_eq!(finished.code, Some(74), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("No space left on device"),
        "{}",
        finished.stderr
    );
    settle(&daemon(&saved).start(), &mut ledgers);
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused_and_harms_nothing() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let first = daemon(&data).start();
    let mut rpc = Rpc::to(&first);
    rpc.call("set", &json!(["key", 1])).unwrap();
    let second = daemon(&data).run();
    assert_eq!(second.code, Some(69), "{}", second.stderr);
    let holder = format!("in use by process {};", first.pid());
    assert!(second.stderr.contains(&holder), "{}", second.stderr);
    rpc.call("set", &json!(["key", 2])).unwrap();
    assert_eq!(rpc.all(), [("key".into(), json!(2))]);
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    let place = tempfile::tempdir().unwrap();
    let (data, copy) = (place.path().join("data"), place.path().join("copy"));
    let file = |directory: &Path| directory.join("data.redb");
    let running = daemon(&data).start();
    let mut rpc = Rpc::to(&running);
    for number in 0..200 {
        let value = json!(format!("{number}").repeat(100));
        rpc.call("set", &json!([format!("key {number}"), value]))
            .unwrap();
    }
    let before = rpc.all();
    drop(rpc);
    assert_eq!(running.terminate().code, Some(0));
    let bytes = fs::read(file(&data)).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut random = Random(seed());
    let (mut refused, mut harmless) = (0, 0);
    // The header, where a bit says most; then anywhere.
    let header = (0..10).map(|at| at * 32);
    let anywhere = (0..30).map(|_| {
        let count = used.len() as u64;
        used[usize::try_from(random.below(count)).unwrap()]
    });
    for at in header.chain(anywhere).collect::<Vec<usize>>() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::create_dir_all(&copy).unwrap();
        fs::write(file(&copy), &bytes).unwrap();
        fs::set_permissions(file(&copy), fs::Permissions::from_mode(0o600)).unwrap();
        let verified = daemon(&copy).arg("--verify").run();
        if verified.code == Some(65) {
            let started = daemon(&copy).run();
            assert_eq!(started.code, Some(65), "{at}: {}", started.stderr);
            assert!(
                started.stderr.contains("restore a backup"),
                "{}",
                started.stderr
            );
            refused += 1;
        } else {
            assert_eq!(verified.code, Some(0), "{at}: {}", verified.stderr);
            assert_eq!(Rpc::to(&daemon(&copy).start()).all(), before, "{at}");
            harmless += 1;
        }
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(refused > 0, "none refused, {harmless} harmless");
}

#[test]
fn data_of_a_later_format_is_refused_and_left_alone() {
    const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    daemon(&data).start().terminate();
    let file = data.join("data.redb");
    let database = Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut about = transaction.open_table(ABOUT).unwrap();
        about.insert("format", [9, 0, 0, 0].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    for arguments in [&[][..], &["--verify"]] {
        let refused = daemon(&data).args(arguments.iter().copied()).run();
        assert_eq!(refused.code, Some(65), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("format 9") && refused.stderr.contains("use a later version"),
            "{}",
            refused.stderr
        );
    }
}

/// Lets everybody write until the daemon has ended by itself, and returns how it did.
fn fail_under_load(builder: DaemonBuilder, ledgers: &mut [Ledger], size: usize) -> Finished {
    let running = builder.start();
    let (address, count) = (running.address("json-rpc"), AtomicU64::new(0));
    thread::scope(|scope| {
        for ledger in ledgers {
            let count = &count;
            scope.spawn(move || {
                if let Some(error) = ledger.write(address, count, size) {
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains("the store has failed"), "{error}");
                }
            });
        }
        running.wait()
    })
}

fn books() -> Vec<Ledger> {
    let seed = seed();
    (0..WRITERS).map(|n| Ledger::new(n, seed)).collect()
}

/// Compares all books with what the daemon has.
fn settle(running: &Daemon, ledgers: &mut [Ledger]) {
    let all = Rpc::to(running).all();
    for ledger in ledgers {
        ledger.settle(&all);
    }
}

/// What one user does until the daemon is gone, key by key.
fn use_door(
    address: std::net::SocketAddr,
    round: u64,
    clock: &AtomicU64,
    begun: &AtomicU64,
    mut random: Random,
) -> Vec<(u64, Call)> {
    let mut calls = Vec::new();
    let Ok(mut rpc) = Rpc::connect(address) else {
        return calls;
    };
    loop {
        let at = random.below(KEYS);
        let key = format!("{round}:{at}");
        let mut number = || i64::try_from(random.below(4)).unwrap();
        let (a, b) = (number(), number());
        let kind = random.below(7);
        let begin = clock.fetch_add(1, Ordering::SeqCst);
        begun.fetch_add(1, Ordering::SeqCst);
        let what = ask(&mut rpc, kind, &key, a, b);
        let end = clock.fetch_add(1, Ordering::SeqCst);
        match what {
            Ok(what) => calls.push((at, Call { begin, end, what })),
            Err(lost) => {
                let call = lost.map(|what| Call {
                    begin,
                    end: NEVER,
                    what,
                });
                calls.extend(call.map(|call| (at, call)));
                return calls;
            }
        }
    }
}

/// A call and its result; or, without an answer, what it may have done.
fn ask(rpc: &mut Rpc, kind: u64, key: &str, a: i64, b: i64) -> Result<What, Option<What>> {
    let (method, params, lost) = match kind {
        0..3 => ("get", json!([key]), None),
        3 => ("set", json!([key, a]), Some(What::Set(a))),
        4 => ("delete", json!([key]), Some(What::LostDelete)),
        5 => ("incr", json!([key, a]), Some(What::LostAdd(a))),
        _ => ("cas", json!([key, a, b]), Some(What::LostSwap(a, b))),
    };
    let number = |value: Value| value.as_i64().unwrap();
    let missing = |error: &Value| error["data"]["type"] == "KeyError";
    Ok(match (method, rpc.call(method, &params)) {
        (_, Err(NoResult::Lost(_))) => return Err(lost),
        ("get", Ok(value)) => What::Get(Some(number(value))),
        ("get", Err(NoResult::Error(error))) if missing(&error) => What::Get(None),
        ("set", Ok(_)) => What::Set(a),
        ("delete", Ok(_)) => What::Delete(true),
        ("delete", Err(NoResult::Error(error))) if missing(&error) => What::Delete(false),
        ("incr", Ok(sum)) => What::Add(a, number(sum)),
        ("cas", Ok(done)) => What::Swap(a, b, done.as_bool().unwrap()),
        (_, answer) => panic!("{method} {params}: {answer:?}"),
    })
}

/// Another one for each run; printed, so that a failure's can be tried again.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = now.as_secs() ^ (u64::from(now.subsec_nanos()) << 32);
    println!("seed {seed}");
    seed
}

const WRITERS: u64 = 8;
const USERS: u64 = 6;
const KEYS: u64 = 5;
