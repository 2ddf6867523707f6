//! The service manager's descriptor store: what is kept there comes back with the next start.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use portyard_core::holding::{Holder, PATIENCE};
use portyard_testkit::{Client, Daemon, eventually};

use super::load::Load;
use super::unit::Unit;
use super::{beside, control, endpoint, free_port, holder, name, socket};

fn config(directory: &Path, web: u16, cat: u16) -> String {
    String::from("loops = 2\n")
        + &control(directory)
        + &format!(
            "[[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:{web}\"]\n\
             [[service]]\nname = \"cat\"\nlisten = [\"tcp://127.0.0.1:{cat}\"]\n\
             command = [\"/bin/cat\"]\n"
        )
}

fn with_pool(port: u16) -> String {
    format!(
        "[[pool]]\nname = \"app\"\nqueue_timeout = \"1min\"\n\
         [[listener]]\nservice = \"hand-off\"\noptions.pool = \"app\"\n\
         listen = [\"tcp://127.0.0.1:{port}\"]\n"
    )
}

/// An echo-tcp that works for the pool.
fn worker(directory: &Path) -> Daemon {
    Daemon::build(beside("echo-tcp"))
        .listen(endpoint(directory, "app") + "=echo")
        .start()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn sixty_restarts_by_the_service_manager_fail_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (web, cat, pool) = (free_port(), free_port(), free_port());
    let config = config(dir.path(), web, cat) + &with_pool(pool);
    let mut unit = Unit::new(dir.path(), &config, 64);
    unit.start();
    let _worker = worker(dir.path());
    let _echo_tcp = Daemon::build(beside("echo-tcp"))
        .listen(endpoint(dir.path(), "web") + "=echo")
        .start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = name("kept");
    let expiry = Some(Duration::from_secs(3600));
    holder(dir.path())
        .store(&kept, &[listener.as_fd()], expiry, false)
        .unwrap();
    let through_web = Load::start(2, local(web));
    let through_cat = Load::start(2, local(cat));
    let through_pool = Load::start(2, local(pool));
    let place = dir.path().to_owned();
    // Who connects while nobody serves waits in the control socket, which is kept like the others.
    let asking = Load::of(2, move || {
        let held = Holder::connect_now(&socket(&place), 4 * PATIENCE)
            .and_then(|holder| holder.retrieve(&name("web")));
        held.map(drop).map_err(std::io::Error::other)
    });
    for _ in 0..60 {
        through_cat.wait_for(4);
        through_pool.wait_for(4);
        unit.stop(Signal::SIGTERM);
        unit.start();
    }
    through_web.stop().is_perfect();
    through_cat.stop().is_perfect();
    through_pool.stop().is_perfect();
    asking.stop().is_perfect();
    // The control socket, and service and hand-off, once for each loop; both that are held; the journal.
    assert_eq!(unit.kept().len(), 8, "{:?}", unit.kept());
    let listed = holder(dir.path()).list().unwrap();
    let kept = listed.iter().find(|entry| entry.name == kept).unwrap();
    assert!(kept.expiry.unwrap() <= Duration::from_secs(3600));
}

#[test]
fn one_that_was_killed_has_lost_nothing_that_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let (web, cat) = (free_port(), free_port());
    let mut unit = Unit::new(dir.path(), &config(dir.path(), web, cat), 64);
    unit.start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = holder(dir.path());
    peer.store(&name("app"), &[listener.as_fd()], None, false)
        .unwrap();
    peer.store(&name("gone"), &[listener.as_fd()], None, false)
        .unwrap();
    peer.delete(&name("gone")).unwrap();
    drop((listener, peer));
    unit.stop(Signal::SIGKILL);
    // Nobody serves, and nobody is refused.
    let waiting = Client::try_connect(local(cat)).unwrap();
    waiting.send("ping");
    let held = Client::try_connect(address).unwrap();
    unit.start();
    assert_eq!(waiting.receive(4), b"ping");
    let listed = holder(dir.path()).list().unwrap();
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["app", "web"]);
    let _echo_tcp = Daemon::build(beside("echo-tcp"))
        .listen(endpoint(dir.path(), "app") + "=echo")
        .start();
    assert!(held.is_echoed());
}

#[test]
fn connections_that_wait_for_a_worker_are_kept_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = control(dir.path()) + &with_pool(port);
    let mut unit = Unit::new(dir.path(), &config, 64);
    unit.start();
    let clients: Vec<Client> = (0..20)
        .map(|_| {
            let client = Client::try_connect(local(port)).unwrap();
            client.send("ping");
            client
        })
        .collect();
    // The signal may come before the loops have what was kept.
    for _ in 0..10 {
        unit.stop(Signal::SIGTERM);
        unit.start();
    }
    let _worker = worker(dir.path());
    for client in &clients {
        assert_eq!(client.receive(4), b"ping", "{}", unit.log());
    }
    // What has been served is kept no longer.
    unit.stop(Signal::SIGTERM);
    assert!(unit.kept().len() < clients.len(), "{:?}", unit.kept());
}

#[test]
fn what_expires_while_nobody_runs_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut unit = Unit::new(dir.path(), &control(dir.path()), 64);
    unit.start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = Some(Duration::from_secs(1));
    holder(dir.path())
        .store(&name("app"), &[listener.as_fd()], second, false)
        .unwrap();
    // The control socket, what was stored, and the journal.
    eventually("all of it is kept", || unit.kept().len() == 3);
    unit.stop(Signal::SIGKILL);
    // The clock is the kernel's, so there is nothing to wait for but it.
    std::thread::sleep(Duration::from_millis(1100));
    unit.start();
    assert_eq!(holder(dir.path()).list().unwrap(), []);
    eventually("it is kept no longer", || unit.kept().len() == 2);
}

#[test]
fn what_is_no_longer_configured_is_kept_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (web, cat) = (free_port(), free_port());
    let all = config(dir.path(), web, cat);
    let mut unit = Unit::new(dir.path(), &all, 64);
    unit.start();
    unit.stop(Signal::SIGTERM);
    assert_eq!(unit.kept().len(), 5, "{:?}", unit.kept());
    std::fs::write(dir.path().join("config.toml"), control(dir.path())).unwrap();
    unit.start();
    eventually("the others go", || unit.kept().len() == 2);
    assert!(Client::try_connect(local(cat)).is_err());
    assert!(unit.log().contains("no listener uses"));
}

#[test]
fn a_store_that_is_too_small_is_told_of_and_nothing_depends_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let (web, cat) = (free_port(), free_port());
    let mut unit = Unit::new(dir.path(), &config(dir.path(), web, cat), 3);
    unit.start();
    assert!(
        unit.log().contains("FileDescriptorStoreMax"),
        "{}",
        unit.log()
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = holder(dir.path())
        .store(&name("app"), &[listener.as_fd()], None, false)
        .unwrap_err();
    assert!(
        refused.to_string().contains("FileDescriptorStoreMax"),
        "{refused}"
    );
    assert!(Client::try_connect(local(cat)).unwrap().is_echoed());
    // One that loses things is survived, too.
    unit.stop(Signal::SIGTERM);
    unit.lose(|name| name.ends_with('1'));
    unit.start();
    assert!(Client::try_connect(local(cat)).unwrap().is_echoed());
    unit.stop(Signal::SIGTERM);
    unit.lose(|name| name.contains("journal"));
    unit.start();
    assert!(unit.log().contains("nobody knows of"), "{}", unit.log());
    assert!(Client::try_connect(local(cat)).unwrap().is_echoed());
}
