//! What kv-rpc's own part of the configuration may say, and where the data goes without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use portyard_testkit::{Daemon, DaemonBuilder};

/// A wrong configuration, and words that must be in the message.
const WRONG: [(&str, &[&str]); 13] = [
    (
        "[store]\nengine = \"memory\"\nrequire_durable = true\n",
        &["[store]", "require_durable", "engine = \"redb\""],
    ),
    (
        "[store]\nengine = \"rocks\"\n",
        &["config.toml:2:", "rocks", "memory"],
    ),
    (
        "[store]\ndirectori = \"/x\"\n",
        &["config.toml:2:", "directori", "directory"],
    ),
    ("[store]\nmax_value = 1.5\n", &["config.toml:2:"]),
    ("[store]\nmax_keys = -1\n", &["config.toml:2:"]),
    (
        "[[listener]]\nservice = \"xml-rpc\"\nlisten = [\"tcp://[::1]:0\"]\noptions.faults = \"soap\"\n",
        &["config.toml:4:", "soap", "interop"],
    ),
    (
        "[store]\nmax_waiting = 0\n",
        &["[store]", "max_waiting", "read_only"],
    ),
    (
        "[[listener]]\nservice = \"xml-rpc\"\nlisten = [\"tcp://[::1]:0\"]\noptions.max_request = 10\n",
        &["config.toml:2:", "max_request", "256 bytes"],
    ),
    (
        "[[listener]]\nservice = \"python-rpc\"\nlisten = [\"tcp://[::1]:0\"]\noptions.max_request = \"5GiB\"\n",
        &["config.toml:2:", "max_request", "4GiB"],
    ),
    (
        "[[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://[::1]:0\"]\noptions.max_batch = 0\n",
        &["config.toml:2:", "max_batch", "1 or more"],
    ),
    (
        "[[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://[::1]:0\"]\noptions.max_subscriptions = 20000\n",
        &["config.toml:2:", "max_subscriptions", "10000"],
    ),
    (
        "[[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://[::1]:0\"]\noptions.faults = \"interop\"\n",
        &["config.toml:2:", "faults", "xml-rpc alone", "take it out"],
    ),
    (
        "[[listener]]\nservice = \"soap\"\nlisten = [\"tcp://[::1]:0\"]\n",
        &["config.toml:2:", "xml-rpc, json-rpc, python-rpc"],
    ),
];

#[test]
fn a_wrong_file_is_78_and_names_the_key_and_what_to_do() {
    for (text, words) in WRONG {
        for arguments in [&["--check"][..], &[]] {
            let refused = daemon().config(text).args(arguments.iter().copied()).run();
            assert_eq!(refused.code, Some(78), "{text}{}", refused.stderr);
            for word in words {
                assert!(refused.stderr.contains(word), "{word}:\n{}", refused.stderr);
            }
        }
    }
}

#[test]
fn without_a_configuration_the_data_is_in_the_state_directory_of_service_or_user() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let (service, state, home) = (path("service"), path("deep/state"), path("home"));
    let all = [
        // systemd makes its own, and may name several.
        (
            format!("{service}:{}", path("other")),
            &state,
            service.clone(),
        ),
        (String::new(), &state, format!("{state}/kv-rpc")),
        (
            String::new(),
            &"relative".to_owned(),
            format!("{home}/.local/state/kv-rpc"),
        ),
    ];
    for (service, state, expected) in all {
        let daemon = daemon()
            .listen("tcp://127.0.0.1:0=json-rpc")
            .env("STATE_DIRECTORY", service)
            .env("XDG_STATE_HOME", state)
            .env("HOME", &home)
            .start();
        let mode = fs::metadata(&expected).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{expected}");
        daemon.wait_for_log(&expected);
        assert_eq!(daemon.terminate().code, Some(0));
    }
}

#[test]
fn without_any_home_it_says_what_to_write() {
    let refused = daemon()
        .wrap([
            "env",
            "-u",
            "HOME",
            "-u",
            "XDG_STATE_HOME",
            "-u",
            "STATE_DIRECTORY",
        ])
        .arg("--check")
        .run();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("write directory = \"/PATH\" in [store]"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_change_of_the_store_waits_for_a_restart_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let config = |keys: u64| {
        format!(
            "[store]\ndirectory = {:?}\nmax_keys = {keys}\n[[listener]]\nservice = \"json-rpc\"\n\
             listen = [\"tcp://127.0.0.1:0\"]\n",
            place.path().join("data").display().to_string()
        )
    };
    let daemon = daemon().config(&config(10)).start();
    daemon.rewrite_config(&config(20));
    daemon.reload();
    daemon.wait_for_log("changes of [store] take effect at the next start");
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_kv-rpc"))
}
