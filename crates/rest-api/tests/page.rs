//! The page of service yard in a real browser, by way of WebDriver (W3C).

mod common;

use common::browser::{Browser, ENTER, ESCAPE, TAB};
use common::{KEY, neighbour, yard};
use portyard_testkit::{Certificates, Client};
use serde_json::Value;

const ECHO: &str = "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
const STEERED: &str = "yard = { actions = true, key = { scheme = \"bearer\", file = \"KEYS\" } }";

fn card(name: &str) -> String {
    format!("document.querySelector('.card[data-name={name}]')")
}

#[test]
fn the_page_lives_shows_who_is_gone_and_lets_only_the_holder_of_the_key_act() {
    let echo = neighbour("echo-tcp", ECHO);
    let time = neighbour(
        "time-udp",
        "[[listener]]\nservice = \"daytime\"\nlisten = [\"udp://127.0.0.1:0\"]\n",
    );
    let store = neighbour(
        "kv-rpc",
        "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n",
    );
    let daemon = yard(
        STEERED,
        &[("echo-tcp", &echo), ("time-udp", &time), ("kv-rpc", &store)],
    );
    let server = Client::connect(&store.endpoint("json-rpc"));
    server.send(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"set\",\"params\":[\"<img src=x onerror=alert(1)>\",\
         \"<script>alert(2)</script>\"]}\n",
    );
    server.receive_line();
    let browser = Browser::start(&["--window-size=1280,1000"]);
    browser.open(&url_of(&daemon, "/yard"));
    browser.wait_for(
        "all are ready",
        "document.getElementById('summary').textContent === '3 of 3 ready'",
    );
    browser.wait_for(
        "it is live",
        "document.getElementById('link').dataset.state === 'live'",
    );

    // Live: what happens now is seen without another request of ours.
    for _ in 0..5 {
        let client = Client::connect(&echo.endpoint("echo"));
        assert_eq!(client.exchange("hello"), b"hello");
    }
    let echo_card = card("echo-tcp");
    browser.wait_for("five are counted", &format!("[...{echo_card}.querySelectorAll('dl div')].some((one) => one.textContent === 'Taken5')"));
    browser.wait_for(
        "a chart is drawn",
        &format!("{echo_card}.querySelector('path.line').getAttribute('d').length > 20"),
    );

    // No key, no action.
    browser.run(&format!(
        "{echo_card}.querySelector('[data-action=reload]').click()"
    ));
    browser.wait_for(
        "it is refused",
        &format!("{echo_card}.querySelector('.said').textContent.startsWith('Refused')"),
    );
    assert!(!echo.log().contains("configuration reloaded"));
    // The focus is where the key belongs. By keyboard alone: a wrong key, then the right one.
    browser.press(&format!("wrong{ENTER}"));
    browser.run(&format!(
        "{echo_card}.querySelector('[data-action=reload]').focus()"
    ));
    browser.press(ENTER);
    browser.wait_for(
        "the server refuses it",
        &format!(
            "{echo_card}.querySelector('.said').textContent.includes('this key is not accepted')"
        ),
    );
    let complaints = browser.complaints();
    // The refusal itself is the one thing that a browser notes.
    assert!(
        complaints.len() == 1 && complaints[0]["message"].as_str().unwrap().contains("401"),
        "{complaints:?}"
    );
    browser.run("document.getElementById('key').focus()");
    browser.press(&format!("{KEY}{ENTER}"));
    browser.run(&format!(
        "{echo_card}.querySelector('[data-action=reload]').focus()"
    ));
    browser.press(ENTER);
    browser.wait_for(
        "it is done",
        &format!("{echo_card}.querySelector('.said').textContent === 'reloaded'"),
    );
    echo.wait_for_log("configuration reloaded");

    // Draining asks first, and Escape is no.
    browser.run(&format!(
        "{echo_card}.querySelector('[data-action=drain]').focus()"
    ));
    browser.press(ENTER);
    browser.wait_for("it asks", "document.getElementById('dialog').open");
    browser.press(ESCAPE);
    browser.wait_for("it does not", "!document.getElementById('dialog').open");
    assert!(!echo.log().contains("draining"));

    look_at_keys(&browser);

    // One is killed: its card says so.
    time.kill();
    browser.wait_for(
        "it is missed",
        &format!("{}.dataset.state === 'unreachable'", card("time-udp")),
    );
    browser.wait_for("the summary says so", "document.getElementById('summary').textContent === '2 of 3 ready: time-udp is unreachable'");
    browser.picture("one-is-gone.png");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn workers_of_a_broker_are_shown_and_drained_with_a_button() {
    let (broker, worker) = common::broker_with_worker();
    let daemon = yard(STEERED, &[("fd-broker", &broker)]);
    let browser = Browser::start(&["--window-size=1280,1000"]);
    browser.open(&url_of(&daemon, "/yard"));
    let row = format!("{}.querySelector('tr[data-worker]')", card("fd-broker"));
    browser.wait_for(
        "the worker is shown",
        &format!("!!{row} && {row}.dataset.state === 'serving'"),
    );
    let client = Client::connect(&broker.endpoint("hand-off"));
    client.send("hello");
    assert_eq!(client.receive(5), b"hello");
    browser.wait_for(
        "its connection is shown",
        &format!("{row}.children[3].textContent.startsWith('1 of ')"),
    );
    browser.run(&format!("{row}.querySelector('button').click()"));
    let said = format!("{}.querySelector('.said').textContent", card("fd-broker"));
    browser.wait_for(
        "no key, no action",
        &format!("{said}.startsWith('Refused')"),
    );
    browser.press(&format!("{KEY}{ENTER}"));
    browser.run(&format!("{row}.querySelector('button').focus()"));
    browser.press(ENTER);
    browser.wait_for("it asks", "document.getElementById('dialog').open");
    browser.run("document.getElementById('dialog-yes').click()");
    browser.wait_for("it drains", &format!("{row}.dataset.state === 'draining'"));
    browser.wait_for("it is said", &format!("{said} === 'draining: 1'"));
    browser.wait_for(
        "the list tells by whom",
        "document.getElementById('change-rows').textContent.includes('by key ada')",
    );
    browser.picture("worker-drains.png");
    browser.wait_for(
        "the button has turned",
        &format!("{row}.querySelector('button').textContent === 'Resume'"),
    );
    browser.run(&format!("{row}.querySelector('button').click()"));
    browser.wait_for("it serves", &format!("{row}.dataset.state === 'serving'"));
    // A worker that is gone leaves the list.
    worker.kill();
    browser.wait_for("it is gone", &format!("{row} === null"));
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

/// Keys are text, whatever is in them.
fn look_at_keys(browser: &Browser) {
    browser.run(&format!(
        "{}.querySelector('[data-action=keys]').click()",
        card("kv-rpc")
    ));
    browser.wait_for(
        "keys are shown",
        "document.querySelector('#browser-rows td')?.textContent === '<img src=x onerror=alert(1)>'",
    );
    browser.run("document.querySelector('#browser-rows button').click()");
    browser.wait_for("a value is shown", "document.getElementById('browser-value').textContent.includes('<script>alert(2)</script>')");
    browser.picture("keys.png");
    browser.press(ESCAPE);
}

/// A card for each of the five, until one is killed.
#[test]
fn all_five_daemons_are_shown_and_the_one_that_is_killed() {
    let echo = neighbour("echo-tcp", ECHO);
    let time = neighbour(
        "time-udp",
        "[[listener]]\nservice = \"daytime\"\nlisten = [\"udp://127.0.0.1:0\"]\n",
    );
    let store = neighbour(
        "kv-rpc",
        "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n",
    );
    let rest = neighbour(
        "rest-api",
        "[[listener]]\nservice = \"http\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
    );
    let (broker, _worker) = common::broker_with_worker();
    let daemon = yard(
        STEERED,
        &[
            ("echo-tcp", &echo),
            ("time-udp", &time),
            ("kv-rpc", &store),
            ("rest-api", &rest),
            ("fd-broker", &broker),
        ],
    );
    let browser = Browser::start(&["--window-size=1400,1500"]);
    browser.open(&url_of(&daemon, "/yard"));
    browser.wait_for(
        "all are ready",
        "document.getElementById('summary').textContent === '5 of 5 ready'",
    );
    // Something to see: connections that come and go, each with some bytes.
    let client = Client::connect(&broker.endpoint("hand-off"));
    for _ in 0..20 {
        client.send("hello");
        assert_eq!(client.receive(5), b"hello");
        let passing = Client::connect(&echo.endpoint("echo"));
        assert_eq!(passing.exchange("hello"), b"hello");
    }
    browser.wait_for(
        "they are counted",
        &format!(
            "[...{}.querySelectorAll('dl div')].some((one) => one.textContent === 'Taken20')",
            card("echo-tcp")
        ),
    );
    // No key, no action, of none of them.
    let refused = "[...document.querySelectorAll('.card')].every((one) => {
        one.querySelector('[data-action=reload]').click();
        return one.querySelector('.said').textContent.startsWith('Refused');
    })";
    assert_eq!(browser.run(&format!("return {refused}")), true);
    browser.picture("five-are-ready.png");
    echo.kill();
    browser.wait_for(
        "it is missed",
        "document.getElementById('summary').textContent === '4 of 5 ready: echo-tcp is unreachable'",
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('.card[data-state=ready]').length"),
        4
    );
    for daemon in [&time, &store, &rest, &broker] {
        assert!(!daemon.log().contains("configuration reloaded"));
    }
    browser.picture("five-and-one-is-killed.png");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn a_key_is_changed_in_the_browser_by_who_may_and_numbers_stay_as_they_are() {
    let store = neighbour(
        "kv-rpc",
        "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n",
    );
    let server = Client::connect(&store.endpoint("json-rpc"));
    let call = |method: &str, params: &str| {
        server.send(format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":[{params}]}}\n"
        ));
        server.receive_line()
    };
    call(
        "set",
        "\"a,\\\"value\\\":\", {\"big\":9007199254740993,\"real\":[1.0,{},[]]}",
    );
    let daemon = yard(STEERED, &[("kv-rpc", &store)]);
    let browser = Browser::start(&["--window-size=1000,1000"]);
    browser.open(&url_of(&daemon, "/yard"));
    let keys = format!("{}.querySelector('[data-action=keys]')", card("kv-rpc"));
    let open = || {
        browser.wait_for(
            "keys are offered",
            &format!("{keys} !== null && !{keys}.hidden"),
        );
        browser.run(&format!("{keys}.click()"));
        browser.wait_for(
            "a key is shown",
            "!!document.querySelector('#browser-rows button')",
        );
        browser.run("document.querySelector('#browser-rows button').click()");
        browser.wait_for("its value is", "!document.getElementById('editor').hidden");
    };
    open();
    let laid_out =
        "{\n  \"big\": 9007199254740993,\n  \"real\": [\n    1.0,\n    {},\n    []\n  ]\n}";
    assert_eq!(
        browser.run("return document.getElementById('editor-value').value"),
        laid_out
    );
    let shown = browser.run("return document.getElementById('browser-value').textContent");
    assert!(
        shown.as_str().unwrap().contains("9007199254740993"),
        "{shown}"
    );
    // Without the key it asks for it; with it, the value is what was written, to the digit.
    browser.run("document.getElementById('editor-save').click()");
    browser.wait_for(
        "the key is asked for",
        "document.activeElement.id === 'key'",
    );
    browser.press(&format!("{KEY}{ENTER}"));
    open();
    browser.run("document.getElementById('editor-value').focus()");
    // The cursor stands at the end.
    browser.run("const it = document.getElementById('editor-value'); it.setSelectionRange(it.value.length - 1, it.value.length - 1)");
    browser.press(", \"more\": 2.0");
    browser.picture("key-is-changed.png");
    browser.run("document.getElementById('editor-save').click()");
    let said = "document.getElementById('browser-said').textContent";
    browser.wait_for("it is saved", &format!("{said}.startsWith('Saved a,')"));
    let told = call("get", "\"a,\\\"value\\\":\"");
    assert!(
        told.contains("{\"big\":9007199254740993,\"real\":[1.0,{},[]],\"more\":2.0}"),
        "{told}"
    );
    // What somebody else has changed meanwhile is not written over.
    call("set", "\"a,\\\"value\\\":\", 5");
    browser.run("document.getElementById('editor-save').click()");
    browser.wait_for(
        "it is refused",
        "document.getElementById('editor-said').textContent.includes('changed meanwhile')",
    );
    // The browser notes the refusal; nothing else.
    assert_eq!(browser.complaints().len(), 1);
    browser.run("document.getElementById('browser-new').click()");
    browser.press(&format!("new{TAB}true"));
    browser.run("document.getElementById('editor-save').click()");
    browser.wait_for("another is there", &format!("{said} === 'Saved new'"));
    browser.run("document.getElementById('editor-delete').click()");
    browser.wait_for("it asks", "document.getElementById('dialog').open");
    browser.run("document.getElementById('dialog-yes').click()");
    browser.wait_for("it is gone", &format!("{said} === 'Deleted new'"));
    assert!(call("get", "\"new\"").contains("error"));
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn certificates_that_end_soon_are_told_of_above_all_cards() {
    let made = Certificates::new();
    let tls = |days: i64, name: &str| {
        let pair = made.expiring(&["localhost"], days);
        format!(
            "[[listener]]\nservice = \"echo\"\nname = \"{name}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [listener.tls]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\n",
            pair.chain.display(),
            pair.key.display()
        )
    };
    let echo = neighbour("echo-tcp", &(tls(5, "soon") + &tls(300, "later")));
    let daemon = yard("", &[("echo-tcp", &echo)]);
    let browser = Browser::start(&["--window-size=900,900"]);
    browser.open(&url_of(&daemon, "/yard"));
    let soon = "document.getElementById('soon')";
    browser.wait_for(
        "it is told",
        &format!("{soon}.textContent === '1 certificate ends within 30 days'"),
    );
    assert_eq!(
        browser.run(&format!(
            "return !!({soon}.compareDocumentPosition(document.querySelector('.card')) & 4)"
        )),
        true
    );
    let rows = browser.run(
        "return [...document.querySelectorAll('#expiring-rows tr')].map((row) => \
         row.className + '|' + row.children[0].textContent + '|' + row.children[3].textContent)",
    );
    let rows: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_str().unwrap())
        .collect();
    // What is left of the last day is no day.
    assert!(
        [
            "soon|in 5 days|echo-tcp / soon",
            "soon|in 4 days|echo-tcp / soon"
        ]
        .contains(&rows[0]),
        "{rows:?}"
    );
    assert!(
        rows[1].starts_with("|in ") && rows[1].ends_with("echo-tcp / later"),
        "{rows:?}"
    );
    browser.picture("certificate-ends-soon.png");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn of_many_daemons_those_are_shown_that_are_asked_for() {
    let echo = neighbour("echo-tcp", ECHO);
    let time = neighbour(
        "time-udp",
        "[[listener]]\nservice = \"daytime\"\nlisten = [\"udp://127.0.0.1:0\"]\n",
    );
    let names: Vec<String> = (0..30).map(|nth| format!("echo-{nth}")).collect();
    let mut members: Vec<(&str, &portyard_testkit::Daemon)> =
        names.iter().map(|name| (&**name, &echo)).collect();
    members.push(("clock", &time));
    let daemon = yard("", &members);
    let browser = Browser::start(&["--window-size=500,900"]);
    browser.open(&url_of(&daemon, "/yard"));
    browser.wait_for(
        "all are ready",
        "document.getElementById('summary').textContent === '31 of 31 ready'",
    );
    let shown = "[...document.querySelectorAll('.card')].filter((one) => !one.hidden).length";
    assert_eq!(browser.run(&format!("return {shown}")), 31);
    time.kill();
    browser.run("document.getElementById('filter-text').focus()");
    browser.press("unreachable");
    browser.wait_for("one is left", &format!("{shown} === 1"));
    assert_eq!(
        browser.run("return document.getElementById('filter-said').textContent"),
        "1 of 31 shown"
    );
    assert_eq!(
        browser.run("return document.documentElement.scrollWidth <= innerWidth"),
        true
    );
    browser.picture("many-and-one-is-asked-for.png");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn the_page_fits_a_phone_in_the_dark_and_is_walked_by_tab() {
    let echo = neighbour("echo-tcp", ECHO);
    let daemon = yard("", &[("echo-tcp", &echo)]);
    let browser = Browser::start(&[
        "--window-size=500,900",
        "--blink-settings=preferredColorScheme=0",
    ]);
    browser.open(&url_of(&daemon, "/yard"));
    browser.wait_for(
        "it is ready",
        "document.getElementById('summary').textContent === '1 of 1 ready'",
    );
    assert_eq!(
        browser.run("return document.documentElement.scrollWidth <= innerWidth"),
        true
    );
    assert_eq!(
        browser.run("return matchMedia('(prefers-color-scheme: dark)').matches"),
        true
    );
    browser.press(TAB);
    assert_eq!(
        browser.run("return document.activeElement.className"),
        "skip"
    );
    browser.press(TAB);
    assert_eq!(
        browser.run("return document.activeElement.tagName"),
        "SUMMARY"
    );
    // Nobody may act here, so nothing is offered.
    assert_eq!(
        browser.run("return document.querySelector('[data-action=drain]').hidden"),
        true
    );
    browser.picture("phone-dark.png");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

fn url_of(daemon: &portyard_testkit::Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.address("yard"))
}
