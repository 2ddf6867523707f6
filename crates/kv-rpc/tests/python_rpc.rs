//! Calls over `multiprocessing.connection`: the Cookbook's client in every Python, and pickles that
//! want more than to be data.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "common/doors.rs"]
mod doors;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use doors::{bad_inputs, configured, revision};
use portyard_testkit::{Client, Daemon, End, eventually, python, pythons};

/// Recipe 11.8 of the Python Cookbook, unchanged, and what can be done with it.
const PICKLE: &str = r"
import pickle

class RPCProxy:
    def __init__(self, connection):
        self._connection = connection
    def __getattr__(self, name):
        def do_rpc(*args, **kwargs):
            self._connection.send(pickle.dumps((name, args, kwargs)))
            result = pickle.loads(self._connection.recv())
            if isinstance(result, Exception):
                raise result
            return result
        return do_rpc

import sys
from multiprocessing.connection import Client
c = Client((sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('ascii'))
proxy = RPCProxy(c)

for key in proxy.keys():
    proxy.delete(key)
assert proxy.set('foo', 'bar') is None
proxy.set('spam', [1, 2, 3])
assert proxy.keys() == ['foo', 'spam'], proxy.keys()
assert proxy.get('foo') == 'bar' and proxy.get(name='spam') == [1, 2, 3]
proxy.delete('spam')
assert proxy.exists('spam') is False

def raised(kind, args, method, *a, **k):
    try:
        method(*a, **k)
    except Exception as error:
        assert type(error) is kind, (type(error), error)
        assert args is None or error.args == args, error.args
    else:
        raise AssertionError('nothing was raised')

raised(KeyError, ('spam',), proxy.get, 'spam')
raised(KeyError, (7,), proxy.delete, 7)
raised(TypeError, None, proxy.get)
raised(TypeError, None, proxy.get, 'a', 'b')
raised(TypeError, None, proxy.get, nonsense=1)
raised(TypeError, None, proxy.set, [1], 2)
raised(ValueError, None, proxy.setex, 'a', 1, -1)
raised(KeyError, ('nope',), proxy.nope)
for value in (None, True, False, 0, -5, 2**31, -2**63, 2**63 - 1, 1.5, 1e300, u'', u'gr\xfc\xdfe \U0001f980',
        'x' * 100000, [], {}, {u'a': [1, {u'b': None}], u'c': [[]] * 20}):
    proxy.set('value', value)
    back = proxy.get('value')
    assert back == value and isinstance(back, bool) == isinstance(value, bool), (back, value)
blob = bytearray(range(256))
if sys.version_info[0] == 3:
    proxy.set('blob', bytes(blob))
    assert proxy.get('blob') == bytes(blob)
raised(ValueError, None, proxy.set, 'value', 2**64)
raised(OverflowError, None, lambda: [proxy.set('n', 2**63 - 1), proxy.incr('n')])
assert proxy.incr('m', by=5) == 5
for number in range(300):
    assert proxy.echo(number) == number
sys.stdout.write('done')
";

/// The same with `json`, as the recipe recommends where the peer is not trusted. There a failure is
/// a text, as in the recipe's own server.
const JSON: &str = r"
import json

class RPCProxy:
    def __init__(self, connection):
        self._connection = connection
    def __getattr__(self, name):
        def do_rpc(*args, **kwargs):
            self._connection.send(json.dumps((name, args, kwargs)))
            result = json.loads(self._connection.recv())
            return result
        return do_rpc

import sys
from multiprocessing.connection import Client
c = Client((sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('ascii'))
proxy = RPCProxy(c)
for key in proxy.keys():
    proxy.delete(key)
assert proxy.set('foo', {'list': [1, 2.5, None, True, u'\u20ac']}) is None
assert proxy.get('foo') == {'list': [1, 2.5, None, True, u'\u20ac']}
assert proxy.get(name='foo') and proxy.keys() == ['foo']
assert proxy.get('nothing') == u'\'nothing\'', proxy.get('nothing')
assert proxy.exists('foo') is True
sys.stdout.write('done')
";

/// Without the recipe's own `pickle.dumps`: what `send` makes of a tuple is a pickle already.
const PLAIN: &str = r"
import sys
from multiprocessing.connection import Client
c = Client((sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('ascii'))
for request, reply in ((('set', ('plain', 1), {}), None), (('get', ('plain',), {}), 1), (('get', (), {'name': 'plain'}), 1)):
    c.send(request)
    assert c.recv() == reply
c.send(('get', ('nothing',), {}))
error = c.recv()
assert type(error) is KeyError and error.args == ('nothing',), error
sys.stdout.write('done')
";

#[test]
fn the_recipes_client_works_in_every_python() {
    let daemon = start("", "md5");
    let port = daemon.address("python-rpc").port().to_string();
    let pythons = pythons();
    for wanted in [(2, 7), (3, 6), (3, 8), (3, 11), (3, 12), (3, 13)] {
        let found = pythons.iter().any(|python| python.version == wanted);
        assert!(found, "{wanted:?} is missing");
    }
    for python in pythons {
        for (form, script) in [("pickle", PICKLE), ("json", JSON), ("plain", PLAIN)] {
            let done = python.run(script, &["127.0.0.1", &port, "peekaboo"]);
            assert_eq!(done.code, Some(0), "{python:?} {form}\n{}", done.stderr);
            assert_eq!(done.stdout, "done", "{python:?} {form}");
        }
    }
}

#[test]
fn without_the_key_nothing_is_called() {
    let daemon = start("", "md5");
    let port = daemon.address("python-rpc").port().to_string();
    let done = python(PICKLE, &["127.0.0.1", &port, "wrong"]);
    assert!(
        done.stderr.contains("AuthenticationError"),
        "{}",
        done.stderr
    );
    // Who speaks first, without any key, is a failed proof as well.
    let client = Client::connect(&daemon.endpoint("python-rpc"));
    client.send(message(b"\x80\x04K\x07."));
    client.receive_all();
    assert_eq!(revision(&daemon), 0);
}

/// Objects whose unpickling would run a program, in each protocol, in each form.
const ATTACKS: &str = r#"
import os, pickle, struct, sys
from multiprocessing.connection import Client
mark = sys.argv[4]

class Evil(object):
    def __reduce__(self):
        return (os.system, ('touch ' + mark,))

class State(object):
    pass

protocols = (0, 2, pickle.HIGHEST_PROTOCOL)
attacks = []
for protocol in protocols:
    for thing in (Evil(), ('set', ('k', Evil()), {}), (Evil(), (), {}), ('set', ('k', State()), {}), ('get', (os.system,), {})):
        inner = pickle.dumps(thing, protocol)
        attacks.append(inner)
        attacks.append(pickle.dumps(inner, protocol))
attacks += [b"cos\nsystem\n(S'touch %s'\ntR." % mark.encode(), b"(S'touch %s'\nios\nsystem\n." % mark.encode(),
    b'P1\n.', b'\x80\x02\x82\x01.']
if sys.version_info[0] == 3:
    attacks += [b'\x80\x04\x8c\x02os\x8c\x06system\x93.']
answered = closed = 0
for attack in attacks:
    c = Client((sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('ascii'))
    try:
        c.send_bytes(attack)
        reply = pickle.loads(c.recv_bytes())
        if isinstance(reply, bytes):
            reply = pickle.loads(reply)
        assert isinstance(reply, ValueError), reply
        answered += 1
    except EOFError:
        closed += 1
    c.close()
sys.stdout.write('%d %d' % (len(attacks), answered + closed))
"#;

#[test]
fn a_pickle_that_would_run_something_is_refused_and_nothing_runs() {
    let daemon = start("", "md5");
    let port = daemon.address("python-rpc").port().to_string();
    let mark = daemon.dir().join("it-ran");
    let mark_text = mark.display().to_string();
    for python in pythons() {
        let before = bad_inputs(&daemon, "python-rpc");
        let arguments = ["127.0.0.1", &port, "peekaboo", &mark_text];
        let done = python.run(ATTACKS, &arguments);
        assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
        let (sent, refused) = done.stdout.split_once(' ').unwrap();
        assert_eq!(sent, refused, "{python:?}");
        let counted = bad_inputs(&daemon, "python-rpc") - before;
        assert_eq!(counted.to_string(), sent, "{python:?}");
    }
    assert!(!mark.exists(), "a pickle has run something");
    assert_eq!(revision(&daemon), 0);
}

#[test]
fn a_frame_that_is_too_long_or_negative_ends_the_connection() {
    let daemon = open("options = { max_request = \"1kB\" }");
    for (count, begin) in (1..).zip([
        &[0, 0, 4, 0][..],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0],
    ]) {
        let client = Client::connect(&daemon.endpoint("python-rpc"));
        client.send(begin);
        assert_eq!(client.end(), End::Fin, "{begin:?}");
        eventually("it is counted", || {
            bad_inputs(&daemon, "python-rpc") == count
        });
    }
}

#[test]
fn what_was_asked_before_a_broken_frame_is_answered() {
    let daemon = open("");
    let client = Client::connect(&daemon.endpoint("python-rpc"));
    // ("size", (), {}) in protocol 2.
    let size = message(b"\x80\x02U\x04size)}\x87.");
    client.send([&size[..], &size, &[0xff, 0, 0, 0]].concat());
    let (answer, end) = client.receive_all();
    assert_eq!(end, End::Fin);
    assert_eq!(answer, message(b"\x80\x02K\x00.").repeat(2));
}

#[test]
fn a_call_that_outlasts_the_idle_deadline_is_answered() {
    let daemon = open("[listener.limits]\nidle = \"20ms\"");
    let client = Client::connect(&daemon.endpoint("python-rpc"));
    // ("sleep", (0.25,), {}) in protocol 2, and None.
    client.send(message(
        b"\x80\x02U\x05sleepG\x3f\xd0\0\0\0\0\0\0\x85}\x87.",
    ));
    assert_eq!(client.receive(8), message(b"\x80\x02N."));
}

#[test]
fn a_busy_client_is_let_go_by_a_drain_with_all_that_was_done_acknowledged() {
    // ("set", ("k", 1), {}) in protocol 2, and None.
    let set = message(b"\x80\x02U\x03setU\x01kK\x01\x86}\x87.");
    doors::assert_drains("python-rpc", &set, &message(b"\x80\x02N."));
}

/// A message in the framing of Python.
fn message(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes()[..], payload].concat()
}

/// A daemon that wants the key `peekaboo`, proved by this digest at least.
fn start(more: &str, digest: &str) -> Daemon {
    let builder = Daemon::build(doors::BINARY);
    let keys = builder.dir().join("keys");
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&keys).unwrap();
    file.write_all(b"legacy:text:peekaboo\n").unwrap();
    let auth = format!(
        "auth = \"python\"\nauth_keys = \"{}\"\nmin_digest = \"{digest}\"\n{more}\n\
         [listener.limits]\npenalty = \"0s\"\n",
        keys.display()
    );
    configured(builder, &["python-rpc"], "engine = \"memory\"", &auth).start()
}

/// A daemon that wants no key.
fn open(more: &str) -> Daemon {
    doors::start(&["python-rpc"], "", more)
}
