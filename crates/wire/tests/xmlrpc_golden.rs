//! What Python's own key/value server answered to raw requests (tests/golden/xmlrpc/record.py),
//! against our decoder, a model of that server, and our encoder: byte for byte.

use portyard_testkit::cases_of;
use portyard_wire::value::Value;
use portyard_wire::xmlrpc::{
    Call, Caps, Options, decode_call, encode_fault, encode_response, python_repr,
};

const RECORDED: &str = include_str!("golden/xmlrpc/python-3.11");

/// Cases in which one answer at least is not Python's, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("doctype", "a document type is refused, whatever is in it"),
    ("entities", "a document type is refused, whatever is in it"),
    (
        "deep",
        "no value lies deeper than 64 others; Python takes 100,000",
    ),
    (
        "beyond 64 bits",
        "refused where it arrives; Python stores it and refuses to send it back",
    ),
    (
        "bigdecimal",
        "read as the double it is; Python stores it and refuses to send it back",
    ),
    (
        "date-time with a tag",
        "what a peer wrote is escaped; Python sends it as a tag",
    ),
    (
        "an int as a name",
        "a name is a string; Python refuses on the way back",
    ),
    ("a fault", "not a call; Python answers with that fault"),
    ("utf-16", "the encodings are UTF-8, ISO-8859-1 and US-ASCII"),
    (
        "other encoding",
        "the encodings are UTF-8, ISO-8859-1 and US-ASCII",
    ),
];

#[test]
fn the_answers_are_those_of_python() {
    let (mut cases, mut answers) = (0, 0);
    let (mut different, mut wrong) = (Vec::new(), Vec::new());
    for case in cases_of(RECORDED) {
        let mut server = Server::default();
        cases += 1;
        for (request, expected) in &case.exchanges {
            answers += 1;
            let answer = server.answer(request);
            if answer == *expected {
                continue;
            }
            if DIFFERENT.iter().any(|(name, _)| *name == case.name) {
                different.push(case.name);
                continue;
            }
            let (ours, theirs) = (text(&answer), text(expected));
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
        assert!(
            different.contains(name),
            "{name} is no longer different: {why}"
        );
    }
}

/// Says how long one call takes. By hand: `cargo test --release --test xmlrpc_golden -- --ignored
/// --nocapture`.
#[test]
#[ignore = "it measures and asserts nothing"]
#[expect(clippy::disallowed_methods, reason = "the clock is what this is about")]
fn speed() {
    let cases = cases_of(RECORDED);
    let case = cases
        .iter()
        .find(|case| case.name == "set and get")
        .unwrap();
    let (request, expected) = &case.exchanges[0];
    let (count, mut out) = (1_000_000, Vec::new());
    let begin = std::time::Instant::now();
    for _ in 0..count {
        let call = decode_call(std::hint::black_box(request), &Caps::default()).unwrap();
        assert_eq!(call.params.len(), 2);
        out.clear();
        encode_response(&Value::Nil, Options::default(), &mut out).unwrap();
    }
    assert_eq!(out, *expected);
    println!(
        "{:?} a call of {} bytes",
        begin.elapsed() / count,
        request.len()
    );
}

/// The example of Python's tutorial.
#[derive(Default)]
struct Server {
    data: Vec<(Value, Value)>,
}

impl Server {
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let done = decode_call(
            request,
            &Caps {
                bytes: 10 << 20,
                ..Caps::default()
            },
        )
        .map_err(|error| error.python_text())
        .and_then(|call| self.call(&call))
        .and_then(|value| {
            encode_response(&value, Options::default(), &mut out)
                .map_err(|error| error.python_text())
        });
        if let Err(text) = done {
            encode_fault(1, &text, &mut out);
        }
        out
    }

    fn call(&mut self, call: &Call) -> Result<Value, String> {
        let names: &[&str] = match &*call.method {
            "get" | "delete" | "exists" => &["name"],
            "set" => &["name", "value"],
            "keys" | "system.listMethods" => &[],
            "system.methodHelp" | "system.methodSignature" => &["method_name"],
            "system.multicall" => &["call_list"],
            name => {
                return Err(format!(
                    "<class 'Exception'>:method \"{name}\" is not supported"
                ));
            }
        };
        arity(&call.method, names, call.params.len())?;
        match (&*call.method, &*call.params) {
            ("get", [key]) => Ok(self.data[self.find(key)?].1.clone()),
            ("exists", [key]) => {
                hashable(key)?;
                Ok(Value::Bool(self.find(key).is_ok()))
            }
            ("delete", [key]) => {
                self.data.remove(self.find(key)?);
                Ok(Value::Nil)
            }
            ("set", [key, value]) => {
                hashable(key)?;
                match self.find(key) {
                    Ok(at) => self.data[at].1 = value.clone(),
                    Err(_) => self.data.push((key.clone(), value.clone())),
                }
                Ok(Value::Nil)
            }
            ("keys", _) => Ok(Value::List(
                self.data.iter().map(|(key, _)| key.clone()).collect(),
            )),
            ("system.listMethods", _) => Ok(Value::List(
                METHODS.iter().map(|&name| name.into()).collect(),
            )),
            ("system.methodHelp", _) => Ok("".into()),
            ("system.methodSignature", _) => Ok("signatures not supported".into()),
            (_, [Value::List(calls)]) => Ok(Value::List(
                calls.iter().map(|call| self.one_of_many(call)).collect(),
            )),
            _ => panic!("nothing of the kind was recorded"),
        }
    }

    fn one_of_many(&mut self, call: &Value) -> Value {
        let Value::Map(members) = call else { panic!() };
        let [(_, Value::String(method)), (_, Value::List(params))] = &members[..] else {
            panic!()
        };
        let (method, params) = (method.clone(), params.clone());
        match self.call(&Call { method, params }) {
            Ok(value) => Value::List(vec![value]),
            Err(text) => Value::Map(vec![
                ("faultCode".into(), Value::Int(1)),
                ("faultString".into(), Value::String(text)),
            ]),
        }
    }

    fn find(&self, key: &Value) -> Result<usize, String> {
        hashable(key)?;
        self.data
            .iter()
            .position(|(other, _)| same(other, key))
            .ok_or_else(|| format!("<class 'KeyError'>:{}", repr(key)))
    }
}

fn arity(method: &str, names: &[&str], given: usize) -> Result<(), String> {
    let missing = names.get(given..).unwrap_or_default();
    let expected = names.len() + 1;
    let text = match missing {
        [] if given == names.len() => return Ok(()),
        [] => {
            let (s, given) = (if expected == 1 { "" } else { "s" }, given + 1);
            format!("takes {expected} positional argument{s} but {given} were given")
        }
        [name] => format!("missing 1 required positional argument: '{name}'"),
        [a, b, ..] => format!("missing 2 required positional arguments: '{a}' and '{b}'"),
    };
    Err(format!(
        "<class 'TypeError'>:KeyValueServer.{method}() {text}"
    ))
}

fn hashable(key: &Value) -> Result<(), String> {
    let name = match key {
        Value::List(_) => "list",
        Value::Map(_) => "dict",
        Value::Bytes(_) => "Binary",
        Value::DateTime(_) => "DateTime",
        _ => return Ok(()),
    };
    Err(format!("<class 'TypeError'>:unhashable type: '{name}'"))
}

fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Int(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    };
    a == b || number(a).is_some_and(|a| number(b) == Some(a))
}

fn repr(value: &Value) -> String {
    match value {
        Value::Nil => "None".into(),
        Value::Int(value) => value.to_string(),
        Value::Double(value) => format!("{value:?}"),
        Value::String(text) => python_repr(text),
        _ => panic!("no such key was recorded"),
    }
}

const METHODS: &[&str] = &[
    "delete",
    "exists",
    "get",
    "keys",
    "set",
    "system.listMethods",
    "system.methodHelp",
    "system.methodSignature",
    "system.multicall",
];

/// The part of an answer in which two differ.
fn text(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let start = text.find("faultString").or_else(|| text.find("<param>"));
    text[start.unwrap_or(0)..].to_owned()
}
