//! Sockets that are held, and brokers that come and go, under load.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod held;
mod hostile;
mod load;
mod rules;
mod store;
mod succession;
mod unit;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::unistd::geteuid;
use portyard_core::holding::{Holder, HoldingError, PATIENCE};
use portyard_core::wire::hold::{Name, Reason};
use portyard_testkit::{Daemon, DaemonBuilder};

/// A broker that has not been started yet.
fn broker() -> DaemonBuilder {
    Daemon::build(BINARY)
}

/// Another daemon of the workspace, which lies beside ours.
#[track_caller]
fn beside(name: &str) -> PathBuf {
    let path = Path::new(BINARY).with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, or cargo build -p {name}",
        path.display()
    );
    path
}

/// A control socket at a place, and a rule that lets this user do everything.
fn control(directory: &Path) -> String {
    let uid = geteuid();
    format!(
        "[holding]\nrules = [\"allow all * uid:{uid}\"]\n\
         [[listener]]\nservice = \"control\"\nlisten = [\"unix:{}\"]\n",
        socket(directory).display()
    )
}

/// Where that is.
fn socket(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// The endpoint of a name that is held there.
fn endpoint(directory: &Path, name: &str) -> String {
    format!("broker:{}#{name}", socket(directory).display())
}

/// A connection to the control socket there.
#[track_caller]
fn holder(directory: &Path) -> Holder {
    Holder::connect(&socket(directory), PATIENCE).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Why a broker has refused.
fn reason(error: &HoldingError) -> Option<Reason> {
    match error {
        HoldingError::Refused { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// A port of the loopback address that is free, and that the kernel gives no client: those above 32767
/// may be a client's by the time that they are wanted.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() * 64;
    loop {
        let number = start + u32::from(NEXT.fetch_add(1, Ordering::AcqRel));
        let port = u16::try_from(12_000 + number % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_fd-broker");
