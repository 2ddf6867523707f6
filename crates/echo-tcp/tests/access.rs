//! Who may use a listener: the longest matching prefix decides, and a reload changes it.

use portyard_testkit::{Client, Daemon, End};

#[test]
fn the_longest_prefix_decides_and_the_denied_are_reset_and_counted() {
    let daemon = start(
        "default = \"deny\"\n\
         rules = [\"allow 127.0.0.0/8\", \"deny 127.0.0.0/30 too near\", \"allow 127.0.0.3\"]",
    );
    let served = |source: &str| from(&daemon, source).is_echoed();
    assert_eq!(from(&daemon, "127.0.0.2").end(), End::Reset);
    assert_eq!(from(&daemon, "127.0.0.1").end(), End::Reset);
    assert!(served("127.0.0.3"), "its own rule is the longest");
    assert!(served("127.0.0.4"), "the widest rule allows it");
    assert_eq!(daemon.count(&refused()), 2);
}

#[test]
fn a_listeners_own_list_replaces_the_common_one() {
    let config = format!(
        "{ADMIN}[access]\ndefault = \"deny\"\n\
         [[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         access = {{ rules = [] }}\n\
         [[listener]]\nname = \"closed\"\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n"
    );
    let daemon = Daemon::build(BINARY).config(&config).start();
    assert!(from(&daemon, "127.0.0.1").is_echoed());
    assert_eq!(
        Client::connect(&daemon.endpoint("closed")).end(),
        End::Reset
    );
}

#[test]
fn ipv6_has_its_own_prefixes() {
    let config = "[access]\nrules = [\"deny ::1 not here\"]\n\
                  [[listener]]\nservice = \"echo\"\n\
                  listen = [\"tcp://127.0.0.1:0\", \"tcp://[::1]:0\"]\n";
    let daemon = Daemon::build(BINARY).config(config).start();
    let [v4, v6] = daemon.addresses("echo")[..] else {
        panic!("two listeners")
    };
    assert!(Client::connect(&format!("tcp://{v4}")).is_echoed());
    assert_eq!(Client::connect(&format!("tcp://{v6}")).end(), End::Reset);
}

#[test]
fn a_reload_changes_the_list_and_drops_no_connection() {
    let daemon = start("rules = []");
    let open = from(&daemon, "127.0.0.2");
    assert!(open.is_echoed());
    daemon.rewrite_config(&config("rules = [\"deny 127.0.0.2 scans us\"]"));
    daemon.reload();
    assert_eq!(from(&daemon, "127.0.0.2").end(), End::Reset);
    assert!(from(&daemon, "127.0.0.3").is_echoed());
    assert!(open.is_echoed(), "the open connection was dropped");
    assert_eq!(daemon.count(&refused()), 1);
    daemon.rewrite_config(&config("rules = []"));
    daemon.reload();
    assert!(from(&daemon, "127.0.0.2").is_echoed());
    assert!(open.is_echoed());
}

#[test]
fn the_log_names_the_rule_that_refused() {
    let daemon = Daemon::build(BINARY)
        .config(&config("rules = [\"deny 127.0.0.2 scans us\"]"))
        .args(["--log-level", "debug"])
        .start();
    assert_eq!(from(&daemon, "127.0.0.2").end(), End::Reset);
    daemon.wait_for_log("deny 127.0.0.2/32 scans us");
    let place = format!("{}:4", daemon.config_path().display());
    assert!(
        daemon.log().contains(&place),
        "no {place} in\n{}",
        daemon.log()
    );
}

fn refused() -> String {
    let labels = "{listener=\"echo\",service=\"echo\",reason=\"access\"}";
    format!("portyard_connections_refused_total{labels}")
}

fn from(daemon: &Daemon, source: &str) -> Client {
    Client::connect_from(source, daemon.address("echo"))
}

fn start(access: &str) -> Daemon {
    Daemon::build(BINARY).config(&config(access)).start()
}

fn config(access: &str) -> String {
    format!(
        "{ADMIN}[access]\n{access}\n\
         [[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n"
    )
}

const ADMIN: &str = "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n";
const BINARY: &str = env!("CARGO_BIN_EXE_echo-tcp");
