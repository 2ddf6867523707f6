//! Arrays on kernels and file systems that know less, or fail: the other way is taken, or nothing is
//! acknowledged.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;

use portyard_testkit::{Client, Daemon, End};
use tempfile::TempDir;

#[test]
fn a_file_arrives_whole_where_the_kernel_cannot_send_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("numbers");
    let bytes = pattern(9_000_001);
    fs::write(&path, &bytes).unwrap();
    let options = format!("file = \"{}\"", path.display());
    let daemon = with_fault("sendfile:error=EINVAL", "array-source", &options);
    let client = Client::connect_narrow(daemon.address("array-source"), 65_536);
    assert!(client.receive_all() == (bytes, End::Fin));
    // And one that shrinks is noticed in this way, too.
    let client = Client::connect_narrow(daemon.address("array-source"), 4096);
    client.receive(1);
    let shrinking = fs::File::options().write(true).open(&path).unwrap();
    shrinking.set_len(1000).unwrap();
    assert_eq!(client.receive_all().1, End::Reset);
}

#[test]
fn an_array_is_kept_where_windows_are_made_ready_page_by_page() {
    let kept = tempfile::tempdir().unwrap();
    let daemon = keeping("madvise:error=EINVAL", &kept);
    let array = pattern(9_000_001);
    assert_eq!(upload(&daemon, &array)[..8], 9_000_001_u64.to_be_bytes());
    assert_eq!(files(&kept), [array]);
}

#[test]
fn an_array_is_named_by_way_of_proc_where_that_takes_a_privilege() {
    let kept = tempfile::tempdir().unwrap();
    let daemon = keeping("linkat:error=ENOENT:when=1", &kept);
    assert_eq!(upload(&daemon, b"array")[..8], 5_u64.to_be_bytes());
    assert_eq!(files(&kept), [b"array"]);
}

#[test]
fn what_does_not_reach_the_disk_is_not_acknowledged() {
    for (fault, code) in [
        ("fsync:error=EIO", 4),
        ("linkat:error=EIO", 4),
        ("linkat:error=ENOSPC", 2),
        ("fallocate:error=EDQUOT", 2),
        ("fallocate:error=EFBIG", 1),
        ("fallocate:error=EOPNOTSUPP", 4),
        ("madvise:error=EFAULT", 4),
    ] {
        let kept = tempfile::tempdir().unwrap();
        let daemon = keeping(fault, &kept);
        let mut refusal = [0xff; 12];
        refusal[8..].copy_from_slice(&u32::to_be_bytes(code));
        assert_eq!(upload(&daemon, &pattern(5_000_000)), refusal, "{fault}");
        assert_eq!(files(&kept), [] as [Vec<u8>; 0], "{fault}");
        daemon.wait_for_log("an array is not kept");
    }
}

fn upload(daemon: &Daemon, array: &[u8]) -> Vec<u8> {
    let client = Client::connect(&daemon.endpoint("array-sink"));
    client.send((array.len() as u64).to_be_bytes());
    // A refusal may come while it is sent.
    let _ = client.try_send(array);
    client.receive(12)
}

fn files(directory: &TempDir) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

fn keeping(fault: &str, directory: &TempDir) -> Daemon {
    let options = format!("directory = \"{}\"", directory.path().display());
    with_fault(fault, "array-sink", &options)
}

/// A daemon whose system call of that name fails.
fn with_fault(fault: &str, service: &str, options: &str) -> Daemon {
    let (call, _) = fault.split_once(':').unwrap();
    let (trace, inject) = (format!("trace={call}"), format!("inject={fault}"));
    let strace = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let config = format!(
        "[[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [listener.options]\n{options}\n"
    );
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
        .wrap(strace)
        .config(&config)
        .start()
}

/// Bytes that do not repeat with any power of two.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}
