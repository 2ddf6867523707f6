//! The sandbox: what it denies, to all threads; what goes on working in it; how a denial is seen.

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use nix::errno::Errno;
use nix::libc;
use portyard_testkit::intruder::{Intruder, Outcome, assert_denied, intrude, threads, unconfined};
use portyard_testkit::{Certificates, Client, Daemon, DaemonBuilder, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_echo-tcp");

/// A daemon with an admin endpoint, an echo listener, and what stands before and behind them.
fn start(top: &str, more: &str) -> Daemon {
    let builder = Daemon::build(BINARY);
    let config = config(&builder, top, more);
    builder.config(&config).start()
}

fn config(builder: &DaemonBuilder, top: &str, more: &str) -> String {
    format!(
        "{top}\nadmin.listen = \"unix:{}\"\n[[listener]]\nservice = \"echo\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n{more}\n",
        builder.dir().join("admin").display()
    )
}

#[track_caller]
fn is_echoed(daemon: &Daemon) -> bool {
    Client::connect(&daemon.endpoint("echo")).is_echoed()
}

#[test]
fn who_breaks_in_can_do_nothing_of_what_he_would_like() {
    let daemon = start("", "");
    let outside = tempfile::tempdir().unwrap();
    assert!(is_echoed(&daemon));
    let mut attempts = intrude(&daemon, outside.path());
    // It has no use for addresses, as datagrams have.
    let thread = threads(daemon.pid()).into_iter().max().unwrap();
    let what = "socket of NETLINK_ROUTE";
    let outcome = Intruder::seize(thread).call(libc::SYS_socket, &[16, 3, 0]);
    attempts.push(portyard_testkit::intruder::Attempt { what, outcome });
    assert_denied("echo-tcp", &attempts);
    assert_eq!(
        fs::read_to_string(outside.path().join("secret")).unwrap(),
        "of somebody else"
    );
    // And it serves as if nothing had been.
    assert!(is_echoed(&daemon));
}

#[test]
fn every_thread_is_in_it() {
    let daemon = start("loops = 3", "");
    assert!(threads(daemon.pid()).len() > 5);
    assert_eq!(unconfined(daemon.pid()), <[String; 0]>::default());
    let sandbox = &daemon.status()["sandbox"];
    assert_eq!(sandbox["landlock"], "full", "{sandbox}");
    assert_eq!(sandbox["seccomp"], "full", "{sandbox}");
    assert_eq!(sandbox["outside"], "nothing", "{sandbox}");
    let directory = daemon.dir().canonicalize().unwrap();
    let permits: Vec<&str> = sandbox["permits"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it.as_str())
        .collect();
    for right in ["read", "sockets"] {
        assert!(
            permits.contains(&&*format!("{right} {}", directory.display())),
            "{permits:?}"
        );
    }
    for layer in ["landlock", "seccomp"] {
        assert_eq!(
            daemon.count(&format!("portyard_sandbox{{layer=\"{layer}\"}}")),
            1
        );
    }
}

#[test]
fn off_means_off_and_then_the_same_can_be_done() {
    let daemon = start("sandbox = \"off\"", "");
    assert_eq!(daemon.status()["sandbox"]["seccomp"], "off");
    assert_eq!(daemon.count("portyard_sandbox{layer=\"landlock\"}"), 0);
    assert!(unconfined(daemon.pid()).len() > 2);
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "x").unwrap();
    let thread = threads(daemon.pid()).into_iter().max().unwrap();
    let mut intruder = Intruder::seize(thread);
    let secret = intruder.path(&secret);
    let us = u64::from(std::process::id());
    // What proves that the table of denials is the sandbox's doing.
    for (number, arguments) in [
        (libc::SYS_openat, &[u64::MAX - 99, secret, 0][..]),
        (libc::SYS_fchmodat, &[u64::MAX - 99, secret, 0o600]),
        (libc::SYS_mmap, &[0, 4096, 7, 0x22, u64::MAX, 0]),
        (libc::SYS_kill, &[us, 0]),
        (libc::SYS_personality, &[0xffff_ffff]),
        (libc::SYS_socket, &[16, 3, 0]),
    ] {
        let outcome = intruder.call(number, arguments);
        assert!(!outcome.is_denial(), "call {number}: {outcome}");
    }
    drop(intruder);
    assert!(is_echoed(&daemon));
}

#[test]
fn a_denial_fails_is_counted_and_is_told_once() {
    let daemon = start("loops = 1", "");
    let deny = || {
        let thread = threads(daemon.pid()).into_iter().max().unwrap();
        let mut intruder = Intruder::seize(thread);
        let path = intruder.path("/bin/true");
        intruder.call_through(libc::SYS_execve, &[path, 0, 0])
    };
    daemon.expect_denials();
    assert_eq!(deny(), Outcome::Failed(Errno::EPERM));
    assert_eq!(deny(), Outcome::Failed(Errno::EPERM));
    daemon.wait_for_log("the sandbox has denied a system call");
    assert_eq!(
        daemon.count("portyard_sandbox_denied_total{call=\"execve\"}"),
        2
    );
    assert_eq!(daemon.status()["sandbox"]["denied"]["execve"], 2);
    assert!(is_echoed(&daemon));
    let said = daemon.log().matches("has denied").count();
    assert_eq!(said, 1, "{}", daemon.log());
}

#[test]
fn a_reload_that_needs_more_is_refused_and_says_restart() {
    let builder = Daemon::build(BINARY);
    let before = config(&builder, "", "");
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let tls = format!(
        "[listener.tls]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\n",
        pair.chain.display(),
        pair.key.display()
    );
    let with_tls = config(&builder, "", &tls);
    let daemon = builder.config(&before).start();
    daemon.rewrite_config(&with_tls);
    let said = daemon.reload();
    let place = certificates.dir().canonicalize().unwrap();
    assert!(said.contains("restart"), "{said}");
    assert!(said.contains(&place.display().to_string()), "{said}");
    assert!(is_echoed(&daemon));
    // A host by name, which nobody has looked up before.
    daemon.rewrite_config(&before.replace("tcp://127.0.0.1:0", "tcp://localhost:0"));
    let said = daemon.reload();
    assert!(
        said.contains("by name") && said.contains("restart"),
        "{said}"
    );
    assert!(is_echoed(&daemon));
}

#[test]
fn a_reload_reads_new_files_beside_the_old_and_opens_new_ports_and_sockets() {
    let builder = Daemon::build(BINARY);
    let directory = builder.dir().to_owned();
    let keys = directory.join("keys");
    let key_file = |name: &str| {
        let new = directory.join("keys.new");
        fs::write(
            &new,
            format!("{name}:text:0123456789abcdef0123456789abcdef\n"),
        )
        .unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(&new, &keys).unwrap();
    };
    key_file("one");
    let guarded = format!(
        "[[listener]]\nservice = \"time\"\nlisten = [\"unix:{}\"]\nauth = \"recipe\"\nauth_keys = \"{}\"\n",
        directory.join("time").display(),
        keys.display()
    );
    let before = config(&builder, "", &guarded);
    let daemon = builder.config(&before).start();
    // Another inode, in the same directory.
    key_file("two");
    let more = format!(
        "[[listener]]\nservice = \"discard\"\nlisten = [\"tcp://127.0.0.1:0\", \"unix:{}\"]\nsocket.mode = \"0660\"\n",
        directory.join("discard").display()
    );
    daemon.rewrite_config(&(before + &more));
    let said = daemon.reload();
    assert!(!said.contains("refused"), "{said}");
    eventually("the new listeners are there", || {
        daemon.status()["listeners"].as_array().unwrap().len() == 4
    });
    let mode = fs::metadata(directory.join("discard")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(daemon.status()["sandbox"]["denied"], serde_json::json!({}));
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!directory.join("discard").exists() && !directory.join("time").exists());
}

#[test]
fn names_that_a_configuration_uses_are_looked_up_again_by_a_reload() {
    let builder = Daemon::build(BINARY);
    let before = config(&builder, "", "").replace("127.0.0.1:0", "localhost:0");
    let users = |user: &str| format!("access = {{ rules = [\"allow user:{user}\"] }}\n{before}");
    let daemon = builder.config(&users("root")).start();
    daemon.rewrite_config(&users("daemon"));
    let said = daemon.reload();
    assert!(!said.contains("refused"), "{said}");
    daemon.rewrite_config(&users("nobody-of-that-name"));
    let said = daemon.reload();
    assert!(said.contains("nobody-of-that-name"), "{said}");
    assert_eq!(daemon.status()["sandbox"]["denied"], serde_json::json!({}));
    let mut greeting = [0; 1];
    let stream = TcpStream::connect(daemon.address("echo")).unwrap();
    std::io::Write::write_all(&mut &stream, b"x").unwrap();
    (&stream).read_exact(&mut greeting).unwrap();
}

#[test]
fn what_a_kernel_does_not_offer_is_told_once_and_the_rest_is_used() {
    let cases = [
        ("landlock_create_ruleset", "landlock", "seccomp"),
        ("seccomp", "seccomp", "landlock"),
    ];
    for (call, missing, other) in cases {
        let builder = Daemon::build(BINARY);
        let config = config(&builder, "loops = 1", "");
        let (trace, inject) = (
            format!("trace={call}"),
            format!("inject={call}:error=ENOSYS"),
        );
        let strace = [
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        let daemon = builder.wrap(strace).config(&config).start();
        let sandbox = daemon.status()["sandbox"].clone();
        assert_eq!(sandbox[missing], "missing", "{sandbox}");
        assert_eq!(sandbox[other], "full", "{sandbox}");
        let layer = format!("portyard_sandbox{{layer=\"{missing}\"}}");
        assert_eq!(daemon.count(&layer), 0);
        assert!(is_echoed(&daemon));
        let told = daemon.log().matches("closed only in part").count();
        assert_eq!(told, 1, "{}", daemon.log());
        // Without one of them nothing is refused that it would have denied.
        assert!(!daemon.reload().contains("refused"));
    }
}
