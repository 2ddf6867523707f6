//! Suites and load generators that others wrote, of which `scripts/install-peers` gets the programs and
//! `scripts/install-suites` what PyPI has.
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{KEY, neighbour, url, yard};
use portyard_testkit::{Client, Daemon, eventually, finish_within, peer};

/// Something that scripts/install-suites has put into target/peers/checks.
#[track_caller]
fn checks(program: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/peers/checks/bin")
        .join(program);
    assert!(
        found.exists(),
        "{program} is missing in target/peers/checks: run scripts/install-suites"
    );
    found
}

/// What a command prints, which must end well.
#[track_caller]
fn told(command: &mut Command) -> String {
    let finished = finish_within(command, b"", MINUTES);
    assert_eq!(
        finished.code,
        Some(0),
        "{command:?}\n{}\n{}",
        finished.stdout,
        finished.stderr
    );
    finished.stdout
}

const ECHO: &str = "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
const STORE: &str = "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\n\
    listen = [\"tcp://127.0.0.1:0\"]\n";

/// The daemons of a yard that takes no actions itself, so that a suite can ask for all of them.
fn unsteered() -> (Daemon, [Daemon; 2]) {
    let plain = |config: &str| format!("[admin]\nactions = false\n{config}");
    let echo = neighbour("echo-tcp", &plain(ECHO));
    let store = neighbour("kv-rpc", &plain(STORE));
    let client = Client::connect(&store.endpoint("json-rpc"));
    client.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"set\",\"params\":[\"a\",[1,2]]}\n");
    client.receive_line();
    // Wrong keys are a part of the suite.
    let options = "limits.penalty = \"0s\"\n[options]\n\
        yard = { actions = true, key = { scheme = \"bearer\", file = \"KEYS\" } }";
    let daemon = yard(options, &[("echo", &echo), ("store", &store)]);
    (daemon, [echo, store])
}

/// All checks of schemathesis on everything that the document says, but the stream without an end.
#[test]
fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let (daemon, _others) = unsteered();
    let place = tempfile::tempdir().unwrap();
    // A tag that is made up is the tag of nothing: 412, which the document says.
    let known = "[parameters]\n\"path.daemon\" = \"store\"\n\
        [checks.positive_data_acceptance]\n\
        expected-statuses = [\"2xx\", \"3xx\", 401, 403, 404, 409, 412, 429, \"5xx\"]\n";
    fs::write(place.path().join("schemathesis.toml"), known).unwrap();
    let document = format!("http://{}/openapi.json", daemon.address("yard"));
    let told = told(
        Command::new(checks("schemathesis"))
            .current_dir(place.path())
            .args(["run", &document, "-c", "all", "--max-examples", "30"])
            .args(["--exclude-path", "/api/v1/events", "--no-color"])
            .args(["-H", &format!("Authorization: Bearer {KEY}")]),
    );
    // What it does not find, it does not test.
    assert!(told.contains("Tested: 13"), "{told}");
    assert!(daemon.log().contains("an action was not taken"));
}

/// redbot looks for what RFC 9110 and 9111 forbid, and asks again with conditions, ranges and codings.
#[test]
fn redbot_has_nothing_bad_to_say_of_any_page() {
    let (daemon, _others) = unsteered();
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("a.txt"), "line\n".repeat(1000)).unwrap();
    let http = common::start(
        "",
        &format!(
            "[[route]]\npath = \"/files/{{name..}}\"\ndirectory = {{ path = \"{}\", listing = true }}\n\
             cache = \"max-age=60\"\n",
            files.path().display()
        ),
    );
    let pages = [
        "/hello?name=x",
        "/localtime",
        "/localtime.csv",
        "/files/a.txt",
        "/files/",
        "/none",
    ];
    let yard_pages = [
        "/yard",
        "/api/v1/yard",
        "/api/v1/yard/echo",
        "/openapi.json",
        "/metrics",
    ];
    let pages = pages.iter().map(|page| url(&http, page));
    let yard_pages = yard_pages
        .iter()
        .map(|page| format!("http://{}{page}", daemon.address("yard")));
    for page in pages.chain(yard_pages) {
        let told = told(Command::new(checks("python")).args(["-c", REDBOT, &page]));
        assert_eq!(told.trim(), "", "{page}");
    }
}

const REDBOT: &str = r"
import sys, thor
from configparser import ConfigParser
from redbot.resource import HttpResource
config = ConfigParser()
config.read_dict({'redbot': {'enable_local_access': 'true', 'charset': 'utf-8', 'lang': 'en'}})
resource = HttpResource(config['redbot'])
resource.set_request(sys.argv[1])
resource.on('check_done', thor.stop)
resource.check()
thor.run()
assert resource.response.complete, 'no whole answer'
for check in [resource] + list(resource.subreqs.values()):
    for note in check.response.notes:
        # Nobody need say how long an answer is fresh.
        if note.level.name in ('BAD', 'WARN') and not type(note).__name__.startswith('FRESHNESS_HEURISTIC'):
            print(note.level.name, type(note).__name__, str(note))
";

/// Prometheus' own parser of OpenMetrics, which is stricter than the server's.
#[test]
fn prometheus_reads_the_metrics_of_every_daemon_and_of_all() {
    let (daemon, others) = unsteered();
    let time = neighbour(
        "time-udp",
        "[[listener]]\nservice = \"daytime\"\nlisten = [\"udp://127.0.0.1:0\"]\n",
    );
    let (broker, worker) = common::broker_with_worker();
    let mut pages = vec![common::ask_yard(&daemon, "GET", "/metrics", "").text()];
    for daemon in others.iter().chain([&time, &broker, &worker, &daemon]) {
        let (code, page) = daemon.admin_get("/metrics");
        assert_eq!(code, 200);
        pages.push(page);
    }
    let script = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families\n\
        assert len(list(text_string_to_metric_families(sys.stdin.read()))) > 5\n";
    for page in pages {
        let mut parser = Command::new(checks("python"));
        let finished = finish_within(parser.args(["-c", script]), page.as_bytes(), MINUTES);
        assert_eq!(finished.code, Some(0), "{}\n{page}", finished.stderr);
    }
}

#[test]
fn load_generators_get_every_answer() {
    let daemon = common::start("", "");
    let page = url(&daemon, "/hello");
    for version in [&["--h1"][..], &["-m", "16"]] {
        let told = told(
            Command::new(peer("h2load"))
                .args(["-n", "2000", "-c", "16"])
                .args(version)
                .arg(&page),
        );
        assert!(
            told.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{told}"
        );
        assert!(told.contains("2000 2xx"), "{told}");
    }
    let wrk = told(Command::new(peer("wrk")).args(["-t1", "-c32", "-d1s", &page]));
    assert!(
        !wrk.contains("Socket errors") && !wrk.contains("Non-2xx") && wrk.contains("requests in"),
        "{wrk}"
    );
    let nghttp = told(Command::new(peer("nghttp")).args(["-v", "-n", &page]));
    assert!(nghttp.contains(":status: 200"), "{nghttp}");
}

#[test]
fn wget_fetches_resumes_and_mirrors() {
    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("sub")).unwrap();
    let text = "a line of text\n".repeat(20_000);
    fs::write(files.path().join("big.txt"), &text).unwrap();
    fs::write(files.path().join("sub/x.txt"), "x").unwrap();
    let daemon = common::start(
        "",
        &format!(
            "[[route]]\npath = \"/files/{{name..}}\"\ndirectory = {{ path = \"{}\", listing = true }}\n",
            files.path().display()
        ),
    );
    let place = tempfile::tempdir().unwrap();
    let part = place.path().join("big.txt");
    fs::write(&part, &text[..100_000]).unwrap();
    let wget = |arguments: &[&str]| {
        told(
            Command::new(peer("wget"))
                .current_dir(place.path())
                .arg("-q")
                .args(arguments),
        );
    };
    wget(&["-c", &url(&daemon, "/files/big.txt")]);
    assert_eq!(fs::read_to_string(&part).unwrap(), text);
    // It keeps what has not changed since.
    wget(&["-N", &url(&daemon, "/files/big.txt")]);
    assert_eq!(fs::read_to_string(&part).unwrap(), text);
    wget(&[
        "-r",
        "-np",
        "-nH",
        "--compression=auto",
        &url(&daemon, "/files/"),
    ]);
    let mirrored = fs::read_to_string(place.path().join("files/sub/x.txt")).unwrap();
    assert_eq!(mirrored, "x");
}

/// Slow heads, slow bodies and slow readers, of whom each would keep a thread of other servers busy.
#[test]
fn slowhttptest_never_makes_it_unavailable_and_is_cut_off() {
    let daemon = common::start("header = \"3s\"\nbody = \"3s\"", "");
    for (kind, ends) in [("-H", true), ("-B", true), ("-R", false), ("-X", false)] {
        let told = told(
            Command::new(peer("slowhttptest"))
                .args([
                    kind, "-c", "200", "-r", "200", "-i", "2", "-l", "12", "-p", "3",
                ])
                .args(["-u", &url(&daemon, "/hello")]),
        );
        assert!(
            told.contains("service available:") && !told.contains("service available:   NO"),
            "{kind}\n{told}"
        );
        // Before its own time is over.
        assert!(
            !ends || told.contains("No open connections left"),
            "{kind}\n{told}"
        );
    }
    eventually("nobody is left", || {
        daemon.status()["connections"]["present"] == 0
    });
}

const MINUTES: Duration = Duration::from_secs(240);
