//! What an operator does with a store: verify it, back it up while it serves or not, restore it, and
//! look at it.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::rpc::{Rpc, config, daemon};
use portyard_testkit::{Daemon, DaemonBuilder, eventually, finish, peer};
use serde_json::json;

#[test]
fn verify_says_what_is_there_and_what_is_wrong() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let verify = |path: &Path| kv_rpc().arg("--verify").arg(text(path)).run();

    let missing = verify(&data);
    assert_eq!(missing.code, Some(69), "{}", missing.stderr);
    assert!(!data.exists());

    let running = daemon(&data).start();
    fill(&running, 3);
    let locked = verify(&data);
    assert_eq!(locked.code, Some(69), "{}", locked.stderr);
    let holder = format!("in use by process {};", running.pid());
    assert!(locked.stderr.contains(&holder), "{}", locked.stderr);
    running.terminate();

    // The configuration's own directory, and one that is named.
    for verified in [daemon(&data).arg("--verify").run(), verify(&data)] {
        assert!(
            verified
                .clone()
                .success()
                .contains("good, 3 keys, revision 3")
        );
    }

    let file = data.join("data.redb");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes
        .windows(7)
        .position(|part| part == b"value 1")
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let damaged = verify(&data);
    assert_eq!(damaged.code, Some(65), "{}", damaged.stderr);
    assert!(damaged.stderr.contains("is damaged"), "{}", damaged.stderr);
    assert!(fs::read(&file).unwrap() == bytes);
}

#[test]
fn a_backup_of_a_daemon_that_serves_is_whole_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let (file, restored) = (place.path().join("backup"), place.path().join("restored"));
    let running = with_admin(&place.path().join("data"), "unix");
    fill(&running, 100);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let address = running.address("json-rpc");
        let stop = &stop;
        scope.spawn(move || {
            let mut rpc = Rpc::connect(address).unwrap();
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                // A pair, in this order; a backup has both or the first alone.
                number += 1;
                for key in ["first", "second"] {
                    rpc.call("set", &json!([key, number])).unwrap();
                }
            }
        });
        let mut rpc = Rpc::to(&running);
        eventually("the pair is there", || {
            rpc.call("exists", &json!(["second"])).unwrap() == true
        });
        let said = backup(&running, &file).run().success();
        assert!(said.contains("102 keys"), "{said}");
        stop.store(true, Ordering::SeqCst);
    });
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names = |path: &Path| {
        let names = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // Nothing is left beside the data or the backup.
    assert_eq!(names(&place.path().join("data")), ["data.redb", "lock"]);
    assert_eq!(names(place.path()), ["backup", "data"]);

    let restore = || {
        let arguments =
            ["--restore", &text(&file), "--directory", &text(&restored)].map(String::from);
        kv_rpc().args(arguments).run()
    };
    assert!(restore().success().contains("restored, 102 keys"));
    let again = restore();
    assert_eq!(again.code, Some(69), "{}", again.stderr);
    assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
    let all = Rpc::to(&daemon(&restored).start()).all();
    assert_eq!(all.len(), 102);
    assert_eq!(all[..100], Rpc::to(&running).all()[..100]);
    let pair = (all[100].1.as_i64().unwrap(), all[101].1.as_i64().unwrap());
    assert!(pair.0 == pair.1 || pair.0 == pair.1 + 1, "{pair:?}");
}

#[test]
fn a_backup_of_a_daemon_that_is_stopped_is_read_from_its_data() {
    let place = tempfile::tempdir().unwrap();
    let (data, file) = (place.path().join("data"), place.path().join("backup"));
    let backup = || daemon(&data).arg("--backup").arg(text(&file)).run();
    let missing = backup();
    assert_eq!(missing.code, Some(69), "{}", missing.stderr);
    assert!(!data.exists() && !file.exists());
    let running = daemon(&data).start();
    fill(&running, 3);
    // Without an admin endpoint there is nobody to ask.
    let refused = backup();
    assert_eq!(refused.code, Some(69), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("admin.listen"),
        "{}",
        refused.stderr
    );
    running.kill();
    assert!(backup().success().contains("3 keys, revision 3"));
    let verified = kv_rpc().arg("--verify").arg(text(&file)).run();
    assert!(verified.success().contains("good, 3 keys"));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let place = tempfile::tempdir().unwrap();
    let (file, target) = (place.path().join("backup"), place.path().join("target"));
    let running = with_admin(&place.path().join("data"), "unix");
    fill(&running, 3);
    backup(&running, &file).run().success();
    let bytes = fs::read(&file).unwrap();
    for damage in [&bytes[..bytes.len() / 2], b"something else", b""] {
        fs::write(&file, damage).unwrap();
        let arguments =
            ["--restore", &text(&file), "--directory", &text(&target)].map(String::from);
        let refused = kv_rpc().args(arguments).run();
        assert_eq!(refused.code, Some(65), "{}", refused.stderr);
        assert!(!target.exists());
    }
}

#[test]
fn data_is_handed_to_its_owner_alone() {
    let place = tempfile::tempdir().unwrap();
    let running = with_admin(&place.path().join("tcp"), "tcp");
    fill(&running, 1);
    // Over TCP the kernel does not say who asks.
    let (code, said) = running.admin_get("/backup");
    assert_eq!(code, 403, "{said}");
    assert!(
        said.contains("Unix socket") && !said.contains("redb"),
        "{said}"
    );
    let refused = backup(&running, &place.path().join("backup")).run();
    assert_eq!(refused.code, Some(69), "{}", refused.stderr);

    let (code, said) = with_memory().admin_get("/backup");
    assert_eq!(code, 503);
    assert!(said.contains("nothing to back up"), "{said}");
}

/// Everybody may connect to an abstract name; the kernel says who it is.
#[test]
fn another_user_of_the_machine_gets_no_backup() {
    let place = tempfile::tempdir().unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.path(), open).unwrap();
    let name = place.path().display();
    let admin = format!("[admin]\nlisten = \"unix:@{name}\"\n");
    let data = place.path().join("data");
    let running = kv_rpc().config(&(admin + &config(&data))).start();
    fill(&running, 3);
    // What root, who runs the tests, becomes: curl asks as somebody whom the daemon does not know.
    let ask = |uid: &str, path: &str| {
        let mut ask = Command::new(peer("setpriv"));
        ask.args(["--reuid", uid, "--clear-groups"]);
        ask.arg(peer("curl")).args(["-sS", "-o", "/dev/null"]);
        ask.args([
            "-w",
            "%{http_code} %{size_download}",
            "--abstract-unix-socket",
        ]);
        finish(ask.args([&text(place.path()), path]), b"").success()
    };
    let page = "http://localhost/backup";
    let refused = ask("65534", page);
    assert!(refused.starts_with("403 "), "{refused}");
    // What tells nothing of the data is for everybody.
    let status = ask("65534", "http://localhost/healthz");
    assert!(status.starts_with("200 "), "{status}");
    let given = ask("0", page);
    let size: u64 = given.strip_prefix("200 ").unwrap().parse().unwrap();
    assert!(size > 1000, "{given}");
    // Nothing is left of either.
    eventually("the backup is gone", || !data.join("backup.redb").exists());
}

#[test]
fn a_backup_into_a_place_that_cannot_be_written_says_so_and_harms_nothing() {
    let place = tempfile::tempdir().unwrap();
    let running = with_admin(&place.path().join("data"), "unix");
    fill(&running, 3);
    let script = format!(
        "mount -t tmpfs none {0}/closed && touch {0}/closed/old && mount -o remount,ro {0}/closed && exec \"$@\"",
        place.path().display()
    );
    fs::create_dir(place.path().join("closed")).unwrap();
    for file in ["closed/backup", "nowhere/backup"] {
        let refused = DaemonBuilder::wrap(
            backup(&running, &place.path().join(file)),
            ["unshare", "-rm", "sh", "-c", &script, "sh"],
        )
        .run();
        assert!(
            matches!(refused.code, Some(69 | 74 | 77)),
            "{:?} {}",
            refused.code,
            refused.stderr
        );
        assert!(refused.stderr.contains(file), "{}", refused.stderr);
    }
    fill(&running, 3);
    backup(&running, &place.path().join("open")).run().success();
}

#[test]
fn a_backup_never_fills_the_disk() {
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().display();
    let script = format!("mount -t tmpfs -o size=32m none {disk} && exec \"$@\"");
    let running = DaemonBuilder::wrap(
        Daemon::build(env!("CARGO_BIN_EXE_kv-rpc")),
        ["unshare", "-rm", "sh", "-c", &script, "sh"],
    );
    let name = format!("unix:@{disk}");
    let config = format!(
        "[admin]\nlisten = {name:?}\n{}",
        config(&place.path().join("data"))
    );
    let running = running.config(&config).start();
    fill(&running, 1);
    let (code, said) = running.admin_get("/backup");
    assert_eq!(code, 503);
    assert!(said.contains("bytes free"), "{said}");
    fill(&running, 2);
}

#[test]
fn status_and_metrics_tell_of_the_store() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let running = with_admin(&data, "tcp");
    fill(&running, 3);
    let store = &running.status()["store"];
    assert_eq!(store["engine"], "redb");
    assert_eq!(store["durable"], true);
    assert_eq!(store["health"], "serving");
    assert_eq!(store["directory"], text(&data));
    assert_eq!((&store["keys"], &store["revision"]), (&json!(3), &json!(3)));
    assert_eq!(running.count("portyard_store_keys"), 3);
    assert_eq!(running.count("portyard_store_revision"), 3);
    assert_eq!(running.count("portyard_store_waiting"), 0);
    assert_eq!(running.count("portyard_store_commits_total"), 3);
    assert_eq!(running.count("portyard_store_commit_seconds_count"), 3);
    assert!(running.metric("portyard_store_bytes") > 0.0);
    assert_eq!(with_memory().status()["store"]["durable"], false);
}

#[test]
fn help_names_the_commands_and_two_at_a_time_are_refused() {
    let help = kv_rpc().arg("--help").run().success();
    for word in [
        "--verify",
        "--backup",
        "--restore",
        "--directory",
        "xml-rpc",
    ] {
        assert!(help.contains(word), "{word}:\n{help}");
    }
    for wrong in [
        &["--backup", "x", "--restore", "y"][..],
        &["--verify", "x", "--backup", "y"],
        &["--directory", "x"],
    ] {
        let refused = kv_rpc().args(wrong.iter().copied()).run();
        assert_eq!(refused.code, Some(64), "{}", refused.stderr);
    }
}

fn fill(running: &Daemon, count: u64) {
    let mut rpc = Rpc::to(running);
    for number in 0..count {
        let (key, value) = (format!("key {number}"), format!("value {number}"));
        rpc.call("set", &json!([key, value])).unwrap();
    }
}

/// A daemon with an admin endpoint: on a Unix socket, or on a loopback address.
fn with_admin(data: &Path, kind: &str) -> Daemon {
    let builder = kv_rpc();
    let listen = match kind {
        "unix" => format!("unix:{}", builder.dir().join("admin.sock").display()),
        _ => "tcp://127.0.0.1:0".into(),
    };
    let config = format!("[admin]\nlisten = {listen:?}\n{}", config(data));
    builder.config(&config).start()
}

fn with_memory() -> Daemon {
    let config = "[admin]\nlisten = \"unix:@portyard-memory-PLACE\"\n[store]\nengine = \"memory\"\n\
                  [[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    let builder = kv_rpc();
    let config = config.replace("PLACE", &builder.dir().display().to_string());
    builder.config(&config).start()
}

/// The command that backs up what serves with the same configuration.
fn backup(running: &Daemon, file: &Path) -> DaemonBuilder {
    let config = text(running.config_path());
    kv_rpc().args(["--config".into(), config, "--backup".into(), text(file)])
}

fn kv_rpc() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_kv-rpc"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
