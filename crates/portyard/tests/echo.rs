//! `portyard echo` against small servers on ports of their own.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;
use std::thread;

use common::{portyard, python, run};

/// An echo server for one connection that closes only after the client has.
fn echo_once() -> String {
    serve_once(|mut stream| {
        let mut everything = Vec::new();
        stream.read_to_end(&mut everything).unwrap();
        stream.write_all(&everything).unwrap();
    })
}

fn serve_once(work: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || work(listener.accept().unwrap().0));
    endpoint
}

#[test]
fn the_sending_half_is_closed_and_the_answer_read_to_its_end() {
    let run = run(&["echo", &echo_once()], b"hi\nho").expect(0);
    assert_eq!(run.stdout, b"hi\nho");
}

#[test]
fn a_large_stream_comes_back_byte_for_byte_while_it_is_sent() {
    let endpoint = serve_once(|mut stream| {
        let mut reader = stream.try_clone().unwrap();
        std::io::copy(&mut reader, &mut stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let input: Vec<u8> = (0..20_000_000_u32)
        .map(|n| n.to_be_bytes()[3] ^ n.to_be_bytes()[2])
        .collect();
    let run = run(&["echo", &endpoint], &input).expect(0);
    assert!(run.stdout == input);
}

#[test]
fn what_comes_back_in_a_pipe_is_raw() {
    let run = run(&["echo", &echo_once()], b"\x1b[2J\0\xff").expect(0);
    assert_eq!(run.stdout, b"\x1b[2J\0\xff");
}

#[test]
fn a_server_that_closes_first_ends_it() {
    let endpoint = serve_once(|mut stream| stream.write_all(b"bye\n").unwrap());
    let mut child = portyard()
        .args(["echo", &endpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The input stays open.
    let _stdin = child.stdin.take();
    assert_eq!(common::wait(&mut child), Some(0));
}

#[test]
fn a_server_that_never_answers_is_75() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let run = run(&["echo", &endpoint, "--timeout", "50ms"], b"hi").expect(75);
    assert!(run.stderr.contains("--timeout"), "{}", run.stderr);
}

#[test]
fn nobody_listening_is_69_and_says_how_to_start_the_yard() {
    for scheme in ["tcp", "udp"] {
        let port = if scheme == "tcp" {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        } else {
            UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        };
        let run = run(&["echo", &format!("{scheme}://127.0.0.1:{port}")], b"hi\n").expect(69);
        assert!(run.stderr.contains("portyard up"), "{}", run.stderr);
    }
}

#[test]
fn each_line_is_a_datagram_and_a_lost_one_is_sent_again() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("udp://{}", server.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let mut buffer = [0; 100];
        let mut heard = Vec::new();
        for number in 0..4 {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            heard.push(buffer[..length].to_vec());
            if number > 0 {
                server.send_to(&buffer[..length], from).unwrap();
            }
        }
        heard
    });
    let run = run(
        &["echo", &endpoint, "--timeout", "100ms", "--tries", "9"],
        b"one\r\n\nthree",
    )
    .expect(0);
    assert_eq!(run.text(), "one\n\nthree\n");
    let heard = serving.join().unwrap();
    assert_eq!(heard, [&b"one"[..], b"one", b"", b"three"]);
}

#[test]
fn silence_over_udp_is_75_after_the_tries() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("udp://{}", server.local_addr().unwrap());
    let run = run(&["echo", &endpoint, "--timeout", "20ms"], b"hi\n").expect(75);
    assert!(run.stderr.contains("3 tries of 20ms"), "{}", run.stderr);
    server.set_nonblocking(true).unwrap();
    let mut buffer = [0; 10];
    for _ in 0..3 {
        assert_eq!(server.recv(&mut buffer).unwrap(), 2);
    }
}

#[test]
fn unix_streams_and_datagrams() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut everything = Vec::new();
        stream.read_to_end(&mut everything).unwrap();
        stream.write_all(&everything).unwrap();
    });
    let endpoint = format!("unix:{}", path.display());
    assert_eq!(
        run(&["echo", &endpoint], b"stream").expect(0).stdout,
        b"stream"
    );

    let path = directory.path().join("datagram");
    let server = UnixDatagram::bind(&path).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to_addr(&buffer[..length], &from).unwrap();
    });
    let endpoint = format!("unix:{}", path.display());
    let run = run(&["echo", "--datagram", &endpoint], b"datagram\n").expect(0);
    assert_eq!(run.stdout, b"datagram\n");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let endpoint = serve_once(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let mut child = portyard()
        .args(["echo", &endpoint])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();
    assert_eq!(common::wait(&mut child), Some(0));
    let mut complaint = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaint)
        .unwrap();
    assert_eq!(complaint, "");
}

#[test]
fn a_person_at_a_terminal_gets_a_prompt_and_answers_and_leaves_with_control_d() {
    let endpoint = serve_once(|mut stream| {
        let mut buffer = [0; 100];
        let length = stream.read(&mut buffer).unwrap();
        stream.write_all(&buffer[..length]).unwrap();
        let length = stream.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"two\n");
        stream.write_all(b"\x1b[2J\n").unwrap();
        // Until the person leaves.
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    });
    let talk = r"[(b'hello\r', b'hello\r\n'), (b'two\r', b'\\x1b[2J')]";
    let seen = at_a_terminal(&endpoint, talk, r"\x04");
    assert!(seen.contains("exit 0"), "{seen}");
}

#[test]
fn control_c_leaves_cleanly_too() {
    let endpoint = serve_once(|mut stream| {
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    });
    let seen = at_a_terminal(&endpoint, "[]", r"\x03");
    assert!(seen.contains("exit 0"), "{seen}");
}

#[test]
fn a_person_can_talk_through_tls() {
    let pki = common::pki::Pki::new();
    let endpoint = pki.serve(|mut stream| {
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
        // Until the person leaves, which ends the session in order.
        assert_eq!(stream.read(&mut line).unwrap(), 0);
    });
    let program = TERMINAL
        .replace("LEAVE", r"\x04")
        .replace("TALK", r"[(b'hello\r', b'hello\r\n')]");
    let portyard = env!("CARGO_BIN_EXE_portyard");
    let arguments = [portyard, &endpoint, "--tls", "--ca", &pki.file("ca.pem")];
    let seen = python(&program, &arguments);
    assert!(seen.contains("exit 0"), "{seen}");
}

/// Lets Python type at the program; `talk` is a list of what is typed and what must be answered.
fn at_a_terminal(endpoint: &str, talk: &str, leave: &str) -> String {
    let program = TERMINAL.replace("LEAVE", leave).replace("TALK", talk);
    python(&program, &[env!("CARGO_BIN_EXE_portyard"), endpoint])
}

/// Talks to the program through a pseudo-terminal: waits for the prompt, types, waits for the answer.
const TERMINAL: &str = r"
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execv(sys.argv[1], [sys.argv[1], 'echo'] + sys.argv[2:])
behind = b''
def until(what):
    # What comes behind it in the same read is kept for the next call.
    global behind
    end = time.monotonic() + 20
    while what not in behind:
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        assert ready, (what, behind)
        behind += os.read(fd, 4096)
    behind = behind.split(what, 1)[1]
until(b'> ')
for typed, answer in TALK:
    os.write(fd, typed)
    # The typed line is shown first, then the answer on a line of its own, then the next prompt.
    until(b'\n')
    until(answer)
    until(b'> ')
os.write(fd, b'LEAVE')
try:
    while os.read(fd, 4096): pass
except OSError:
    pass
_, status = os.waitpid(pid, 0)
print('exit', os.waitstatus_to_exitcode(status))
";
