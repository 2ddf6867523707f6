//! The sandbox: what somebody could do who has broken in, and that the data is kept nevertheless.

use std::fs;

use portyard_testkit::intruder::{Intruder, Outcome, assert_denied, intrude, threads, unconfined};
use portyard_testkit::{Client, Daemon};

#[test]
fn who_breaks_in_gets_at_the_data_and_at_nothing_else() {
    let builder = Daemon::build(env!("CARGO_BIN_EXE_kv-rpc"));
    let (admin, data) = (builder.dir().join("admin"), builder.dir().join("data"));
    let config = format!(
        "admin.listen = \"unix:{}\"\n[store]\ndirectory = \"{}\"\n[[listener]]\n\
         service = \"json-rpc\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
        admin.display(),
        data.display()
    );
    let daemon = builder.config(&config).start();
    let outside = tempfile::tempdir().unwrap();
    assert_denied("kv-rpc", &intrude(&daemon, outside.path()));
    assert_eq!(unconfined(daemon.pid()), <[String; 0]>::default());
    // The table above would also hold for a daemon that can write nothing at all.
    let thread = threads(daemon.pid()).into_iter().max().unwrap();
    let mut intruder = Intruder::seize(thread);
    let new = data.join("new");
    let path = intruder.path(&new);
    let here = i64::from(nix::libc::AT_FDCWD).cast_unsigned();
    let made = intruder.call(nix::libc::SYS_openat, &[here, path, 0o101, 0o600]);
    assert!(matches!(made, Outcome::Returned(_)), "{made}");
    drop(intruder);
    assert!(new.exists());
    fs::remove_file(new).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"set","params":["a","b"]}"#;
    let client = Client::connect(&daemon.endpoint("json-rpc"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(client.receive_line().contains("200"));
}
