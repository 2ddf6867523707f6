//! What we write and read, against the XML-RPC of every Python that can be found here.
#![expect(
    clippy::disallowed_methods,
    reason = "the peer is a program; the crate under test sees only bytes"
)]
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use portyard_wire::value::Value;
use portyard_wire::xmlrpc::{Call, Caps, Options, XmlError, decode_call, encode_call};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Answers lines of words in hexadecimal with one such line: `same`, an expression and a document,
/// with what the two say in the words of `dumps`; `loads` and a document with what it says, or with
/// `!` and the text of the exception. It escapes what Python should.
const PEER: &str = r"
import signal, sys
from binascii import hexlify, unhexlify
try:
    import xmlrpc.client as client
except ImportError:
    import xmlrpclib as client
names = dict(vars(client), inf=float('inf'))
def encode(self, out):
    text = client.escape(self.value)
    out.write('<value><dateTime.iso8601>%s</dateTime.iso8601></value>\n' % text)
client.DateTime.encode = encode
def dumps(params, method='m'):
    body = client.dumps(params, method, allow_none=True, encoding='utf-8')
    return body if isinstance(body, bytes) else body.encode('utf-8')
for line in iter(sys.stdin.readline, ''):
    signal.alarm(60)
    words = [unhexlify(word) for word in line.rstrip('\n').split(' ')]
    if words[0] == b'same':
        said = [dumps((eval(words[1], names),)), dumps(client.loads(words[2])[0])]
    else:
        try:
            params, method = client.loads(words[1])
            said = [dumps(params, 'm' + client.escape(method or ''))]
        except Exception as error:
            said = [b'!' + ('%s:%s' % (type(error), error)).encode('utf-8')]
    print(' '.join(hexlify(word).decode('ascii') for word in said))
    sys.stdout.flush()
";

#[test]
fn every_python_reads_what_we_write_and_writes_what_we_read() {
    for python in pythons() {
        let peer = RefCell::new(Peer::start(&python));
        let ordered = peer.borrow().version >= (3, 7);
        let checked = runner(64).run(&values(), |value| {
            let mut ours = Vec::new();
            encode_call(
                "m",
                std::slice::from_ref(&value),
                Options::default(),
                &mut ours,
            )
            .unwrap();
            let literal = literal(&value);
            let said = peer.borrow_mut().ask(&[b"same", literal.as_bytes(), &ours]);
            let [theirs, read] = &said[..] else {
                panic!("{said:?}")
            };
            let about = format!("{} with {literal}", python.display());
            // Pythons before 3.7 have their own order of members.
            if ordered {
                prop_assert_eq!(lossy(&ours), lossy(theirs), "{}", about);
            }
            prop_assert_eq!(lossy(theirs), lossy(read), "{}", about);
            let call = decode_call(theirs, &Caps::default()).unwrap();
            prop_assert_eq!(&*call.method, "m");
            let [found] = &call.params[..] else {
                panic!("{call:?}")
            };
            prop_assert_eq!(sorted(found), sorted(&value), "{}", about);
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The recorded requests with a few bytes changed mean the same to us and to Python, or are refused
/// in the same words. `PROPTEST_CASES=100000` is for a longer look.
#[test]
fn broken_documents_are_refused_in_pythons_words() {
    let python = pythons()
        .into_iter()
        .find(|path| path.to_string_lossy().contains("3.11."));
    let peer = RefCell::new(Peer::start(&python.expect("Python 3.11 is installed")));
    let requests = requests();
    assert!(requests.len() > 300);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), piece(), 0..4_usize), 1..4);
    let documents = (prop::sample::select(requests), changes).prop_map(|(mut bytes, changes)| {
        for (at, piece, removed) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    });
    let checked = runner(1500).run(&documents, |document| {
        let ours = match decode_call(&document, &Caps::default()) {
            Ok(Call { method, params }) => {
                let mut bytes = Vec::new();
                let options = Options::default();
                match encode_call(&format!("m{method}"), &params, options, &mut bytes) {
                    Ok(()) => bytes,
                    Err(error) => format!("!{}", error.python_text()).into(),
                }
            }
            Err(error) if is_ours(&error) => return Ok(()),
            Err(error) => format!("!{}", error.python_text()).into(),
        };
        let said = peer.borrow_mut().ask(&[b"loads", &document]);
        // A bigdecimal, which Python reads and does not write; and expat takes `<!é` for the beginning
        // of a declaration where the é is one byte, so it finds the same mistake further on.
        let keyword = document
            .windows(3)
            .any(|w| w.starts_with(b"<!") && !w[2].is_ascii());
        if !keyword && !lossy(&said[0]).contains("cannot marshal") {
            let about = document.escape_ascii().to_string();
            prop_assert_eq!(lossy(&ours), lossy(&said[0]), "{}", about);
        }
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// Whether only we refuse that.
fn is_ours(error: &XmlError) -> bool {
    matches!(
        error,
        XmlError::Doctype
            | XmlError::Encoding(_)
            | XmlError::IntegerRange
            | XmlError::DecimalRange
            | XmlError::Name(_)
            | XmlError::NoMethod
            | XmlError::NotACall
    )
}

/// Bytes that mean something to XML, or nothing anywhere.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const MARKUP: &str = "< > & ; / ' \" = ] ]]> - -- --> ! ? ?> [ a x : 1 _ # % <!-- <? <![CDATA[ </ &amp; &# \
        &#x <a> <a/> </a> a='1' <value> </value> <int> </int> <struct> </struct> <?xml ( ) | , * + . e é 世 \u{ffff}";
    const BYTES: [&[u8]; 10] = [
        b"", b" ", b"\r", b"\n", b"\t", b"\0", b"\x0b", b"\xe9", b"\xff", b"\xc3",
    ];
    let markup = MARKUP.split(' ').map(str::as_bytes);
    let pieces: Vec<_> = markup.chain(BYTES).map(<[u8]>::to_vec).collect();
    prop::sample::select(pieces)
}

/// Values that survive: every double but NaN, and texts without what XML lacks or changes.
fn values() -> impl Strategy<Value = Value> {
    let text = prop::collection::vec(
        any::<char>().prop_filter(
            "XML has it",
            |c| matches!(c, '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'..),
        ),
        0..12,
    );
    let text = text.prop_map(String::from_iter);
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|value| Value::Int(value.into())),
        any::<f64>()
            .prop_filter("it equals itself", |value| !value.is_nan())
            .prop_map(Value::Double),
        (-1e20..1e20_f64).prop_map(Value::Double),
        text.clone().prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(Value::Bytes),
        "[0-9]{8}T[0-9:]{8}Z?".prop_map(Value::DateTime),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        let members = prop::collection::btree_map(text.clone(), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::List),
            members.prop_map(|members| {
                // Not in the order of the alphabet.
                let pairs = members.into_iter().rev();
                Value::Map(
                    pairs
                        .map(|(name, value)| (Value::String(name), value))
                        .collect(),
                )
            }),
        ]
    })
}

/// The value as Python spells it.
fn literal(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Nil => "None".into(),
        Value::Bool(value) => if *value { "True" } else { "False" }.into(),
        Value::Int(value) => value.to_string(),
        Value::Double(value) => format!("float('{value:e}')"),
        Value::String(text) => {
            text.chars().fold("u'".to_owned(), |mut literal, c| {
                let _ = write!(literal, "\\U{:08x}", u32::from(c));
                literal
            }) + "'"
        }
        Value::Bytes(bytes) => {
            bytes
                .iter()
                .fold("Binary(b'".to_owned(), |mut literal, byte| {
                    let _ = write!(literal, "\\x{byte:02x}");
                    literal
                })
                + "')"
        }
        Value::DateTime(text) => format!("DateTime('{text}')"),
        Value::List(items) => format!("[{}]", list(items.iter().map(literal).collect())),
        Value::Map(pairs) => {
            let pair =
                |(name, value): &(Value, Value)| format!("{}: {}", literal(name), literal(value));
            format!("{{{}}}", list(pairs.iter().map(pair).collect()))
        }
    }
}

/// The value with its members in the order of the alphabet.
fn sorted(value: &Value) -> Value {
    match value {
        Value::List(items) => Value::List(items.iter().map(sorted).collect()),
        Value::Map(pairs) => {
            let mut pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect();
            pairs.sort_by_key(|(name, _)| literal(name));
            Value::Map(pairs)
        }
        other => other.clone(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The same cases each time: what is found here is found again.
fn runner(cases: u32) -> TestRunner {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
}

/// The short requests that were recorded.
fn requests() -> Vec<Vec<u8>> {
    let recorded = include_str!("golden/xmlrpc/python-3.11").lines();
    let requests = recorded.filter_map(|line| line.strip_prefix("request\t"));
    let short = requests.filter(|line| line.len() < 2000 && !line.contains("\\{"));
    let requests = short.map(|line| {
        let mut pieces = line.split('\\');
        let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
        for piece in pieces {
            bytes.push(u8::from_str_radix(&piece[1..3], 16).unwrap());
            bytes.extend_from_slice(&piece.as_bytes()[3..]);
        }
        bytes
    });
    requests.collect()
}

struct Peer {
    child: Child,
    stdin: BufWriter<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    version: (u32, u32),
}

impl Peer {
    fn start(python: &Path) -> Self {
        let mut command = Command::new(python);
        let version = "import sys; print('%d %d' % sys.version_info[:2])";
        let version = Command::new(python).args(["-c", version]).output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let (major, minor) = version.trim().split_once(' ').unwrap();
        let version = (major.parse().unwrap(), minor.parse().unwrap());
        command
            .args(["-c", PEER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = BufWriter::new(child.stdin.take().unwrap());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
            version,
        }
    }

    fn ask(&mut self, words: &[&[u8]]) -> Vec<Vec<u8>> {
        for (i, word) in words.iter().enumerate() {
            write!(self.stdin, "{}", if i > 0 { " " } else { "" }).unwrap();
            for byte in *word {
                write!(self.stdin, "{byte:02x}").unwrap();
            }
        }
        writeln!(self.stdin).unwrap();
        self.stdin.flush().unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the peer gave up");
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        line.split_whitespace()
            .map(|word| word.as_bytes().chunks(2).map(byte).collect())
            .collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Those below `~/.pyenv/versions`, and the system's.
fn pythons() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/usr/bin/python3")];
    if let Some(home) = std::env::var_os("HOME")
        && let Ok(versions) = std::fs::read_dir(Path::new(&home).join(".pyenv/versions"))
    {
        paths.extend(versions.map(|version| version.unwrap().path().join("bin/python")));
    }
    paths.retain(|path| path.exists());
    assert!(!paths.is_empty(), "no Python to test against was found");
    paths
}
