//! `portyard yard` with a real rest-api and a real echo-tcp behind it.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use common::{beside, run};
use portyard_testkit::{Daemon, eventually};

fn daemon(program: &str, config: impl FnOnce(&Path) -> String) -> Daemon {
    let builder = Daemon::build(beside(program));
    let config = config(builder.dir());
    builder.config(&config).start()
}

#[test]
fn the_state_of_all_is_a_table_or_json_and_the_exit_code() {
    let echo = daemon("echo-tcp", |dir| {
        format!(
            "admin.listen = \"unix:{}\"\n[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
            dir.join("admin").display()
        )
    });
    let rest = daemon("rest-api", |dir| {
        format!(
            "[[listener]]\nservice = \"yard\"\nlisten = [\"tcp://127.0.0.1:0\", \"unix:{}\"]\n\
             [[yard]]\nname = \"the-echo\"\nadmin = \"{}\"\nevery = \"200ms\"\n",
            dir.join("yard").display(),
            echo.endpoint("admin")
        )
    });
    let endpoint = rest.endpoint("yard");
    eventually("it is ready", || {
        run(&["yard", &endpoint], b"").code == Some(0)
    });
    let told = run(&["yard", &endpoint], b"").expect(0);
    let lines: Vec<_> = told.text().lines().collect();
    assert!(
        lines[0].starts_with("NAME ") && lines.len() == 2,
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("the-echo  ready  echo-tcp "),
        "{lines:?}"
    );
    let unix = format!("unix:{}", rest.dir().join("yard").display());
    let json = run(&["yard", &unix, "--json"], b"").expect(0);
    let json: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["daemons"][0]["name"], "the-echo");
    echo.kill();
    eventually("it is missed", || {
        run(&["yard", &endpoint], b"").code == Some(1)
    });
    let told = run(&["yard", &endpoint], b"").expect(1);
    assert!(
        told.text().contains("the-echo: nothing listens there"),
        "{}",
        told.text()
    );
    drop(rest);
    let gone = run(&["yard", &endpoint, "--timeout", "5s"], b"");
    assert_eq!(gone.code, Some(69), "{}", gone.stderr);
}

/// What a terminal of 80 columns and 24 lines is shown, by Python's pty.
const WATCHED: &str = r"
import fcntl, os, pty, signal, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
seen = b''
while seen.count(b'\x1b[J') < 4: seen += os.read(terminal, 65536)
os.kill(pid, signal.SIGTERM); os.waitpid(pid, 0)
# The first may have been drawn before the terminal had its size.
frame = seen.split(b'\x1b[J')[2].decode()
assert frame.startswith('\x1b[H'), repr(frame)
lines = frame[3:].split('\x1b[K\r\r\n')
assert lines.pop() == ''
print(*lines, sep='\n')
";

#[test]
fn a_watch_fits_into_the_window_with_what_needs_a_look_first() {
    let rest = daemon("rest-api", |dir| {
        let members = (0..40).map(|nth| {
            let admin = if nth == 30 { "admin" } else { "nobody" };
            let (name, admin) = ("n".repeat(40), dir.join(admin));
            format!(
                "[[yard]]\nname = \"{nth}-{name}\"\nadmin = \"unix:{}\"\nevery = \"200ms\"\n",
                admin.display()
            )
        });
        let members = members.collect::<Vec<_>>().concat();
        format!(
            "admin.listen = \"unix:{}\"\n[[listener]]\nservice = \"yard\"\n\
             listen = [\"tcp://127.0.0.1:0\"]\n{members}",
            dir.join("admin").display()
        )
    });
    let endpoint = rest.endpoint("yard");
    eventually("all are known", || {
        let told = run(&["yard", &endpoint], b"");
        told.text().matches(" unreachable ").count() == 39
    });
    let us = env!("CARGO_BIN_EXE_portyard");
    let watch = |endpoint: &str| {
        let arguments = [us, "yard", endpoint, "--watch", "--every", "50ms"];
        common::python(WATCHED, &arguments)
    };
    let shown = watch(&endpoint);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 23, "{shown}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(
        lines[0].starts_with("NAME ") && lines[0].contains("TAKEN/s"),
        "{shown}"
    );
    assert!(
        lines[1..15].iter().all(|line| line.contains("unreach")),
        "{shown}"
    );
    assert!(lines[22].ends_with("make the window higher"), "{shown}");
    // A yard that is away is told of in place, not once more below.
    drop(rest);
    let shown = watch(&endpoint);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.starts_with("nothing answers at"), "{shown}");
}

#[test]
fn the_address_of_the_page_will_do_and_what_is_no_yard_is_said_to_be_none() {
    let rest = daemon("rest-api", |dir| {
        format!(
            "[[listener]]\nservice = \"yard\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [[listener]]\nservice = \"httpbin\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [[listener]]\nservice = \"http\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [[yard]]\nname = \"nobody\"\nadmin = \"unix:{}\"\n",
            dir.join("nobody").display()
        )
    });
    let page = format!("http://{}/yard", rest.address("yard"));
    let told = run(&["yard", &page], b"").expect(1);
    assert!(told.text().contains("nobody"), "{}", told.text());
    for service in ["httpbin", "http"] {
        let other = run(&["yard", &rest.endpoint(service)], b"").expect(65);
        assert!(
            other.stderr.contains("404") && other.stderr.contains("service yard?"),
            "{}",
            other.stderr
        );
    }
    let secure = run(&["yard", "https://yard.example.org/yard"], b"").expect(64);
    assert!(
        secure.stderr.contains("tcp://yard.example.org:443 --tls"),
        "{}",
        secure.stderr
    );
    let datagrams = run(&["yard", "udp://127.0.0.1:9"], b"").expect(64);
    assert!(
        datagrams.stderr.contains("takes datagrams"),
        "{}",
        datagrams.stderr
    );
}

#[test]
fn a_pause_of_nothing_is_no_pause() {
    let run = run(&["yard", "--watch", "--every", "0s"], b"").expect(64);
    assert!(run.stderr.contains("at least 50ms"), "{}", run.stderr);
}

const KEY: &str = "a key that is long enough for anybody";

/// A rest-api whose yard is for holders of [`KEY`] alone.
fn private() -> Daemon {
    daemon("rest-api", |dir| {
        let keys = dir.join("keys");
        secret(&keys, &format!("ada:text:{KEY}\n"));
        format!(
            "[[listener]]\nservice = \"yard\"\nlisten = [\"tcp://127.0.0.1:0\"]\n[listener.options]\n\
             yard = {{ private = true, key = {{ scheme = \"bearer\", file = \"{}\" }} }}\n\
             [[yard]]\nname = \"nobody\"\nadmin = \"unix:{}\"\nevery = \"200ms\"\n",
            keys.display(),
            dir.join("nobody").display()
        )
    })
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_private_yard_is_shown_to_who_has_the_token() {
    let rest = private();
    let endpoint = rest.endpoint("yard");
    let refused = run(&["yard", &endpoint], b"");
    assert_eq!(refused.code, Some(77), "{}", refused.stderr);
    assert!(refused.stderr.contains("show a key"), "{}", refused.stderr);
    let token = rest.dir().join("token");
    let with = |text: &str| {
        secret(&token, text);
        run(
            &["yard", &endpoint, "--token", token.to_str().unwrap()],
            b"",
        )
    };
    assert_eq!(with("another key\n").code, Some(77));
    let told = with(&format!("{KEY}\n"));
    // One daemon is not ready: it was never there.
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.text().contains("nobody  un"), "{}", told.text());
    // A token that everybody can read is none, nor is an empty file.
    assert_eq!(with("\n").code, Some(78));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let open = run(
        &["yard", &endpoint, "--token", token.to_str().unwrap()],
        b"",
    );
    assert!(
        open.code != Some(1) && open.stderr.contains("token"),
        "{}",
        open.stderr
    );
}

#[test]
fn a_watch_goes_on_when_the_yard_is_away_and_tells_what_changes() {
    let echo = daemon("echo-tcp", |dir| {
        format!(
            "admin.listen = \"unix:{}\"\n[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
            dir.join("admin").display()
        )
    });
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("yard");
    let start = || {
        daemon("rest-api", |_| {
            format!(
                "[[listener]]\nservice = \"yard\"\nlisten = [\"unix:{}\"]\n\
                 [[yard]]\nname = \"the-echo\"\nadmin = \"{}\"\nevery = \"200ms\"\n",
                socket.display(),
                echo.endpoint("admin")
            )
        })
    };
    let rest = start();
    let endpoint = format!("unix:{}", socket.display());
    let mut watch = common::portyard()
        .args(["yard", &endpoint, "--watch", "--every", "100ms", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut complaints = BufReader::new(watch.stderr.take().unwrap()).lines();
    let mut until = |state: &str| {
        loop {
            let line = told.next().unwrap().unwrap();
            let told: serde_json::Value = serde_json::from_str(&line).unwrap();
            if told["daemons"][0]["state"] == state {
                return;
            }
        }
    };
    until("ready");
    rest.kill();
    drop(rest);
    let said = complaints.next().unwrap().unwrap();
    assert!(said.contains("yard"), "{said}");
    let _rest = start();
    until("ready");
    echo.kill();
    until("unreachable");
    watch.kill().unwrap();
    watch.wait().unwrap();
    // The table is shown again and again as well.
    let mut watch = common::portyard()
        .args(["yard", &endpoint, "--watch", "--every", "50ms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(watch.stdout.take().unwrap()).lines();
    let heads = told
        .map_while(Result::ok)
        .filter(|line| line.starts_with("NAME "));
    assert_eq!(heads.take(3).count(), 3);
    watch.kill().unwrap();
    watch.wait().unwrap();
}
