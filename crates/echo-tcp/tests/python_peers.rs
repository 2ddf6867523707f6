//! Python clients as any tutorial writes them, in every Python there is, and socat.

use std::process::Command;

use portyard_testkit::{Client, Daemon, finish, peer, pythons};

/// The client of the documentation of `socketserver`, and its variations.
const TUTORIAL: &str = r"
import socket, sys
HOST = sys.argv[1]
PORT = dict((a.split('=')[0], int(a.split('=')[1])) for a in sys.argv[2:])

def connect(name):
    s = socket.create_connection((HOST, PORT[name]), 20)
    return s

# The classic: send, then one recv.
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
sock.settimeout(20)
try:
    sock.connect((HOST, PORT['echo']))
    sock.sendall(b'hello world\n')
    assert sock.recv(1024) == b'hello world\n'
finally:
    sock.close()

# The one that sends no line end and waits for the answer.
sock = connect('timestamp')
sock.sendall(b'hi')
data = sock.recv(1024).decode('ascii')
assert data[0] == '[' and data[25:] == '] hi', data
import time
stamp = time.strptime(data[1:25])
assert time.asctime(stamp) == data[1:25], data
assert time.ctime(time.mktime(stamp)) == data[1:25], data
sock.close()

# Files over sockets, line by line.
sock = connect('command')
w = sock.makefile('wb')
r = sock.makefile('rb')
w.write(b'date\r\nquit\r\n')
w.flush()
line = r.readline()
assert line.endswith(b'\r\n'), line
time.strptime(line.decode('ascii').strip())
assert r.readline() == b''
sock.close()

# Read until the end.
sock = connect('daytime')
data = b''
while True:
    more = sock.recv(10)
    if not more:
        break
    data += more
assert len(data) == 26, data
time.strptime(data.decode('ascii').strip())
sock.close()

# Half-close, then read until the end.
sock = connect('echo')
sock.sendall(b'x' * 100000)
sock.shutdown(socket.SHUT_WR)
got = 0
while True:
    more = sock.recv(65536)
    if not more:
        break
    got += len(more)
assert got == 100000, got
sock.close()

sock = connect('sleep')
sock.sendall(b'.1\n')
assert sock.makefile('rb').readline() == b'slept 0.1\n'
sock.close()
sys.stdout.write('done')
";

/// Clients that only Python 3 has.
const MODERN: &str = r"
import asyncio, sys

async def main(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b'a\nb\n')
    await writer.drain()
    assert await reader.readline() == b'a\n'
    assert await reader.readline() == b'b\n'
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()

loop = asyncio.new_event_loop()
loop.run_until_complete(asyncio.wait_for(main(sys.argv[1], int(sys.argv[2])), 20))
sys.stdout.write('done')
";

const SERVICES: [&str; 5] = ["echo", "timestamp", "command", "daytime", "sleep"];

#[test]
fn the_clients_of_every_tutorial_work_in_every_python() {
    let daemon = start();
    let pythons = pythons();
    assert!(pythons.iter().any(|python| python.version.0 == 3));
    let mut arguments = vec!["127.0.0.1".to_owned()];
    arguments.extend(SERVICES.map(|name| format!("{name}={}", daemon.address(name).port())));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for python in pythons {
        let done = python.run(TUTORIAL, &arguments);
        assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
        assert_eq!(done.stdout, "done", "{python:?}");
    }
}

#[test]
fn asyncio_streams_work_in_every_python_3() {
    let daemon = start();
    let port = daemon.address("echo").port().to_string();
    for python in pythons().iter().filter(|python| python.version.0 == 3) {
        let done = python.run(MODERN, &["127.0.0.1", &port]);
        assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
        assert_eq!(done.stdout, "done", "{python:?}");
    }
}

#[test]
fn socat_gets_its_bytes_back_over_tcp_and_unix_sockets() {
    let daemon = start();
    let tcp = format!("TCP:{}", daemon.address("echo"));
    let path = format!("UNIX-CONNECT:{}", daemon.dir().join("echo.sock").display());
    let name = format!("ABSTRACT-CONNECT:{}", daemon.dir().display());
    let text = "socat says hello\n".repeat(10_000);
    for place in [tcp, path, name] {
        let mut socat = Command::new(peer("socat"));
        let done = finish(socat.args(["-t", "20", "-", &place]), text.as_bytes());
        assert!(done.stdout == text, "{place}: {}", done.stderr);
    }
}

#[test]
fn a_person_on_telnet_is_understood_whatever_the_line_end() {
    let daemon = start();
    let client = Client::connect(&daemon.endpoint("command"));
    // A telnet client sends options first, and a line in two pieces if the person is slow.
    for (typed, answer) in [("os\r\n", "Linux "), ("he", ""), ("lp\n", "date ")] {
        client.send(typed);
        if !answer.is_empty() {
            let line = client.receive_line();
            assert!(line.starts_with(answer), "{line:?}");
        }
    }
    let client = Client::connect(&daemon.endpoint("command"));
    client.send(b"\xff\xfd\x03\xff\xfb\x18date\r\n");
    let line = client.receive_line();
    assert_eq!(line, "error: the line is not UTF-8 text; type help\r\n");
    client.send("date\r\n");
    assert_eq!(client.receive_line().len(), 26);
}

fn start() -> Daemon {
    let builder = Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"));
    let path = format!("unix:{}", builder.dir().join("echo.sock").display());
    let name = format!("unix:@{}", builder.dir().display());
    let builder = SERVICES.iter().fold(builder, |builder, name| {
        builder.listen(format!("tcp://127.0.0.1:0={name}"))
    });
    builder
        .listen(format!("{path}=echo"))
        .listen(format!("{name}=echo"))
        .start()
}
