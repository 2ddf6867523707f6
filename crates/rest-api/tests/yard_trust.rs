//! Service yard among strangers: over TLS with certificates, and daemons that run as users of their own.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{KEY, neighbour, yard};
use portyard_testkit::{Certificates, Daemon, Pair, eventually, finish, peer};

const ECHO: &str = "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";

/// Over TLS a certificate is as good as a key, and only the one that is named. The client is curl.
#[test]
fn a_certificate_of_the_right_name_may_act_over_tls_and_no_other() {
    let echo = neighbour("echo-tcp", ECHO);
    let pki = Certificates::new();
    let server = pki.server(&["localhost"]);
    let options = format!(
        "[listener.tls]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\n\
         client = \"optional\"\nclient_ca = \"{}\"\n[options]\n\
         yard = {{ actions = true, private = true, allow = [\"cn:ada\"] }}",
        server.chain.display(),
        server.key.display(),
        pki.ca().display()
    );
    let daemon = yard(&options, &[("echo", &echo)]);
    let base = format!("https://localhost:{}", daemon.address("yard").port());
    let curl = |path: &str, more: &[&str]| {
        let url = format!("{base}{path}");
        let ca = pki.ca().display().to_string();
        let mut arguments = vec![
            "--cacert",
            &ca,
            "-o",
            "-",
            "-w",
            " %{http_code} %{http_version}",
        ];
        arguments.extend(more);
        arguments.push(&url);
        common::curl(&arguments)
    };
    let (ada, eve) = (pki.client("ada"), pki.client("eve"));
    let shown = |pair: &Pair| {
        [
            pair.chain.display().to_string(),
            pair.key.display().to_string(),
        ]
    };
    let (ada, eve) = (shown(&ada), shown(&eve));
    let reload = "/api/v1/yard/echo/reload";
    for path in ["/api/v1/yard", "/metrics", "/api/v1/events"] {
        let refused = curl(path, &[]);
        assert!(refused.ends_with(" 403 2"), "{path} {refused}");
        let refused = curl(path, &["--cert", &eve[0], "--key", &eve[1]]);
        assert!(refused.ends_with(" 403 2"), "{path} {refused}");
    }
    let refused = curl(reload, &["-X", "POST", "--cert", &eve[0], "--key", &eve[1]]);
    assert!(refused.ends_with(" 403 2"), "{refused}");
    assert!(!echo.log().contains("configuration reloaded"));
    let with = ["--cert", &ada[0], "--key", &ada[1]];
    let told = curl("/api/v1/yard", &with);
    assert!(
        told.contains("\"name\": \"echo\"") && told.ends_with(" 200 2"),
        "{told}"
    );
    let done = curl(reload, &[&["-X", "POST", "--http1.1"], &with[..]].concat());
    assert!(
        done.contains("reloaded") && done.ends_with(" 200 1.1"),
        "{done}"
    );
    echo.wait_for_log("configuration reloaded");
    daemon.wait_for_log("by=\"certificate");
    assert!(daemon.log().contains("ada"), "{}", daemon.log());
}

/// The daemons and rest-api run as users of their own, as under their units.
#[test]
fn another_user_acts_only_as_an_actor_and_connects_only_where_the_mode_lets_him() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs to become other users: run it as root"
    );
    let admin = |daemon: &Daemon| daemon.endpoint("admin").replace("unix:", "");
    let open = |daemon: &Daemon| {
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(daemon.dir(), all).unwrap();
    };
    // What curl is told who runs as that user.
    let ask = |daemon: &Daemon, uid: &str, gid: &str, arguments: &[&str]| {
        let mut command = Command::new(peer("setpriv"));
        command.args(["--reuid", uid, "--regid", gid, "--clear-groups"]);
        command
            .arg(peer("curl"))
            .args(["-sS", "--max-time", "20", "-w", " %{http_code}"]);
        command
            .args(["--unix-socket", &admin(daemon)])
            .args(arguments);
        finish(&mut command, b"")
    };
    let reload = ["-X", "POST", "http://localhost/reload"];
    let status = ["-o", "/dev/null", "http://localhost/status"];
    // Without a mode nobody else gets as far as a word.
    let closed = neighbour(
        "echo-tcp",
        &format!("[admin]\nactions = true\nactors = [\"uid:4711\"]\n{ECHO}"),
    );
    open(&closed);
    let refused = ask(&closed, "4711", "4711", &status);
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    assert_eq!(
        std::fs::metadata(admin(&closed))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );

    let config = format!(
        "[admin]\nactions = true\nmode = \"0666\"\nactors = [\"uid:4711\", \"gid:4712\"]\n{ECHO}"
    );
    let daemon = neighbour("echo-tcp", &config);
    open(&daemon);
    assert_eq!(
        std::fs::metadata(admin(&daemon))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o666
    );
    for (uid, gid, code) in [
        ("4711", "1", "200"),
        ("1", "4712", "200"),
        ("1", "1", "403"),
        ("65534", "65534", "403"),
    ] {
        // Everybody may look.
        let told = ask(&daemon, uid, gid, &status).success();
        assert_eq!(told.trim(), "200", "{uid}:{gid}");
        let told = ask(&daemon, uid, gid, &reload).success();
        assert!(told.ends_with(code), "{uid}:{gid} {told}");
        if code == "403" {
            assert!(told.contains("admin.actors"), "{told}");
        }
    }
    daemon.wait_for_log("uid: 4711");

    for (uid, status) in [("4711", 200), ("4713", 403)] {
        steered_by_a_rest_api_of(uid, &admin(&daemon), status);
    }
}

/// A rest-api of that user steers it, or is told what is missing.
fn steered_by_a_rest_api_of(uid: &str, admin: &str, status: u16) {
    let builder = common::builder();
    let keys = builder.dir().join("keys");
    std::fs::write(&keys, format!("ada:text:{KEY}\n")).unwrap();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let user = Some(uid.parse::<u32>().unwrap());
    for path in [builder.dir(), &keys] {
        std::os::unix::fs::chown(path, user, user).unwrap();
    }
    let config = format!(
        "[[listener]]\nservice = \"yard\"\nlisten = [\"tcp://127.0.0.1:0\"]\n[listener.options]\n\
         yard = {{ actions = true, key = {{ scheme = \"bearer\", file = \"{}\" }} }}\n\
         [[yard]]\nname = \"echo\"\nadmin = \"unix:{}\"\n",
        keys.display(),
        admin
    );
    // It tells that it is ready over a socket of the test's.
    let become_it = format!(
        "chmod 666 \"$NOTIFY_SOCKET\" && exec setpriv --reuid {uid} --regid {uid} --clear-groups -- \"$0\" \"$@\""
    );
    let words = ["sh", "-c", &become_it];
    let rest = builder.config(&config).wrap(words).start();
    eventually("it is seen", || {
        common::ask_yard(&rest, "GET", "/api/v1/yard/echo", "")
            .text()
            .contains("\"state\": \"ready\"")
    });
    let told = common::ask_yard(
        &rest,
        "POST",
        "/api/v1/yard/echo/reload",
        &common::with_key(),
    );
    assert_eq!(told.status, status, "{}", told.text());
    if status == 403 {
        assert!(
            told.text().contains("echo says: ") && told.text().contains("admin.actors"),
            "{}",
            told.text()
        );
    }
}
