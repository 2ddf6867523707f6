//! Workers that know nothing of brokers, while one broker takes over from another: they go on, and nobody
//! notices.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;
#[path = "holding/load.rs"]
mod load;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use portyard_core::holding::{Holder, PATIENCE};
use portyard_core::wire::hold::{Record, Reply, Request};
use portyard_testkit::{Client, Daemon, End, eventually};
use serde_json::Value;

use common::{BINARY, TUTORIAL, TUTORIAL_RAW, Worker, pool, python3, pythons3};
use load::Load;

/// A configuration that a broker and its successors share; `python` goes into the listener of its workers.
fn config(directory: &Path, python: &str) -> String {
    let place = directory.display();
    let keys = directory.join("keys");
    fs::write(&keys, "tutorial:text:peekaboo\n").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[pool]]\nname = \"default\"\nqueue_timeout = \"1min\"\noffer_timeout = \"1min\"\n\
         [[listener]]\nservice = \"hand-off\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[listener]]\nservice = \"control\"\nlisten = [\"unix:{place}/control.sock\"]\n\
         [[listener]]\nservice = \"raw\"\nlisten = [\"unix:{place}/raw.sock\"]\n\
         [[listener]]\nservice = \"python\"\nlisten = [\"unix:{place}/python.sock\"]\n\
         auth = \"python\"\nauth_keys = \"{place}/keys\"\nmin_digest = \"md5\"\n{python}\n"
    )
}

/// A broker that takes over from the one that runs, if one does.
fn successor(config: &str) -> Daemon {
    Daemon::build(BINARY)
        .config(config)
        .arg("--take-over")
        .start()
}

/// The next broker, once the one before it is gone.
fn take_over(before: &Daemon, config: &str) -> Daemon {
    let next = successor(config);
    let last = before.wait();
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    next
}

fn worker(directory: &Path, python: &Path, script: &str, socket: &str) -> Worker {
    let socket = directory.join(socket);
    Worker::python(python, script, &[socket.to_str().unwrap()])
}

fn tutorial(directory: &Path) -> Worker {
    worker(directory, &python3(), TUTORIAL, "python.sock")
}

fn workers(broker: &Daemon) -> Vec<Value> {
    pool(broker, "default")["workers"]
        .as_array()
        .unwrap()
        .clone()
}

/// The processes of the workers, in order.
fn processes(broker: &Daemon) -> Vec<i64> {
    let all = workers(broker);
    let mut all: Vec<i64> = all.iter().map(|one| one["pid"].as_i64().unwrap()).collect();
    all.sort_unstable();
    all
}

fn connect(address: SocketAddr) -> Client {
    Client::try_connect(address).unwrap()
}

#[test]
fn thirty_successors_under_load_and_no_python_notices() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let mut serving = successor(&config);
    let address = serving.address("hand-off");
    let mut all: Vec<Worker> = pythons3()
        .iter()
        .map(|python| worker(dir.path(), &python.path, TUTORIAL, "python.sock"))
        .collect();
    all.push(worker(dir.path(), &python3(), TUTORIAL_RAW, "raw.sock"));
    eventually("all are there", || workers(&serving).len() == all.len());
    let before = processes(&serving);
    let load = Load::start(4, address);
    for _ in 0..30 {
        load.wait_for(8);
        serving = take_over(&serving, &config);
    }
    load.wait_for(8);
    load.stop().is_perfect();
    eventually("all are there still", || processes(&serving) == before);
    for worker in &mut all {
        assert_eq!(worker.ended(), None);
    }
    // What they have done in all brokers counts.
    let taken: u64 = workers(&serving)
        .iter()
        .map(|one| one["taken"].as_u64().unwrap())
        .sum();
    assert!(taken > 30, "{taken}");
    eventually("nothing is counted that has ended", || {
        workers(&serving).iter().all(|one| one["connections"] == 0)
    });
}

#[test]
fn what_a_worker_has_counts_at_the_successor_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let first = successor(&config);
    let address = first.address("hand-off");
    let _worker = tutorial(dir.path());
    let served = connect(address);
    assert!(served.is_echoed());
    let second = take_over(&first, &config);
    eventually("it is there", || workers(&second).len() == 1);
    assert_eq!(workers(&second)[0]["connections"], 1);
    let present = "portyard_connections{listener=\"hand-off\",service=\"hand-off\"}";
    assert_eq!(second.count(present), 1);
    // It takes one at a time, so the next one waits.
    let waiting = connect(address);
    waiting.send("hello");
    eventually("it waits", || pool(&second, "default")["waiting"] == 1);
    assert!(served.is_echoed());
    served.send_end();
    assert_eq!(served.end(), End::Fin);
    assert_eq!(waiting.receive(5), b"hello");
    drop(waiting);
    eventually("all are over", || second.count(present) == 0);
    // One that ends while nobody looks is not counted for ever: the successor asks the kernel.
    let served = connect(address);
    assert!(served.is_echoed());
    let by_hand = take_by_hand(dir.path());
    drop(served);
    drop(by_hand);
    second.wait_for_log("this broker serves on");
    eventually("it has room again", || {
        workers(&second)[0]["connections"] == 0
    });
    assert!(connect(address).is_echoed());
}

#[test]
fn what_a_worker_was_sent_and_has_not_read_is_known_to_the_successor() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "options.capacity = 2\n");
    let first = successor(&config);
    let address = first.address("hand-off");
    let mut busy = tutorial(dir.path());
    let served = connect(address);
    assert!(served.is_echoed());
    // It is in the socket of the worker, which serves another one.
    let sent = connect(address);
    sent.send("hello");
    eventually("it is offered", || pool(&first, "default")["offered"] == 1);
    let second = take_over(&first, &config);
    eventually("it is known", || pool(&second, "default")["offered"] == 1);
    assert_eq!(workers(&second)[0]["connections"], 1);
    drop(served);
    assert_eq!(sent.receive(5), b"hello");
    eventually("it is seen to be taken", || {
        let pool = pool(&second, "default");
        pool["offered"] == 0 && pool["workers"][0]["connections"] == 1
    });
    // The same again; this time the worker dies with it unread, and another one serves it.
    let again = connect(address);
    again.send("again");
    eventually("it is offered", || pool(&second, "default")["offered"] == 1);
    let third = take_over(&second, &config);
    eventually("it is known", || pool(&third, "default")["offered"] == 1);
    let _other = tutorial(dir.path());
    eventually("another is there", || workers(&third).len() == 2);
    busy.kill();
    assert_eq!(again.receive(5), b"again");
    assert_eq!(pool(&third, "default")["redelivered"], 1);
}

#[test]
fn a_worker_that_an_operator_drains_stays_drained() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let first = successor(&config);
    let worker = tutorial(dir.path());
    eventually("it is there", || workers(&first).len() == 1);
    let portyard = common::beside("portyard");
    let operate = |what: &str| {
        let mut command = std::process::Command::new(&portyard);
        command.args([
            "broker",
            what,
            &format!("python-{}", worker.pid()),
            "--socket",
        ]);
        let run = portyard_testkit::finish(command.arg(dir.path().join("control.sock")), b"");
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    };
    operate("drain");
    let second = take_over(&first, &config);
    eventually("it is there", || workers(&second).len() == 1);
    assert_eq!(workers(&second)[0]["state"], "draining");
    operate("resume");
    assert!(connect(second.address("hand-off")).is_echoed());
}

/// Takes over by hand up to where the workers come, and confirms nothing of that.
fn take_by_hand(directory: &Path) -> (Holder, Vec<Record>) {
    let by_hand = Holder::connect(&directory.join("control.sock"), PATIENCE).unwrap();
    by_hand.send(&Request::TakeOver, &[]).unwrap();
    loop {
        match by_hand.receive().unwrap() {
            (Reply::Batch { number, .. }, _) => {
                let received = Request::Received { batch: number };
                by_hand.send(&received, &[]).unwrap();
            }
            (Reply::Complete { .. }, _) => break,
            other => panic!("{other:?}"),
        }
    }
    by_hand.send(&Request::Serving, &[]).unwrap();
    let (Reply::Batch { records, .. }, descriptors) = by_hand.receive().unwrap() else {
        panic!("no batch");
    };
    let wanted: usize = records.iter().map(Record::descriptors).sum();
    assert_eq!(descriptors.len(), wanted);
    (by_hand, records)
}

#[test]
fn a_successor_that_dies_with_the_workers_leaves_them_to_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let first = successor(&config);
    let address = first.address("hand-off");
    let mut all = [
        tutorial(dir.path()),
        worker(dir.path(), &python3(), TUTORIAL_RAW, "raw.sock"),
    ];
    eventually("both are there", || workers(&first).len() == 2);
    let served = connect(address);
    assert!(served.is_echoed());
    let (by_hand, records) = take_by_hand(dir.path());
    let of_workers = records.iter().filter_map(|record| match record {
        Record::Worker(worker) => Some((worker.listener.clone(), worker.process, worker.served)),
        _ => None,
    });
    let mut of_workers: Vec<_> = of_workers.collect();
    of_workers.sort_unstable();
    let pid = |worker: &Worker| worker.pid().unsigned_abs();
    let whole = [
        ("python".to_owned(), pid(&all[0])),
        ("raw".to_owned(), pid(&all[1])),
    ];
    let named: Vec<_> = of_workers
        .iter()
        .map(|(name, process, _)| (name.clone(), *process))
        .collect();
    assert_eq!(named, whole);
    assert_eq!(of_workers.iter().map(|(.., served)| served).sum::<u32>(), 1);
    drop(by_hand);
    first.wait_for_log("this broker serves on");
    assert!(served.is_echoed());
    // Both go on, the busy one when it has served its client.
    drop(served);
    for _ in 0..4 {
        let both = [connect(address), connect(address)];
        assert!(both.iter().all(Client::is_echoed));
    }
    assert!(all.iter_mut().all(|worker| worker.ended().is_none()));
}

#[test]
fn a_stopped_worker_is_found_by_the_successor_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        config(dir.path(), "").replace("offer_timeout = \"1min\"", "offer_timeout = \"2s\"");
    let first = successor(&config);
    let stuck = tutorial(dir.path());
    eventually("it is there", || workers(&first).len() == 1);
    stuck.signal(Signal::SIGSTOP);
    let client = connect(first.address("hand-off"));
    client.send("hello");
    eventually("it is offered", || pool(&first, "default")["offered"] == 1);
    let second = take_over(&first, &config);
    // In all its time it does not take it.
    eventually("it is given up", || pool(&second, "default")["lost"] == 1);
    assert!(client.receive_all().0.is_empty());
}

#[test]
fn programs_of_the_old_broker_serve_what_they_have_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("worker.py");
    fs::write(&script, TUTORIAL).unwrap();
    let config = config(dir.path(), "")
        + &format!(
            "[[worker]]\nname = \"web\"\ncommand = [\"{}\", \"{}\", \"{}/python.sock\"]\n",
            python3().display(),
            script.display(),
            dir.path().display()
        );
    let first = successor(&config);
    let address = first.address("hand-off");
    eventually("it is there", || workers(&first).len() == 1);
    let served = connect(address);
    assert!(served.is_echoed());
    let second = successor(&config);
    eventually("the next one has its own", || workers(&second).len() == 1);
    assert!(connect(address).is_echoed());
    assert!(served.is_echoed());
    drop(served);
    assert_eq!(first.wait().code, Some(0));
    assert!(connect(address).is_echoed());
}

/// A program that accepts by itself, and tells everybody its number. It writes down that it runs, and that it
/// is not alone, if it is not; it ends when it is told so, or asked to by a signal.
const ACCEPTING: &str = r"
import fcntl, os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
# The test is over by then, and its broker may have been killed.
signal.alarm(120)
mine = open(sys.argv[1], 'a')
try:
    fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    mine.write('%d\n' % os.getpid())
except OSError:
    mine.write('a second one\n')
mine.flush()
listener = socket.socket(fileno=0)
while True:
    client, _ = listener.accept()
    try:
        client.sendall(b'%d\n' % os.getpid())
        if client.recv(10) == b'end':
            break
    except ConnectionError:
        pass
    client.close()
";

/// A configuration with a program that accepts by itself, and the file in which it writes.
fn waiting(directory: &Path, process: &str) -> (String, std::path::PathBuf) {
    let (script, file) = (directory.join("accepting.py"), directory.join("starts"));
    fs::write(&script, ACCEPTING).unwrap();
    let table = format!(
        "[[service]]\nname = \"late\"\nlisten = [\"tcp://127.0.0.1:0\"]\nwait = true\n\
         command = [\"{}\", \"{}\", \"{}\"]\nprocess = {{ {process} }}\n",
        python3().display(),
        script.display(),
        file.display()
    );
    (config(directory, "") + &table, file)
}

fn starts(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(Into::into).collect()
}

#[test]
fn a_program_that_waits_and_outlives_its_broker_stays_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = waiting(dir.path(), "outlive = true");
    let mut serving = successor(&config);
    let address = serving.address("late");
    let number = connect(address).receive_line();
    let length = number.len();
    for _ in 0..5 {
        // Somebody comes while nobody knows yet who runs.
        let load = Load::of(2, move || {
            let client = Client::try_connect(address)?;
            client
                .try_receive(length)
                .map(drop)
                .ok_or(std::io::ErrorKind::UnexpectedEof.into())
        });
        load.wait_for(4);
        serving = take_over(&serving, &config);
        load.wait_for(4);
        load.stop().is_perfect();
        serving.wait_for_log("has the socket until it ends");
        assert_eq!(connect(address).receive_line(), number);
    }
    assert_eq!(starts(&file), [number.trim_end()]);
    let last = connect(address);
    assert_eq!(last.receive_line(), number);
    last.send("end");
    // From here on the successor starts it.
    let next = connect(address).receive_line();
    assert_ne!(next, number);
    assert_eq!(starts(&file).len(), 2);
    assert_eq!(serving.status()["services"]["wait"][0]["running"], 1);
    connect(address).send("end");
}

#[test]
fn a_program_that_waits_ends_with_its_broker_before_the_next_one_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = waiting(dir.path(), "");
    let mut serving = successor(&config);
    let address = serving.address("late");
    for count in 1..=5 {
        assert!(!connect(address).receive_line().is_empty());
        assert_eq!(starts(&file).len(), count);
        // It is at work for as long as the old broker has something to do.
        let busy = connect(address);
        assert!(!busy.receive_line().is_empty());
        let next = successor(&config);
        let waits = connect(address);
        assert_eq!(serving.wait().code, Some(0));
        drop(busy);
        drop(waits);
        serving = next;
    }
    let starts = starts(&file);
    assert!(!starts.contains(&"a second one".to_owned()), "{starts:?}");
}

#[test]
fn a_successor_that_dies_leaves_the_old_one_starting_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = waiting(dir.path(), "");
    let first = successor(&config);
    let address = first.address("late");
    let number = connect(address).receive_line();
    let by_hand = Holder::connect(&dir.path().join("control.sock"), PATIENCE).unwrap();
    by_hand.send(&Request::TakeOver, &[]).unwrap();
    while let (Reply::Batch { number, .. }, _) = by_hand.receive().unwrap() {
        by_hand
            .send(&Request::Received { batch: number }, &[])
            .unwrap();
    }
    by_hand.send(&Request::Serving, &[]).unwrap();
    let (Reply::Batch { records, .. }, _) = by_hand.receive().unwrap() else {
        panic!("no batch");
    };
    let [Record::Running(running)] = records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(running.process.to_string(), number.trim_end());
    drop(by_hand);
    first.wait_for_log("this broker serves on");
    let last = connect(address);
    assert_eq!(last.receive_line(), number);
    last.send("end");
    assert_ne!(connect(address).receive_line(), number);
    assert_eq!(starts(&file).len(), 2);
}
