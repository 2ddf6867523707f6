//! The test suites of HTTP clients in Python, and httpbin's own, as their source packages have them. Each is
//! told to use our server for httpbin, and passes as many tests as with httpbin itself.
//!
//! Left out is only what asks no server of ours, and what docs/protocols/rest-api.md names.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use portyard_testkit::{Daemon, finish_within};

use super::common;
use super::suites::{MINUTES, script, suite};

/// A listener of service httpbin.
fn listener(name: &str, endpoint: &str, rest: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nservice = \"httpbin\"\nlisten = [\"tcp://{endpoint}\"]\n{rest}\n"
    )
}

fn tls(chain: &str, key: &str) -> String {
    format!("[listener.tls]\ncertificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]")
}

/// Listeners without and with TLS, `plain` and `secure`, and `more`. The certificate is that which the suites
/// believe.
#[track_caller]
fn start(more: &str) -> Daemon {
    let told = finish_within(
        Command::new(suite("httpbin/bin/python")).args([
            "-c",
            "import pytest_httpbin, os; print(os.path.dirname(pytest_httpbin.__file__))",
        ]),
        b"",
        MINUTES,
    );
    let certificates = PathBuf::from(told.success().trim()).join("certs");
    let builder = common::builder();
    // A key must be readable for nobody else.
    let key = builder.dir().join("server.key");
    fs::copy(certificates.join("server.key"), &key).expect("the key can be copied");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the copy is ours");
    let chain = certificates.join("server.pem");
    let config = [
        listener("plain", "127.0.0.1:0", ""),
        listener(
            "secure",
            "127.0.0.1:0",
            &tls(&chain.display().to_string(), &key.display().to_string()),
        ),
        more.to_owned(),
    ];
    let config = config.concat();
    builder.config(&config).lifetime(MINUTES).start()
}

/// pytest in a suite's folder, which is below its environment's, with our server for httpbin.
fn pytest(daemon: &Daemon, environment: &str, folder: &str) -> Command {
    let mut command = Command::new(suite(&format!("{environment}/bin/python")));
    command
        .current_dir(suite(&format!("{environment}/{folder}")))
        .env("PYTHONPATH", script(""))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HTTPBIN_URL", format!("http://{}", daemon.address("plain")))
        .env(
            "HTTPBIN_SECURE_URL",
            format!("https://{}", daemon.address("secure")),
        )
        .args(["-m", "pytest", "-q", "--tb=short", "-W", "ignore"])
        .args(["-p", "no:cacheprovider", "-p", "no:httpbin"]);
    // Whom this machine believes is not whom the suites mean.
    for name in [
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

/// The plugin that puts our server in the place of pytest-httpbin's.
const FIXTURES: [&str; 2] = ["-p", "external_httpbin"];

/// Runs a suite, whose last line must begin so: what failed would stand before that.
#[track_caller]
fn passes(command: &mut Command, tally: &str) {
    let finished = finish_within(command, b"", MINUTES);
    let told = finished.stdout.clone();
    assert!(
        told.lines()
            .any(|line| line.trim_start_matches(['=', ' ']).starts_with(tally)),
        "{tally} is not in\n{told}"
    );
    finished.success();
}

/// Over HTTP and HTTPS, as all that follow. Left out are the tests that dial 10.255.255.1.
#[test]
fn the_tests_of_requests_pass() {
    let daemon = start("");
    passes(
        pytest(&daemon, "httpbin", "requests-2.34.2")
            .args(FIXTURES)
            .args([
                "-k",
                "not test_connect_timeout and not test_total_timeout_connect",
            ])
            .arg("tests"),
        "613 passed, 15 skipped, 4 deselected, 1 xfailed",
    );
}

/// Left out are its own plugins, for which it calls pip; a file that root may read though it must not; two
/// guesses of an encoding that hang on another library's version; and a field whose name has brackets, which
/// gunicorn refuses as we do.
#[test]
fn the_tests_of_httpie_pass() {
    let daemon = start("");
    passes(
        pytest(&daemon, "httpbin", "httpie-3.2.4")
            .args(FIXTURES)
            .args(["--ignore", "tests/test_plugins_cli.py"])
            .args([
                "-k",
                "not test_config_file_inaccessible and not (charset_detection and big5) \
                 and not (test_nested_json_syntax and input_json17)",
            ])
            .arg("tests"),
        "985 passed",
    );
}

#[test]
fn the_tests_of_requests_futures_pass() {
    let daemon = start("");
    let mut command = pytest(&daemon, "httpbin", "requests_futures-1.1.0");
    passes(command.args(FIXTURES).arg("tests"), "30 passed");
}

/// Left out are backends that are databases, a default that is another in each version of `requests`, and
/// whether files are not in the temporary directory, where this may be.
#[test]
fn the_tests_of_requests_cache_pass() {
    let daemon = start("");
    passes(
        pytest(&daemon, "httpbin", "requests_cache-1.3.3")
            .args(["-k", "not test_response_defaults and not test_use_temp"])
            .args(["tests/unit", "tests/compat"])
            .args(
                ["memory", "filesystem", "sqlite"]
                    .map(|backend| format!("tests/integration/test_{backend}.py")),
            ),
        "1103 passed",
    );
}

/// Left out are the tests that call hosts elsewhere.
#[test]
fn the_tests_of_vcrpy_pass() {
    let daemon = start("");
    let authority = finish_within(
        Command::new(suite("httpbin/bin/python")).args(["-m", "pytest_httpbin.certs"]),
        b"",
        MINUTES,
    );
    passes(
        pytest(&daemon, "httpbin", "vcrpy-9.4.2")
            .env("REQUESTS_CA_BUNDLE", authority.success().trim())
            .args(FIXTURES)
            .args(["-m", "not online", "tests"]),
        "572 passed",
    );
}

/// A browser without a screen: it follows links of the pages, fills in their form, and downloads. Its own options
/// for pytest, which ask for plugins, are passed over. Left out is a test of a page of its own, which hangs on another
/// library's version.
#[test]
fn the_tests_of_mechanicalsoup_pass() {
    let daemon = start("");
    passes(
        pytest(&daemon, "httpbin", "mechanicalsoup-1.4.0")
            .args(FIXTURES)
            .args(["-c", "/dev/null", "--rootdir", "."])
            .args(["-k", "not test_select_form_associated_elements", "tests"]),
        "120 passed, 1 deselected",
    );
}

/// Over TCP by `external_app.py`. Left out are four tests that look into httpbin's own code, or for its refusal
/// of chunked bodies, which it takes under gunicorn too.
#[test]
fn the_tests_of_httpbin_pass() {
    let daemon = start("");
    passes(
        pytest(&daemon, "httpbin", "httpbin-0.10.4")
            .args(["-p", "external_app"])
            .args([
                "-k",
                "not test_post_chunked and not yields_bytes and not falls_back and not sources_have",
            ])
            .arg("tests"),
        "66 passed",
    );
}

/// Its tests of HTTP, and those that go to go-httpbin behind a balancer: HTTP/2 and many requests at a time on
/// it, WebSockets, server-sent events. Those of them that need HTTP/3, certificates that were revoked or hosts
/// elsewhere are left out, and those that dial 10.255.255.1.
#[test]
fn the_tests_of_niquests_pass() {
    // They have fixed ports, and so each run its own address.
    let pid = std::process::id();
    let host = format!(
        "127.{}.{}.{}",
        64 + (pid >> 14) % 128,
        (pid >> 7) % 128,
        pid % 128 + 1
    );
    let chain = suite("niquests/niquests-3.21.2/traefik/httpbin.local.pem");
    let chain = chain.display().to_string();
    let go = "options.httpbin.dialect = \"go\"\n";
    let secure = format!("{go}{}", tls(&chain, &format!("{chain}.key")));
    let more = [
        listener("balancer", &format!("{host}:8888"), go),
        listener("secure-balancer", &format!("{host}:4443"), &secure),
    ];
    let daemon = start(&more.concat());
    passes(
        pytest(&daemon, "niquests", "niquests-3.21.2")
            .env("TRAEFIK_HTTPBIN_IPV4", &host)
            .args(FIXTURES)
            .args([
                "-k",
                "not test_connect_timeout and not test_total_timeout_connect \
                 and not test_preemptive_add_http3_domain",
            ])
            .args(
                [
                    "requests",
                    "async",
                    "live",
                    "sse",
                    "websocket",
                    "multiplexed",
                ]
                .map(|part| format!("tests/test_{part}.py")),
            ),
        "417 passed",
    );
}
