//! What is wrong with a configuration is said with file, line and remedy, and ends the daemon with
//! 78 before anything is opened.

mod common;

use std::path::Path;

use common::{SERVICES, listener, time_udp};

#[test]
fn each_mistake_names_its_line_and_what_to_do() {
    let sntp = |options: &str| {
        format!(
            "{}[listener.options]\n{options}\n",
            listener("sntp", "udp://127.0.0.1:0", "")
        )
    };
    let fib = |options: &str| {
        format!(
            "{}[listener.options]\n{options}\n",
            listener("fib", "udp://127.0.0.1:0", "")
        )
    };
    let echo = |limits: &str| listener("echo", "udp://127.0.0.1:0", limits);
    for (text, line, words) in [
        (
            listener("ecko", "udp://127.0.0.1:0", ""),
            2,
            &["'ecko'", "ctime", "fib"][..],
        ),
        (
            listener("echo", "tcp://127.0.0.1:0", ""),
            3,
            &["tcp://127.0.0.1:0", "udp://"],
        ),
        (listener("echo", "udp://127.0.0.1", ""), 3, &["port"]),
        (listener("echo", "udp://::1:0", ""), 3, &["brackets"]),
        (sntp("stratum = 16"), 2, &["stratum = 16", "0 to 15"]),
        (sntp("reference = \"GPS\""), 2, &["reference", "stratum"]),
        (
            sntp("stratum = 1\nreference = \"TOOLONG\""),
            2,
            &["TOOLONG", "four characters"],
        ),
        (
            sntp("stratum = 1\nreference = \"192.0.2.7\""),
            2,
            &["192.0.2.7"],
        ),
        (sntp("strata = 1"), 7, &["strata", "stratum"]),
        (fib("max_n = 313451"), 2, &["313451", "313450"]),
        (fib("max_n = -1"), 7, &["-1"]),
        (echo("rate = \"100\""), 5, &["100/s"]),
        (echo("burst = 0"), 5, &["0"]),
        (echo("max_datagram = \"1x\""), 5, &["64KiB"]),
        (echo("amplification = 0"), 5, &["0"]),
        (echo("strickt = true"), 5, &["strickt", "strict"]),
        // Stream limits are none of ours.
        (echo("per_source = 1"), 5, &["per_source"]),
        (
            echo("") + "[listener.socket]\ndscp = 8\n",
            2,
            &["dscp", "mark"],
        ),
        (
            "graze = \"1s\"\n".to_owned() + &echo(""),
            1,
            &["graze", "grace"],
        ),
    ] {
        let finished = time_udp().config(&text).arg("--check").run();
        assert_eq!(finished.code, Some(78), "{text}\n{}", finished.stderr);
        for word in words {
            assert!(
                finished.stderr.contains(word),
                "{word} is not said of\n{text}{}",
                finished.stderr
            );
        }
        let place = format!("config.toml:{line}:");
        assert!(
            finished.stderr.contains(&place),
            "{place} is not said of\n{text}{}",
            finished.stderr
        );
        assert_eq!(
            finished.stderr.trim_end().lines().count(),
            1,
            "{}",
            finished.stderr
        );
        // A daemon that starts says the same.
        let started = time_udp().config(&text).run();
        assert_eq!(started.code, Some(78), "{}", started.stderr);
    }
}

#[test]
fn a_file_without_listeners_is_refused_with_an_example() {
    let finished = time_udp().config("").arg("--check").run();
    assert_eq!(finished.code, Some(78));
    assert!(
        finished.stderr.contains("[[listener]]"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_missing_file_is_named() {
    let finished = time_udp()
        .args(["--config", "/nonexistent.toml", "--check"])
        .run();
    assert_eq!(finished.code, Some(78));
    assert!(
        finished.stderr.contains("/nonexistent.toml"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_wrong_command_line_is_64() {
    for words in [
        &["--no-such-option"][..],
        &["--log-level", "loud"],
        &["--inetd", "time"],
        &["--explain", "not-an-address"],
    ] {
        let finished = time_udp().args(words.to_vec()).run();
        assert_eq!(finished.code, Some(64), "{words:?}: {}", finished.stderr);
    }
    for endpoint in [
        "tcp://127.0.0.1:0=ctime",
        "udp://127.0.0.1:0=nonsense",
        "127.0.0.1",
        "sctp://x:1",
    ] {
        let finished = time_udp().listen(endpoint).run();
        assert_eq!(finished.code, Some(78), "{endpoint}: {}", finished.stderr);
    }
}

#[test]
fn the_shipped_file_is_good_and_says_what_is_built_in() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/time-udp.toml");
    let shipped = shipped.to_str().unwrap();
    let checked = time_udp().args(["--config", shipped, "--check"]).run();
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let with = time_udp()
        .args(["--config", shipped, "--print-config"])
        .run()
        .success();
    let without = time_udp().arg("--print-config").run().success();
    assert_eq!(with, without, "the shipped file changes a default");
}

#[test]
fn the_printed_configuration_is_one() {
    let printed = time_udp().arg("--print-config").run().success();
    for service in SERVICES {
        assert!(
            printed.contains(&format!("service = \"{service}\"")),
            "{printed}"
        );
    }
    let again = time_udp()
        .config(&printed)
        .arg("--print-config")
        .run()
        .success();
    assert_eq!(again, printed);
}

#[test]
fn explain_names_the_rule_and_its_line() {
    let text = "[access]\nrules = [\n\"deny 192.0.2.0/24 scans us\",\n\"allow 192.0.2.7\",\n]\n"
        .to_owned()
        + &listener("ctime", "udp://127.0.0.1:0", "");
    let explain = |address: &str| {
        time_udp()
            .config(&text)
            .args(["--explain", address])
            .run()
            .success()
    };
    let denied = explain("192.0.2.1");
    assert!(
        denied.contains("deny") && denied.contains("scans us"),
        "{denied}"
    );
    assert!(denied.contains("config.toml:3"), "{denied}");
    let allowed = explain("192.0.2.7");
    assert!(
        allowed.contains("allow") && allowed.contains("config.toml:4"),
        "{allowed}"
    );
    assert!(explain("2001:db8::1").contains("allow"));
}

#[test]
fn help_lists_every_service_with_its_port() {
    let help = time_udp().arg("--help").run().success();
    for (service, port) in SERVICES
        .iter()
        .zip([3737, 3713, 3738, 3714, 3707, 3709, 3723, 3715])
    {
        let row = help
            .lines()
            .find(|line| line.split_whitespace().next() == Some(service));
        let row = row.unwrap_or_else(|| panic!("{service} is not in\n{help}"));
        assert!(row.contains(&port.to_string()), "{row}");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_74() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let finished = std::process::Command::new(env!("CARGO_BIN_EXE_time-udp"))
        .arg("--print-config")
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert_eq!(finished.status.code(), Some(74), "{stderr}");
    assert!(
        stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
}
