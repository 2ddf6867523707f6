//! Brokers that demand a key, and daemons of ours that have it in their configuration.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use portyard_testkit::{Client, Daemon, DaemonBuilder, Finished, eventually};

use common::{BINARY, beside};

/// Writes a key file of one key.
fn write_key(path: &Path, secret: &str) {
    fs::write(path, format!("web:text:{secret}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A broker in a directory: a pool and held sockets, both behind a key of this dialogue.
fn broker(directory: &Path, dialogue: &str) -> Daemon {
    let place = directory.display();
    let demand = format!("auth = \"{dialogue}\"\nauth_keys = \"{place}/keys\"\n");
    let config = format!(
        "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n[holding]\nrules = [\"allow retrieve * key:web\"]\n\
         [[hold]]\nname = \"held\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[hold]]\nname = \"clock\"\nlisten = [\"udp://127.0.0.1:0\"]\n\
         [[listener]]\nservice = \"hand-off\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[listener]]\nservice = \"native\"\nlisten = [\"unix:{place}/native.sock\"]\n{demand}\
         [[listener]]\nservice = \"control\"\nlisten = [\"unix:{place}/control.sock\"]\n{demand}"
    );
    Daemon::build(BINARY).config(&config).start()
}

/// The configuration of a daemon with one listener at a broker's socket.
fn listener(service: &str, directory: &Path, endpoint: &str, more: &str) -> String {
    format!(
        "loops = 1\n[[listener]]\nservice = \"{service}\"\nlisten = [\"broker:{}/{endpoint}\"]\n{more}\n",
        directory.display()
    )
}

fn echo_tcp() -> DaemonBuilder {
    Daemon::build(beside("echo-tcp"))
}

fn keys(directory: &Path, name: &str) -> String {
    format!("broker_keys = \"{}/{name}\"", directory.display())
}

#[test]
fn the_key_of_the_configuration_opens_a_pool_and_held_sockets_in_every_dialogue() {
    for dialogue in ["mutual", "python", "recipe"] {
        let dir = tempfile::tempdir().unwrap();
        write_key(&dir.path().join("keys"), "what both of us know");
        let broker = broker(dir.path(), dialogue);
        let dialect = match dialogue {
            // The default.
            "mutual" => String::new(),
            other => format!("broker_auth = \"{other}\""),
        };
        let more = keys(dir.path(), "keys") + "\n" + &dialect;
        let start = |program: &str, service: &str, endpoint: &str| {
            let config = listener(service, dir.path(), endpoint, &more);
            Daemon::build(beside(program)).config(&config).start()
        };
        let _pool = start("echo-tcp", "echo", "native.sock#default");
        let client = Client::try_connect(broker.address("hand-off")).unwrap();
        assert!(client.is_echoed(), "{dialogue}");
        let _held = start("echo-tcp", "echo", "control.sock#held");
        let client = Client::try_connect(broker.address("held")).unwrap();
        assert!(client.is_echoed(), "{dialogue}");
        let _clock = start("time-udp", "echo", "control.sock#clock");
        let clock = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        clock
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        clock.send_to(b"x", broker.address("clock")).unwrap();
        assert_eq!(clock.recv(&mut [0; 4]).unwrap(), 1);
    }
}

#[test]
fn a_reload_reads_the_key_again_and_the_next_link_proves_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    write_key(&dir.path().join("keys"), "the first key of all");
    write_key(&dir.path().join("ours"), "the first key of all");
    let first = broker(dir.path(), "mutual");
    let more = keys(dir.path(), "ours");
    let config = listener("echo", dir.path(), "native.sock#default", &more);
    let echo = echo_tcp().config(&config).start();
    let old = Client::try_connect(first.address("hand-off")).unwrap();
    assert!(old.is_echoed());
    write_key(&dir.path().join("keys"), "another key, rotated in");
    write_key(&dir.path().join("ours"), "another key, rotated in");
    fs::set_permissions(dir.path().join("ours"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = echo.reload();
    assert!(
        said.contains("broker_keys") && said.contains("chmod 600"),
        "{said}"
    );
    // The old key is still proved, which the next broker does not know.
    first.kill();
    let second = broker(dir.path(), "mutual");
    let waiting = Client::try_connect(second.address("hand-off")).unwrap();
    waiting.send(b"x");
    echo.wait_for_log("compare the key files");
    fs::set_permissions(dir.path().join("ours"), fs::Permissions::from_mode(0o600)).unwrap();
    echo.reload();
    assert_eq!(waiting.receive(1), b"x");
    assert!(old.is_echoed());
}

#[test]
fn who_has_no_key_or_another_one_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    write_key(&dir.path().join("keys"), "what both of us know");
    write_key(&dir.path().join("other"), "what nobody knows");
    let _broker = broker(dir.path(), "mutual");
    let run = |more: &str| {
        let config = listener("echo", dir.path(), "control.sock#held", more);
        echo_tcp().config(&config).run()
    };
    let refused = |run: Finished, code: i32, said: &str| {
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        assert!(run.stderr.contains(said), "no {said:?} in {}", run.stderr);
    };
    refused(run(""), 65, "does it demand a key");
    refused(run(&keys(dir.path(), "other")), 77, "compare the key files");
    let python = keys(dir.path(), "keys") + "\nbroker_auth = \"python\"";
    refused(run(&python), 77, "a key in this dialogue?");
}

#[test]
fn check_says_what_is_wrong_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    write_key(&dir.path().join("keys"), "what both of us know");
    fs::write(dir.path().join("open"), "web:text:known to all\n").unwrap();
    let good = keys(dir.path(), "keys");
    let at = |endpoint: &str, more: &str| {
        let config = listener("echo", dir.path(), endpoint, more);
        echo_tcp().config(&config).args(["--check"]).run()
    };
    assert_eq!(at("x.sock#web", &good).code, Some(0));
    for (more, said) in [
        (keys(dir.path(), "open"), "chmod 600"),
        (keys(dir.path(), "absent"), "cannot be read"),
        ("broker_auth = \"mutual\"".into(), "needs broker_keys"),
        (
            format!("{good}\nbroker_auth = \"none\""),
            "take one of them out",
        ),
        (
            format!("{good}\nbroker_auth = \"hmac\""),
            "unknown variant `hmac`",
        ),
    ] {
        let run = at("x.sock#web", &more);
        assert_eq!(run.code, Some(78), "{more}");
        assert!(run.stderr.contains(said), "no {said:?} in {}", run.stderr);
    }
    let elsewhere =
        format!("[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n{good}\n");
    let run = echo_tcp().config(&elsewhere).args(["--check"]).run();
    assert_eq!(run.code, Some(78));
    assert!(run.stderr.contains("listen has none"), "{}", run.stderr);
    // The same listener at another place, for a try, proves nothing there.
    let config = listener("echo", dir.path(), "x.sock#web", &good);
    let tried = echo_tcp()
        .config(&config)
        .listen("tcp://127.0.0.1:0=echo")
        .start();
    eventually("it serves", || {
        Client::connect(&tried.endpoint("echo")).is_echoed()
    });
}
