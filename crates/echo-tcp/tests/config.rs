//! What the command line and the configuration may say, and what is told when they are wrong.

use std::fmt::Write as _;

use portyard_testkit::{Daemon, DaemonBuilder, Finished};
use toml::{Table, Value};

/// A wrong configuration, the line at fault (0: the file as a whole), and words that must be in
/// the message: the key, and what to do.
const WRONG: [(&str, usize, &[&str]); 24] = [
    ("loop = 2\n", 1, &["loop", "loops"]),
    ("loops = 0\n", 1, &["nonzero"]),
    ("grace = \"10\"\n", 1, &["30s"]),
    ("grace = 10\n", 1, &["30s"]),
    ("grace = \"-1s\"\n", 1, &["30s"]),
    ("max_connections = -1\n", 1, &["u32"]),
    ("[log]\nlevel = \"loud\"\n", 2, &["loud", "error", "debug"]),
    ("[log]\nlevl = \"info\"\n", 2, &["levl", "level"]),
    ("[admin]\nlisten = \"127.0.0.1\"\n", 2, &["port"]),
    (
        "[access]\nrules = [\n\"allow 10.0.0.0/8\",\n\"permit ::1\"]\n",
        4,
        &["permit ::1", "allow"],
    ),
    (
        "[access]\nrules = [\"deny 10.0.0.0/33\"]\n",
        2,
        &["10.0.0.0/33", "deny 192.0.2.7"],
    ),
    ("[[listener]]\nlisten = []\n", 1, &["service"]),
    (
        "[[listener]]\nservice = \"echoo\"\nlisten = [\"tcp://[::1]:0\"]\n",
        2,
        &["echoo", "chargen"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = []\n",
        2,
        &["listen", "tcp://127.0.0.1"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://::1:7\"]\n",
        3,
        &["brackets"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = [\"sctp://[::1]:7\"]\n",
        3,
        &["sctp", "tcp://"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = [\"udp://[::1]:7\"]\n",
        3,
        &["udp", "tcp://"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = [\"unix:relative\"]\n",
        3,
        &["relative", "/"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = \"tcp://[::1]:7\"\n",
        3,
        &["string", "sequence"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://[::1]:7\"]\n[listener.limits]\nrate = \"5\"\n",
        5,
        &["100/s"],
    ),
    (
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://[::1]:7\"]\n[listener.limits]\nburst = 0\n",
        5,
        &["nonzero"],
    ),
    (
        "[[listener]]\nservice = \"timestamp\"\nlisten = [\"tcp://[::1]:7\"]\noptions.max_line = \"2MiB\"\n",
        2,
        &["max_line", "1MiB"],
    ),
    (
        "[[listener]]\nservice = \"command\"\nlisten = [\"tcp://[::1]:7\"]\noptions.root = \"/none/such\"\n",
        2,
        &["options.root", "/none/such"],
    ),
    (
        "grace = \"1s\"\n",
        0,
        &["[[listener]]", "service = \"echo\""],
    ),
];

#[test]
fn a_wrong_file_is_78_and_names_file_line_key_and_remedy() {
    let mut mistakes = String::new();
    for (text, line, words) in WRONG {
        let finished = daemon().config(text).arg("--check").run();
        let place = if line == 0 {
            "config.toml: ".into()
        } else {
            format!("config.toml:{line}:")
        };
        let told = &finished.stderr;
        for word in words.iter().copied().chain([place.as_str()]) {
            if !told.contains(word) {
                let _ = writeln!(mistakes, "no {word} for\n{text}{told}");
            }
        }
        // A start comes to the same end as a check.
        let started = daemon().config(text).run();
        let codes = (finished.code, started.code);
        if codes != (Some(78), Some(78)) || !finished.stdout.is_empty() {
            let _ = writeln!(mistakes, "{codes:?} and {:?} for\n{text}", finished.stdout);
        }
    }
    assert!(mistakes.is_empty(), "{mistakes}");
}

#[test]
fn a_text_that_is_no_toml_is_78_and_names_the_line() {
    for text in [
        "grace = \n",
        "grace = \"1s\"\ngrace = \"2s\"\n",
        "[log\n",
        "\u{0}\n",
    ] {
        let finished = daemon().config(text).arg("--check").run();
        assert_eq!(finished.code, Some(78), "{text}\n{}", finished.stderr);
        assert!(
            finished.stderr.contains("config.toml:"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_78() {
    for path in ["/none/such.toml", "/", "/dev/zero"] {
        // A file without an end must be given up before the memory is.
        let limit = ["prlimit", "--as=1000000000", "--"];
        let finished = daemon()
            .wrap(limit)
            .args(["--config", path, "--check"])
            .run();
        assert_eq!(finished.code, Some(78), "{path}: {}", finished.stderr);
        assert!(finished.stderr.contains(path), "{}", finished.stderr);
        assert!(!finished.stderr.contains("memory"), "{}", finished.stderr);
    }
}

#[test]
fn a_good_file_and_the_built_in_defaults_pass_the_check() {
    let good = "[[listener]]\nservice = \"echo\"\nlisten = [\"127.0.0.1:7007\", \"unix:@x\"]\n";
    let said = daemon().config(good).arg("--check").run().success();
    assert_eq!(said, "echo-tcp: the configuration is good\n");
    daemon().arg("--check").run().success();
}

#[test]
fn an_admin_endpoint_that_others_can_reach_is_78() {
    for place in ["tcp://0.0.0.0:0", "tcp://[::]:0"] {
        let text = format!(
            "admin.listen = \"{place}\"\n[[listener]]\nservice = \"echo\"\n\
             listen = [\"tcp://127.0.0.1:0\"]\n"
        );
        let finished = daemon().config(&text).run();
        assert_eq!(finished.code, Some(78), "{}", finished.stderr);
        assert!(finished.stderr.contains("loopback"), "{}", finished.stderr);
    }
}

#[test]
fn what_print_config_prints_is_taken_and_says_the_same() {
    let rich = "grace = \"1500ms\"\nmax_connections = 100\nloops = 1\n\
        [log]\nformat = \"json\"\n\
        [admin]\nlisten = \"unix:@admin\"\n\
        [access]\ndefault = \"deny\"\nrules = [\"allow 10.0.0.0/8 ours\", \"deny ::1\"]\n\
        [[listener]]\nservice = \"timestamp\"\nname = \"front\"\nlisten = [\"127.0.0.1:0\", \"unix:/x/y\"]\n\
        access = { rules = [\"deny 192.0.2.1 two words\"] }\n\
        socket = { dscp = 10, mode = \"0660\", receive_buffer = \"64KiB\", keepalive = \"0s\" }\n\
        options = { max_line = \"10kB\", quiet = \"0s\" }\n\
        [listener.limits]\nrate = \"90/min\"\nper_source = 3\nat_limit = \"banner\"\nbanner = \"a\\r\\n\\u0007\"\n\
        [[listener]]\nservice = \"sleep\"\nlisten = [\"systemd:naps\", \"fd:7\"]\n";
    let printed = daemon().config(rich).arg("--print-config").run().success();
    daemon().config(&printed).arg("--check").run().success();
    let again = daemon()
        .config(&printed)
        .arg("--print-config")
        .run()
        .success();
    assert_eq!(printed, again);
    // Nothing that was said is lost, and defaults are said, too.
    let table: Table = printed.parse().unwrap();
    let front = &table["listener"][0];
    let texts = [
        (&table["grace"], "1500ms"),
        (&table["access"]["rules"][0], "allow 10.0.0.0/8 ours"),
        (&front["listen"][0], "tcp://127.0.0.1:0"),
        (&front["access"]["rules"][0], "deny 192.0.2.1 two words"),
        (&front["limits"]["banner"], "a\r\n\u{7}"),
        (&front["limits"]["at_limit"], "banner"),
        (&table["listener"][1]["limits"]["at_limit"], "queue"),
    ];
    for (value, wanted) in texts {
        assert_eq!(value.as_str(), Some(wanted), "{printed}");
    }
    assert_eq!(front["socket"]["mode"], Value::String("0660".into()));
}

#[test]
fn the_defaults_that_are_printed_are_what_runs_without_a_file() {
    let printed = daemon().arg("--print-config").run().success();
    daemon().config(&printed).arg("--check").run().success();
    assert_eq!(
        daemon()
            .config(&printed)
            .arg("--print-config")
            .run()
            .success(),
        printed
    );
    let table: Table = printed.parse().unwrap();
    let listeners = table["listener"].as_array().unwrap();
    let services: Vec<_> = listeners
        .iter()
        .map(|one| one["service"].as_str().unwrap())
        .collect();
    let all = [
        "echo",
        "discard",
        "chargen",
        "daytime",
        "time",
        "timestamp",
        "command",
        "sleep",
        "message",
        "array-source",
        "array-sink",
    ];
    assert_eq!(services, all);
    for listener in listeners {
        let place = listener["listen"][0].as_str().unwrap();
        let port = place.strip_prefix("tcp://127.0.0.1:").unwrap();
        assert!(port.parse::<u16>().unwrap() >= 1024, "{place}");
    }
}

#[test]
fn explain_prints_the_deciding_rule_and_its_line() {
    let text = "[access]\nrules = [\n  \"allow 10.0.0.0/8\",\n  \"deny 10.1.2.0/24 scans us\",\n]\n\
        [[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
        [[listener]]\nservice = \"time\"\nlisten = [\"tcp://127.0.0.1:0\"]\naccess.default = \"deny\"\n";
    let explain = |address: &str| daemon().config(text).args(["--explain", address]).run();
    let told = explain("10.1.2.3").success();
    let lines: Vec<&str> = told.lines().collect();
    let [echo, time] = lines[..] else {
        panic!("{told}")
    };
    assert!(
        echo.starts_with("echo tcp://127.0.0.1:0 deny: rule \"deny 10.1.2.0/24 scans us\" at ")
    );
    assert!(echo.ends_with("config.toml:4"), "{echo}");
    assert!(
        time.starts_with("time ") && time.contains("deny: no rule matches"),
        "{time}"
    );
    assert!(
        explain("10.9.9.9")
            .success()
            .contains("allow: rule \"allow 10.0.0.0/8\" at ")
    );
    assert!(explain("::ffff:10.1.2.3").success().contains("deny: rule"));
    assert!(
        explain("2001:db8::1")
            .success()
            .contains("allow: no rule matches")
    );
}

#[test]
fn a_wrong_listen_argument_is_78_and_says_which() {
    let wrong = [
        ("tcp://127.0.0.1:0=echoo", "echoo"),
        ("udp://127.0.0.1:0=echo", "udp"),
        ("nowhere=echo", "nowhere"),
        ("systemd:none=echo", "LISTEN_FDS"),
        ("fd:77=echo", "fd:77"),
    ];
    for (argument, word) in wrong {
        let Finished { code, stderr, .. } = daemon().listen(argument).run();
        assert_eq!(code, Some(78), "{argument}: {stderr}");
        assert!(stderr.contains(word), "{argument}: {stderr}");
    }
}

#[test]
fn a_listen_argument_takes_the_settings_that_the_file_has_for_its_service() {
    let text = "[[listener]]\nservice = \"timestamp\"\nlisten = [\"tcp://127.0.0.1:1\"]\n\
                options.max_line = 100\n";
    let printed = daemon()
        .config(text)
        .listen("127.0.0.1:2=timestamp")
        .listen("unix:@a=b=echo")
        .arg("--print-config")
        .run()
        .success();
    let table: Table = printed.parse().unwrap();
    assert_eq!(
        table["listener"][0]["listen"][0].as_str(),
        Some("tcp://127.0.0.1:2")
    );
    assert_eq!(
        table["listener"][0]["options"]["max_line"].as_str(),
        Some("100B")
    );
    assert_eq!(
        table["listener"][1]["listen"][0].as_str(),
        Some("unix:@a=b")
    );
    assert_eq!(table["listener"].as_array().unwrap().len(), 2);
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}
