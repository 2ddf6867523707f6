//! A broker that takes over from the one that runs.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use portyard_core::holding::{Holder, PATIENCE};
use portyard_core::wire::hold::{BATCH_MAX, Record, Reply, Request};
use portyard_testkit::{Client, Daemon, eventually, finish, open_fds, peer};

use super::load::Load;
use super::{beside, broker, control, endpoint, free_port, holder, name, socket};

/// A configuration with everything that can be handed over, its ports fixed: a held listener, a
/// listener with a service of its own, one whose connections go to workers, and the admin endpoint.
struct Ports {
    web: u16,
    cat: u16,
    late: u16,
    pool: u16,
    admin: u16,
}

impl Ports {
    fn new() -> Self {
        Self {
            web: free_port(),
            cat: free_port(),
            late: free_port(),
            pool: free_port(),
            admin: free_port(),
        }
    }

    fn config(&self, directory: &Path) -> String {
        let Self {
            web,
            cat,
            late,
            pool,
            admin,
        } = self;
        control(directory)
            + &format!(
                "[[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:{web}\"]\n\
                 [[service]]\nname = \"cat\"\nlisten = [\"tcp://127.0.0.1:{cat}\"]\n\
                 command = [\"/bin/cat\"]\n\
                 [[service]]\nname = \"late\"\nlisten = [\"tcp://127.0.0.1:{late}\"]\n\
                 command = [\"/bin/true\"]\nwait = true\n\
                 [[pool]]\nname = \"app\"\nqueue_timeout = \"1min\"\n\
                 [[listener]]\nservice = \"hand-off\"\noptions.pool = \"app\"\n\
                 listen = [\"tcp://127.0.0.1:{pool}\"]\n\
                 [admin]\nlisten = \"tcp://127.0.0.1:{admin}\"\n"
            )
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An echo-tcp that works for the pool, whichever broker has it.
fn worker(directory: &Path) -> Daemon {
    Daemon::build(beside("echo-tcp"))
        .listen(endpoint(directory, "app") + "=echo")
        .start()
}

fn successor(config: &str) -> Daemon {
    broker().config(config).arg("--take-over").start()
}

#[test]
fn sixty_successors_under_load_fail_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let config = ports.config(dir.path());
    let mut serving = successor(&config);
    let _echo_tcp = Daemon::build(beside("echo-tcp"))
        .listen(endpoint(dir.path(), "web") + "=echo")
        .start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = name("kept");
    let expiry = Some(Duration::from_secs(3600));
    holder(dir.path())
        .store(&kept, &[listener.as_fd()], expiry, false)
        .unwrap();
    let _worker = worker(dir.path());
    let web = Load::start(2, local(ports.web));
    let cat = Load::start(2, local(ports.cat));
    let pool = Load::start(2, local(ports.pool));
    let place = dir.path().to_owned();
    let asking = Load::of(2, move || {
        let held = Holder::connect_now(&socket(&place), PATIENCE)
            .and_then(|holder| holder.retrieve(&name("web")));
        held.map(drop).map_err(std::io::Error::other)
    });
    for _ in 0..60 {
        cat.wait_for(4);
        pool.wait_for(4);
        let next = successor(&config);
        let last = serving.wait();
        assert_eq!(last.code, Some(0), "{}", last.stderr);
        serving = next;
    }
    web.stop().is_perfect();
    cat.stop().is_perfect();
    pool.stop().is_perfect();
    asking.stop().is_perfect();
    // What a peer had stored has come all the way.
    let listed = holder(dir.path()).list().unwrap();
    let kept = listed.iter().find(|entry| entry.name == kept).unwrap();
    assert!(kept.expiry.unwrap() <= Duration::from_secs(3600));
    assert_eq!(serving.status()["state"], "ready");
}

#[test]
fn connections_that_wait_for_a_worker_are_served_by_the_successor() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let config = ports.config(dir.path());
    let first = broker().config(&config).start();
    // More than one message takes.
    let clients: Vec<Client> = (0..BATCH_MAX + 10)
        .map(|_| {
            let client = Client::try_connect(local(ports.pool)).unwrap();
            client.send("ping");
            client
        })
        .collect();
    let waiting = |broker: &Daemon| broker.status()["pools"][0]["waiting"].as_u64();
    eventually("all wait", || waiting(&first) == Some(clients.len() as u64));
    let second = successor(&config);
    assert_eq!(first.wait().code, Some(0));
    let _worker = worker(dir.path());
    for client in &clients {
        assert_eq!(client.receive(4), b"ping", "{}", second.log());
    }
}

#[test]
fn more_descriptors_than_a_message_takes_come_over_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let config = control(dir.path()).replace("[holding]\n", "[holding]\nsockets = 1000\n");
    let first = broker().config(&config).start();
    let peer = holder(dir.path());
    let listeners: Vec<_> = (0..BATCH_MAX + 100)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    for (number, ten) in listeners.chunks(10).enumerate() {
        let sockets: Vec<_> = ten.iter().map(AsFd::as_fd).collect();
        peer.store(&name(&format!("x{number}")), &sockets, None, false)
            .unwrap();
    }
    let listed = peer.list().unwrap();
    let second = successor(&config);
    assert_eq!(first.wait().code, Some(0));
    let now = holder(dir.path()).list().unwrap();
    let places = |all: Vec<portyard_core::wire::hold::Entry>| -> Vec<_> {
        all.into_iter().map(|one| (one.name, one.sockets)).collect()
    };
    assert_eq!(places(now), places(listed));
    let alive = Client::try_connect(listeners[0].local_addr().unwrap());
    assert!(alive.is_ok());
    assert_eq!(second.terminate().code, Some(0));
}

#[test]
fn where_no_broker_runs_a_successor_starts_as_usual() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let first = successor(&ports.config(dir.path()));
    first.wait_for_log("nothing to take over");
    assert!(Client::try_connect(local(ports.cat)).unwrap().is_echoed());
    // One that was killed leaves its socket behind, which is nobody's.
    first.kill();
    let second = successor(&ports.config(dir.path()));
    second.wait_for_log("nothing to take over");
}

#[test]
fn a_second_broker_that_does_not_take_over_is_69_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let config = ports.config(dir.path());
    let _first = broker().config(&config).start();
    let run = broker().config(&config).run();
    assert_eq!(run.code, Some(69), "{}", run.stderr);
    assert!(Client::try_connect(local(ports.cat)).unwrap().is_echoed());
    let none =
        "[[service]]\nname = \"cat\"\nlisten = [\"tcp://127.0.0.1:0\"]\ncommand = [\"/bin/cat\"]\n";
    let run = broker().config(none).arg("--take-over").run();
    assert_eq!(run.code, Some(78), "{}", run.stderr);
    assert!(
        run.stderr.contains("service = \"control\""),
        "{}",
        run.stderr
    );
}

#[test]
fn a_successor_that_cannot_start_leaves_the_old_one_serving() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let config = ports.config(dir.path());
    let first = broker().config(&config).start();
    let load = Load::start(2, local(ports.cat));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let wrong = format!(
        "{config}[[service]]\nname = \"more\"\nlisten = [\"tcp://{}\"]\ncommand = [\"/bin/cat\"]\n",
        taken.local_addr().unwrap()
    );
    for _ in 0..3 {
        load.wait_for(4);
        let run = broker().config(&wrong).arg("--take-over").run();
        assert_eq!(run.code, Some(69), "{}", run.stderr);
    }
    first.wait_for_log("this broker serves on");
    // The next one may try again.
    let second = successor(&config);
    assert_eq!(first.wait().code, Some(0));
    load.wait_for(4);
    load.stop().is_perfect();
    assert!(socket(dir.path()).exists());
    assert_eq!(second.terminate().code, Some(0));
    assert!(!socket(dir.path()).exists());
}

/// Takes over by hand, up to where it is told to stop; the sockets it has got.
fn take_over(directory: &Path) -> (Holder, u32) {
    let by_hand = holder(directory);
    by_hand.send(&Request::TakeOver, &[]).unwrap();
    loop {
        let (reply, descriptors) = by_hand.receive().unwrap();
        match reply {
            Reply::Batch { number, records } => {
                let wanted: usize = records.iter().map(Record::descriptors).sum();
                assert_eq!(descriptors.len(), wanted);
                let received = Request::Received { batch: number };
                by_hand.send(&received, &[]).unwrap();
            }
            Reply::Complete { batches } => return (by_hand, batches),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_successor_that_dies_half_way_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let first = broker().config(&ports.config(dir.path())).start();
    // Some descriptors are opened when they are first needed.
    let warm_up = Client::try_connect(local(ports.cat)).unwrap();
    assert!(warm_up.is_echoed() && holder(dir.path()).list().is_ok());
    drop(warm_up);
    eventually("all is quiet", || {
        first.status()["connections"]["present"] == 0
    });
    let before = open_fds(first.pid());
    let load = Load::start(2, local(ports.cat));
    load.wait_for(4);
    // Before anything is confirmed, after everything is, and instead of serving.
    let early = holder(dir.path());
    early.send(&Request::TakeOver, &[]).unwrap();
    assert!(early.receive().is_ok());
    // Meanwhile nobody else may.
    let refused = holder(dir.path());
    refused.send(&Request::TakeOver, &[]).unwrap();
    let busy = refused.receive().unwrap_err().to_string();
    assert!(busy.contains("under way"), "{busy}");
    drop((early, refused));
    eventually("the broker notices", || {
        first.log().matches("this broker serves on").count() == 1
    });
    drop(take_over(dir.path()));
    eventually("the broker notices", || {
        first.log().matches("this broker serves on").count() == 2
    });
    // One that breaks the rules instead.
    let (wrong, _) = take_over(dir.path());
    wrong.send(&Request::List { behind: None }, &[]).unwrap();
    assert!(wrong.receive().is_err());
    load.wait_for(8);
    load.stop().is_perfect();
    eventually("nothing is left open", || open_fds(first.pid()) <= before);
    let second = successor(&ports.config(dir.path()));
    assert_eq!(first.wait().code, Some(0));
    assert!(Client::try_connect(local(ports.cat)).unwrap().is_echoed());
    drop(second);
}

#[test]
fn a_successor_that_dies_with_what_waits_leaves_it_to_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let first = broker().config(&ports.config(dir.path())).start();
    let client = || {
        let client = Client::try_connect(local(ports.pool)).unwrap();
        client.send("ping");
        client
    };
    let mut clients: Vec<Client> = (0..3).map(|_| client()).collect();
    let waiting = || first.status()["pools"][0]["waiting"].as_u64();
    eventually("all wait", || waiting() == Some(3));
    let (by_hand, batches) = take_over(dir.path());
    by_hand.send(&Request::Serving, &[]).unwrap();
    let (reply, descriptors) = by_hand.receive().unwrap();
    let Reply::Batch { number, records } = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(
        (number, records.len(), descriptors.len()),
        (batches + 1, 3, 3)
    );
    drop((by_hand, descriptors));
    first.wait_for_log("this broker serves on");
    // It accepts again, and has them all.
    clients.push(client());
    eventually("all wait", || waiting() == Some(4));
    let _worker = worker(dir.path());
    for client in &clients {
        assert_eq!(client.receive(4), b"ping", "{}", first.log());
    }
    assert!(Client::try_connect(local(ports.cat)).unwrap().is_echoed());
}

#[test]
fn a_connection_that_the_old_one_serves_is_served_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::new();
    let config = ports.config(dir.path());
    let first = broker().config(&config).start();
    let busy = Client::try_connect(local(ports.cat)).unwrap();
    assert!(busy.is_echoed());
    let second = successor(&config);
    first.wait_for_log("draining");
    // Its program lives on with the connection, whoever serves by now.
    busy.send("still");
    assert_eq!(busy.receive(5), b"still");
    busy.send_end();
    assert_eq!(busy.end(), portyard_testkit::End::Fin);
    assert_eq!(first.wait().code, Some(0));
    drop(second);
}

#[test]
fn only_the_same_user_and_root_take_over() {
    assert!(
        geteuid().is_root(),
        "run this test as root: nobody else can be another user"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let open = "socket.mode = 0o666\n";
    let config = control(dir.path()).replace("uid:0", "any") + open;
    let broker = broker().config(&config).start();
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
         s.connect({:?})\n\
         s.send(b'\\x48\\0\\0\\0')\n\
         data, fds, flags, _ = socket.recv_fds(s, 16384, 250)\n\
         print(hex(data[0]), data[4], len(fds))\n",
        socket(dir.path()).display().to_string()
    );
    let mut command = std::process::Command::new(peer("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(peer("python3")).args(["-c", &script]);
    let run = finish(&mut command, b"");
    assert_eq!(run.stdout, "0xc4 1 0\n", "{}", run.stderr);
    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.wait().code, Some(0));
}
