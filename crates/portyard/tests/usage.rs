//! The command line as a whole: help, mistakes, exit codes.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use common::run;

#[test]
fn mistakes_leave_with_64_and_name_the_way_out() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["echo", "sctp://1.2.3.4:7"],
        &["echo", "tcp://::1"],
        &["echo", "inetd"],
        &["echo", "--datagram", "tcp://127.0.0.1:7"],
        &["time", "--service", "sntp", "tcp://127.0.0.1:7"],
        &["time", "--timeout", "5"],
        &["message", "udp://127.0.0.1:7", "x"],
        &["message", "127.0.0.1:7", "--max-message", "3GiB"],
        &["array", "send", "/dev/null", "tcp://127.0.0.1:7"],
        &["array", "recv", "tcp://127.0.0.1:7", "/dev/null", "--force"],
        &["array", "recv", "tcp://127.0.0.1:7", "x", "--npy", "f3"],
        &["cidr", "192.0.2.77/24"],
        &["service", "70000"],
        &["resolve", "-4", "::1"],
        &["up", "--only", "no-such-daemon"],
        &["bench", "echo", "tcp://192.0.2.1:7"],
        &["bench", "echo", "udp://127.0.0.1:7"],
        &["bench", "echo", "--connections", "20001"],
        &["bench", "echo", "--connections", "20000", "--size", "65536"],
    ] {
        let run = run(arguments, b"").expect(64);
        assert!(!run.stderr.is_empty(), "{arguments:?}");
        assert!(run.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_is_no_mistake_and_documents_the_exit_codes() {
    let help = run(&["--help"], b"").expect(0);
    for word in ["EX_USAGE", "EX_CONFIG", "resolve", "unix:@NAME"] {
        assert!(help.text().contains(word), "{word}");
    }
    assert!(!help.text().contains("exec-activated"));
    let commands = [
        "echo", "time", "message", "array", "service", "resolve", "cidr", "up", "bench",
    ];
    for command in commands {
        let help = run(&[command, "--help"], b"").expect(0);
        assert!(help.text().contains("Examples:"), "{command}");
        assert!(help.text().contains("Exit codes:"), "{command}");
    }
}

#[test]
fn an_unknown_host_is_68() {
    // RFC 6761: names under "invalid" never exist. Without a name server there is no answer.
    let run = run(
        &["echo", "tcp://no-such-host.invalid:7", "--timeout", "5s"],
        b"",
    );
    assert!(matches!(run.code, Some(68 | 75)), "{run:?}");
    assert!(
        run.stderr.contains("no-such-host.invalid"),
        "{}",
        run.stderr
    );
}
