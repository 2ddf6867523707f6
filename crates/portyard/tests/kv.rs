//! `portyard kv` against the real store, through each of its doors.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::thread;

use common::store::{self, DOORS};
use common::{Run, finish, portyard, run};
use portyard_testkit::{Certificates, Daemon, eventually, peer, python};

/// A store in memory with all doors, each with these further lines.
fn store(more: &str) -> Daemon {
    store::in_memory("", more)
}

/// One door of a store.
struct Client {
    door: &'static str,
    endpoint: String,
    more: Vec<String>,
}

impl Client {
    fn all(store: &Daemon) -> Vec<Self> {
        let client = |(door, service): (&'static str, &str)| Self {
            door,
            endpoint: store.endpoint(service),
            more: Vec::new(),
        };
        DOORS.into_iter().map(client).collect()
    }

    fn json(store: &Daemon) -> Self {
        Self::all(store).remove(1)
    }

    fn run(&self, words: &[&str], input: &[u8]) -> Run {
        let mut command = portyard();
        command.args(["kv", "--door", self.door]);
        command.args(&self.more).arg(&self.endpoint).args(words);
        finish(&mut command, input)
    }

    /// What is printed by a command that does what it is asked.
    #[track_caller]
    fn says(&self, words: &[&str], expected: &str) {
        let run = self.run(words, b"").expect(0);
        assert_eq!(run.text(), expected, "{} {words:?}", self.door);
    }

    /// What is told by one that does not.
    #[track_caller]
    fn refuses(&self, words: &[&str], code: i32, because: &str) {
        let run = self.run(words, b"").expect(code);
        assert!(
            run.stderr.contains(because),
            "{} {words:?}: {}",
            self.door,
            run.stderr
        );
    }
}

#[test]
fn every_command_says_the_same_through_every_door() {
    for at in 0..DOORS.len() {
        // A store each, so that all see the same.
        let store = store("");
        let client = Client::all(&store).remove(at);
        client.says(&["size"], "0\n");
        client.says(&["set", "n", "41"], "");
        client.says(&["incr", "n"], "42\n");
        client.says(&["incr", "n", "-40"], "2\n");
        client.says(&["set", "text", "hello"], "");
        client.says(&["get", "text"], "\"hello\"\n");
        client.says(&["get", "text", "--text"], "hello\n");
        client.says(&["set", "five", "5", "--text"], "");
        client.says(&["get", "five"], "\"5\"\n");
        let map = r#"{"a":[1,2.5,null,true],"b":{"$bytes":"AP8="}}"#;
        client.says(&["set", "map", map], "");
        client.says(&["get", "map"], &format!("{map}\n"));
        client.says(&["set", "7", "-1", "--json-key"], "");
        client.says(&["get", "--json-key", "7"], "-1\n");
        client.refuses(&["get", "7"], 1, "there is no key 7");
        client.says(&["keys"], "n\ntext\nfive\nmap\n7 (integer)\n");
        client.says(
            &["keys", "--json"],
            "\"n\"\n\"text\"\n\"five\"\n\"map\"\n7\n",
        );
        client.says(&["scan", "--limit", "2"], "n     2\ntext  \"hello\"\n");
        client.says(
            &["scan", "te", "--json"],
            "{\"key\":\"text\",\"value\":\"hello\"}\n",
        );
        client.says(&["exists", "n"], "true\n");
        assert_eq!(
            client.run(&["exists", "m"], b"").expect(1).text(),
            "false\n"
        );
        client.says(&["cas", "n", "2", "3"], "true\n");
        client.run(&["cas", "n", "2", "4"], b"").expect(1);
        client.says(&["cas", "lock", "null", "me"], "true\n");
        client.run(&["cad", "lock", "you"], b"").expect(1);
        client.says(&["cad", "lock", "me"], "true\n");
        client.run(&["cad", "lock", "me"], b"").expect(1);
        client.says(&["cas", "lock", "null", "me"], "true\n");
        client.says(&["ttl", "n"], "null\n");
        client.says(&["expire", "n", "1h"], "true\n");
        let left: f64 = client
            .run(&["ttl", "n"], b"")
            .expect(0)
            .text()
            .trim()
            .parse()
            .unwrap();
        assert!((1.0..=3600.0).contains(&left), "{left}");
        client.says(&["persist", "n"], "true\n");
        client.run(&["persist", "n"], b"").expect(1);
        client.says(&["setex", "short", "x", "1000.5"], "");
        client.run(&["ttl", "short"], b"").expect(0);
        let entry = client.run(&["entry", "n", "--json"], b"").expect(0);
        assert!(
            entry.text().starts_with("{\"value\":3,\"revision\":"),
            "{}",
            entry.text()
        );
        let entry = client.run(&["entry", "n"], b"").expect(0);
        assert!(
            entry.text().starts_with("value     3\nrevision  "),
            "{}",
            entry.text()
        );
        client.says(&["delete", "n"], "");
        client.refuses(&["delete", "n"], 1, "there is no key n");
        client.refuses(&["ttl", "n"], 1, "there is no key n");
        client.refuses(&["incr", "text"], 64, "can only increment an integer");
        client.refuses(&["set", "a", "x", "--json"], 64, "no JSON");
        client.refuses(&["scan", "", "--limit", "x"], 64, "--limit");
        let edge = i64::MAX.to_string();
        client.says(&["set", "edge", &edge], "");
        client.refuses(&["incr", "edge"], 64, "OverflowError");
    }
}

#[test]
fn bytes_of_a_file_go_in_and_come_out_as_they_are() {
    let store = store("");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bytes");
    let bytes: Vec<u8> = (0..1_000_000_u32)
        .map(|n| n.to_be_bytes()[3] ^ n.to_be_bytes()[2])
        .collect();
    fs::write(&path, &bytes).unwrap();
    for client in Client::all(&store) {
        let file = path.to_str().unwrap();
        client.says(&["set", client.door, "--file", file], "");
        assert!(
            client
                .run(&["get", client.door, "--text"], b"")
                .expect(0)
                .stdout
                == bytes
        );
        client
            .run(&["set", "in", "--file", "-", "--json"], b"{\"a\": 1}\n")
            .expect(0);
        client.says(&["get", "in"], "{\"a\":1}\n");
        client.refuses(&["set", "in", "--file", file, "--text"], 64, "UTF-8");
        client.refuses(&["set", "in"], 64, "--file");
    }
}

#[test]
fn an_export_imports_into_another_store_whole() {
    let full = store("");
    let directory = tempfile::tempdir().unwrap();
    let mut input = String::new();
    for n in 0..1500 {
        writeln!(input, "{{\"key\":\"k{n:04}\",\"value\":[{n},\"é\"]}}").unwrap();
    }
    input.push_str("\n{\"key\":5,\"value\":{\"$bytes\":\"AP8=\"},\"ttl\":3600}\n");
    let client = Client::json(&full);
    let imported = client.run(&["import"], input.as_bytes()).expect(0);
    assert_eq!(imported.text(), "imported 1501 entries\n");
    let lines = |text: &str| -> Vec<String> {
        // What is left of an hour is not the same twice.
        let cut = |line: &str| line.split(",\"ttl\"").next().unwrap().to_owned();
        text.lines().map(cut).collect()
    };
    for client in Client::all(&full) {
        let file = directory.path().join(client.door);
        let name = file.to_str().unwrap();
        client.says(&["export", name], "exported 1501 entries\n");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        client.refuses(&["export", name], 64, "already");
        let exported = client.run(&["export"], b"").expect(0);
        assert_eq!(
            lines(exported.text()),
            lines(&fs::read_to_string(&file).unwrap())
        );
        let empty = store("");
        let other = Client::all(&empty)
            .into_iter()
            .find(|other| other.door == client.door);
        let other = other.unwrap();
        other.says(&["import", name], "imported 1501 entries\n");
        let again = other.run(&["export"], b"").expect(0);
        assert_eq!(lines(again.text()), lines(exported.text()));
        let ttl = other.run(&["ttl", "5", "--json-key"], b"").expect(0);
        assert!(ttl.text().trim().parse::<f64>().unwrap() <= 3600.0);
    }
    let some = client.run(&["export", "--prefix", "k000"], b"").expect(0);
    assert_eq!(some.text().lines().count(), 10);
    let cramped = Client {
        more: vec!["--max-answer".into(), "1500".into()],
        ..client
    };
    let exported = cramped.run(&["export"], b"").expect(0);
    assert_eq!(exported.text().lines().count(), 1501);
}

#[test]
fn an_import_that_fails_says_where_and_goes_on_from_there() {
    let store = store("options = { max_request = \"4KiB\" }");
    let client = Client::json(&store);
    let wrong = "{\"key\":\"a\",\"value\":1}\n\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\"}\n{\"key\":\"d\",\"value\":4}\n";
    let failed = client.run(&["import"], wrong.as_bytes()).expect(65);
    for part in ["line 4", "the value is missing", "2 entries", "--from 4"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    let mended = wrong.replace("\"c\"", "\"c\",\"value\":3");
    let rest = client
        .run(&["import", "--from", "4"], mended.as_bytes())
        .expect(0);
    assert_eq!(rest.text(), "imported 2 entries\n");
    client.says(&["keys"], "a\nb\nc\nd\n");
    // One that the server refuses: a key that cannot be one.
    let refused = "{\"key\":\"e\",\"value\":1}\n{\"key\":[1],\"value\":1}\n";
    let failed = client.run(&["import"], refused.as_bytes()).expect(64);
    assert!(
        failed
            .stderr
            .contains("line 2: the server refuses it (TypeError)"),
        "{}",
        failed.stderr
    );
    client.says(&["get", "e"], "1\n");
    let long = "x".repeat(10_000);
    let line = format!("{{\"key\":\"f\",\"value\":1}}\n{{\"key\":\"g\",\"value\":\"{long}\"}}\n");
    for client in Client::all(&store) {
        // Python's connections have no way to say so.
        let code = if client.door == "python" { 74 } else { 64 };
        let failed = client.run(&["import"], line.as_bytes()).expect(code);
        assert!(failed.stderr.contains("line 2: "), "{}", failed.stderr);
        client.says(&["get", "f"], "1\n");
    }
}

/// The next connection, which must come soon.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually("a connection", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Answers one call of JSON-RPC with its number.
fn answer_one(stream: &mut TcpStream) {
    let mut line = String::new();
    BufReader::new(&*stream).read_line(&mut line).unwrap();
    let id = line
        .split("\"id\":")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    writeln!(
        stream,
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{id}}}"
    )
    .unwrap();
}

#[test]
fn a_connection_that_idled_out_is_made_again_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let mut child = portyard()
        .args(["kv", "--door", "json", &endpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for expected in ["1\n", "2\n"] {
        stdin.write_all(b"size\n").unwrap();
        let mut stream = accept(&listener);
        answer_one(&mut stream);
        drop(stream);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    drop(stdin);
    assert_eq!(common::wait(&mut child), Some(0));
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer_one(&mut stream);
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        drop(stream);
        listener
    });
    let failed = run(&["kv", "--door", "json", &endpoint], b"size\nincr a\n").expect(74);
    assert!(
        failed.stderr.contains("without an answer"),
        "{}",
        failed.stderr
    );
    let listener = server.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn commands_from_a_script_go_over_one_connection_and_the_first_failure_is_told() {
    let store = store("");
    for client in Client::all(&store) {
        let script = b"# a comment\nset a {\"b\": [1, 2]}\n\nget a\nget missing\nset 'a b' \"it's\"\nget 'a b' --text\nget\nget a\n";
        let done = client.run(&[], script).expect(1);
        assert_eq!(done.text(), "{\"b\":[1,2]}\nit's\n{\"b\":[1,2]}\n");
        for part in ["no key missing", "<KEY>"] {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        let rest = client
            .run(&[], b"import\n{\"key\":\"i\",\"value\":1}\n")
            .expect(0);
        assert_eq!(rest.text(), "imported 1 entry\n");
    }
}

#[test]
fn tls_and_mutual_keys_open_every_door() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost", "127.0.0.1"]);
    let key_file = |name: &str, text: &str| {
        let path = certificates.dir().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let keys = key_file(
        "keys",
        "client:text:a secret of some length for all of us\n",
    );
    let others = key_file(
        "others",
        "client:text:another secret of some length at least\n",
    );
    let more = format!(
        "auth = \"mutual\"\nauth_keys = \"{keys}\"\n[listener.tls]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]",
        pair.chain.display(),
        pair.key.display()
    );
    let store = store(&more);
    let ca = certificates.ca().display().to_string();
    let options = |keys: &str| -> Vec<String> {
        [
            "--tls",
            "--ca",
            &ca,
            "--auth",
            "mutual",
            "--auth-key-file",
            keys,
        ]
        .map(Into::into)
        .to_vec()
    };
    for mut client in Client::all(&store) {
        client.more = options(&keys);
        client.says(&["set", "a", "1"], "");
        client.says(&["get", "a"], "1\n");
        client.run(&[], b"get a\nget a\n").expect(0);
        client.more = options(&others);
        client.refuses(&["get", "a"], 77, "key");
    }
}

#[test]
fn a_read_only_door_is_77() {
    let store = store("options = { read_only = true }");
    for client in Client::all(&store) {
        client.refuses(&["set", "a", "1"], 77, "read-only");
        client.says(&["size"], "0\n");
    }
}

#[test]
fn another_door_than_that_of_the_port_is_told_at_once() {
    let store = store("");
    for (door, service) in [
        ("json", "xml-rpc"),
        ("python", "xml-rpc"),
        ("xml", "python-rpc"),
        ("json", "python-rpc"),
        ("python", "json-rpc"),
    ] {
        let endpoint = store.endpoint(service);
        let said = run(
            &[
                "kv",
                "--door",
                door,
                &endpoint,
                "--timeout",
                "500ms",
                "size",
            ],
            b"",
        );
        assert!(
            matches!(said.code, Some(65 | 74 | 75)),
            "{door} {service}: {said:?}"
        );
        assert!(said.text().is_empty());
    }
}

#[test]
fn pythons_own_servers_are_understood() {
    let server = |program: &str| {
        let mut command = std::process::Command::new(peer("python3"));
        command.args(["-c", program]);
        common::pki::Server::start(command, "PORT ")
    };
    // A connection for each call, as HTTP/1.0 has it.
    let xml = server(PYTHON_XML);
    let client = |door, endpoint: &str| Client {
        door,
        endpoint: endpoint.into(),
        more: Vec::new(),
    };
    let xml = client("xml", &xml.endpoint.replace("localhost", "127.0.0.1"));
    let done = xml.run(&[], b"set a 1\nget a\nget b\nincr a\n").expect(1);
    assert_eq!(done.text(), "1\n");
    for part in [
        "there is no key b",
        "no kv-rpc: method \"incr\" is not supported",
    ] {
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
    let input =
        "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\",\"value\":3}\n";
    let imported = xml.run(&["import"], input.as_bytes()).expect(0);
    assert_eq!(imported.text(), "imported 3 entries\n");
    xml.says(&["get", "c"], "3\n");
    let recipe = server(PYTHON_RECIPE);
    let recipe = client("python", &recipe.endpoint.replace("localhost", "127.0.0.1"));
    let done = recipe
        .run(&[], b"set a {\"$bytes\": \"AP8=\"}\nget a\nget b\nttl a\n")
        .expect(1);
    assert_eq!(done.text(), "{\"$bytes\":\"AP8=\"}\n");
    for part in ["there is no key b", "server raised Strange"] {
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
}

/// A server that reads a request, says this, and closes.
fn hostile(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut some = [0; 4096];
        let _ = stream.read(&mut some);
        let _ = stream.write_all(answer);
    });
    endpoint
}

#[test]
fn an_answer_that_lies_is_refused_and_nothing_of_it_is_run_or_shown_raw() {
    for (door, answer, code, because) in [
        (
            "json",
            &b"{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":1}\n"[..],
            65,
            "not asked",
        ),
        ("json", b"{\"jsonrpc\"", 74, "in the middle"),
        ("json", b"", 74, "without an answer"),
        (
            "xml",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            65,
            "--max-answer",
        ),
        (
            "xml",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<a/>",
            65,
            "--door",
        ),
        (
            "xml",
            b"HTTP/1.1 503 Busy\x1b[2J\r\n\r\n",
            75,
            "Busy\\x1b[2J",
        ),
        ("python", b"\0\0\0\x10cos\nsystem\n)R.", 74, "in the middle"),
        (
            "python",
            b"\0\0\0\x0ecos\nsystem\n)R.",
            69,
            "the server raised an exception",
        ),
        ("python", b"\x7f\xff\xff\xff", 65, "--max-answer"),
        ("python", b"\0\0\0\x0b#CHALLENGE#", 77, "--auth python"),
    ] {
        let endpoint = hostile(answer);
        let run = run(&["kv", "--door", door, &endpoint, "size"], b"").expect(code);
        assert!(
            run.stderr.contains(because),
            "{door} {because}: {}",
            run.stderr
        );
        assert!(run.text().is_empty() && !run.stderr.contains('\x1b'));
    }
    let told = run(&["kv", "gett"], b"").expect(64);
    assert!(
        told.stderr.contains("neither a command nor an endpoint"),
        "{}",
        told.stderr
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", silent.local_addr().unwrap());
    run(&["kv", &endpoint, "--timeout", "50ms", "size"], b"").expect(75);
}

#[test]
fn the_prompt_completes_commands_and_keys_and_remembers() {
    let store = store("");
    let client = Client::json(&store);
    client.says(&["set", "greeting", "hello"], "");
    client.says(&["set", "two words", "2"], "");
    let state = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_portyard");
    let directory = state.path().to_str().unwrap();
    python(PYTHON_PTY, &[binary, &client.endpoint, directory]).success();
    client.says(&["get", "n"], "1\n");
    let history = state.path().join("portyard/kv-history");
    let text = fs::read_to_string(&history).unwrap();
    assert_eq!(text, "get greeting\nget 'two words'\nincr n\nget missing\n");
    assert_eq!(
        fs::metadata(&history).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

const PYTHON_XML: &str = "
import sys
from xmlrpc.server import SimpleXMLRPCServer
server = SimpleXMLRPCServer(('127.0.0.1', 0), allow_none=True, logRequests=False)
data = {}
server.register_function(data.__setitem__, 'set')
server.register_function(data.__getitem__, 'get')
print('PORT', server.server_address[1], flush=True)
server.serve_forever()
";

/// Recipe 11.8, as the Cookbook prints its handler.
const PYTHON_RECIPE: &str = "
import pickle
from multiprocessing.connection import Listener
class Strange(Exception): pass
data = {}
def ttl(name): raise Strange('why')
functions = {'set': data.__setitem__, 'get': data.__getitem__, 'ttl': ttl}
with Listener(('127.0.0.1', 0)) as listener:
    print('PORT', listener.address[1], flush=True)
    with listener.accept() as connection:
        try:
            while True:
                func_name, args, kwargs = pickle.loads(connection.recv())
                try:
                    r = functions[func_name](*args, **kwargs)
                    connection.send(pickle.dumps(r))
                except Exception as e:
                    connection.send(pickle.dumps(e))
        except EOFError:
            pass
";

/// Types at a prompt and waits for what must appear.
const PYTHON_PTY: &str = r"
import os, pty, select, sys, time
binary, endpoint, state = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(XDG_STATE_HOME=state, TERM='xterm')
    os.execv(binary, [binary, 'kv', '--door', 'json', endpoint])
seen = b''
def wait_for(text):
    global seen
    deadline = time.monotonic() + 20
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], (text, seen)
        seen += os.read(terminal, 4096)
    seen = seen[seen.index(text) + len(text):]
def type(keys):
    os.write(terminal, keys)
wait_for(b'kv> ')
type(b'ge\t'); wait_for(b'get ')
type(b'gre\t'); wait_for(b'greeting')
type(b'\r'); wait_for(b'\x22hello\x22'); wait_for(b'kv> ')
type(b'get two\t'); wait_for(b'two words')
type(b'\r'); wait_for(b'2\r\n'); wait_for(b'kv> ')
type(b'incr n\r'); wait_for(b'1\r\n'); wait_for(b'kv> ')
type(b' size\r'); wait_for(b'3\r\n'); wait_for(b'kv> ')
type(b'get missing\r'); wait_for(b'no key missing'); wait_for(b'kv> ')
type(b'\x04')
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
";
