//! Arrays there and back: numpy at the other end, files on real disks, and peers that break off.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use portyard_testkit::{Client, Daemon, DaemonBuilder, End, eventually, python, rss_bytes};
use tempfile::TempDir;

/// `send_from` and `recv_into` of the Python Cookbook, 11.13, and 50 million numbers through them.
const NUMPY: &str = r"
import socket, struct, sys
import numpy

def send_from(arr, dest):
    view = memoryview(arr).cast('B')
    while len(view):
        nsent = dest.send(view)
        view = view[nsent:]

def recv_into(arr, source):
    view = memoryview(arr).cast('B')
    while len(view):
        nrecv = source.recv_into(view)
        assert nrecv, 'the array ends early'
        view = view[nrecv:]

count = int(sys.argv[3])
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 60)
a = numpy.zeros(shape=count, dtype='<f8')
recv_into(a, s)
assert s.recv(1) == b'', 'more than the array'
s.close()
assert (a == numpy.arange(0.0, count)).all()

s = socket.create_connection(('127.0.0.1', int(sys.argv[2])), 60)
for _ in range(2):
    s.sendall(struct.pack('>Q', a.nbytes))
    send_from(a, s)
    size, crc = struct.unpack('>QI', s.recv(12, socket.MSG_WAITALL))
    assert size == a.nbytes, size
s.close()
sys.stdout.write('%08x' % crc)
";

#[test]
fn numpy_gets_and_gives_400_megabytes_and_the_daemon_stays_small() {
    let kept = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let count = 50_000_000;
    let daemon = start(&[
        ("source", "array-source", format!("count = {count}")),
        ("discarding", "array-sink", String::new()),
        ("keeping", "array-sink", directory(kept.path())),
    ]);
    let before = rss_bytes(daemon.pid());
    let mut crcs = Vec::new();
    let mut peak = 0;
    for sink in ["discarding", "keeping"] {
        let arguments = [
            port(&daemon, "source"),
            port(&daemon, sink),
            count.to_string(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        thread::scope(|scope| {
            let numpy = scope.spawn(|| python(NUMPY, &arguments));
            while !numpy.is_finished() {
                peak = peak.max(rss_bytes(daemon.pid()));
                thread::yield_now();
            }
            crcs.push(numpy.join().unwrap().success());
        });
    }
    assert_eq!(crcs[0], crcs[1]);
    let grown = peak.saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    // And a file of that size, from where it was kept.
    let files = files(kept.path());
    assert_eq!(files.len(), 2);
    assert_eq!(fs::metadata(&files[0]).unwrap().len(), count * 8);
    let daemon = start(&[("file", "array-source", file(&files[0], "checked"))]);
    let before = rss_bytes(daemon.pid());
    let client = Client::connect(&daemon.endpoint("file"));
    assert_eq!(client.receive(8), (count * 8).to_be_bytes());
    let mut peak = 0;
    for _ in 0..100 {
        client.receive(4_000_000);
        peak = peak.max(rss_bytes(daemon.pid()));
    }
    let (crc, end) = client.receive_all();
    assert_eq!((hex(&crc), end), (crcs[0].clone(), End::Fin));
    let grown = peak.saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[test]
fn computed_numbers_are_those_that_python_computes() {
    let script = r"
import struct, sys
count, start, step = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
sys.stdout.write(b''.join(struct.pack('<d', start + i * step) for i in range(count)).hex())
";
    for (start_at, step) in [("0.0", "1.0"), ("-1e300", "1.7"), ("0.1", "-0.3")] {
        let options = format!("count = 20001\nstart = {start_at}\nstep = {step}");
        let daemon = start(&[("source", "array-source", options)]);
        let client = Client::connect(&daemon.endpoint("source"));
        let (values, end) = client.receive_all();
        let expected = python(script, &["20001", start_at, step]).success();
        assert_eq!((hex(&values), end), (expected, End::Fin));
    }
    // A reader that takes a few bytes at a time gets the same.
    let daemon = start(&[(
        "source",
        "array-source",
        "count = 500000\nframe = \"checked\"".into(),
    )]);
    let client = Client::connect_narrow(daemon.address("source"), 2048);
    let mut got = Vec::new();
    while got.len() < 8 + 500_000 * 8 + 4 {
        got.extend(client.receive(4001.min(8 + 500_000 * 8 + 4 - got.len())));
    }
    assert_eq!(client.end(), End::Fin);
    let (size, rest) = got.split_at(8);
    let (values, crc) = rest.split_at(500_000 * 8);
    assert_eq!(size, 4_000_000_u64.to_be_bytes());
    assert_eq!(values[499_999 * 8..], 499_999_f64.to_le_bytes());
    assert_eq!(crc, crc32c(values).to_be_bytes());
}

#[test]
fn a_file_is_sent_in_each_frame_over_tcp_and_unix_sockets() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("numbers");
    for length in [0, 1, 4096, 9_000_001] {
        let bytes = pattern(length);
        fs::write(&path, &bytes).unwrap();
        let size = (length as u64).to_be_bytes();
        let crc = crc32c(&bytes).to_be_bytes();
        for (frame, expected) in [
            ("raw", bytes.clone()),
            ("sized", [&size[..], &bytes].concat()),
            ("checked", [&size[..], &bytes, &crc].concat()),
        ] {
            let socket = place.path().join("socket");
            let daemon = builder(&[("source", "array-source", file(&path, frame))])
                .listen("tcp://127.0.0.1:0=array-source")
                .listen(format!("unix:{}=array-source", socket.display()))
                .start();
            for endpoint in [
                daemon.endpoint("source"),
                format!("unix:{}", socket.display()),
            ] {
                let got = Client::connect(&endpoint).receive_all();
                assert!(got == (expected.clone(), End::Fin), "{frame} of {length}");
            }
        }
    }
}

#[test]
fn a_file_that_is_replaced_is_served_anew_and_one_under_way_is_not_mixed() {
    let place = tempfile::tempdir().unwrap();
    let (path, other) = (place.path().join("numbers"), place.path().join("other"));
    fs::write(&path, vec![1; 20_000_000]).unwrap();
    let daemon = start(&[("source", "array-source", file(&path, "sized"))]);
    let slow = Client::connect(&daemon.endpoint("source"));
    assert_eq!(slow.receive(8), 20_000_000_u64.to_be_bytes());
    fs::write(&other, b"new").unwrap();
    fs::rename(&other, &path).unwrap();
    let (answer, _) = Client::connect(&daemon.endpoint("source")).receive_all();
    assert_eq!(answer, b"\0\0\0\0\0\0\0\x03new");
    let (rest, end) = slow.receive_all();
    assert!(rest == vec![1; 20_000_000] && end == End::Fin);
    // Without the file a connection breaks, and the operator hears why.
    fs::remove_file(&path).unwrap();
    let client = Client::connect(&daemon.endpoint("source"));
    assert_eq!(client.end(), End::Reset);
    daemon.wait_for_log("cannot be served");
    fs::write(&path, b"back").unwrap();
    let (answer, _) = Client::connect(&daemon.endpoint("source")).receive_all();
    assert_eq!(answer, b"\0\0\0\0\0\0\0\x04back");
}

#[test]
fn a_file_that_shrinks_breaks_the_connection_and_is_never_padded() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("numbers");
    for frame in ["raw", "checked"] {
        fs::write(&path, vec![7; 64 << 20]).unwrap();
        let daemon = start(&[("source", "array-source", file(&path, frame))]);
        let client = Client::connect_narrow(daemon.address("source"), 8192);
        client.receive(if frame == "raw" { 1 } else { 9 });
        let shrinking = fs::File::options().write(true).open(&path).unwrap();
        shrinking.set_len(1000).unwrap();
        let (rest, end) = client.receive_all();
        assert_eq!(end, End::Reset, "{frame}");
        assert!(rest.len() < 64 << 20, "{} bytes", rest.len());
        let broken = ended("source", "array-source", "broken");
        eventually("it is counted", || daemon.count(&broken) == 1);
    }
}

#[test]
fn a_receipt_has_the_length_and_the_checksum_that_python_computes() {
    let kept = tempfile::tempdir().unwrap();
    let daemon = start(&[
        ("discarding", "array-sink", String::new()),
        ("keeping", "array-sink", directory(kept.path())),
    ]);
    let arrays: Vec<Vec<u8>> = [0, 1, 8, 4095, 70_001].map(pattern).into();
    for sink in ["discarding", "keeping"] {
        let client = Client::connect(&daemon.endpoint(sink));
        for array in &arrays {
            client.send((array.len() as u64).to_be_bytes());
            client.send(array);
            let receipt = client.receive(12);
            assert_eq!(receipt[..8], (array.len() as u64).to_be_bytes());
            assert_eq!(receipt[8..], python_crc32c(array), "{}", array.len());
        }
        client.send_end();
        assert_eq!(client.end(), End::Fin);
    }
    let files = files(kept.path());
    let written: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(written == arrays);
    for path in &files {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap());
        assert_eq!(mode & 0o7777, 0o600, "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("array-2") && name.contains("Z-"), "{name}");
    }
}

#[test]
fn an_array_of_several_windows_is_kept_whole_however_it_comes() {
    let kept = tempfile::tempdir().unwrap();
    let socket = kept.path().join("socket");
    let listener = format!("unix:{}", socket.display());
    let daemon = start_at(&listener, "array-sink", &directory(kept.path()));
    // Two windows and a bit; exactly two; a byte less; in pieces of all sizes.
    for (length, piece) in [
        (9_000_001, 8_191),
        (8 << 20, 1 << 20),
        ((8 << 20) - 1, 700_001),
    ] {
        let bytes = pattern(length);
        let client = Client::connect(&daemon.endpoint("array-sink"));
        client.send((length as u64).to_be_bytes());
        for part in bytes.chunks(piece) {
            client.send(part);
        }
        let receipt = client.receive(12);
        assert_eq!(receipt[8..], crc32c(&bytes).to_be_bytes());
        let path = files(kept.path()).pop().unwrap();
        assert!(fs::read(path).unwrap() == bytes, "{length}");
    }
}

#[test]
fn a_refusal_comes_before_a_byte_of_the_array_is_sent() {
    let kept = tempfile::tempdir().unwrap();
    let here = directory(kept.path());
    let daemon = start(&[
        ("small", "array-sink", "max_array = 1000".into()),
        (
            "full",
            "array-sink",
            format!("{here}\nmin_free = \"1000000GiB\""),
        ),
        ("counted", "array-sink", format!("{here}\nmax_files = 2")),
        ("busy", "array-sink", format!("{here}\nmax_uploads = 1")),
    ]);
    let refused = |sink: &str, size: u64, code: u32| {
        let client = Client::connect(&daemon.endpoint(sink));
        client.send(size.to_be_bytes());
        let (answer, end) = client.receive_all();
        assert_eq!(answer, refusal(code), "{sink}");
        assert_eq!(end, End::Fin, "{sink}");
    };
    refused("small", 1001, 1);
    refused("small", u64::MAX, 1);
    refused("full", 1, 2);
    for _ in 0..2 {
        assert_eq!(
            upload(&daemon, "counted", b"12345678")[..8],
            8_u64.to_be_bytes()
        );
    }
    refused("counted", 1, 2);
    // Taking a file away makes room again.
    fs::remove_file(&files(kept.path())[0]).unwrap();
    assert_eq!(upload(&daemon, "counted", b"1")[..8], 1_u64.to_be_bytes());
    let first = Client::connect(&daemon.endpoint("busy"));
    first.send(5_u64.to_be_bytes());
    first.send("abc");
    let received = r#"portyard_received_bytes_total{listener="busy",service="array-sink"}"#;
    eventually("the first has its place", || daemon.count(received) == 11);
    refused("busy", 5, 3);
    first.send("de");
    assert_eq!(first.receive(12)[..8], 5_u64.to_be_bytes());
    assert_eq!(upload(&daemon, "busy", b"xyz")[..8], 3_u64.to_be_bytes());
    // What the peer says of the size is its own mistake; the rest is not.
    let bad = r#"portyard_bad_input_total{listener="small",service="array-sink"}"#;
    assert_eq!(daemon.count(bad), 2);
    let bad = r#"portyard_bad_input_total{listener="busy",service="array-sink"}"#;
    assert_eq!(daemon.count(bad), 0);
}

#[test]
fn a_disk_without_room_refuses_and_takes_what_fits() {
    // A file system of its own for the daemon: 16 MiB.
    let builder = daemon();
    let disk = builder.dir().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=16m tmpfs {} && exec \"$@\"",
        disk.display()
    );
    let mount = ["unshare", "-m", "sh", "-c", script.as_str(), "sh"];
    let options = format!("{}\nmin_free = \"1MiB\"", directory(&disk));
    let daemon = builder
        .wrap(mount)
        .config(&config(&[("sink", "array-sink", options)]))
        .start();
    assert_eq!(
        upload(&daemon, "sink", &pattern(8 << 20))[..8],
        (8_u64 << 20).to_be_bytes()
    );
    let client = Client::connect(&daemon.endpoint("sink"));
    client.send((8_u64 << 20).to_be_bytes());
    assert_eq!(client.receive_all(), (refusal(2).to_vec(), End::Fin));
    assert_eq!(
        upload(&daemon, "sink", &pattern(1 << 20))[..8],
        (1_u64 << 20).to_be_bytes()
    );
    let there = PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), disk.display()));
    assert_eq!(files(&there).len(), 2);
}

#[test]
fn an_upload_that_is_cut_leaves_nothing_behind() {
    let kept = tempfile::tempdir().unwrap();
    let daemon = start(&[("sink", "array-sink", directory(kept.path()))]);
    for (round, sent) in [0, 1, 5_000_000, 9_999_999].into_iter().enumerate() {
        let client = Client::connect(&daemon.endpoint("sink"));
        client.send(10_000_000_u64.to_be_bytes());
        client.send(pattern(sent));
        if round % 2 == 0 {
            client.reset();
        } else {
            client.send_end();
            assert_eq!(client.end(), End::Fin);
        }
    }
    let half_a_size = Client::connect(&daemon.endpoint("sink"));
    half_a_size.send("\0\0\0");
    half_a_size.send_end();
    assert_eq!(half_a_size.end(), End::Fin);
    let broken = ended("sink", "array-sink", "broken");
    eventually("all are over", || daemon.count(&broken) == 5);
    assert_eq!(files(kept.path()), [] as [PathBuf; 0]);
    assert_eq!(upload(&daemon, "sink", b"whole")[..8], 5_u64.to_be_bytes());
    assert_eq!(files(kept.path()).len(), 1);
}

#[test]
fn an_upload_that_falls_silent_is_idle_and_gives_its_place_back() {
    let kept = tempfile::tempdir().unwrap();
    let options = format!(
        "{}\nmax_uploads = 1\n[listener.limits]\nidle = \"300ms\"",
        directory(kept.path())
    );
    let daemon = start(&[("sink", "array-sink", options)]);
    let silent = Client::connect(&daemon.endpoint("sink"));
    silent.send(5_u64.to_be_bytes());
    assert_eq!(silent.end(), End::Fin);
    let idle = ended("sink", "array-sink", "idle");
    eventually("it is counted", || daemon.count(&idle) == 1);
    assert_eq!(upload(&daemon, "sink", b"hello")[..8], 5_u64.to_be_bytes());
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let kept = tempfile::tempdir().unwrap();
    let daemon = start(&[("sink", "array-sink", directory(kept.path()))]);
    let array = pattern(6_000_000);
    upload(&daemon, "sink", &array);
    let under_way = Client::connect(&daemon.endpoint("sink"));
    under_way.send(6_000_000_u64.to_be_bytes());
    under_way.send(&array[..3_000_000]);
    daemon.kill();
    let files = files(kept.path());
    assert_eq!(files.len(), 1);
    assert!(fs::read(&files[0]).unwrap() == array);
}

#[test]
fn a_drain_finishes_the_arrays_that_have_begun() {
    let kept = tempfile::tempdir().unwrap();
    let daemon = start(&[
        ("source", "array-source", "count = 4000000".into()),
        ("sink", "array-sink", directory(kept.path())),
    ]);
    let (source, sink) = (
        Client::connect_narrow(daemon.address("source"), 65536),
        Client::connect(&daemon.endpoint("sink")),
    );
    let array = pattern(9_000_000);
    let mut got = source.receive(1).len();
    sink.send(9_000_000_u64.to_be_bytes());
    sink.send(&array[..1_000_000]);
    let received = r#"portyard_received_bytes_total{listener="sink",service="array-sink"}"#;
    eventually("it has begun", || daemon.count(received) == 1_000_008);
    thread::scope(|scope| {
        let end = scope.spawn(|| daemon.terminate());
        daemon.wait_for_notification("STOPPING=1");
        for piece in array[1_000_000..].chunks(500_000) {
            sink.send(piece);
        }
        assert_eq!(sink.receive(12)[8..], crc32c(&array).to_be_bytes());
        let (rest, end_of_source) = source.receive_all();
        got += rest.len();
        assert_eq!((got, end_of_source), (32_000_000, End::Fin));
        assert_eq!(sink.end(), End::Fin);
        assert_eq!(end.join().unwrap().code, Some(0));
    });
    assert_eq!(files(kept.path()).len(), 1);
}

#[test]
fn a_reload_changes_new_arrays_and_leaves_those_under_way_alone() {
    let kept = tempfile::tempdir().unwrap();
    let plan = |count: u64, max: &str| {
        config(&[
            ("source", "array-source", format!("count = {count}")),
            (
                "sink",
                "array-sink",
                format!("{}\nmax_array = \"{max}\"", directory(kept.path())),
            ),
        ])
    };
    let daemon = daemon().config(&plan(2_000_000, "1MiB")).start();
    let source = Client::connect_narrow(daemon.address("source"), 65536);
    source.receive(8);
    let sink = Client::connect(&daemon.endpoint("sink"));
    sink.send(1000_u64.to_be_bytes());
    let received = r#"portyard_received_bytes_total{listener="sink",service="array-sink"}"#;
    eventually("it has begun", || daemon.count(received) == 8);
    daemon.rewrite_config(&plan(1, "10B"));
    daemon.reload();
    sink.send([1; 1000]);
    assert_eq!(sink.receive(12)[..8], 1000_u64.to_be_bytes());
    assert_eq!(source.receive_all().0.len(), 15_999_992);
    let (value, _) = Client::connect(&daemon.endpoint("source")).receive_all();
    assert_eq!(value, 0_f64.to_le_bytes());
    let sink = Client::connect(&daemon.endpoint("sink"));
    sink.send(11_u64.to_be_bytes());
    assert_eq!(sink.receive_all().0, refusal(1));
    // A file that is not there changes nothing.
    let wrong = config(&[("source", "array-source", "file = \"/none/such\"".into())]);
    daemon.rewrite_config(&wrong);
    assert!(daemon.reload().contains("options.file"), "{}", daemon.log());
    let (value, _) = Client::connect(&daemon.endpoint("source")).receive_all();
    assert_eq!(value.len(), 8);
}

#[test]
fn options_that_make_no_sense_are_78_and_say_why() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let file = |path: &Path| format!("file = \"{}\"", path.display());
    for (service, options, words) in [
        (
            "array-source",
            "file = \"/none/such\"".into(),
            ["options.file", "regular file"],
        ),
        (
            "array-source",
            file(place.path()),
            ["options.file", "regular file"],
        ),
        (
            "array-source",
            file(&pipe),
            ["options.file", "regular file"],
        ),
        (
            "array-source",
            "file = \"/etc/hosts\"\ncount = 1".into(),
            ["options.count", "out"],
        ),
        (
            "array-source",
            "count = 999999999999".into(),
            ["options.count", "1 TiB"],
        ),
        (
            "array-source",
            "start = inf".into(),
            ["options.start", "finite"],
        ),
        (
            "array-source",
            "step = nan".into(),
            ["options.step", "finite"],
        ),
        (
            "array-source",
            "frame = \"boxed\"".into(),
            ["boxed", "checked"],
        ),
        (
            "array-sink",
            "directory = \"/none/such\"".into(),
            ["options.directory", "/none/such"],
        ),
        (
            "array-sink",
            "directory = \"/etc/hosts\"".into(),
            ["options.directory", "not a directory"],
        ),
        (
            "array-sink",
            "directory = \"/proc\"".into(),
            ["options.directory", "O_TMPFILE"],
        ),
        (
            "array-sink",
            "max_array = 0".into(),
            ["max_array", "1024GiB"],
        ),
        (
            "array-sink",
            "max_files = 0".into(),
            ["max_files", "100000"],
        ),
        (
            "array-sink",
            "max_uploads = 1001".into(),
            ["max_uploads", "1000"],
        ),
    ] {
        let config = config(&[("it", service, options)]);
        let finished = daemon().config(&config).arg("--check").run();
        assert_eq!(finished.code, Some(78), "{config}{}", finished.stderr);
        for word in words {
            assert!(
                finished.stderr.contains(word),
                "{word}: {}",
                finished.stderr
            );
        }
    }
}

/// CRC-32C as Python computes it from a table, bit by bit.
fn python_crc32c(bytes: &[u8]) -> Vec<u8> {
    let script = r"
import struct, sys
table = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    table.append(n)
crc = 0xffffffff
for byte in open(sys.argv[1], 'rb').read():
    crc = table[(crc ^ byte) & 0xff] ^ crc >> 8
sys.stdout.write(struct.pack('>I', crc ^ 0xffffffff).hex())
";
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let crc = python(script, &[file.path().to_str().unwrap()]).success();
    u32::from_str_radix(&crc, 16).unwrap().to_be_bytes().into()
}

/// CRC-32C bit by bit, as its definition has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|n| (0..8).fold(n, |n, _| n >> 1 ^ (0x82f6_3b78 & (n & 1).wrapping_neg())))
        .collect();
    let step = |crc: u32, byte: &u8| table[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8;
    !bytes.iter().fold(!0, step)
}

fn upload(daemon: &Daemon, sink: &str, array: &[u8]) -> Vec<u8> {
    let client = Client::connect(&daemon.endpoint(sink));
    client.send((array.len() as u64).to_be_bytes());
    client.send(array);
    client.receive(12)
}

fn refusal(code: u32) -> [u8; 12] {
    let mut bytes = [0xff; 12];
    bytes[8..].copy_from_slice(&code.to_be_bytes());
    bytes
}

/// The arrays in a directory, the oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "bin"))
        .collect();
    files.sort();
    files
}

/// Bytes that do not repeat with any power of two.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn file(path: &Path, frame: &str) -> String {
    format!("file = \"{}\"\nframe = \"{frame}\"", path.display())
}

fn directory(path: &Path) -> String {
    format!("directory = \"{}\"", path.display())
}

fn ended(listener: &str, service: &str, reason: &str) -> String {
    format!(
        "portyard_connections_ended_total\
         {{listener=\"{listener}\",service=\"{service}\",reason=\"{reason}\"}}"
    )
}

fn port(daemon: &Daemon, label: &str) -> String {
    daemon.address(label).port().to_string()
}

fn start_at(endpoint: &str, service: &str, options: &str) -> Daemon {
    let config = format!(
        "[[listener]]\nservice = \"{service}\"\nlisten = [\"{endpoint}\"]\n\
         [listener.options]\n{options}\n"
    );
    daemon().config(&config).start()
}

fn start(listeners: &[(&str, &str, String)]) -> Daemon {
    builder(listeners).start()
}

fn builder(listeners: &[(&str, &str, String)]) -> DaemonBuilder {
    daemon().config(&config(listeners))
}

/// A configuration with listeners of name, service and options.
fn config(listeners: &[(&str, &str, String)]) -> String {
    let mut text = String::from("admin.listen = \"tcp://127.0.0.1:0\"\n");
    for (name, service, options) in listeners {
        let _ = write!(
            text,
            "[[listener]]\nname = \"{name}\"\nservice = \"{service}\"\n\
             listen = [\"tcp://127.0.0.1:0\"]\n[listener.options]\n{options}\n"
        );
    }
    text
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}
