//! The sandbox: what somebody could do who has broken in.

mod common;

use common::{all, client};
use portyard_testkit::intruder::{assert_denied, intrude, unconfined};

#[test]
fn who_breaks_in_can_do_nothing_of_what_he_would_like() {
    let daemon = all();
    let outside = tempfile::tempdir().unwrap();
    assert_denied("time-udp", &intrude(&daemon, outside.path()));
    assert_eq!(unconfined(daemon.pid()), <[String; 0]>::default());
    assert_eq!(client(&daemon, "ctime").ask(b"").len(), 24);
}
