//! TLS on a listener: which certificate is shown, whose is let in, and what a reload changes.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{ADMIN, BINARY, check_fails, ended, write_secret};
use portyard_core::tls::{Facts, fingerprint, read_chain};
use portyard_testkit::{
    Certificates, Client, Daemon, Pair, TlsClient, anonymous_bytes, eventually,
    raise_descriptor_limit,
};

#[test]
fn the_certificate_fits_the_name_that_is_asked_for() {
    let ca = Certificates::new();
    let names = ["a.test", "b.test", "*.c.test"].map(|name| ca.server(&[name]));
    let daemon = start(&table(&names.each_ref(), ""));
    for (name, pair) in [
        ("a.test", &names[0]),
        ("b.test", &names[1]),
        ("B.TEST", &names[1]),
        ("x.c.test", &names[2]),
    ] {
        let client = connect(&daemon, name, &ca, None).unwrap();
        assert_eq!(client.certificate(), first(pair), "{name}");
    }
    // An unknown name gets the first, and the client says no.
    let error = connect(&daemon, "d.test", &ca, None).err().unwrap();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn a_chain_is_sent_whole() {
    let ca = Certificates::new();
    let daemon = start(&table(&[&ca.intermediate(&["localhost"])], ""));
    assert!(connect(&daemon, "localhost", &ca, None).is_ok());
}

#[test]
fn bulk_data_comes_back_whole() {
    let ca = Certificates::new();
    let daemon = start(&table(&[&ca.server(&["localhost"])], ""));
    let mut client = connect(&daemon, "localhost", &ca, None).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for piece in bytes.chunks(50_000) {
        assert!(client.echo(piece).unwrap() == piece);
    }
}

#[test]
fn only_holders_of_a_good_certificate_are_let_in() {
    let (ca, other) = (Certificates::new(), Certificates::new());
    let required = format!("client = \"required\"\nclient_ca = {:?}\n", ca.ca());
    let daemon = start(&table(&[&ca.server(&["localhost"])], &required));
    let enters = |own: Option<&Pair>| connect(&daemon, "localhost", &ca, own).is_ok();
    assert!(enters(Some(&ca.client("ada"))));
    assert!(!enters(None));
    assert!(!enters(Some(&other.client("ada"))));
    assert!(!enters(Some(&ca.expired_client("ada"))));
    // A certificate for servers is none for clients.
    assert!(!enters(Some(&ca.server(&["localhost"]))));
    eventually("all four are counted", || ended(&daemon, "tls") == 4);
}

#[test]
fn an_optional_certificate_must_be_good_if_shown() {
    let (ca, other) = (Certificates::new(), Certificates::new());
    let optional = format!("client = \"optional\"\nclient_ca = {:?}\n", ca.ca());
    let daemon = start(&table(&[&ca.server(&["localhost"])], &optional));
    let enters = |own: Option<&Pair>| connect(&daemon, "localhost", &ca, own).is_ok();
    assert!(enters(None));
    assert!(enters(Some(&ca.client("ada"))));
    assert!(!enters(Some(&other.client("ada"))));
}

#[test]
fn access_rules_look_at_names_in_certificates() {
    let ca = Certificates::new();
    let required = format!("client = \"required\"\nclient_ca = {:?}\n", ca.ca());
    let tls = table(&[&ca.server(&["localhost"])], &required);
    let rules = "access = { rules = [\"allow dns:ada.test\", \"allow email:bob@test\", \
                 \"allow cn:carol\", \"deny dns:ada.test.bad\"] }\n";
    let daemon = Daemon::build(BINARY)
        .config(&format!("{ADMIN}{LISTENER}{rules}{LIMITS}{tls}"))
        .start();
    let enters = |name: &str| connect(&daemon, "localhost", &ca, Some(&ca.client(name))).is_ok();
    assert!(enters("ada.test"));
    assert!(enters("bob@test"));
    assert!(enters("carol"));
    assert!(!enters("dave.test"));
    eventually("it is counted", || ended(&daemon, "denied") == 1);
}

#[test]
fn the_revoked_are_shut_out_by_a_reload_and_a_bad_list_changes_nothing() {
    let ca = Certificates::new();
    let (good, bad) = (ca.client("good"), ca.client("bad"));
    let server = ca.server(&["localhost"]);
    let config = |crl: &Path| {
        let client = format!(
            "client = \"required\"\nclient_ca = {:?}\ncrls = [{crl:?}]\n",
            ca.ca()
        );
        config(&table(&[&server], &client))
    };
    let daemon = Daemon::build(BINARY).config(&config(&ca.crl(&[]))).start();
    let enters = |own: &Pair| connect(&daemon, "localhost", &ca, Some(own)).is_ok();
    let mut open = connect(&daemon, "localhost", &ca, Some(&good)).unwrap();
    assert!(enters(&bad));
    let revoking = ca.crl(&[&bad]);
    daemon.rewrite_config(&config(&revoking));
    daemon.reload();
    assert!(enters(&good) && !enters(&bad));
    // Half a list, then none at all.
    let text = fs::read_to_string(&revoking).unwrap();
    for wrong in [&text[..text.len() / 2], "no list"] {
        fs::write(&revoking, wrong).unwrap();
        assert!(daemon.reload().contains("refused"));
        assert!(enters(&good) && !enters(&bad));
    }
    // A list that should have been renewed says nothing about anybody.
    daemon.rewrite_config(&config(&ca.expired_crl(&[])));
    daemon.reload();
    assert!(!enters(&good));
    assert_eq!(open.echo(b"still here").unwrap(), b"still here");
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload_and_a_half_written_one_never() {
    let ca = Certificates::new();
    let (old, new) = (ca.server(&["localhost"]), ca.server(&["localhost"]));
    let place = ca.dir().join("live");
    fs::create_dir(&place).unwrap();
    let live = (place.join("chain.pem"), place.join("key.pem"));
    fs::copy(&old.chain, &live.0).unwrap();
    write_secret(&live.1, &fs::read(&old.key).unwrap());
    let tls = format!(
        "[listener.tls]\ncertificates = [{{ chain = {:?}, key = {:?} }}]\n",
        live.0, live.1
    );
    let daemon = start(&tls);
    let mut open = connect(&daemon, "localhost", &ca, None).unwrap();
    let shown = || {
        connect(&daemon, "localhost", &ca, None)
            .unwrap()
            .certificate()
    };
    // The chain is new, the key is not yet.
    fs::copy(&new.chain, &live.0).unwrap();
    assert!(daemon.reload().contains("does not fit the certificate"));
    assert_eq!(shown(), first(&old));
    // Half a key.
    let key = fs::read(&new.key).unwrap();
    write_secret(&live.1, &key[..key.len() / 2]);
    assert!(daemon.reload().contains("refused"));
    assert_eq!(shown(), first(&old));
    write_secret(&live.1, &key);
    daemon.reload();
    assert_eq!(shown(), first(&new));
    assert_eq!(open.echo(b"still here").unwrap(), b"still here");
}

#[test]
fn reloads_under_load_break_no_handshake() {
    let ca = Certificates::new();
    let pairs = [ca.server(&["localhost"]), ca.server(&["localhost"])];
    let text = |n: usize| config(&table(&[&pairs[n % 2]], ""));
    let daemon = Daemon::build(BINARY).config(&text(0)).start();
    let (address, roots) = (daemon.address("echo"), ca.ca().to_path_buf());
    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    TlsClient::connect(address, "localhost", &roots, None).unwrap();
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=20 {
            daemon.rewrite_config(&text(n));
            daemon.reload();
            let before = made.load(Ordering::Relaxed);
            eventually("handshakes go on", || {
                made.load(Ordering::Relaxed) > before + 3
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(daemon.count("portyard_reloads_total{result=\"ok\"}"), 20);
}

#[test]
fn what_runs_out_is_told_three_weeks_before() {
    let ca = Certificates::new();
    let pairs = [
        ca.expiring(&["soon.test"], 20),
        ca.expiring(&["later.test"], 40),
    ];
    let daemon = start(&table(&pairs.each_ref(), ""));
    daemon.wait_for_log("runs out in ");
    assert_eq!(
        daemon.log().matches("runs out in ").count(),
        1,
        "{}",
        daemon.log()
    );
    let expiries = &daemon.status()["listeners"][0]["trust"]["expiries"];
    let days: Vec<_> = (0..2)
        .map(|n| expiries[n]["days_left"].as_i64().unwrap())
        .collect();
    assert!((18..=20).contains(&days[0]) && days[1] >= 38, "{expiries}");
    let (_, metrics) = daemon.admin_get("/metrics");
    let at = "portyard_tls_not_after_timestamp_seconds{listener=\"echo\",kind=\"certificate\"";
    assert_eq!(metrics.matches(at).count(), 2, "{metrics}");
}

#[test]
fn a_table_that_cannot_work_is_refused_with_the_remedy() {
    let ca = Certificates::new();
    let server = ca.server(&["localhost"]);
    let one = |extra: &str| config(&table(&[&server], extra));
    let (chain, key) = (server.chain.display(), server.key.display());
    let other = ca.server(&["other"]);
    let exposed = ca.dir().join("exposed.key");
    fs::copy(&server.key, &exposed).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(&exposed, mode).unwrap();
    let crl = ca.crl(&[]);
    for (text, said) in [
        (config("[listener.tls]\n"), "tls.certificates is empty"),
        (config(&table(&[], "")), "portyard cert server"),
        (one("client = \"required\"\n"), "client_ca"),
        (one(&format!("client_ca = {:?}\n", ca.ca())), "no effect"),
        (one(&format!("crls = [{crl:?}]\n")), "no effect"),
        (one("min_version = \"1.1\"\n"), "1.2"),
        (
            config(&format!(
                "[listener.tls]\ncertificates = [{{ chain = \"{chain}\", key = {:?} }}]\n",
                other.key
            )),
            "does not fit the certificate",
        ),
        (
            config(&format!(
                "[listener.tls]\ncertificates = [{{ chain = \"{chain}\", key = {exposed:?} }}]\n"
            )),
            "chmod 600",
        ),
        (
            config(&format!(
                "[listener.tls]\ncertificates = [{{ chain = \"{key}\", key = \"{key}\" }}]\n"
            )),
            "no certificate",
        ),
        (
            config(&format!(
                "[listener.tls]\ncertificates = [{{ chain = \"{chain}\", key = \"{chain}\" }}]\n"
            )),
            "chmod 600",
        ),
        (
            config(
                "[listener.tls]\ncertificates = [{ chain = \"credential:c\", key = \"credential:k\" }]\n",
            ),
            "LoadCredential",
        ),
        (
            format!("{LISTENER}access = {{ rules = [\"allow dns:ada\"] }}\n"),
            "tls.client",
        ),
    ] {
        check_fails(&text, said);
    }
}

#[test]
fn who_speaks_no_tls_is_told_and_costs_nothing() {
    let ca = Certificates::new();
    let daemon = start(&table(&[&ca.server(&["localhost"])], ""));
    let plain = Client::connect(&daemon.endpoint("echo"));
    plain.send(b"GET / HTTP/1.0\r\n\r\n");
    let (answer, _) = plain.receive_all();
    // An alert: record type 21.
    assert_eq!(answer.first(), Some(&21));
    eventually("it is counted", || ended(&daemon, "tls") == 1);
    // A prober that connects and leaves is no failure of TLS.
    drop(Client::connect(&daemon.endpoint("echo")));
    eventually("it is counted", || ended(&daemon, "broken") == 1);
}

#[test]
fn a_session_without_a_last_word_is_broken() {
    let ca = Certificates::new();
    let daemon = start(&table(&[&ca.server(&["localhost"])], ""));
    drop(connect(&daemon, "localhost", &ca, None).unwrap());
    eventually("it is counted", || ended(&daemon, "broken") == 1);
}

#[test]
fn a_drain_says_the_last_word() {
    let ca = Certificates::new();
    let daemon = start(&table(&[&ca.server(&["localhost"])], ""));
    let mut client = connect(&daemon, "localhost", &ca, None).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    // An error would be an end without close_notify: what is cut off could not be told from it.
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn an_idle_session_costs_little() {
    raise_descriptor_limit();
    let ca = Certificates::new();
    let daemon = start(&table(&[&ca.server(&["localhost"])], ""));
    let open = |count: usize| -> Vec<TlsClient> {
        (0..count)
            .map(|_| connect(&daemon, "localhost", &ca, None).unwrap())
            .collect()
    };
    let _warm = open(50);
    let before = anonymous_bytes(daemon.pid());
    let _idle = open(400);
    let each = anonymous_bytes(daemon.pid()).saturating_sub(before) / 400;
    assert!(each <= 14 * 1024, "{each} bytes for each idle session");
}

fn connect(
    daemon: &Daemon,
    name: &str,
    ca: &Certificates,
    own: Option<&Pair>,
) -> std::io::Result<TlsClient> {
    TlsClient::connect(daemon.address("echo"), name, ca.ca(), own)
}

fn start(tls: &str) -> Daemon {
    Daemon::build(BINARY).config(&config(tls)).start()
}

fn config(tls: &str) -> String {
    format!("{ADMIN}{LISTENER}{LIMITS}{tls}")
}

/// The `[listener.tls]` table.
fn table(pairs: &[&Pair], more: &str) -> String {
    let mut certificates = String::new();
    for pair in pairs {
        let (chain, key) = (pair.chain.display(), pair.key.display());
        write!(certificates, "{{ chain = \"{chain}\", key = \"{key}\" }}, ").unwrap();
    }
    format!("[listener.tls]\ncertificates = [{certificates}]\n{more}")
}

/// The server's own certificate.
fn first(pair: &Pair) -> Vec<u8> {
    let place = portyard_core::files::FilePlace::Path(pair.chain.clone());
    let chain = read_chain(&place).unwrap();
    assert_eq!(
        Facts::of(&chain[0]).unwrap().fingerprint,
        fingerprint(&chain[0])
    );
    chain[0].to_vec()
}

const LISTENER: &str = "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
/// Many failures come from one address here.
const LIMITS: &str = "limits = { penalty = \"0s\" }\n";
