//! Reloads: pools, workers and held listeners come, change and go.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use std::path::Path;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use portyard_core::holding::{Holder, PATIENCE};
use portyard_testkit::{Client, Daemon, End, eventually};

use common::{
    NATIVE, TUTORIAL_RAW, Worker, beside, builder, configuration, pool, python3, pythons3, start,
    workers,
};

/// A pool called web with listeners of its own for clients and for workers.
fn web(directory: &Path, pool: &str, options: &str) -> String {
    let place = directory.display();
    let workers = |service: &str| {
        format!(
            "[[listener]]\nservice = \"{service}\"\nname = \"web-{service}\"\n\
             listen = [\"unix:{place}/web-{service}.sock\"]\noptions.pool = \"web\"\n"
        )
    };
    format!(
        "[[pool]]\nname = \"web\"\n{pool}\n\
         [[listener]]\nservice = \"hand-off\"\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         options = {{ pool = \"web\" {options} }}\n{}{}{}",
        workers("native"),
        workers("python"),
        workers("raw")
    )
}

/// Gives the broker another configuration; what the reload says.
fn reload(daemon: &Daemon, pool: &str, more: &str) -> String {
    daemon.rewrite_config(&configuration(daemon.dir(), pool, more));
    daemon.reload()
}

fn connect(daemon: &Daemon, listener: &str) -> Client {
    Client::try_connect(daemon.address(listener)).unwrap()
}

/// A worker of the pool web, by a script that takes the socket.
fn worker(daemon: &Daemon, script: &str, service: &str, more: &[&str]) -> Worker {
    let socket = daemon.dir().join(format!("web-{service}.sock"));
    let mut arguments = vec![socket.to_str().unwrap()];
    arguments.extend(more);
    Worker::python(&python3(), script, &arguments)
}

fn has_pool(daemon: &Daemon, name: &str) -> bool {
    let status = daemon.status();
    let pools = status["pools"].as_array().unwrap();
    pools.iter().any(|pool| pool["name"] == name)
}

fn count_of(daemon: &Daemon, name: &str) -> usize {
    pool(daemon, name)["workers"].as_array().unwrap().len()
}

#[test]
fn a_pool_that_is_gone_answers_who_waits_and_parts_with_workers_that_are_through() {
    let rules = "when_nobody = \"banner\"\nbanner = \"moved\\n\"";
    let builder = builder();
    let more = web(builder.dir(), rules, "");
    let daemon = start(builder, "", &more);
    let keyless = common::TUTORIAL.replace(", authkey=b'peekaboo'", "");
    let native = worker(&daemon, NATIVE, "native", &["capacity=1"]);
    let mut python = worker(&daemon, &keyless, "python", &[]);
    let mut raw = worker(&daemon, TUTORIAL_RAW, "raw", &[]);
    assert_eq!(native.line(), "ready");
    eventually("three workers", || count_of(&daemon, "web") == 3);
    let served = [0; 3].map(|_| connect(&daemon, "web"));
    assert!(served.iter().all(Client::is_echoed));
    let waiting = connect(&daemon, "web");
    eventually("it waits", || pool(&daemon, "web")["waiting"] == 1);
    reload(&daemon, "", "");
    assert_eq!(waiting.receive_all(), (b"moved\n".to_vec(), End::Fin));
    assert_eq!(native.line(), "drain");
    // What workers have goes on, and the pool is shown for as long.
    assert!(served.iter().all(Client::is_echoed));
    assert_eq!(pool(&daemon, "web")["leaving"], true);
    let unserved = "portyard_pool_unserved_total{pool=\"web\",reason=\"closing\"}";
    assert_eq!(daemon.count(unserved), 1);
    drop(served);
    eventually("the pool is gone", || !has_pool(&daemon, "web"));
    let (_, metrics) = daemon.admin_get("/metrics");
    assert!(metrics.contains("pool=\"default\"") && !metrics.contains("pool=\"web\""));
    // Python's recv_handle raises EOFError.
    eventually("python's worker has ended", || python.ended().is_some());
    eventually("the raw worker has ended", || raw.ended().is_some());
    // The other pool knows nothing of it.
    let _worker = common::native(&daemon, &[]);
    assert!(connect(&daemon, "hand-off").is_echoed());
}

#[test]
fn an_idle_worker_of_a_pool_that_is_gone_sees_the_end_at_once_on_every_python() {
    let builder = builder();
    let more = web(builder.dir(), "", "");
    let daemon = start(builder, "", &more);
    let keyless = common::TUTORIAL.replace(", authkey=b'peekaboo'", "");
    let socket = daemon.dir().join("web-python.sock");
    let mut all: Vec<Worker> = pythons3()
        .iter()
        .map(|python| Worker::python(&python.path, &keyless, &[socket.to_str().unwrap()]))
        .collect();
    eventually("all are there", || count_of(&daemon, "web") == all.len());
    reload(&daemon, "", "");
    eventually("all have ended", || {
        all.iter_mut().all(|worker| worker.ended() == Some(1))
    });
    assert!(!has_pool(&daemon, "web"));
}

#[test]
fn a_pool_that_comes_back_before_its_workers_have_gone_goes_on_with_them() {
    let builder = builder();
    let more = web(builder.dir(), "", "");
    let daemon = start(builder, "", &more);
    let native = worker(&daemon, NATIVE, "native", &[]);
    assert_eq!(native.line(), "ready");
    let client = connect(&daemon, "web");
    assert!(client.is_echoed());
    reload(&daemon, "", "");
    assert_eq!(native.line(), "drain");
    reload(&daemon, "", &more);
    assert_eq!(native.line(), "resume");
    assert_eq!(pool(&daemon, "web")["leaving"], false);
    drop(client);
    let status = daemon.status();
    let listeners = status["listeners"].as_array().unwrap();
    let web = listeners.iter().find(|one| one["name"] == "web").unwrap();
    assert!(Client::connect(web["endpoint"].as_str().unwrap()).is_echoed());
    // The client may have its echo before the broker has read that it was taken.
    eventually("both are taken", || {
        pool(&daemon, "web")["workers"][0]["taken"] == 2
    });
}

#[test]
fn a_daemon_stops_accepting_from_what_a_pool_that_is_gone_has_lent_it() {
    let builder = builder();
    let more = web(builder.dir(), "mode = \"listener\"", "");
    let daemon = start(builder, "", &format!("loops = 1\n{more}"));
    let place = daemon.dir().join("web-native.sock");
    let echo = Daemon::build(beside("echo-tcp"))
        .config(&format!(
            "loops = 2\n[[listener]]\nservice = \"echo\"\nlisten = [\"broker:{}#web\"]\n",
            place.display()
        ))
        .start();
    let address = daemon.address("web");
    let old = connect(&daemon, "web");
    assert!(old.is_echoed());
    reload(&daemon, "", "loops = 1\n");
    echo.wait_for_log("the broker gives nothing more");
    eventually("nobody listens any more", || {
        Client::try_connect(address).is_err()
    });
    assert!(old.is_echoed());
}

#[test]
fn the_mode_of_a_pool_is_not_changed_by_a_reload_which_says_so() {
    let builder = builder();
    let more = web(builder.dir(), "", "");
    let daemon = start(builder, "", &more);
    let said = reload(&daemon, "", &web(daemon.dir(), "mode = \"listener\"", ""));
    assert!(
        said.contains("mode takes effect at the next start"),
        "{said}"
    );
    let _native = worker(&daemon, NATIVE, "native", &[]);
    assert!(connect(&daemon, "web").is_echoed());
}

#[test]
fn a_listener_that_waits_for_room_in_one_pool_is_moved_to_another() {
    let builder = builder();
    let more = web(builder.dir(), "queue = 1\nqueue_timeout = \"1h\"", "");
    let daemon = start(builder, "", &format!("loops = 1\n{more}"));
    let _default = common::native(&daemon, &[]);
    workers(&daemon, 1);
    let first = connect(&daemon, "web");
    eventually("it waits", || pool(&daemon, "web")["waiting"] == 1);
    let second = connect(&daemon, "web");
    second.send("hello");
    let moved = more.replace(
        "options = { pool = \"web\"",
        "options = { pool = \"default\"",
    );
    reload(&daemon, "", &format!("loops = 1\n{moved}"));
    assert_eq!(second.receive(5), b"hello");
    // Who had come to the first pool waits there on.
    assert_eq!(pool(&daemon, "web")["waiting"], 1);
    let _native = worker(&daemon, NATIVE, "native", &[]);
    assert!(first.is_echoed());
}

#[test]
fn worker_tables_come_change_and_go_with_a_reload() {
    let builder = builder();
    let script = builder.dir().join("worker.py");
    std::fs::write(&script, common::TUTORIAL).unwrap();
    let socket = builder.dir().join("python.sock");
    let table = |name: &str, more: &str| {
        format!(
            "[[worker]]\nname = \"{name}\"\ncommand = [\"{}\", \"{}\", \"{}\"]\n{more}\n",
            python3().display(),
            script.display(),
            socket.display()
        )
    };
    let daemon = start(builder, "", &(table("stays", "") + &table("grows", "")));
    workers(&daemon, 2);
    let pids = |name: &str| -> Vec<i64> {
        let status = daemon.status();
        let programs = status["programs"].as_array().unwrap();
        let found = programs.iter().find(|program| program["name"] == name);
        let pids = found.map(|program| program["pids"].as_array().unwrap().clone());
        let pids = pids.unwrap_or_default().into_iter();
        pids.map(|pid| pid.as_i64().unwrap()).collect()
    };
    let (stays, grows) = (pids("stays"), pids("grows"));
    let tables = table("stays", "") + &table("grows", "count = 2") + &table("comes", "");
    reload(&daemon, "", &tables);
    workers(&daemon, 4);
    eventually("all run", || {
        pids("grows").len() == 2 && pids("comes").len() == 1
    });
    assert_eq!(pids("stays"), stays);
    assert!(!pids("grows").contains(&grows[0]));
    reload(&daemon, "", &table("stays", ""));
    workers(&daemon, 1);
    let is_gone = |pid: i64| kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_err();
    eventually("the others have ended", || {
        grows.iter().all(|&pid| is_gone(pid))
    });
    assert_eq!((pids("stays"), pids("comes")), (stays, Vec::new()));
    assert!(connect(&daemon, "hand-off").is_echoed());
    // A wrong one changes nothing.
    let said = reload(&daemon, "", &table("a b", ""));
    assert!(said.contains("is no name"), "{said}");
    assert!(connect(&daemon, "hand-off").is_echoed());
}

#[test]
fn a_held_listener_whose_places_change_keeps_those_that_stay() {
    let builder = builder();
    let control = builder.dir().join("control.sock");
    let hold = |places: &str| {
        format!(
            "[[hold]]\nname = \"web\"\nlisten = [{places}]\n\
             [[listener]]\nservice = \"control\"\nlisten = [\"unix:{}\"]\n\
             [holding]\nrules = [\"allow all * any\"]\n",
            control.display()
        )
    };
    let unix = format!("\"unix:{}/held.sock\"", builder.dir().display());
    let daemon = start(builder, "", &hold(&unix));
    let held = |expected: usize| {
        let listed = Holder::connect(&control, PATIENCE).unwrap().list().unwrap();
        assert_eq!(listed.len(), 1);
        let sockets = listed[0].sockets.clone();
        assert_eq!(sockets.len(), expected, "{sockets:?}");
        sockets
    };
    let before = held(1);
    // Connected before the reload, and still in the backlog after it.
    let place = format!("unix:{}/held.sock", daemon.dir().display());
    let early = Client::connect(&place);
    let said = reload(
        &daemon,
        "",
        &hold(&format!("{unix}, \"tcp://127.0.0.1:0\"")),
    );
    assert!(!said.contains("refused"), "{said}");
    assert_eq!(held(2)[0], before[0]);
    let late = Client::connect(&place);
    let said = reload(&daemon, "", &hold("\"tcp://127.0.0.1:0\""));
    assert!(!said.contains("refused"), "{said}");
    assert!(held(1)[0].1.starts_with("tcp://"));
    eventually("nobody holds the first any more", || {
        early.try_receive(1).is_none() && late.try_receive(1).is_none()
    });
    assert!(!daemon.dir().join("held.sock").exists());
}
