//! Pickles to and from every Python that can be found here, and the recipe's proxies at our server.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "the peer is a program behind a socket; what fails in a helper fails the test"
)]

use portyard_testkit::{Python, eventually, pythons};
use portyard_wire::framing::{Decoder, Framing, python_message};
use portyard_wire::pickle::rpc::{Form, Request, decode_request, encode_reply};
use portyard_wire::pickle::{
    BuiltinException, Caps, Exception, PickleError, Protocol, decode, encode, encode_exception,
};
use portyard_wire::value::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const CAPS: Caps = Caps { size: 1 << 20 };
const PROTOCOLS: [Protocol; 2] = [Protocol::Two, Protocol::Four];

/// Writes each object in each protocol that the interpreter knows: its name, the protocol, the pickle.
const DUMP: &str = r"
import binascii, pickle, sys
shared = [1]
objects = [
    ('none', None), ('true', True), ('false', False),
    ('zero', 0), ('byte', 255), ('short', 256), ('long', 65536), ('minus', -1),
    ('max', 2**63 - 1), ('min', -2**63), ('over', 2**63), ('under', -2**63 - 1), ('huge', 10**400),
    ('half', 0.5), ('tiny', 5e-324), ('inf', float('inf')),
    ('text', u'a\n\r\t\\\'\x00\x7f\xe9\u20ac\U0001f600'), ('no text', u''), ('long text', u'\xe9' * 300),
    ('bytes', b'\x00\xff\n\\'), ('no bytes', b''), ('long bytes', b'\xff' * 300),
    ('bytes twice', [b'\xff', b'\xfe', b'', b'']),
    ('bytearray', bytearray(b'\x00\xff')), ('no bytearray', bytearray()),
    ('str', 'abc'), ('tuples', [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]),
    ('list', list(range(2500))), ('nested', [[[], [[]]], {}]),
    ('dict', {'a': 1, u'b': [None], 2: (), (1, (2,)): {}}),
    ('large dict', dict((i, i) for i in range(2500))),
    ('shared', [shared, shared, (shared, 'abc', 'abc')]),
    ('set', set([1])), ('complex', 1j), ('class', ValueError), ('exception', ValueError('no')),
]
cycle = []
cycle.append(cycle)
objects.append(('cycle', cycle))
for name, value in objects:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = binascii.hexlify(pickle.dumps(value, protocol)).decode('ascii')
        sys.stdout.write('%s|%d|%s\n' % (name, protocol, data))
";

#[test]
fn what_every_python_writes_is_read() {
    for python in pythons() {
        let two = python.version.0 == 2;
        let dumped = python.run(DUMP, &[]).success();
        let mut pickles = 0;
        for line in dumped.lines() {
            let [name, protocol, data] = line.split('|').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let about = format!("{name} in protocol {protocol} of {:?}", python.version);
            let read = decode(&from_hex(data), &CAPS);
            match expected(name, two) {
                Some(value) => assert_eq!(read.map(sorted), Ok(value), "{about}"),
                None => assert!(is_refusal(name, &read), "{about}: {read:?}"),
            }
            pickles += 1;
        }
        assert!(pickles >= 100, "only {pickles} of {:?}", python.version);
    }
}

fn is_refusal(name: &str, read: &Result<Value, PickleError>) -> bool {
    use PickleError::{Cycle, Forbidden, IntRange, NoForm};
    match name {
        "over" | "under" | "huge" => matches!(read, Err(IntRange { .. })),
        "cycle" => *read == Err(Cycle),
        "set" => matches!(read, Err(NoForm("set") | Forbidden("GLOBAL"))),
        _ => matches!(read, Err(Forbidden("GLOBAL" | "STACK_GLOBAL"))),
    }
}

/// What an object of [`DUMP`] is here; `None` when it is refused.
fn expected(name: &str, two: bool) -> Option<Value> {
    let bytes = |bytes: &[u8]| match str::from_utf8(bytes) {
        // They are a `str` there.
        Ok(text) if two => Value::from(text),
        _ => Value::Bytes(bytes.into()),
    };
    let ints = |ints: std::ops::Range<i64>| Value::List(ints.map(Value::Int).collect());
    let list = |items: &[Value]| Value::List(items.to_vec());
    Some(match name {
        "none" => Value::Nil,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "zero" => Value::Int(0),
        "byte" => Value::Int(255),
        "short" => Value::Int(256),
        "long" => Value::Int(65_536),
        "minus" => Value::Int(-1),
        "max" => Value::Int(i64::MAX),
        "min" => Value::Int(i64::MIN),
        "half" => Value::Double(0.5),
        "tiny" => Value::Double(5e-324),
        "inf" => Value::Double(f64::INFINITY),
        "text" => "a\n\r\t\\'\0\u{7f}\u{e9}\u{20ac}\u{1f600}".into(),
        "no text" => "".into(),
        "long text" => Value::String("\u{e9}".repeat(300)),
        "bytes" => bytes(b"\0\xff\n\\"),
        "no bytes" => bytes(b""),
        "long bytes" => bytes(&[0xff; 300]),
        "bytes twice" => list(&[bytes(&[0xff]), bytes(&[0xfe]), bytes(b""), bytes(b"")]),
        "bytearray" => Value::Bytes(vec![0, 0xff]),
        "no bytearray" => Value::Bytes(Vec::new()),
        "str" => "abc".into(),
        "tuples" => Value::List((0..5).map(|len| ints(1..len + 1)).collect()),
        "list" => ints(0..2500),
        "nested" => list(&[
            list(&[list(&[]), list(&[list(&[])])]),
            Value::Map(Vec::new()),
        ]),
        "dict" => {
            let key = list(&[Value::Int(1), list(&[Value::Int(2)])]);
            sorted(Value::Map(vec![
                ("a".into(), Value::Int(1)),
                ("b".into(), list(&[Value::Nil])),
                (Value::Int(2), list(&[])),
                (key, Value::Map(Vec::new())),
            ]))
        }
        "large dict" => {
            let pairs = (0..2500).map(|i| (Value::Int(i), Value::Int(i)));
            sorted(Value::Map(pairs.collect()))
        }
        "shared" => {
            let shared = ints(1..2);
            let tuple = list(&[shared.clone(), "abc".into(), "abc".into()]);
            list(&[shared.clone(), shared, tuple])
        }
        _ => return None,
    })
}

/// Python 2 writes a dict in no order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Map(mut pairs) => {
            pairs.sort_by_key(|(key, _)| format!("{key:?}"));
            Value::Map(pairs)
        }
        other => other,
    }
}

/// Reads pickles, and compares each with what an expression in Python comes to.
const LOAD: &str = r"
import binascii, pickle, sys
for data, expression in zip(sys.argv[1::2], sys.argv[2::2]):
    value = pickle.loads(binascii.unhexlify(data.encode('ascii')))
    wanted = eval(expression)
    if value != wanted or type(value) is not type(wanted):
        sys.exit('%r, not %r' % (value, wanted))
    if isinstance(value, list):
        if [type(item) for item in value] != [type(item) for item in wanted]:
            sys.exit('%r, not %r' % (value, wanted))
";

#[test]
fn every_python_reads_what_is_written() {
    let long = |len: usize| format!("u'{}'", "\\xe9".repeat(len));
    let map = |pairs: &[(Value, Value)]| Value::Map(pairs.to_vec());
    let key = Value::List(vec![Value::Int(1), Value::List(Vec::new())]);
    let values = [
        (Value::Nil, "None".into()),
        (Value::Bool(true), "True".into()),
        (Value::Double(-0.1), "-0.1".into()),
        (Value::Double(f64::INFINITY), "float('inf')".into()),
        (
            Value::from("a\n\u{20ac}\u{1f600}"),
            r"u'a\n\u20ac\U0001f600'".into(),
        ),
        (Value::String("\u{e9}".repeat(300)), long(300)),
        (
            Value::Bytes(vec![0, 10, 0x7f, 0xff]),
            r"b'\x00\n\x7f\xff'".into(),
        ),
        (Value::Bytes(Vec::new()), "b''".into()),
        (Value::Bytes(vec![0xfe; 300]), "b'\\xfe' * 300".into()),
        (Value::List(Vec::new()), "[]".into()),
        (
            Value::List(vec![Value::Nil, Value::Bytes(vec![b'a']), "a".into()]),
            "[None, b'a', u'a']".into(),
        ),
        (map(&[]), "{}".into()),
        (
            map(&[
                ("a".into(), Value::List(vec![Value::Int(1)])),
                (key, Value::Nil),
            ]),
            "{u'a': [1], (1, ()): None}".into(),
        ),
    ];
    let ints = [
        0,
        255,
        256,
        65_535,
        65_536,
        -1,
        i64::from(i32::MIN),
        1 << 31,
    ];
    let ints = ints.map(|int| (Value::Int(int), int.to_string()));
    for python in pythons() {
        for &protocol in known(&python) {
            let mut arguments = Vec::new();
            for (value, expression) in values.iter().chain(&ints) {
                let mut pickle = Vec::new();
                encode(value, protocol, &mut pickle).unwrap();
                arguments.extend([hex(&pickle), expression.clone()]);
            }
            run(&python, LOAD, &arguments);
        }
    }
}

/// Raises what pickles hold, and says what it caught.
const RAISE: &str = r"
import binascii, pickle, sys
for data in sys.argv[1:]:
    try:
        raise pickle.loads(binascii.unhexlify(data.encode('ascii')))
    except Exception as error:
        sys.stdout.write('%s %s\n' % (type(error).__name__, error))
";

#[test]
fn every_python_raises_the_exceptions() {
    let classes = [
        BuiltinException::AttributeError,
        BuiltinException::KeyError,
        BuiltinException::MemoryError,
        BuiltinException::OverflowError,
        BuiltinException::PermissionError,
        BuiltinException::RuntimeError,
        BuiltinException::TypeError,
        BuiltinException::ValueError,
    ];
    for python in pythons() {
        for &protocol in known(&python) {
            let (mut arguments, mut wanted) = (Vec::new(), Vec::new());
            for class in classes {
                let exception = Exception::new(class, "it's no");
                let mut pickle = Vec::new();
                encode_exception(class, &exception.args, protocol, &mut pickle).unwrap();
                arguments.push(hex(&pickle));
                let name = match class {
                    BuiltinException::PermissionError if python.version.0 == 2 => "OSError",
                    class => class.name(),
                };
                // Python 2 says of which kind the text is.
                let text = if python.version.0 == 2 {
                    exception.text().replace("\"it", "u\"it")
                } else {
                    exception.text()
                };
                wanted.push(format!("{name} {text}\n"));
            }
            let said = run(&python, RAISE, &arguments);
            assert_eq!(
                said,
                wanted.concat(),
                "{:?} with {protocol:?}",
                python.version
            );
        }
    }
}

/// The two proxies of recipe 11.8 as they are printed, but for the name of the one with JSON, a third
/// that does without pickles of its own, and calls of every kind.
const PROXIES: &str = r#"
import json, pickle, sys
from multiprocessing.connection import Client

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

class JSONProxy:
    def __init__(self, connection):
        self._connection = connection
    def __getattr__(self, name):
        def do_rpc(*args, **kwargs):
            self._connection.send(json.dumps((name, args, kwargs)))
            result = json.loads(self._connection.recv())
            return result
        return do_rpc

class PlainProxy:
    def __init__(self, connection):
        self._connection = connection
    def __getattr__(self, name):
        def do_rpc(*args, **kwargs):
            self._connection.send((name, args, kwargs))
            result = self._connection.recv()
            if isinstance(result, Exception):
                raise result
            return result
        return do_rpc

def said(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), error.args

c = Client(sys.argv[1])
for proxy in RPCProxy(c), PlainProxy(c):
    assert proxy.add(2, 3) == 5
    assert proxy.echo() == []
    text, data = u'\u20ac\n', b'\x00\xff' * 5000
    assert proxy.echo(None, True, 1.5, text, data, [1, [2]]) == [None, True, 1.5, text, data, [1, [2]]]
    assert proxy.echo(a=1, b={'x': (1,)}) == [{'a': 1, 'b': {'x': [1]}}]
    assert said(proxy.nothing, 1) == (KeyError, ('nothing',))
    assert said(proxy.add, 2) == (TypeError, ('two whole numbers',))
    assert said(proxy.add, 2**63, 1)[0] is OverflowError
    assert said(proxy.echo, set())[0] is TypeError
    assert said(proxy.date)[0] is TypeError
proxy = JSONProxy(c)
assert proxy.add(2, 3) == 5
assert proxy.echo(None, True, 1.5, u'\u20ac\n', [1, [2]]) == [None, True, 1.5, u'\u20ac\n', [1, [2]]]
assert proxy.echo(a=1) == [{'a': 1}]
assert proxy.date() == {'$datetime': '19980717T14:08:55'}
assert proxy.nothing(1) == "'nothing'"
assert proxy.add(2) == 'two whole numbers'
assert proxy.echo({'$bytes': '?'}).startswith('the object at byte')
print('all answered')
"#;

#[test]
fn the_proxies_of_the_cookbook_are_served() {
    for python in pythons() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = None;
            eventually("a proxy connects", || {
                stream = listener.accept().ok();
                stream.is_some()
            });
            serve(stream.unwrap().0)
        });
        let said = run(&python, PROXIES, &[path.to_str().unwrap().into()]);
        assert_eq!(said.trim(), "all answered", "{:?}", python.version);
        let protocol = match python.version.0 {
            2 => Protocol::Two,
            _ => Protocol::Four,
        };
        let forms = server.join().unwrap();
        for form in [Form::Wrapped, Form::Plain, Form::Json].map(|form| form(protocol)) {
            assert!(forms.contains(&form), "{:?}: no {form:?}", python.version);
        }
    }
}

/// Answers until the peer hangs up; returns the form of each request.
fn serve(mut stream: UnixStream) -> Vec<Form> {
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut decoder = Decoder::new(Framing::Python, 1 << 20);
    let (mut buffer, mut forms) = ([0; 4096], Vec::new());
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return forms,
            read => decoder.feed(&buffer[..read]),
        }
        while let Some(message) = decoder.next().unwrap() {
            let (form, outcome) = match decode_request(&message, &CAPS) {
                Ok(request) => (request.form, call(request)),
                Err(refused) => (refused.form.unwrap(), Err(refused.why.exception())),
            };
            forms.push(form);
            let mut reply = Vec::new();
            encode_reply(form, outcome.as_ref(), &mut reply);
            stream.write_all(&python_message(&reply)).unwrap();
        }
    }
}

fn call(request: Request) -> Result<Value, Exception> {
    match &*request.name {
        "add" => match request.args[..] {
            [Value::Int(a), Value::Int(b)] => Ok(Value::Int(a + b)),
            _ => Err(Exception::new(
                BuiltinException::TypeError,
                "two whole numbers",
            )),
        },
        "echo" => {
            let mut said = request.args;
            if !request.kwargs.is_empty() {
                let pairs = request
                    .kwargs
                    .into_iter()
                    .map(|(k, v)| (Value::String(k), v));
                said.push(Value::Map(pairs.collect()));
            }
            Ok(Value::List(said))
        }
        "date" => Ok(Value::DateTime("19980717T14:08:55".into())),
        name => Err(Exception::new(BuiltinException::KeyError, name)),
    }
}

fn known(python: &Python) -> &'static [Protocol] {
    let count = if python.version.0 == 2 { 1 } else { 2 };
    &PROTOCOLS[..count]
}

fn run(python: &Python, script: &str, arguments: &[String]) -> String {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    python.run(script, &arguments).success()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}
