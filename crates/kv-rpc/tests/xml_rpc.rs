//! XML-RPC with the clients of every Python and of other languages, and byte for byte as Python's
//! own server answers.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "common/doors.rs"]
mod doors;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use doors::{Http, accepted, configured, revision, start, xml_call};
use portyard_testkit::{
    Certificates, Daemon, Pair, Python, cases_of, eventually, finish, peer, pythons,
};
use portyard_wire::value::Value;
use portyard_wire::xmlrpc::{Caps, Options, decode_response, encode_call};

/// The session of the Python Cookbook (11.6) and of the documentation of `xmlrpc.client`.
const TUTORIAL: &str = r#"
import datetime, sys
try:
    import xmlrpc.client as client
except ImportError:
    import xmlrpclib as client

s = client.ServerProxy(sys.argv[1], allow_none=True)
for key in s.keys():
    s.delete(key)

s.set('foo', 'bar')
s.set('spam', [1, 2, 3])
assert s.keys() == ['foo', 'spam']
assert s.get('foo') == 'bar'
assert s.get('spam') == [1, 2, 3]
assert s.delete('spam') is None
assert s.exists('spam') is False and s.exists('foo') is True

def fault(text, method, *args):
    try:
        method(*args)
    except client.Fault as error:
        assert error.faultCode == 1 and error.faultString == text, error
    else:
        raise AssertionError('no fault')

fault("<class 'KeyError'>:'spam'", s.get, 'spam')
fault("<class 'KeyError'>:'spam'", s.delete, 'spam')
fault("<class 'TypeError'>:unhashable type: 'list'", s.set, [1], 2)
fault("<class 'TypeError'>:KeyValueServer.get() missing 1 required positional argument: 'name'", s.get)
fault("<class 'Exception'>:method \"nope\" is not supported", s.nope)

calls = client.MultiCall(s)
calls.set('a', 1)
calls.get('a')
calls.get('missing')
calls.delete('a')
results = calls()
assert results[0] is None and results[1] == 1 and results[3] is None
try:
    results[2]
except client.Fault as error:
    assert error.faultString == "<class 'KeyError'>:'missing'", error
else:
    raise AssertionError('no fault')

names = s.system.listMethods()
assert names == sorted(names), names
for name in ('get', 'set', 'delete', 'exists', 'keys', 'system.listMethods', 'system.multicall'):
    assert name in names, name
assert s.system.methodSignature('get') == 'signatures not supported'
assert 'KeyError' in s.system.methodHelp('get')

moment = datetime.datetime(2026, 11, 2, 11, 41, 40)
nested = {'list': [1, [2, [3, {}]], None], 'map': {'a': {'b': []}}, 'empty': '', u'gr\xfc\xdfe': u'\u4e16\u754c'}
for value in (None, True, False, 0, -5, 2**31 - 1, -2**31, 1.5, -0.1, 1e300, '', 'x' * 100000, u'\u20ac <&> ]]>',
        ' padded\n\ttext ', [], {}, nested, [[]] * 50):
    s.set('value', value)
    back = s.get('value')
    assert back == value, (back, value)
    assert isinstance(back, bool) == isinstance(value, bool)
s.set('when', moment)
assert s.get('when') == client.DateTime(moment)
blob = bytes(bytearray(range(256)))
s.set('blob', client.Binary(blob))
assert s.get('blob').data == blob
typed = dict(use_builtin_types=True) if sys.version_info[0] == 3 else dict(use_datetime=True)
typed = client.ServerProxy(sys.argv[1], **typed)
assert typed.get('when') == moment
if sys.version_info[0] == 3:
    assert typed.get('blob') == blob
    typed.set('blob', b'\0\xff')
    assert typed.get('blob') == b'\0\xff'
for key in (u'gr\xfc\xdfe \U0001f980', '', 'a' * 1000, 7, 1.5, True, None):
    s.set(key, 'value')
    assert s.get(key) == 'value' and s.exists(key), key
    s.delete(key)
assert s.incr('n') == 1 and s.incr('n', 41) == 42
s.set('n', 2**31 - 1)
try:
    s.incr('n')
except client.Fault as error:
    assert 'int exceeds XML-RPC limits' in error.faultString, error
else:
    raise AssertionError('no fault')
assert s.cas('n', 5, 6) is False and s.cas('new', None, 1) is True
assert s.cad('new', 2) is False and s.cad('new', 1) is True and s.cad('new', None) is False
assert s.cas('new', None, 1) is True
page = s.scan('', None, 2)
assert len(page['entries']) == 2 and page['cursor']
s('close')()
sys.stdout.write('done')
"#;

#[test]
fn the_tutorial_works_in_every_python_over_one_connection_each() {
    let daemon = start(&["xml-rpc"], "", "");
    let pythons = pythons();
    let wanted = [
        (2, 7),
        (3, 6),
        (3, 7),
        (3, 8),
        (3, 9),
        (3, 10),
        (3, 11),
        (3, 12),
        (3, 13),
    ];
    for wanted in wanted {
        assert!(
            pythons.iter().any(|python| python.version == wanted),
            "{wanted:?} is missing"
        );
    }
    for python in pythons {
        let before = accepted(&daemon, "xml-rpc");
        assert_done(&python, TUTORIAL, &[&url(&daemon, "http")]);
        // One for each of the two proxies: calls share what stays open.
        assert_eq!(accepted(&daemon, "xml-rpc") - before, 2, "{python:?}");
    }
}

/// Requests are compressed above a threshold, answers as the client says that it takes them.
const GZIP: &str = r"
import sys
try:
    import xmlrpc.client as client
except ImportError:
    import xmlrpclib as client

class Transport(client.Transport):
    encode_threshold = 100
    coded = []
    def parse_response(self, response):
        self.coded.append(response.getheader('Content-Encoding'))
        return client.Transport.parse_response(self, response)
    def send_content(self, connection, body):
        put = connection.putheader
        def putheader(name, value):
            self.coded.append((name, value))
            put(name, value)
        connection.putheader = putheader
        try:
            client.Transport.send_content(self, connection, body)
        finally:
            connection.putheader = put

transport = Transport()
s = client.ServerProxy(sys.argv[1], transport=transport, allow_none=True)
text = u'many words, ' * 10000
s.set('text', text)
assert ('Content-Encoding', 'gzip') in transport.coded, transport.coded
assert transport.coded[-1] is None
assert s.get('text') == text
assert transport.coded[-1] == 'gzip', transport.coded
transport.accept_gzip_encoding = False
assert s.get('text') == text
assert transport.coded[-1] is None, transport.coded
sys.stdout.write('done')
";

#[test]
fn requests_and_answers_are_compressed_as_every_python_asks() {
    let daemon = start(&["xml-rpc"], "", "");
    for python in pythons() {
        assert_done(&python, GZIP, &[&url(&daemon, "http")]);
    }
}

const TLS: &str = r"
import ssl, sys
try:
    import xmlrpc.client as client
except ImportError:
    import xmlrpclib as client
url, authority, chain, key = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if chain:
    context.load_cert_chain(chain, key)
s = client.ServerProxy(url, context=context)
try:
    s.set('tls', 'x' * 100000)
except (ssl.SSLError, EnvironmentError) as error:
    sys.stdout.write('refused')
else:
    assert s.get('tls') == 'x' * 100000
    sys.stdout.write('served')
";

#[test]
fn every_python_verifies_our_certificate_and_shows_its_own() {
    let (ca, other) = (Certificates::new(), Certificates::new());
    let server = ca.server(&["localhost"]);
    let tls = format!(
        "[listener.limits]\npenalty = \"0s\"\n[listener.tls]\n\
         certificates = [{{ chain = {:?}, key = {:?} }}]\n",
        server.chain, server.key
    );
    let open = start(&["xml-rpc"], "", &tls);
    let wanted = format!("{tls}client = \"required\"\nclient_ca = {:?}\n", ca.ca());
    let closed = start(&["xml-rpc"], "", &wanted);
    let (own, foreign) = (ca.client("ada"), other.client("ada"));
    for python in pythons() {
        let run = |daemon: &Daemon, authority: &Path, own: Option<&Pair>| {
            let url = url(daemon, "https");
            let path =
                |path: Option<&Path>| path.map_or(String::new(), |p| p.display().to_string());
            let (chain, key) = (
                path(own.map(|own| &*own.chain)),
                path(own.map(|own| &*own.key)),
            );
            let authority = path(Some(authority));
            let arguments = [&url, &authority, &chain, &key];
            let arguments = arguments.map(String::as_str);
            python.run(TLS, &arguments).success()
        };
        assert_eq!(run(&open, ca.ca(), None), "served", "{python:?}");
        assert_eq!(run(&open, other.ca(), None), "refused", "{python:?}");
        assert_eq!(run(&closed, ca.ca(), Some(&own)), "served", "{python:?}");
        assert_eq!(run(&closed, ca.ca(), None), "refused", "{python:?}");
        assert_eq!(
            run(&closed, ca.ca(), Some(&foreign)),
            "refused",
            "{python:?}"
        );
    }
}

/// `XMLRPC::Lite` guesses the types of scalars, as Perl has none.
const PERL: &str = r"
use strict; use XMLRPC::Lite;
my $s = XMLRPC::Lite->proxy($ARGV[0]);
sub call { my $r = $s->call(@_); die $r->faultstring if $r->fault; $r->result }
my $blob = XMLRPC::Data->type(base64 => qq(\0\xff));
my $nothing = call('set', 'perl', { list => [1, 'two', 2.5], blob => $blob, yes => XMLRPC::Data->type(boolean => 1) });
die 'nil' if defined $nothing;
my $back = call('get', 'perl');
die 'list' unless join(',', @{$back->{list}}) eq '1,two,2.5';
die 'blob' unless $back->{blob} eq qq(\0\xff);
die 'yes' unless $back->{yes};
die 'keys' unless join(',', @{call('keys')}) eq 'perl';
die 'exists' if call('exists', 'nothing');
eval { call('get', 'nothing') };
die $@ unless $@ =~ /KeyError.*:'nothing'/;
print 'done';
";

#[test]
fn perl_is_served() {
    let daemon = start(&["xml-rpc"], "", "");
    let url = url(&daemon, "http") + "/RPC2";
    let mut perl = Command::new(peer("perl"));
    let done = finish(perl.args(["-e", PERL, &url]), b"");
    assert_eq!(done.success(), "done");
}

/// A client of xmlrpc-c, the library behind most programs in C.
const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xmlrpc-c/base.h>
#include <xmlrpc-c/client.h>

static void want(int holds, const char *what) {
    if (!holds) { fprintf(stderr, "%s\n", what); exit(1); }
}

int main(int argc, char **argv) {
    xmlrpc_env env;
    xmlrpc_value *value;
    const char *text;
    xmlrpc_int number;
    double half;
    (void)argc;
    xmlrpc_env_init(&env);
    xmlrpc_client_init2(&env, XMLRPC_CLIENT_NO_FLAGS, "test", "1", NULL, 0);
    value = xmlrpc_client_call(&env, argv[1], "set", "(s(id{s:s}))", "key", 7, 2.5, "name", "<gr>");
    want(!env.fault_occurred, env.fault_string);
    want(xmlrpc_value_type(value) == XMLRPC_TYPE_NIL, "nil");
    value = xmlrpc_client_call(&env, argv[1], "get", "(s)", "key");
    want(!env.fault_occurred, env.fault_string);
    xmlrpc_decompose_value(&env, value, "(id{s:s,*})", &number, &half, "name", &text);
    want(!env.fault_occurred, env.fault_string);
    want(number == 7 && half == 2.5 && !strcmp(text, "<gr>"), "value");
    xmlrpc_client_call(&env, argv[1], "get", "(s)", "nothing");
    want(env.fault_occurred && env.fault_code == 1, "fault");
    want(strstr(env.fault_string, "<class 'KeyError'>:'nothing'") != NULL, env.fault_string);
    xmlrpc_env_clean(&env);
    xmlrpc_env_init(&env);
    value = xmlrpc_client_call(&env, argv[1], "incr", "(sI)", "n", (xmlrpc_int64)1 << 40);
    want(!env.fault_occurred, env.fault_string);
    want(xmlrpc_value_type(value) == XMLRPC_TYPE_I8, "i8");
    puts("done");
    return 0;
}
"#;

#[test]
fn the_c_library_is_served_and_gets_i8_where_a_listener_sends_it() {
    let daemon = start(&["xml-rpc"], "", "options = { emit_i8 = true }");
    let (source, program) = (daemon.dir().join("client.c"), daemon.dir().join("client"));
    fs::write(&source, C).unwrap();
    let mut gcc = Command::new(peer("gcc"));
    gcc.arg("-o").args([&program, &source]);
    gcc.args(["-lxmlrpc_client", "-lxmlrpc", "-lxmlrpc_util"]);
    finish(&mut gcc, b"").success();
    let url = url(&daemon, "http") + "/RPC2";
    let done = finish(Command::new(program).arg(&url), b"");
    assert_eq!(done.success(), "done\n");
}

#[test]
fn curl_is_answered() {
    let daemon = start(&["xml-rpc"], "", "");
    let url = url(&daemon, "http");
    let body = xml_call("echo", &["<int>5</int>"]);
    let mut curl = Command::new(peer("curl"));
    let said = finish(curl.args(["-sS", "-i", "--data", &body, &url]), b"").success();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.contains("Content-Type: text/xml\r\n"), "{said}");
    assert!(said.contains("<value><int>5</int></value>"), "{said}");
    // More than a mebibyte: curl waits for 100 Continue.
    let text = format!("<string>{}</string>", "x".repeat(1_500_000));
    let body = xml_call("set", &["long", &text]);
    let mut curl = Command::new(peer("curl"));
    let said = finish(
        curl.args(["-sS", "--data-binary", "@-", &url]),
        body.as_bytes(),
    )
    .success();
    assert!(said.contains("<nil/>"), "{said}");
    let mut curl = Command::new(peer("curl"));
    let said = finish(curl.args(["-sS", "-i", &url]), b"").success();
    assert!(said.starts_with("HTTP/1.1 501 "), "{said}");
    let mut curl = Command::new(peer("curl"));
    let said = finish(
        curl.args([
            "-sS",
            "-i",
            "--data",
            &body[..50],
            &format!("{url}/elsewhere"),
        ]),
        b"",
    );
    assert!(said.success().starts_with("HTTP/1.1 404 "));
}

/// What Python's server answered to raw requests, recorded by `record.py` beside it.
const RECORDED: &str = include_str!("../../wire/tests/golden/xmlrpc/python-3.11");

/// Cases in which one answer at least is not Python's, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("doctype", "a document type is refused, whatever is in it"),
    ("entities", "a document type is refused, whatever is in it"),
    ("deep", "no value lies deeper than 64 others"),
    ("beyond 64 bits", "refused where it arrives"),
    ("bigdecimal", "read as the double it is"),
    ("date-time with a tag", "what a peer wrote is escaped"),
    ("an int as a name", "a name is a string"),
    ("a fault", "not a call; Python answers with that fault"),
    ("utf-16", "the encodings are UTF-8, ISO-8859-1 and US-ASCII"),
    (
        "other encoding",
        "the encodings are UTF-8, ISO-8859-1 and US-ASCII",
    ),
    ("bytes as a key", "bytes are a key here"),
    ("list of methods", "there are more methods"),
    ("help", "there is some"),
];

#[test]
fn the_answers_are_pythons_byte_for_byte() {
    let daemon = start(&["xml-rpc"], "", "");
    let http = Http::connect(&daemon, "xml-rpc");
    let (mut cases, mut answers) = (0, 0);
    let (mut different, mut wrong) = (Vec::new(), Vec::new());
    for case in cases_of(RECORDED) {
        cases += 1;
        delete_all(&http);
        for (request, expected) in &case.exchanges {
            answers += 1;
            let answer = http.post(request);
            assert_eq!(answer.status, 200, "{}", case.name);
            if answer.body == *expected {
                continue;
            }
            if DIFFERENT.iter().any(|(name, _)| *name == case.name) {
                different.push(case.name);
                continue;
            }
            let (ours, theirs) = (answer.text(), String::from_utf8_lossy(expected));
            let request = request.escape_ascii();
            wrong.push(format!("{}: {request}\n  {ours}\n  {theirs}", case.name));
        }
    }
    assert!(wrong.is_empty(), "ours, theirs:\n{}", wrong.join("\n"));
    assert!(
        cases >= 120 && answers >= 400,
        "{cases} cases, {answers} answers"
    );
    for (name, why) in DIFFERENT {
        let found = different.contains(name);
        assert!(found, "{name} is no longer different: {why}");
    }
    // One connection has carried all of it.
    assert_eq!(accepted(&daemon, "xml-rpc"), 1);
}

/// Every case begins with nothing stored.
#[track_caller]
fn delete_all(http: &Http) {
    let call = |method: &str, params: &[Value]| {
        let mut body = Vec::new();
        encode_call(method, params, Options::default(), &mut body).unwrap();
        let answer = http.post(body).body;
        decode_response(&answer, &Caps::default()).unwrap().unwrap()
    };
    let Value::List(keys) = call("keys", &[]) else {
        panic!("keys are a list")
    };
    for key in keys {
        call("delete", &[key]);
    }
}

/// A client that asks again when its connection turns out to be closed. Each key is set once and
/// deleted once, at moments around that at which the server closes what is idle; a delete that ran
/// twice would raise a fault the second time.
const RETRIES: &str = r"
import random, select, socket, sys, time
try:
    import xmlrpc.client as client
    from http.client import HTTPException
except ImportError:
    import xmlrpclib as client
    from httplib import HTTPException
url, name, rounds, idle = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
done = 0
s = client.ServerProxy(url, allow_none=True)
transport = s('transport')
class Over(Exception):
    pass
def make(method, *args):
    global done
    try:
        getattr(s, method)(*args)
    except (EnvironmentError, socket.error, HTTPException):
        raise Over()
    done += 1
def wait(turn):
    if not idle:
        return
    sock = transport._connection[1].sock if transport._connection[1] else None
    if turn % 4 == 0 and sock is not None:
        # Until the server has closed.
        assert select.select([sock], [], [], 20)[0]
    else:
        time.sleep(idle * random.uniform(0.9, 1.1))
try:
    for turn in range(rounds):
        key = '%s %d' % (name, turn)
        make('set', key, turn)
        wait(turn)
        make('delete', key)
        wait(turn + 2)
except Over:
    pass
sys.stdout.write(str(done))
";

#[test]
fn a_client_that_asks_again_never_makes_us_do_something_twice() {
    let daemon = start(&["xml-rpc"], "", "[listener.limits]\nidle = \"30ms\"");
    let mut changes = 0;
    for python in pythons() {
        let name = format!("{:?}", python.version);
        let arguments = [&url(&daemon, "http"), &name, "12", "0.03"];
        let done = python.run(RETRIES, &arguments.map(|argument| argument as &str));
        assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
        assert_eq!(done.stdout, "24", "{python:?}");
        changes += 24;
        assert_eq!(revision(&daemon), changes, "{python:?}");
    }
    let idle = "portyard_connections_ended_total\
                {listener=\"xml-rpc\",service=\"xml-rpc\",reason=\"idle\"}";
    assert!(daemon.count(idle) > 0, "none was closed under a client");
}

#[test]
fn what_a_drain_has_acknowledged_is_all_that_was_done() {
    for python in pythons() {
        let data = tempfile::tempdir().unwrap();
        let store = format!("directory = \"{}/data\"", data.path().display());
        let start = || configured(Daemon::build(doors::BINARY), &["xml-rpc"], &store, "").start();
        let daemon = start();
        let url = url(&daemon, "http");
        let done = thread::scope(|scope| {
            let client = scope.spawn(|| python.run(RETRIES, &[&url, "k", "100000", "0"]));
            eventually("it is at work", || revision(&daemon) > 20);
            let ended = daemon.terminate();
            assert_eq!(ended.code, Some(0));
            // Nobody had to be cut, although the client never rests.
            assert!(!ended.stderr.contains("cutting"), "{}", ended.stderr);
            client.join().unwrap()
        });
        assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
        let done: u64 = done.stdout.parse().unwrap();
        assert!(done > 20, "{python:?}");
        assert_eq!(revision(&start()), done, "{python:?}");
    }
}

/// The address of the listener, under the name in its certificate.
#[track_caller]
fn url(daemon: &Daemon, scheme: &str) -> String {
    format!("{scheme}://localhost:{}", daemon.address("xml-rpc").port())
}

#[track_caller]
fn assert_done(python: &Python, script: &str, arguments: &[&str]) {
    let done = python.run(script, arguments);
    assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
    assert_eq!(done.stdout, "done", "{python:?}");
}
