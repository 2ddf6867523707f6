//! Authentication on a listener: which keys are accepted, and what those can do who have none.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{ADMIN, BINARY, check_fails, ended, key_file, prove, refused, write_secret};
use portyard_testkit::{Client, Daemon, DaemonBuilder, End, anonymous_bytes, eventually};

#[test]
fn who_proves_a_key_is_served_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(&listener(&key_file(directory.path(), &["one", "two"]), ""));
    for name in ["one", "two"] {
        let client = Client::connect(&daemon.endpoint("echo"));
        prove(&client, name);
        assert!(client.is_echoed());
    }
    let client = Client::connect(&daemon.endpoint("echo"));
    prove(&client, "three");
    // The recipe has no word for it.
    assert_eq!(client.receive_all(), (Vec::new(), End::Fin));
    eventually("it is counted", || ended(&daemon, "auth") == 1);
    // What comes instead of an answer is not echoed.
    let client = Client::connect(&daemon.endpoint("echo"));
    client.receive(32);
    client.send([0; 64]);
    assert!(client.receive_all().0.is_empty());
}

#[test]
fn what_follows_the_proof_at_once_is_the_services() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(&listener(&key_file(directory.path(), &["one"]), ""));
    let client = Client::connect(&daemon.endpoint("echo"));
    let question = client.receive(32);
    let mut machine = portyard_core::wire::auth::recipe::Client::new(
        common::key("one"),
        portyard_core::wire::auth::Digest::Sha256,
    );
    let machine: &mut dyn portyard_core::wire::auth::Handshake = &mut machine;
    machine.handle(&question).unwrap();
    let mut bytes = machine.output().unwrap();
    bytes.extend_from_slice(b"hello");
    client.send(bytes);
    assert_eq!(client.receive(5), b"hello");
}

#[test]
fn keys_are_rotated_by_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["old"]);
    let daemon = start(&listener(&keys, ""));
    let open = Client::connect(&daemon.endpoint("echo"));
    prove(&open, "old");
    assert!(open.is_echoed());
    key_file(directory.path(), &["new", "old"]);
    daemon.reload();
    for name in ["new", "old"] {
        assert!(enters(&daemon, name));
    }
    key_file(directory.path(), &["new"]);
    daemon.reload();
    assert!(enters(&daemon, "new") && !enters(&daemon, "old"));
    // A file in the middle of being written changes nothing.
    write_secret(&keys, b"new:base64:x");
    assert!(
        daemon
            .reload()
            .contains("keys:1: the key of new is not base64")
    );
    assert!(enters(&daemon, "new"));
    assert!(
        open.is_echoed(),
        "a session lives on whatever becomes of its key"
    );
}

#[test]
fn access_rules_look_at_keys() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["ada", "bob", "carol"]);
    let rules =
        "access = { rules = [\"allow key:ada\", \"allow key:bob\", \"deny key:bob left\"] }\n";
    let daemon = start(&listener(&keys, rules));
    assert!(enters(&daemon, "ada"));
    assert!(!enters(&daemon, "bob"));
    assert!(!enters(&daemon, "carol"));
    eventually("both are counted", || ended(&daemon, "denied") == 2);
}

#[test]
fn a_key_file_that_others_could_read_or_turn_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["one"]);
    let config = listener(&keys, "");
    for mode in [0o640, 0o604, 0o620, 0o660] {
        fs::set_permissions(&keys, Permissions::from_mode(mode)).unwrap();
        check_fails(&config, "chmod 600");
    }
    fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    let link = directory.path().join("link");
    symlink(&keys, &link).unwrap();
    check_fails(&listener(&link, ""), "symbolic link");
    check_fails(&listener(directory.path(), ""), "not a regular file");
    check_fails(&listener(Path::new("/nonexistent"), ""), "cannot be read");
    write_secret(&keys, &vec![b'#'; 70_000]);
    check_fails(&config, "larger than 65536 bytes");
    write_secret(&keys, b"# nothing yet\n");
    check_fails(&config, "portyard keygen");
    check_fails(&config.replace("auth_keys", "#"), "auth_keys");
    check_fails(&config.replace("auth = \"recipe\"", ""), "no effect");
    check_fails(&config.replace("\"recipe\"", "\"kerberos\""), "mutual");
}

#[test]
fn a_credential_is_a_file_that_the_service_manager_passes() {
    let directory = tempfile::tempdir().unwrap();
    key_file(directory.path(), &["one"]);
    let config = listener(Path::new("credential:keys"), "");
    let daemon = build(&config)
        .env("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())
        .start();
    assert!(enters(&daemon, "one"));
    check_fails(&config, "LoadCredential");
}

#[test]
fn fifty_silent_peers_delay_nobody_and_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["one"]);
    let daemon = start(&listener(
        &keys,
        "limits = { handshake = \"1s\", penalty = \"0s\" }\n",
    ));
    let silent: Vec<Client> = (0..50)
        .map(|_| Client::connect(&daemon.endpoint("echo")))
        .collect();
    for peer in &silent {
        assert_eq!(peer.receive(32).len(), 32);
    }
    for _ in 0..20 {
        assert!(enters(&daemon, "one"));
    }
    assert!(
        silent.iter().all(|peer| peer.receive_all().0.is_empty()),
        "they hear nothing more"
    );
    eventually("they are counted", || ended(&daemon, "handshake") == 50);
    assert!(enters(&daemon, "one"));
}

#[test]
fn the_unproven_have_a_cap_of_their_own_with_early_random_drop() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["one"]);
    let limits = "limits = { handshakes = 20, handshakes_early = 10, handshake = \"60s\" }\n";
    let daemon = start(&listener(&keys, limits));
    let served = Client::connect(&daemon.endpoint("echo"));
    prove(&served, "one");
    assert!(served.is_echoed());
    let crowd: Vec<_> = (0..200)
        .filter_map(|_| Client::try_connect(daemon.address("echo")).ok())
        .collect();
    eventually("most are turned away", || {
        refused(&daemon, "handshakes") >= 180
    });
    let present = daemon.status()["listeners"][0]["proving"].as_u64().unwrap();
    assert!((10..=20).contains(&present), "{present} are proving");
    // Who has proved is not among them.
    assert!(served.is_echoed());
    drop(crowd);
    eventually("there is room again", || {
        daemon.status()["listeners"][0]["proving"] == 0
    });
    assert!(enters(&daemon, "one"));
}

#[test]
fn a_source_that_fails_is_refused_until_it_has_paid() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["one"]);
    let limits = "limits = { penalty = \"2s\", penalty_min = \"3s\", penalty_max = \"4s\" }\n";
    let daemon = start(&listener(&keys, limits));
    let from = |source: &str| Client::connect_from(source, daemon.address("echo"));
    for _ in 0..2 {
        let client = from("127.0.0.9");
        prove(&client, "wrong");
        assert!(client.receive_all().0.is_empty());
    }
    eventually("it is refused at the door", || {
        // Until the failures are counted it is greeted once more.
        from("127.0.0.9").try_receive(32).is_none() && refused(&daemon, "penalty") > 0
    });
    assert_eq!(daemon.status()["listeners"][0]["penalized_sources"], 1);
    // Another source is another matter.
    let other = from("127.0.0.8");
    prove(&other, "one");
    assert!(other.is_echoed());
    eventually("it has paid", || {
        from("127.0.0.9").try_receive(32).is_some()
    });
}

#[test]
fn an_announcement_that_is_not_kept_takes_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["one"]);
    let python = listener(
        &keys,
        "limits = { penalty = \"0s\", handshake = \"60s\" }\n",
    )
    .replace("\"recipe\"", "\"python\"");
    let daemon = start(&python);
    let dial = || Client::connect(&daemon.endpoint("echo"));
    // That announces the length in another eight bytes, which may still come.
    let announce = || {
        let client = dial();
        client.receive(63);
        client.send(b"\xff\xff\xff\xff");
        client
    };
    let refuse_all = || {
        for header in [
            &b"\x7f\xff\xff\xff"[..],
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\x01\x01",
        ] {
            let client = dial();
            client.receive(63);
            client.send(header);
            assert!(client.receive_all().0.len() < 32, "it ends without more");
        }
    };
    // A few times around, so that what is needed once is there.
    let mut waiting: Vec<Client> = (0..10).map(|_| announce()).collect();
    (0..10).for_each(|_| refuse_all());
    let before = anonymous_bytes(daemon.pid());
    waiting.push(announce());
    refuse_all();
    eventually("all are counted", || ended(&daemon, "auth") == 33);
    let grown = anonymous_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} bytes");
}

#[test]
fn local_users_are_told_apart_by_the_kernel() {
    let uid = nix::unistd::getuid().as_raw();
    let (gid, pid) = (nix::unistd::getgid().as_raw(), std::process::id());
    let serves = |rules: &str| {
        let config = format!(
            "{ADMIN}[[listener]]\nservice = \"echo\"\nlisten = [\"unix:@portyard-test-{pid}-{uid}\"]\n\
             access = {{ rules = [{rules}] }}\n"
        );
        let daemon = Daemon::build(BINARY).config(&config).start();
        let client = Client::connect(&daemon.endpoint("echo"));
        let served = client.is_echoed();
        assert_eq!(served, refused(&daemon, "access") == 0, "{rules}");
        served
    };
    let other = uid + 1;
    assert!(serves(&format!("\"allow uid:{uid}\"")));
    assert!(!serves(&format!("\"allow uid:{other}\"")));
    assert!(!serves(&format!("\"deny uid:{uid}\"")));
    assert!(serves(&format!("\"deny uid:{other}\"")));
    assert!(serves(&format!(
        "\"allow uid:{other}\", \"allow gid:{gid}\""
    )));
    assert!(serves(&format!("\"deny uid:{uid}\", \"allow pid:{pid}\"")));
    // The last one that matches decides.
    assert!(!serves(&format!("\"allow pid:{pid}\", \"deny gid:{gid}\"")));
}

#[test]
fn what_should_be_mended_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["short"]);
    let config = listener(&keys, "min_digest = \"md5\"\n").replace("recipe", "python");
    let daemon = start(&config);
    daemon.wait_for_log("HMAC-MD5 in over a network");
    daemon.wait_for_log("the key short has fewer than 16 bytes");
    let local = config.replace(
        "tcp://127.0.0.1:0\"]\na",
        &format!("unix:@portyard-md5-{}\"]\na", std::process::id()),
    );
    let daemon = start(&local);
    daemon.wait_for_log("the key short");
    assert!(!daemon.log().contains("MD5"), "{}", daemon.log());
}

#[test]
fn no_key_is_ever_shown() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["canary-name"]);
    write_secret(&keys, b"k:text:canary-secret\n");
    let daemon = build(&listener(&keys, ""))
        .args(["--log-level", "trace"])
        .start();
    assert!(!enters(&daemon, "wrong"));
    let base64 = "Y2FuYXJ5LXNlY3JldA";
    let (_, status) = daemon.admin_get("/status");
    let (_, metrics) = daemon.admin_get("/metrics");
    let process = |file: &str| {
        let bytes = fs::read(format!("/proc/{}/{file}", daemon.pid())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let printed = Daemon::build(BINARY)
        .config(&listener(&keys, ""))
        .args(["--print-config"])
        .run()
        .stdout;
    let texts = [
        status,
        metrics,
        process("cmdline"),
        process("environ"),
        printed,
    ];
    let log = daemon.terminate().stderr;
    for text in texts.iter().chain([&log]) {
        assert!(
            !text.contains("canary-secret") && !text.contains(base64),
            "{text}"
        );
    }
}

#[test]
fn a_slow_proof_does_not_outlive_its_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path(), &["one"]);
    let daemon = start(&listener(&keys, "limits = { handshake = \"300ms\" }\n"));
    let client = Client::connect(&daemon.endpoint("echo"));
    client.receive(32);
    let start = Instant::now();
    // A byte now and then is not an answer.
    while client.try_send(b"x") && ended(&daemon, "handshake") == 0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it is still there"
        );
        if !client.is_silent_for(Duration::from_millis(50)) {
            break;
        }
    }
    eventually("it is counted", || {
        ended(&daemon, "handshake") + ended(&daemon, "auth") == 1
    });
}

fn enters(daemon: &Daemon, name: &str) -> bool {
    let client = Client::connect(&daemon.endpoint("echo"));
    prove(&client, name);
    client.is_echoed()
}

fn listener(keys: &Path, more: &str) -> String {
    let limits = if more.contains("limits") {
        ""
    } else {
        "limits = { penalty = \"0s\" }\n"
    };
    format!(
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         auth = \"recipe\"\nauth_keys = \"{}\"\n{more}{limits}",
        keys.display()
    )
}

fn build(listener: &str) -> DaemonBuilder {
    Daemon::build(BINARY).config(&format!("{ADMIN}{listener}"))
}

fn start(listener: &str) -> Daemon {
    build(listener).start()
}
