//! Limits, access and times of services: they slow or turn away, and switch nothing off.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portyard_testkit::{Client, Daemon, End, eventually};

use crate::{build, connect, running, service, start, started};

fn from(daemon: &Daemon, source: &str, name: &str) -> Client {
    Client::connect_from(source, daemon.address(name))
}

#[test]
fn two_hundred_connections_at_ten_instances_are_all_served_by_ten_at_a_time() {
    let daemon = start(&service(
        "cat",
        &["/bin/cat"],
        "limits = { connections = 10 }",
    ));
    let address = daemon.endpoint("cat");
    let (served, most, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(running(&daemon, "cat"), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let clients: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let client = Client::connect(&address);
                        client.send("hello");
                        client.send_end();
                        assert_eq!(client.receive_all(), (b"hello".to_vec(), End::Fin));
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    assert_eq!(served.into_inner(), 200);
    eventually("all are counted", || started(&daemon, "cat") == 200);
    assert!(most.into_inner() <= 10);
    let refused = "portyard_connections_refused_total{listener=\"cat\",service=\"program\",reason=\"connections\"}";
    assert_eq!(daemon.count(refused), 0);
}

#[test]
fn the_eleventh_instance_is_told_so_where_that_is_configured() {
    let more = "limits = { connections = 1, at_limit = \"banner\", banner = \"Busy.\\r\\n\" }";
    let daemon = start(&service("cat", &["/bin/cat"], more));
    let first = connect(&daemon, "cat");
    assert!(first.is_echoed());
    assert_eq!(
        connect(&daemon, "cat").receive_all(),
        (b"Busy.\r\n".to_vec(), End::Fin)
    );
    first.send_end();
    eventually("the place is free", || running(&daemon, "cat") == 0);
    eventually("the next is served", || connect(&daemon, "cat").is_echoed());
}

/// xinetd's `cps` and inetd's `-R` switch the service off for everybody.
#[test]
fn a_source_that_comes_too_fast_is_slowed_and_the_service_stays_on() {
    let more = "limits = { rate = \"10/s\", burst = 5 }";
    let daemon = start(&service("cat", &["/bin/cat"], more));
    let begun = std::time::Instant::now();
    let greedy: Vec<Client> = (0..15).map(|_| from(&daemon, "127.0.0.2", "cat")).collect();
    // Who comes slowly is served while the others wait.
    assert!(from(&daemon, "127.0.0.3", "cat").is_echoed());
    assert!(greedy.iter().all(Client::is_echoed));
    // Five at once, then ten at ten a second.
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    eventually("they are counted", || started(&daemon, "cat") == 16);
}

#[test]
fn a_source_cannot_take_the_places_of_others() {
    let more = "limits = { connections = 4, per_source = 2, at_limit = \"refuse\" }";
    let daemon = start(&service("cat", &["/bin/cat"], more));
    let greedy = [
        from(&daemon, "127.0.0.2", "cat"),
        from(&daemon, "127.0.0.2", "cat"),
    ];
    assert!(greedy.iter().all(Client::is_echoed));
    assert_eq!(from(&daemon, "127.0.0.2", "cat").end(), End::Reset);
    assert!(from(&daemon, "127.0.0.3", "cat").is_echoed());
    for client in &greedy {
        client.send_end();
    }
    // A place is free when the program has ended, not when the peer says so.
    eventually("its places are free again", || {
        from(&daemon, "127.0.0.2", "cat").is_echoed()
    });
}

#[test]
fn the_access_list_holds_for_programs_and_starts_none_for_the_denied() {
    let more = "access = { rules = [\"deny 127.0.0.2\"] }";
    let daemon = start(&service("cat", &["/bin/cat"], more));
    assert_eq!(from(&daemon, "127.0.0.2", "cat").end(), End::Reset);
    assert!(from(&daemon, "127.0.0.3", "cat").is_echoed());
    eventually("they are counted", || started(&daemon, "cat") == 1);
}

/// Hours of the day as access times: from `first` hours after now until an hour later.
fn hours(first: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let hour = (now / 3600 + first) % 24;
    // An hour more, so that the turn of an hour between here and there does not matter.
    format!(
        "access_times = [\"{hour:02}:00-{:02}:00\"]",
        (hour + 2) % 24
    )
}

#[test]
fn outside_its_access_times_a_service_is_closed_and_tells_so() {
    let told = hours(6) + "\nlimits = { at_limit = \"banner\", banner = \"Closed.\\r\\n\" }";
    let tables = [
        service("now", &["/bin/cat"], &hours(23)),
        service("later", &["/bin/cat"], &hours(6)),
        service("told", &["/bin/cat"], &told),
    ]
    .concat();
    let daemon = build("", &tables).env("TZ", "UTC").start();
    assert!(connect(&daemon, "now").is_echoed());
    assert_eq!(connect(&daemon, "later").end(), End::Reset);
    assert_eq!(
        connect(&daemon, "told").receive_all(),
        (b"Closed.\r\n".to_vec(), End::Fin)
    );
    for name in ["later", "told"] {
        let refused = format!("portyard_service_refused_total{{name=\"{name}\",reason=\"time\"}}");
        assert_eq!(daemon.count(&refused), 1);
        assert_eq!(started(&daemon, name), 0);
    }
}

#[test]
fn the_time_of_access_is_that_of_the_local_zone() {
    // Six hours from now by UTC is now in a zone six hours to the east.
    let tables = service("there", &["/bin/cat"], &hours(6));
    let daemon = build("", &tables).env("TZ", "XXX-6:30").start();
    assert!(connect(&daemon, "there").is_echoed());
}
