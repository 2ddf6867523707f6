//! The page of service yard in a real browser, where daemons say what no daemon of ours says, and people are
//! faster than the server.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use common::browser::{Browser, ENTER};
use common::{neighbour, yard};
use portyard_testkit::Client;
use serde_json::{Value, json};

/// An admin endpoint that tells a status, made of how often it was asked, and that all is well; and the
/// table for it.
fn member(name: &str, status: impl Fn(u64) -> Value + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut asked = 0;
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while matches!(stream.read_line(&mut line), Ok(1..)) {
                if line.starts_with("GET") {
                    asked += u64::from(line.starts_with("GET /status"));
                    let body = if line.starts_with("GET /status") {
                        status(asked).to_string()
                    } else {
                        "ok".into()
                    };
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                    if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
                line.clear();
            }
        }
    });
    format!("[[yard]]\nname = \"{name}\"\nadmin = \"tcp://{address}\"\nevery = \"200ms\"\n")
}

/// The page at this address, with a window that is as wide as a desk's.
fn open(daemon: &portyard_testkit::Daemon) -> Browser {
    let browser = Browser::start(&["--window-size=1200,900"]);
    browser.open(&format!("http://{}/yard", daemon.address("yard")));
    browser
}

/// The fact of this name on a card.
fn fact(daemon: &str, name: &str) -> String {
    format!(
        "[...document.querySelectorAll('[data-name={daemon}] dl div')].find((one) => \
         one.firstChild.textContent === '{name}')?.lastChild.textContent"
    )
}

#[test]
fn a_daemon_that_says_nonsense_spoils_the_page_for_no_other() {
    let far = json!({ "kind": "certificate", "name": "far", "file": "x", "days_left": 5, "not_after": u64::MAX });
    let odd = move |_| json!({ "daemon": "odd", "listeners": [{ "name": "x", "connections": {}, "trust": { "expiries": [far] } }] });
    let echo = neighbour(
        "echo-tcp",
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
    );
    let daemon = yard(&member("odd", odd), &[("echo-tcp", &echo)]);
    let browser = open(&daemon);
    browser.wait_for(
        "the certificate is shown",
        "document.getElementById('expiring-rows').textContent.includes('far')",
    );
    // News of both go on to come, on one stream.
    let client = Client::connect(&echo.endpoint("echo"));
    assert_eq!(client.exchange("hello"), b"hello");
    browser.wait_for(
        "it is counted",
        &format!("{} === '1'", fact("echo-tcp", "Taken")),
    );
    assert_eq!(
        browser.run("return document.getElementById('link').dataset.state"),
        "live"
    );
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn long_names_and_large_figures_stay_within_their_card() {
    let wide = "W".repeat(64);
    let busy = move |asked: u64| {
        let moved = asked * 300_000;
        json!({ "daemon": "busy", "version": "1", "pid": 7, "connections": { "present": 4, "limit": 50 },
            "listeners": [
                { "name": wide, "endpoint": "tcp://127.0.0.1:1", "received_bytes": moved, "sent_bytes": moved,
                  "connections": { "present": 4, "limit": 4, "accepted": asked, "ended": { "write_stall_x": 1 } } },
                { "name": "udp", "endpoint": "udp://127.0.0.1:1", "datagrams": { "received": 3 } },
            ] })
    };
    let daemon = yard(&member("busy", busy), &[]);
    let browser = open(&daemon);
    // Of one with datagrams beside its connections these are told all the same.
    browser.wait_for(
        "its connections are told",
        &format!("{} === '4 of 50'", fact("busy", "Connections")),
    );
    browser.wait_for(
        "its rates are",
        "/^\\S+ [KM]iB, \\S+ [KM]iB$/.test(document.querySelectorAll('.chart output')[1].textContent)",
    );
    for fits in [
        "document.documentElement.scrollWidth <= innerWidth",
        "[...document.querySelectorAll('.chart, .limits li')].every((one) => one.scrollWidth <= one.clientWidth)",
    ] {
        assert_eq!(browser.run(&format!("return {fits}")), true, "{fits}");
    }
    browser.picture("long-and-large.png");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn keys_are_listed_once_however_often_they_are_asked_for() {
    let store = neighbour(
        "kv-rpc",
        "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n",
    );
    let server = Client::connect(&store.endpoint("json-rpc"));
    for n in 0..120 {
        server.send(format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"set\",\"params\":[\"k{n:03}\",{n}]}}\n"
        ));
        server.receive_line();
    }
    let daemon = yard("", &[("kv-rpc", &store)]);
    let browser = open(&daemon);
    let keys = "document.querySelector('[data-name=kv-rpc] [data-action=keys]')";
    browser.wait_for(
        "keys are offered",
        &format!("{keys} !== null && !{keys}.hidden"),
    );
    // What is asked, and whether all of it has been answered.
    browser.run(
        "const real = window.fetch; window.open_asks = 0; window.fetch = async (...all) => {
            if (!String(all[0]).includes('/keys?')) return real(...all);
            window.open_asks += 1;
            const answer = await real(...all);
            // Longer than what the page does with it.
            const told = await answer.clone().text();
            setTimeout(() => { window.open_asks -= 1; }, told ? 100 : 0);
            return answer;
        };",
    );
    browser.run(&format!("{keys}.click()"));
    let list =
        "[...document.querySelectorAll('#browser-rows button')].map((one) => one.textContent)";
    let wait_for = |what: &str, rows: u32| {
        browser.wait_for(
            what,
            &format!("window.open_asks === 0 && {list}.length >= {rows}"),
        );
        assert_eq!(
            browser.run(&format!("return {list}.length")),
            rows,
            "{what}"
        );
        assert_eq!(
            browser.run(&format!("return new Set({list}).size")),
            rows,
            "{what}"
        );
    };
    wait_for("the first are there", 50);
    browser.run("const more = document.getElementById('browser-more'); more.click(); more.click()");
    wait_for("those that follow are", 100);
    browser.run("const form = document.getElementById('browser-form'); form.requestSubmit(); form.requestSubmit()");
    wait_for("the first are there again", 50);
    // The last that was asked for is shown.
    browser.run(
        "document.getElementById('prefix').value = 'k00';
         const form = document.getElementById('browser-form'); form.requestSubmit();
         document.getElementById('prefix').value = 'k119'; form.requestSubmit()",
    );
    wait_for("one is left", 1);
    assert_eq!(browser.run(&format!("return {list}[0]")), "k119");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn a_key_in_any_script_is_shown_and_a_wrong_one_is_called_wrong() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("keys");
    std::fs::write(
        &file,
        "ada:text:\u{43a}\u{43b}\u{44e}\u{447} that is long enough\n",
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let options = format!(
        "yard = {{ actions = true, private = true, key = {{ scheme = \"bearer\", file = \"{}\" }} }}",
        file.display()
    );
    let daemon = yard(&options, &[]);
    let browser = open(&daemon);
    let summary = "document.getElementById('summary').textContent";
    browser.wait_for(
        "a key is asked for",
        &format!("{summary} === 'A key is needed to look.'"),
    );
    let show = |key: &str| {
        browser.run("document.getElementById('key').focus()");
        browser.press(&format!("{key}{ENTER}"));
    };
    show("another that is long enough");
    browser.wait_for(
        "it is called wrong",
        "document.getElementById('key-help').textContent === 'This key is not accepted.'",
    );
    show("\u{43a}\u{43b}\u{44e}\u{447} that is long enough");
    browser.wait_for(
        "all is shown",
        &format!("{summary} === 'No daemon is named.'"),
    );
    // The browser notes both refusals, and nothing else.
    assert_eq!(browser.complaints().len(), 2);
}

#[test]
fn who_may_have_a_certificate_is_not_asked_for_a_key_by_the_page() {
    let echo = neighbour(
        "echo-tcp",
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
    );
    let options = "yard = { actions = true, allow = [\"cn:ada\"], key = { scheme = \"bearer\", file = \"KEYS\" } }";
    let daemon = yard(options, &[("echo-tcp", &echo)]);
    let browser = open(&daemon);
    let reload = "document.querySelector('[data-name=echo-tcp] [data-action=reload]')";
    browser.wait_for(
        "actions are offered",
        &format!("{reload} !== null && !{reload}.hidden"),
    );
    browser.run(&format!("{reload}.click()"));
    // The server has been asked: it knows of no certificate here.
    let said = "document.querySelector('[data-name=echo-tcp] .said').textContent";
    browser.wait_for(
        "the server has refused",
        &format!("{said}.startsWith('Refused: ')"),
    );
    let said = browser.run(&format!("return {said}"));
    assert!(
        !said.as_str().unwrap().contains("top of the page"),
        "{said}"
    );
    // The browser notes the refusal.
    assert_eq!(browser.complaints().len(), 1);
}
