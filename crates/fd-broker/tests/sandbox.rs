//! The sandbox: what somebody could do who has broken in, and that programs do not inherit it.

mod common;

use std::fs;

use common::{broker, builder, start};
use portyard_testkit::eventually;
use portyard_testkit::intruder::{assert_denied, intrude, unconfined};

#[test]
fn who_breaks_in_can_do_nothing_of_what_he_would_like() {
    let daemon = broker("", "");
    let outside = tempfile::tempdir().unwrap();
    assert_denied("fd-broker", &intrude(&daemon, outside.path()));
    // Looking at workers is done by a thread that is filtered as well, if free of landlock.
    assert_eq!(unconfined(daemon.pid()), <[String; 0]>::default());
    assert_eq!(daemon.status()["sandbox"]["outside"], "looks");
}

#[test]
fn programs_are_started_outside_and_all_that_serves_is_inside() {
    let builder = builder();
    let said = builder.dir().join("said");
    let table = format!(
        "[[worker]]\nname = \"one\"\ncommand = [\"/bin/sh\", \"-c\", \
         \"grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status > {0}.new; mv {0}.new {0}; exec sleep 60\"]\n",
        said.display()
    );
    let daemon = start(builder, "", &table);
    eventually("the program has told", || said.exists());
    let said = fs::read_to_string(said).unwrap();
    assert_eq!(said, "NoNewPrivs:\t0\nSeccomp:\t0\n");
    assert_eq!(unconfined(daemon.pid()), ["outside"]);
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!finished.stderr.contains("denied"), "{}", finished.stderr);
}
