//! Suites that others wrote, which `scripts/install-suites` gets: Autobahn's cases for WebSockets, and
//! httpbin itself to compare with.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portyard_testkit::{Daemon, eventually, finish_within, pythons};

use super::common;

/// Something that scripts/install-suites has put into target/peers.
#[track_caller]
pub fn suite(path: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/peers")
        .join(path);
    assert!(
        found.exists(),
        "{path} is missing in target/peers: run scripts/install-suites"
    );
    found
}

/// A file of ours beside this one.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/httpbin")
        .join(name)
}

/// Autobahn's cases, but those that take its Python many minutes: of speed (9) the sizes, and of compression
/// (12, 13) each setting with some sizes.
#[test]
fn autobahns_cases_pass() {
    let pythons = pythons();
    let python = pythons.iter().find(|python| python.version == (2, 7));
    let python = python.expect("Autobahn's suite needs Python 2.7");
    let modules = suite("autobahn");
    let builder = common::builder();
    // Cases about speed (9) send 16 MiB at once, and wait for a while.
    let config = "[[listener]]\nservice = \"httpbin\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
        [listener.options]\nmax_body = \"16MiB\"\nhttpbin.max_duration = \"5min\"\n";
    let daemon = builder.config(config).lifetime(MINUTES).start();
    let reports = daemon.dir().join("reports");
    let target = "/websocket/echo?max_fragment_size=16777216";
    let all = [
        "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.*", "9.2.*", "10.*",
    ];
    let mut cases: Vec<String> = all.map(String::from).into();
    for (group, settings, sizes) in [(12, 1..6, &[1, 4, 9][..]), (13, 1..8, &[1, 5])] {
        for setting in settings {
            cases.extend(sizes.iter().map(|size| format!("{group}.{setting}.{size}")));
        }
    }
    let cases = serde_json::json!(cases);
    let plan = format!(
        r#"{{"outdir": "{}", "servers": [{{"agent": "ours", "url": "ws://{}{target}"}}],
            "cases": {cases}, "exclude-cases": [], "exclude-agent-cases": {{}}}}"#,
        reports.display(),
        daemon.address("httpbin"),
    );
    let file = daemon.dir().join("plan.json");
    fs::write(&file, plan).unwrap();
    finish_within(
        Command::new(&python.path)
            .current_dir(daemon.dir())
            // It has packages that are spread over several places.
            .args([
                "-c",
                "import os, site; site.addsitedir(os.environ['MODULES']); \
                   from autobahntestsuite.wstest import run; run()",
            ])
            .env("MODULES", modules)
            .args(["-m", "fuzzingclient", "-s"])
            .arg(&file),
        b"",
        MINUTES,
    )
    .success();
    let report = fs::read_to_string(reports.join("index.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let cases = report["ours"].as_object().unwrap();
    assert_eq!(cases.len(), 247 + 12 + 15 + 14);
    for (case, result) in cases {
        for part in ["behavior", "behaviorClose"] {
            let verdict = result[part].as_str().unwrap();
            // Informational cases have no right answer.
            assert!(
                ["OK", "INFORMATIONAL"].contains(&verdict),
                "{case}: {part} is {verdict}"
            );
        }
    }
}

/// httpbin under gunicorn, ended when it goes.
struct Original {
    child: Child,
    address: SocketAddr,
}

impl Original {
    #[track_caller]
    fn start() -> Self {
        // It opens its socket itself, so a port is looked for that is free now.
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = free.local_addr().expect("a listener has an address");
        drop(free);
        let child = Command::new(suite("httpbin/bin/gunicorn"))
            .args([
                "--no-control-socket",
                "--log-level",
                "error",
                "--threads",
                "4",
                "-b",
            ])
            .args([&address.to_string(), "httpbin:app"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gunicorn starts");
        let original = Self { child, address };
        eventually("gunicorn takes connections", || {
            TcpStream::connect(address).is_ok()
        });
        original
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default());
        // Its workers end with it.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// The same requests to httpbin and to ours, whose answers may differ only as the script lists it.
#[test]
fn answers_are_those_of_httpbin() {
    let original = Original::start();
    let config = "[[listener]]\nservice = \"httpbin\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
                  options.httpbin.prefixes = { \"/deep/down\" = \"python\" }\n";
    let daemon: Daemon = common::builder().config(config).lifetime(MINUTES).start();
    for prefix in ["", "/deep/down"] {
        let finished = finish_within(
            Command::new(suite("httpbin/bin/python"))
                .arg(script("differential.py"))
                .args([
                    original.address.to_string(),
                    daemon.address("httpbin").to_string(),
                ])
                .arg(prefix),
            b"",
            MINUTES,
        );
        let told = finished.success();
        assert!(told.contains("223 requests, 0 differences"), "{told}");
    }
}

/// Keeps a suite that hangs from holding everything.
pub const MINUTES: Duration = Duration::from_secs(300);
