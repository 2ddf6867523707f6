//! `portyard array` against sinks and sources in Python, and numpy's files.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::pki::{Pki, Server};
use common::{python, run};
use portyard_testkit::peer;

/// A server in Python with this behaviour, for one connection.
fn server(behaviour: &str, argument: &str) -> Server {
    let mut command = Command::new(peer("python3"));
    command.args(["-c", SERVER, "", "", "", behaviour, argument]);
    Server::start(command, "PORT ")
}

/// A file of so many bytes, none of which is like its neighbours.
fn file(directory: &Path, bytes: u32) -> String {
    let path = directory.join("array.bin");
    let content: Vec<u8> = (0..bytes)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_a_sink_has_is_compared_with_what_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    for bytes in [0, 1, 100_000] {
        let file = file(directory.path(), bytes);
        let sink = server("sink", "");
        let said = run(&["array", "send", &file, &sink.endpoint], b"").expect(0);
        assert!(said.text().contains("checksum ok"), "{}", said.text());
        assert!(said.text().contains(&format!("sent {bytes} bytes")));
        // Its own CRC-32C, computed bit by bit.
        assert!(
            said.text().contains(sink.finish().trim()),
            "{}",
            said.text()
        );
    }
    let file = file(directory.path(), 1000);
    let sink = server("sink", "wrong");
    let said = run(&["array", "send", &file, &sink.endpoint], b"").expect(65);
    assert!(said.stderr.contains("is not the array"), "{}", said.stderr);
}

#[test]
fn a_refusal_ends_the_sending_before_everything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let large = large.display().to_string();
    // It reads nothing, or closes at once, which may reset the connection.
    for behaviour in ["refuse and stay", "refuse and close"] {
        for (code, exit, part) in [
            ("1", 69, "max_array"),
            ("2", 75, "no room"),
            ("3", 75, "under way"),
            ("4", 74, "log"),
            ("9", 65, "not known here, 9"),
        ] {
            let sink = server(behaviour, code);
            let said = run(&["array", "send", &large, &sink.endpoint], b"").expect(exit);
            assert!(said.stderr.contains(part), "{behaviour}: {}", said.stderr);
        }
    }
}

#[test]
fn a_refusal_is_heard_inside_tls() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let large = directory.path().join("large");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let large = large.display().to_string();
    let sink = pki.python(SERVER, &["refuse and stay", "3"]);
    let arguments = [
        "array",
        "send",
        &large,
        &sink.endpoint,
        "--tls",
        "--ca",
        &ca,
    ];
    run(&arguments, b"").expect(75);
    let file = file(directory.path(), 300_000);
    let sink = pki.python(SERVER, &["sink", ""]);
    let arguments = ["array", "send", &file, &sink.endpoint, "--tls", "--ca", &ca];
    assert!(
        run(&arguments, b"")
            .expect(0)
            .text()
            .contains("checksum ok")
    );
}

#[test]
fn each_frame_is_received_whole() {
    let directory = tempfile::tempdir().unwrap();
    let original = file(directory.path(), 2_500_000);
    let copy = directory.path().join("copy");
    let place = copy.display().to_string();
    for frame in ["raw", "sized", "checked"] {
        let source = server(frame, &original);
        let arguments = ["array", "recv", &source.endpoint, &place, "--frame", frame];
        let said = run(&arguments, b"").expect(0);
        assert!(
            said.text().contains("received 2500000 bytes"),
            "{}",
            said.text()
        );
        assert_eq!(said.text().contains("checksum ok"), frame == "checked");
        assert!(fs::read(&copy).unwrap() == fs::read(&original).unwrap());
        fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn what_is_not_whole_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let original = file(directory.path(), 3000);
    let place = directory.path().join("copy").display().to_string();
    for (behaviour, options, code, part) in [
        (
            "cut",
            &["--frame", "sized"][..],
            74,
            "after 1500 of 3000 bytes",
        ),
        ("spoiled", &["--frame", "checked"], 65, "changed on the way"),
        (
            "sized",
            &["--frame", "sized", "--max-size", "2999B"],
            65,
            "--max-size",
        ),
        ("raw", &["--max-size", "2999B"], 65, "--max-size"),
        (
            "raw",
            &["--npy", "<f8:7"],
            65,
            "not what <f8 of shape (7,) has",
        ),
        ("raw", &["--npy", "V7"], 65, "whole number"),
        ("nothing", &["--frame", "sized"], 74, "before the size"),
    ] {
        let source = server(behaviour, &original);
        let arguments = [&["array", "recv", &source.endpoint, &place], options].concat();
        let said = run(&arguments, b"").expect(code);
        assert!(said.stderr.contains(part), "{behaviour}: {}", said.stderr);
        assert_eq!(names(directory.path()), ["array.bin"], "{behaviour}");
    }
}

#[test]
fn a_file_is_replaced_only_with_force() {
    let directory = tempfile::tempdir().unwrap();
    let original = file(directory.path(), 3000);
    let copy = directory.path().join("copy");
    let place = copy.display().to_string();
    fs::write(&copy, "old").unwrap();
    let said = run(&["array", "recv", "tcp://127.0.0.1:9", &place], b"").expect(64);
    assert!(said.stderr.contains("--force"), "{}", said.stderr);
    let source = server("raw", &original);
    run(&["array", "recv", &source.endpoint, &place, "--force"], b"").expect(0);
    assert_eq!(fs::read(&copy).unwrap().len(), 3000);
}

#[test]
fn numpy_reads_what_was_received_and_its_files_are_sent() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    numpy(
        "numpy.save(args[0], numpy.arange(1000.0)); numpy.arange(1000.0).tofile(args[1])",
        &[&at("saved.npy"), &at("plain")],
    );
    // Raw bytes get a header, of one direction or as many as are asked for.
    for (options, shape) in [
        (&["--npy", "<f8"][..], "(1000,)"),
        (&["--npy", "f8:10,100", "--frame", "checked"], "(10, 100)"),
    ] {
        let frame = options.get(3).unwrap_or(&"raw");
        let source = server(frame, &at("plain"));
        let copy = at("copy.npy");
        let arguments = ["array", "recv", &source.endpoint, &copy, "--force"];
        run(&[&arguments, options].concat(), b"").expect(0);
        let said = numpy(
            "a = numpy.load(args[0]); print(a.shape, a.dtype, (a.ravel() == numpy.arange(1000.0)).all())",
            &[&copy],
        );
        assert_eq!(said, format!("{shape} float64 True\n"));
    }
    // A .npy file goes whole, or without its header.
    for (options, bytes) in [(&[][..], 8128), (&["--data-only"], 8000)] {
        let sink = server("sink", "");
        let arguments = ["array", "send", &at("saved.npy"), &sink.endpoint];
        let said = run(&[&arguments, options].concat(), b"").expect(0);
        assert!(
            said.text().contains(&format!("sent {bytes} bytes")),
            "{}",
            said.text()
        );
        assert!(
            said.stderr.contains("type <f8 and shape (1000,)"),
            "{}",
            said.stderr
        );
    }
    let plain = at("plain");
    let arguments = ["array", "send", &plain, "tcp://127.0.0.1:9", "--data-only"];
    run(&arguments, b"").expect(65);
}

/// Runs a line of Python with numpy, which must be there, and returns what it prints.
fn numpy(line: &str, arguments: &[&str]) -> String {
    let program = format!("import numpy, sys; args = sys.argv[1:]; {line}");
    let mut command = Command::new(peer("python3"));
    command.args(["-c", &program]).args(arguments);
    common::finish(&mut command, b"")
        .expect(0)
        .text()
        .to_owned()
}

#[test]
fn a_bar_is_shown_where_it_is_asked_for_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), 5_000_000);
    for (when, shown) in [("always", true), ("auto", false), ("never", false)] {
        let sink = server("sink fast", "");
        let arguments = ["array", "send", &file, &sink.endpoint, "--progress", when];
        let said = run(&arguments, b"").expect(65);
        assert_eq!(
            said.stderr.contains("MiB of"),
            shown,
            "{when}: {}",
            said.stderr
        );
    }
}

/// Resident memory at its peak does not depend on the size.
#[test]
fn memory_stays_flat() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    fs::File::create(&large)
        .unwrap()
        .set_len(300 << 20)
        .unwrap();
    let peak = |file: &str| {
        let sink = server("sink fast", "");
        let program = "import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
        let portyard = env!("CARGO_BIN_EXE_portyard");
        let arguments = [portyard, "array", "send", file, &sink.endpoint];
        python(program, &arguments).trim().parse::<u64>().unwrap()
    };
    let small = peak(&file(directory.path(), 3_000_000));
    let large = peak(&large.display().to_string());
    assert!(large < small + 16 * 1024, "{small} KiB, then {large} KiB");
}

/// Arguments: certificate, key, CA (or nothing for no TLS), behaviour, argument.
const SERVER: &str = r"
import os, socket, ssl, struct, sys
cert, key, ca, behaviour, argument = sys.argv[1:]
listener = socket.create_server(('127.0.0.1', 0))
print('PORT', listener.getsockname()[1], flush=True)
stream, _ = listener.accept()
if cert:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    stream = context.wrap_socket(stream, True)

def exactly(count):
    data = bytearray()
    while len(data) < count:
        piece = stream.recv(min(1 << 20, count - len(data)))
        if not piece:
            sys.exit('cut short')
        data += piece
    return data

def crc32c(data):
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xffffffff

if behaviour == 'sink':
    size, = struct.unpack('>Q', exactly(8))
    crc = crc32c(exactly(size))
    print('crc32c %08x' % crc)
    stream.sendall(struct.pack('>QI', size, crc ^ (argument == 'wrong')))
elif behaviour == 'sink fast':
    # Takes everything and sums nothing.
    size, = struct.unpack('>Q', exactly(8))
    left = size
    while left:
        left -= len(stream.recv(min(1 << 20, left)))
    stream.sendall(struct.pack('>QI', size, 1))
elif behaviour.startswith('refuse'):
    exactly(8)
    stream.sendall(struct.pack('>QI', 2**64 - 1, int(argument)))
    if behaviour == 'refuse and stay':
        # Until the client is gone.
        sys.stdin.read()
else:
    with open(argument, 'rb') as file:
        data = file.read()
    if behaviour == 'raw':
        stream.sendall(data)
    elif behaviour == 'sized':
        stream.sendall(struct.pack('>Q', len(data)) + data)
    elif behaviour == 'checked':
        stream.sendall(struct.pack('>Q', len(data)) + data + struct.pack('>I', crc32c(data)))
    elif behaviour == 'spoiled':
        crc = crc32c(data)
        stream.sendall(struct.pack('>Q', len(data)) + data[:-1] + b'?' + struct.pack('>I', crc))
    elif behaviour == 'cut':
        stream.sendall(struct.pack('>Q', len(data)) + data[:len(data) // 2])
stream.close()
";
