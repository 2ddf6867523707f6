//! Who may do what: nobody anything, unless a rule says so.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use portyard_core::auth::{Dialect, MinDigest, Prover, key_line, read_keys};
use portyard_core::files::FilePlace;
use portyard_core::holding::{Holder, PATIENCE};
use portyard_core::wire::hold::Reason;
use portyard_testkit::{Daemon, finish, peer};

use super::{broker, holder, name, reason, socket};

/// A broker with these rules and a control socket that everybody can reach.
fn with_rules(directory: &Path, rules: &[&str], more: &str) -> Daemon {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "[holding]\nrules = {rules:?}\n\
         [[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[hold]]\nname = \"web-admin\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[listener]]\nservice = \"control\"\nlisten = [\"unix:{}\"]\nsocket.mode = 0o666\n{more}",
        socket(directory).display()
    );
    broker().config(&config).start()
}

#[test]
fn without_a_rule_nobody_may_do_anything_not_even_root() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = with_rules(dir.path(), &[], "");
    let peer = holder(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = name("web");
    for refused in [
        peer.retrieve(&web).map(drop),
        peer.delete(&web),
        peer.store(&name("x"), &[listener.as_fd()], None, false),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(reason(&refused), Some(Reason::NotAllowed));
        // The message is the rule that is missing.
        let rule = format!("uid:{}\" to holding.rules", geteuid());
        assert!(refused.to_string().contains(&rule), "{refused}");
    }
    assert_eq!(peer.list().unwrap(), []);
    // What is not there looks the same as what is not allowed.
    let refused = peer.retrieve(&name("nope")).unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::NotAllowed));
}

#[test]
fn patterns_and_users_decide() {
    let dir = tempfile::tempdir().unwrap();
    let user = format!("uid:{}", geteuid());
    let rules = [
        format!("allow list,retrieve web* {user}"),
        format!("deny all *-admin {user}"),
        "allow all * uid:4000000".into(),
        format!("allow store job-? {user}"),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let _broker = with_rules(dir.path(), &rules, "");
    let peer = holder(dir.path());
    assert!(peer.retrieve(&name("web")).is_ok());
    assert!(peer.retrieve(&name("web-admin")).is_err());
    let listed = peer.list().unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = |text, replace| peer.store(&name(text), &[listener.as_fd()], None, replace);
    store("job-1", false).unwrap();
    assert!(store("job-10", false).is_err());
    // Replacing is deleting, too.
    let refused = store("job-1", true).unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::NotAllowed));
    assert!(refused.to_string().contains("delete job-1"), "{refused}");
    assert!(peer.delete(&name("job-1")).is_err());
}

#[test]
fn another_user_is_known_by_the_kernel_and_not_by_what_it_says() {
    assert!(
        geteuid().is_root(),
        "run this test as root: nobody else can be another user"
    );
    let dir = tempfile::tempdir().unwrap();
    let rules = [
        "allow retrieve web uid:0",
        "allow retrieve web-admin uid:65534",
    ];
    let _broker = with_rules(dir.path(), &rules, "");
    // A program that we did not write, as nobody: RETRIEVE, then what came.
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
         s.connect({:?})\n\
         for name in (b'web', b'web-admin'):\n\
         \x20   s.send(bytes([0x42, 0, 0, len(name) + 1, len(name)]) + name)\n\
         \x20   data, fds, flags, _ = socket.recv_fds(s, 16384, 4)\n\
         \x20   print(hex(data[0]), len(fds), data[6:].decode('ascii', 'replace'))\n",
        socket(dir.path()).display().to_string()
    );
    let mut command = std::process::Command::new(peer("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(peer("python3")).args(["-c", &script]);
    let run = finish(&mut command, b"");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("0xc4 0"), "{}", run.stdout);
    assert!(lines[0].contains("uid:65534"), "{}", run.stdout);
    assert!(lines[1].starts_with("0xc2 1"), "{}", run.stdout);
}

#[test]
fn a_key_is_as_good_as_a_user_where_a_rule_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&keys);
    let lines = [
        key_line("ops", b"secret of ops"),
        key_line("web", b"secret of web"),
    ];
    std::io::Write::write_all(&mut file.unwrap(), lines.join("\n").as_bytes()).unwrap();
    let auth = format!(
        "auth = \"mutual\"\nauth_keys = {:?}\n",
        keys.display().to_string()
    );
    let rules = ["allow retrieve web key:web", "allow all * key:ops"];
    let _broker = with_rules(dir.path(), &rules, &auth);
    let all = read_keys(&FilePlace::Path(keys.clone())).unwrap();
    let proved = |key: &str| {
        let holder = Holder::connect(&socket(dir.path()), PATIENCE).unwrap();
        let prover = Prover::new(Dialect::Mutual, &all, Some(key), MinDigest::default());
        holder.prove(&prover.unwrap()).unwrap();
        holder
    };
    let web = proved("web");
    assert!(web.retrieve(&name("web")).is_ok());
    let refused = web.retrieve(&name("web-admin")).unwrap_err();
    assert!(refused.to_string().contains("key:web"), "{refused}");
    let ops = proved("ops");
    assert!(ops.retrieve(&name("web-admin")).is_ok());
    // Who proves nothing is not even asked what it wants.
    let silent = Holder::connect(&socket(dir.path()), Duration::from_secs(20)).unwrap();
    assert!(silent.retrieve(&name("web")).is_err());
}

#[test]
fn wrong_tables_are_78_and_say_what_a_right_one_looks_like() {
    let hold = "[[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    for (config, said) in [
        (
            format!("{hold}[holding]\nrules = [\"allow web\"]\n"),
            "allow retrieve web user:www-data",
        ),
        (format!("{hold}{hold}"), "is there twice"),
        (hold.replace("web", "a b"), "printable ASCII"),
        (
            hold.replace("[\"tcp://127.0.0.1:0\"]", "[]"),
            "listen is empty",
        ),
        (
            hold.replace("tcp://127.0.0.1:0", "broker:/x#y"),
            "cannot be held here",
        ),
        (
            hold.replace("tcp://127.0.0.1:0", "sctp://x:1"),
            "known endpoint scheme",
        ),
        (
            format!("{hold}kind = \"packet\"\n").replace("tcp://", ""),
            "keeps messages whole",
        ),
    ] {
        let run = broker().config(&config).args(["--check"]).run();
        assert_eq!(run.code, Some(78), "{config}");
        assert!(run.stderr.contains(said), "no {said:?} in {}", run.stderr);
    }
}
