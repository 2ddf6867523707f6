//! HTTP/1.1 on a bare socket: what is refused, what is told, and when a connection ends.

mod common;

use std::time::{Duration, Instant};

use common::{Answer, answer, ask, get, read, start};
use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, End, eventually, open_fds};

fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.endpoint("http"))
}

/// The answer to bytes, behind which the connection must close in order.
#[track_caller]
fn refused(daemon: &Daemon, bytes: &str) -> Answer {
    let client = connect(daemon);
    client.send(bytes);
    let answer = answer(&client);
    assert_eq!(answer.field("connection"), Some("close"), "{bytes:?}");
    assert_eq!(client.end(), End::Fin, "{bytes:?}");
    answer
}

#[test]
fn what_could_smuggle_a_request_is_refused_and_ends_the_connection() {
    let daemon = start("", "");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut count = 0;
    for (fields, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x5\r\n", 400),
        ("Content-Length: 5 5\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length : 5\r\n", 400),
        (" Content-Length: 5\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: chunked, identity\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: \"chunked\"\r\n", 501),
        ("Transfer-Encoding:\x0bchunked\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            400,
        ),
        ("X: a\r\n b\r\n", 400),
        ("X: a\rContent-Length: 5\r\n", 400),
        ("X: a\nContent-Length: 5\r\n", 400),
        ("X: a\0b\r\n", 400),
        ("X\r\n", 400),
        (": a\r\n", 400),
        ("Host: evil\r\n", 400),
    ] {
        let bytes = format!("POST /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello");
        let answer = refused(&daemon, &bytes);
        assert_eq!(answer.status, status, "{fields:?}");
        assert!(answer.text().contains("\"detail\":"), "{}", answer.text());
        count += 1;
    }
    for line in [
        "GET /hello HTTP/1.1\r\n",
        "GET  /hello HTTP/1.1\r\nHost: a\r\n",
        "GET /hello  HTTP/1.1\r\nHost: a\r\n",
        "GET /hello\tHTTP/1.1\r\nHost: a\r\n",
        "GET /hel lo HTTP/1.1\r\nHost: a\r\n",
        "GET /hello HTTP/1.1 \r\nHost: a\r\n",
        "GET /hello HTTP/1.1\nHost: a\n",
        "GET /<b> HTTP/1.1\r\nHost: a\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n",
        "GET /hello\r\nHost: a\r\n",
        "G\u{e4}T /hello HTTP/1.1\r\nHost: a\r\n",
        "GET /hello HTTP/1.1\r\nHost: a b\r\n",
        "GET /hello HTTP/1.1\r\nHost: u@a\r\n",
        "GET /hello HTTP/1.1\r\nHost: a, b\r\n",
        "GET http://u:p@a/hello HTTP/1.1\r\nHost: a\r\n",
        "GET ftp://a/hello HTTP/1.1\r\nHost: a\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n",
    ] {
        assert_eq!(
            refused(&daemon, &format!("{line}\r\n")).status,
            400,
            "{line:?}"
        );
        count += 1;
    }
    for line in ["GET / HTTP/2.0", "GET / HTTP/1.10", "GET / HTTP/0.9"] {
        assert_eq!(
            refused(&daemon, &format!("{line}\r\nHost: a\r\n\r\n")).status,
            505,
            "{line}"
        );
        count += 1;
    }
    // A chunk that is none breaks the body off; the connection ends with it.
    for body in [
        "x\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n",
        "1\r\nab\r\n",
        "10000000000000000\r\n",
    ] {
        let client = connect(&daemon);
        client.send(format!(
            "POST /hello HTTP/1.1\r\nHost: a\r\n{chunked}\r\n{body}"
        ));
        // The method is refused before the body is looked at.
        assert_eq!(answer(&client).status, 405, "{body:?}");
        assert_eq!(client.receive_all().0, b"", "{body:?}");
    }
    assert_eq!(
        daemon.count("portyard_bad_input_total{listener=\"http\",service=\"http\"}"),
        count
    );
}

#[test]
fn good_requests_before_a_bad_one_are_answered() {
    let daemon = start("", "");
    let client = connect(&daemon);
    let good = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("{good}{good}GET /hello HTTP/1.1\r\n\r\n{good}"));
    for _ in 0..2 {
        assert_eq!(answer(&client).status, 200);
    }
    assert_eq!(answer(&client).status, 400);
    assert_eq!(client.end(), End::Fin);
}

#[test]
fn lenience_that_the_rules_allow_is_kept() {
    let daemon = start("", "");
    for head in [
        "\r\nGET /hello HTTP/1.1\r\nHost: a\r\n",
        "GET /hello HTTP/1.0\r\n",
        "GET /hello HTTP/1.1\r\nHost:\r\n",
        "GET /hello HTTP/1.1\r\nhOST:   a:80  \r\nX-Empty:\r\n",
        "GET http://b/hello HTTP/1.1\r\nHost: a\r\n",
        "GET /hello?a=%00&b={}|^ HTTP/1.1\r\nHost: [::1]:8080\r\n",
    ] {
        let client = connect(&daemon);
        client.send(format!("{head}\r\n"));
        assert_eq!(answer(&client).status, 200, "{head:?}");
    }
}

#[test]
fn a_connection_is_kept_until_somebody_ends_it() {
    let daemon = start("", "");
    let client = connect(&daemon);
    for _ in 0..3 {
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer(&client).status, 200);
    }
    client.send("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(answer(&client).status, 200);
    assert_eq!(client.end(), End::Fin);
    let old = connect(&daemon);
    old.send("GET /hello HTTP/1.0\r\n\r\n");
    let head = answer(&old).head;
    assert_eq!(old.end(), End::Fin, "{head}");
}

#[test]
fn a_connection_that_has_rested_goes_on() {
    let daemon = start("", "");
    let client = connect(&daemon);
    client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer(&client).status, 200);
    // Longer than it takes to let go of its memory; the next request comes in two halves.
    std::thread::sleep(Duration::from_millis(2600));
    client.send("GET /hello HTT");
    assert!(client.is_silent_for(Duration::from_millis(200)));
    client.send("P/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer(&client).status, 200);
    assert_eq!(answer(&client).status, 200);
}

#[test]
fn a_silent_connection_ends_as_early_whoever_has_answered_on_it() {
    let builder = common::builder();
    let config = common::config(&builder, "", "[listener.limits]\nidle = \"3s\"\n");
    let config = format!("log.level = \"debug\"\n{config}");
    let daemon = builder.config(&config).start();
    // HEAD goes through hyper; this GET does not.
    let ask = |method: &str| {
        let client = connect(&daemon);
        client.send(format!("{method} /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(read(&client, method == "HEAD").status, 200);
        client
    };
    let (first, second) = (ask("HEAD"), ask("GET"));
    assert_eq!((first.end(), second.end()), (End::Fin, End::Fin));
    let ended = |client: &Client| {
        let peer = client.local_address().to_string();
        daemon.wait_for_log(&format!("peer={peer} why=idle"));
        daemon.log().find(&format!("peer={peer} why=idle"))
    };
    // Its deadline began first.
    assert!(ended(&first) < ended(&second), "{}", daemon.log());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let daemon = start("", "");
    let client = connect(&daemon);
    let mut requests = String::new();
    for n in 0..500 {
        requests += "GET /hello?name=";
        requests += &n.to_string();
        requests += " HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n";
    }
    client.send(requests);
    for n in 0..500 {
        assert_eq!(answer(&client).text(), format!("Hello, {n}!\n"));
    }
}

#[test]
fn answers_at_once_and_those_that_take_time_keep_their_order_and_are_made_once() {
    let routes = "[[route]]\npath = \"/run\"\nname = \"run\"\nrate = \"1/h\"\nburst = 2\ncgi = { program = \"/usr/bin/printf\", \
        arguments = [\"Content-Type: text/plain\\n\\nran\"] }\n\
        [[route]]\npath = \"/took\"\nmethods = [\"POST\"]\ntemplate = { body = \"taken\" }\n";
    let daemon = start("access_log = true", routes);
    let client = connect(&daemon);
    let get = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n");
    let post = "POST /took HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let hello = get("/hello");
    for (requests, answers) in [
        (
            vec![&*hello, &get("/run"), &hello, post, &hello],
            vec![
                "Hello, world!\n",
                "ran",
                "Hello, world!\n",
                "taken",
                "Hello, world!\n",
            ],
        ),
        (vec![&*get("/run"), &hello], vec!["ran", "Hello, world!\n"]),
        (
            vec![post, post, &hello],
            vec!["taken", "taken", "Hello, world!\n"],
        ),
    ] {
        client.send(requests.concat());
        for text in answers {
            assert_eq!(answer(&client).text(), text);
        }
    }
    let count = |route| {
        daemon.count(&format!(
            "portyard_http_requests_total{{route=\"{route}\",class=\"2xx\"}}"
        ))
    };
    assert_eq!((count("run"), count("/hello")), (2, 5));
    eventually("each has its line", || {
        let log = daemon.log();
        let whole = log
            .lines()
            .filter(|line| line.contains("whole=true"))
            .count();
        whole == 10
    });
}

#[test]
fn heads_and_targets_have_caps() {
    let daemon = start(
        "max_header = \"4KiB\"\nmax_uri = \"1KiB\"\nmax_fields = 20",
        "",
    );
    let long = format!(
        "GET /hello?{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "a".repeat(1100)
    );
    assert_eq!(refused(&daemon, &long).status, 414);
    let many = format!(
        "GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "A: b\r\n".repeat(20)
    );
    assert_eq!(refused(&daemon, &many).status, 431);
    let big = format!(
        "GET /hello HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n",
        "a".repeat(5000)
    );
    assert_eq!(refused(&daemon, &big).status, 431);
    let endless = format!("GET /hello HTTP/1.1\r\nA: {}", "a".repeat(5000));
    assert_eq!(refused(&daemon, &endless).status, 431);
}

#[test]
fn a_slow_head_ends_at_its_deadline_however_it_drips() {
    let daemon = start("header = \"1s\"", "");
    let (silent, dripping, good) = (connect(&daemon), connect(&daemon), connect(&daemon));
    good.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer(&good).status, 200);
    let start = Instant::now();
    for client in [&silent, &dripping, &good] {
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\n");
    }
    while start.elapsed() < Duration::from_millis(1500) && dripping.try_send("X") {
        std::thread::sleep(Duration::from_millis(50));
    }
    for client in [&silent, &good] {
        let answer = answer(client);
        assert_eq!(answer.status, 408, "{}", answer.head);
        assert_eq!(client.end(), End::Fin);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

const SINK: &str = "[[route]]\npath = \"/sink\"\nmethods = [\"POST\"]\n\
    proxy = { to = \"unix:/nonexistent\" }\n[[route]]\npath = \"/rpc\"\n\
    rpc = { server = \"unix:/nonexistent\", method = \"echo\", parameters = [\"{{body}}\"] }\n";

#[test]
fn a_slow_body_ends_at_its_deadline() {
    let daemon = start("body = \"1s\"", SINK);
    let client = connect(&daemon);
    let begun = Instant::now();
    client.send("POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n[");
    let answer = answer(&client);
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert_eq!(client.receive_all().1, End::Fin);
    assert!((1..8).contains(&begun.elapsed().as_secs()));
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let daemon = start("max_body = \"1MiB\"", SINK);
    let client = connect(&daemon);
    client.send("POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 10737418240\r\n\r\n");
    let told = answer(&client);
    assert_eq!(told.status, 413);
    assert!(told.text().contains("1048576 bytes"), "{}", told.text());
    assert_eq!(client.end(), End::Fin);
    // Who waits to be asked is not asked.
    let polite = connect(&daemon);
    polite.send(
        "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(answer(&polite).status, 413);
    // Without a length it is refused as soon as it is too long.
    let chunked = connect(&daemon);
    chunked.send("POST /rpc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    for _ in 0..17 {
        let _ = chunked.try_send(&chunk);
    }
    assert_eq!(answer(&chunked).status, 413);
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_asked() {
    let daemon = start("", SINK);
    let client = connect(&daemon);
    client
        .send("POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.receive_line(), "HTTP/1.1 100 Continue\r\n");
    assert_eq!(client.receive_line(), "\r\n");
    client.send("[]");
    assert_eq!(answer(&client).status, 502);
}

#[test]
fn head_and_options_are_answered_everywhere() {
    let daemon = start("", "");
    for path in ["/hello", "/localtime", "/localtime.json"] {
        let (got, headed) = (get(&daemon, path), ask(&daemon, "HEAD", path, "", ""));
        assert_eq!(headed.status, 200);
        for name in ["content-type", "content-length", "cache-control", "vary"] {
            assert_eq!(got.field(name), headed.field(name), "{path} {name}");
        }
        let options = ask(&daemon, "OPTIONS", path, "", "");
        assert_eq!(
            (options.status, options.field("allow")),
            (204, Some("GET, HEAD, OPTIONS"))
        );
        let wrong = ask(&daemon, "DELETE", path, "", "");
        assert_eq!(
            (wrong.status, wrong.field("allow")),
            (405, Some("GET, HEAD, OPTIONS"))
        );
    }
    let all = ask(&daemon, "OPTIONS", "*", "", "");
    assert!(all.status == 204 && all.field("allow").unwrap().contains("PATCH"));
    assert_eq!(ask(&daemon, "BREW", "/hello", "", "").status, 501);
    assert_eq!(ask(&daemon, "HEAD", "/nothing", "", "").status, 404);
}

#[test]
fn a_head_request_leaves_the_connection_in_step() {
    let daemon = start("", "");
    let client = connect(&daemon);
    client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read(&client, true).status, 200);
    assert!(answer(&client).text().contains("Hello, world!"));
}

#[test]
fn only_the_hosts_that_are_named_are_served() {
    let daemon = start("hosts = [\"a.example\", \"localhost\"]", "");
    assert_eq!(get(&daemon, "/hello").status, 200);
    for (host, status) in [
        ("A.EXAMPLE:80", 200),
        ("evil.example", 421),
        ("a.example.evil", 421),
    ] {
        let client = connect(&daemon);
        client.send(format!("GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer(&client).status, status, "{host}");
    }
}

#[test]
fn a_drain_ends_idle_connections_and_answers_what_has_begun() {
    let daemon = start("", "");
    let (idle, fresh) = (connect(&daemon), connect(&daemon));
    idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer(&idle).status, 200);
    let half = connect(&daemon);
    half.send("GET /hello HTTP/1.1\r\n");
    eventually("the connections", || {
        daemon.count("portyard_connections{listener=\"http\",service=\"http\"}") == 3
    });
    daemon.signal(Signal::SIGTERM);
    half.send("Host: a\r\n\r\n");
    let last = answer(&half);
    assert_eq!(last.status, 200);
    for client in [&idle, &fresh, &half] {
        assert_eq!(client.end(), End::Fin);
    }
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn a_busy_client_is_told_to_leave_with_its_next_answer_when_the_daemon_drains() {
    let daemon = start("", "");
    let client = connect(&daemon);
    let asked = || {
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        answer(&client).field("connection") == Some("close")
    };
    assert!(!asked());
    daemon.signal(Signal::SIGTERM);
    // It is never silent for as long as a drain waits with those that are.
    eventually("an answer that is the last", asked);
    assert_eq!(client.end(), End::Fin);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn a_peer_that_takes_nothing_holds_no_memory_and_is_cut() {
    let builder = common::builder();
    let text = common::config(&builder, "", "");
    let text = text.replace(
        "[listener.options]",
        "[listener.limits]\nwrite_stall = \"1s\"\n[listener.options]",
    );
    let daemon = builder.config(&text).start();
    let client = Client::connect_narrow(daemon.address("http"), 4096);
    let request = "GET /localtime HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let before = portyard_testkit::anonymous_bytes(daemon.pid());
    while client.send_some(request.as_bytes()) > 0 {}
    eventually("the cut", || {
        daemon.count(
            "portyard_connections_ended_total{listener=\"http\",service=\"http\",reason=\"write_stall\"}",
        ) == 1
    });
    let grown = portyard_testkit::anonymous_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[test]
fn sixty_four_descriptors_are_enough_to_go_on() {
    let builder = common::builder();
    let text = common::config(&builder, "", "");
    let daemon = builder.config(&text).nofile(64).start();
    let held: Vec<_> = (0..100)
        .filter_map(|_| Client::try_connect(daemon.address("http")).ok())
        .collect();
    eventually("the limit", || open_fds(daemon.pid()) >= 40);
    drop(held);
    eventually("an answer", || {
        let client = Client::try_connect(daemon.address("http"));
        client.is_ok_and(|client| {
            client.try_send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                && client.try_receive(15).is_some()
        })
    });
}

#[test]
fn a_connection_that_rests_costs_less_than_two_kilobytes() {
    let daemon = start("", "");
    let request = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    let stirring = connect(&daemon);
    let stir = || {
        stirring.send(request);
        assert_eq!(answer(&stirring).status, 200);
    };
    let connected = || {
        let client = connect(&daemon);
        client.send(request);
        assert_eq!(answer(&client).status, 200);
        client
    };
    let warm: Vec<_> = (0..50).map(|_| connected()).collect();
    let before = portyard_testkit::anonymous_bytes(daemon.pid());
    let held: Vec<_> = (0..800).map(|_| connected()).collect();
    eventually("memory back", || {
        // The allocator gives back when it is asked for something.
        stir();
        let grown = portyard_testkit::anonymous_bytes(daemon.pid()).saturating_sub(before);
        grown / 800 < 2048
    });
    drop((warm, held));
}

#[test]
fn a_body_that_nobody_reads_is_no_end_unless_it_is_long_or_late() {
    let daemon = start("", "");
    let head = "POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let client = connect(&daemon);
    for _ in 0..20 {
        client.send(head);
        client.send("4\r\ndata\r\n");
        client.send("0\r\n\r\n");
        let answer = answer(&client);
        assert_eq!((answer.status, answer.field("connection")), (405, None));
    }
    let long = "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let waits =
        "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    for request in [head, long, waits] {
        let client = connect(&daemon);
        client.send(request);
        let answer = answer(&client);
        let told = (answer.status, answer.field("connection"));
        assert_eq!(told, (405, Some("close")), "{request}");
        assert_eq!(client.end(), End::Fin);
    }
}
