//! What a server says went wrong with a call, in the terms of each protocol, and in ours.

use portyard_core::exit::Exit;
use portyard_wire::escape::escape;
use portyard_wire::jsonrpc::{self, ErrorObject};
use portyard_wire::pickle::{self, Caps};
use portyard_wire::value::Value;
use portyard_wire::xmlrpc::Fault;

/// A call that failed at the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// What kind of failure it is.
    pub kind: Kind,
    /// The class of the exception, where the server says it.
    class: Option<String>,
    /// The server's own words.
    text: String,
    /// Whether the change may have been made none the less.
    maybe_applied: bool,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such key.
    Missing,
    /// The arguments cannot be had.
    Arguments,
    /// Not here, or not by us.
    NotAllowed,
    /// Not now.
    Busy,
    /// The store does not work.
    Unavailable,
    /// The server does not remember what happened then.
    Forgotten,
    /// The server does not know the method.
    NoMethod,
    /// Something else.
    Other,
}

impl Raised {
    /// From an error of JSON-RPC: by its code, and else by the class that Portyard adds to it.
    pub fn from_json(error: ErrorObject) -> Self {
        let (mut class, mut maybe_applied) = (None, false);
        if let Some(Value::Map(members)) = error.data {
            for (name, value) in members {
                match (name, value) {
                    (Value::String(name), Value::String(text)) if name == "type" => {
                        class = is_class(&text).then_some(text);
                    }
                    (Value::String(name), Value::Bool(value)) if name == "maybe_applied" => {
                        maybe_applied = value;
                    }
                    _ => {}
                }
            }
        }
        Self {
            kind: Kind::of_code(error.code).unwrap_or_else(|| Kind::of_class(class.as_deref())),
            class,
            text: error.message,
            maybe_applied,
        }
    }

    /// From a fault: a Python server says `<class 'KeyError'>:'name'` under code 1.
    pub fn from_fault(fault: &Fault) -> Self {
        let python = fault.text.split_once(">:").and_then(|(class, text)| {
            let class = class
                .strip_prefix("<class '")
                .or_else(|| class.strip_prefix("<type '"))?
                .strip_suffix('\'')?;
            let class = class.rsplit('.').next().unwrap_or(class);
            is_class(class).then(|| (class.to_owned(), text.to_owned()))
        });
        let (class, text) = match python {
            Some((class, text)) => (Some(class), text),
            None => (None, fault.text.clone()),
        };
        let no_method = text.starts_with("method \"") && text.ends_with("\" is not supported");
        let kind = match Kind::of_code(fault.code) {
            Some(kind) => kind,
            None if no_method => Kind::NoMethod,
            None => Kind::of_class(class.as_deref()),
        };
        Self {
            kind,
            class,
            text,
            maybe_applied: false,
        }
    }

    /// From a pickle that wants to run something. Nothing of it is run: it is compared with what
    /// Python writes for an exception, and only the arguments, which must be data, are read.
    pub fn from_pickle(pickle: &[u8], caps: Caps) -> Self {
        let Some((class, arguments)) = exception(pickle) else {
            return Self {
                kind: Kind::Other,
                class: None,
                text: String::new(),
                maybe_applied: false,
            };
        };
        let text = match pickle::decode(&arguments, &caps) {
            Ok(Value::List(arguments)) => worded(&arguments),
            _ => String::new(),
        };
        Self {
            kind: Kind::of_class(Some(&class)),
            class: Some(class),
            text,
            maybe_applied: false,
        }
    }

    /// A sentence for a person who asked for this key, if for any.
    pub fn words(&self, key: Option<&str>) -> String {
        let text = escape(self.text.as_bytes(), MAX_SHOWN);
        let class = self.class.as_deref().unwrap_or("error");
        let mut words = match (self.kind, key) {
            (Kind::Missing, Some(key)) => format!("there is no key {key}"),
            (Kind::Missing, None) => format!("the server raised {class}: {text}"),
            (Kind::Arguments, _) => format!("the server refuses it ({class}): {text}"),
            (Kind::NotAllowed, _) => format!("not allowed: {text}"),
            (Kind::Busy, _) => format!("the server is busy: {text}; try again"),
            (Kind::Unavailable, _) => format!("the store cannot do it now: {text}"),
            (Kind::Forgotten, _) => format!("some events cannot be had: {text}"),
            (Kind::NoMethod, _) => format!("the server is no kv-rpc: {text}"),
            (Kind::Other, _) => match (&self.class, text.is_empty()) {
                (None, true) => "the server raised an exception".into(),
                (None, false) => format!("the server failed: {text}"),
                (Some(class), true) => format!("the server raised {class}"),
                (Some(class), false) => format!("the server raised {class}: {text}"),
            },
        };
        if self.maybe_applied {
            words.push_str("; it may have been done none the less");
        }
        words
    }
}

impl Kind {
    /// The code to leave with.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Missing => Exit::No,
            Self::Arguments => Exit::Usage,
            Self::NotAllowed => Exit::NoPermission,
            Self::Busy => Exit::TempFail,
            Self::Unavailable | Self::Other => Exit::Unavailable,
            Self::NoMethod | Self::Forgotten => Exit::Data,
        }
    }

    /// By the numbers that kv-rpc uses over JSON-RPC, and over XML-RPC where faults are interop.
    const fn of_code(code: i64) -> Option<Self> {
        Some(match code {
            jsonrpc::METHOD_NOT_FOUND => Self::NoMethod,
            jsonrpc::PARSE_ERROR | jsonrpc::INVALID_REQUEST | jsonrpc::INVALID_PARAMS | -32_003 => {
                Self::Arguments
            }
            -32_001 => Self::Missing,
            -32_004 => Self::Busy,
            -32_005 => Self::Unavailable,
            -32_006 => Self::NotAllowed,
            -32_007 => Self::Forgotten,
            _ => return None,
        })
    }

    fn of_class(class: Option<&str>) -> Self {
        match class {
            Some("KeyError") => Self::Missing,
            Some("TypeError" | "ValueError" | "OverflowError" | "MemoryError") => Self::Arguments,
            // Python 2 has no class of its own for it.
            Some("PermissionError" | "OSError") => Self::NotAllowed,
            Some("LookupError") => Self::Forgotten,
            Some("RuntimeError") => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

/// The name of the class, and a pickle of the arguments; `None` where the pickle is not exactly what
/// Python makes of an exception without a state: a name, a tuple, a call, the end.
fn exception(pickle: &[u8]) -> Option<(String, Vec<u8>)> {
    let (&[PROTO, version], mut rest) = pickle.split_first_chunk::<2>()? else {
        return None;
    };
    if let [FRAME, framed @ ..] = rest {
        rest = framed.get(8..)?;
    }
    let class;
    if let [GLOBAL, names @ ..] = rest {
        let mut lines = names.splitn(3, |byte| *byte == b'\n');
        let _module = lines.next()?;
        class = lines.next()?;
        rest = lines.next()?;
    } else {
        let (_module, names) = short_text(rest)?;
        (class, rest) = short_text(names)?;
        rest = rest.strip_prefix(&[STACK_GLOBAL])?;
    }
    let class = str::from_utf8(class).ok().filter(|name| is_class(name))?;
    rest = memorised(rest);
    // From the end: the last instruction but the memory is the call.
    let called = rest.strip_suffix(b".")?;
    let called = match called {
        [before @ .., MEMOIZE] | [before @ .., BINPUT, _] if before.ends_with(&[REDUCE]) => before,
        other => other,
    };
    let tuple = called.strip_suffix(&[REDUCE])?;
    let mut arguments = vec![PROTO, version];
    arguments.extend_from_slice(tuple);
    arguments.push(b'.');
    Some((class.into(), arguments))
}

/// A short text and what follows it.
fn short_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[SHORT_BINUNICODE, length], rest) = bytes.split_first_chunk::<2>()? else {
        return None;
    };
    let (text, rest) = rest.split_at_checked(length.into())?;
    Some((text, memorised(rest)))
}

/// What follows an instruction that only remembers.
fn memorised(bytes: &[u8]) -> &[u8] {
    match bytes {
        [MEMOIZE, rest @ ..] | [BINPUT, _, rest @ ..] => rest,
        other => other,
    }
}

fn is_class(name: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=CLASS_MAX).contains(&name.len()) && name.bytes().all(of_name)
}

/// The arguments of an exception as one text.
fn worded(arguments: &[Value]) -> String {
    let texts: Vec<String> = arguments
        .iter()
        // The number before the text of an OSError.
        .filter(|value| arguments.len() == 1 || !matches!(value, Value::Int(_)))
        .map(|value| match value {
            Value::String(text) => text.clone(),
            other => super::show::json(other),
        })
        .collect();
    texts.join(", ")
}

// Instructions of pickles, by the names that Python gives them.
const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const GLOBAL: u8 = b'c';
const STACK_GLOBAL: u8 = 0x93;
const SHORT_BINUNICODE: u8 = 0x8c;
const MEMOIZE: u8 = 0x94;
const BINPUT: u8 = b'q';
const REDUCE: u8 = b'R';

const CLASS_MAX: usize = 64;
/// Characters of a server's words.
const MAX_SHOWN: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { size: 1 << 20 };

    fn pickled(pickle: &[u8]) -> Raised {
        assert!(pickle::decode(pickle, &CAPS).is_err());
        Raised::from_pickle(pickle, CAPS)
    }

    #[test]
    fn what_python_writes_for_an_exception_is_told() {
        // `pickle.dumps(KeyError('x'), protocol)` of Python 3.13 in 4, of 3.8 in 3, of 2.7 in 2.
        for pickle in [
            &b"\x80\x04\x95!\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x08KeyError\x94\x93\x94\x8c\x01x\x94\x85\x94R\x94."[..],
            b"\x80\x03cbuiltins\nKeyError\nq\0X\x01\0\0\0xq\x01\x85q\x02Rq\x03.",
            b"\x80\x02cexceptions\nKeyError\nq\0U\x01xq\x01\x85q\x02Rq\x03.",
        ] {
            let raised = pickled(pickle);
            assert_eq!((raised.kind, &raised.text[..]), (Kind::Missing, "x"));
            assert_eq!(raised.words(Some("x")), "there is no key x");
            assert!(raised.words(None).contains("KeyError"));
        }
    }

    #[test]
    fn another_pickle_is_told_without_a_word_of_it() {
        for pickle in [
            &b"cos\nsystem\n(S'ls'\ntR."[..],
            b"\x80\x04\x8c\x02os\x8c\x06sys\ntem\x93)R.",
            b"\x80\x02c__builtin__\nset\nq\x00]q\x01K\x01a\x85q\x02Rq\x03b.",
            b"\x80\x04P.",
            b"\x80\x04",
        ] {
            let raised = Raised::from_pickle(pickle, CAPS);
            assert_eq!(
                raised.words(None),
                "the server raised an exception",
                "{pickle:?}"
            );
        }
        // A class with arguments that are no data: its name and nothing else.
        let nested = b"\x80\x02cbuiltins\nKeyError\ncos\nsystem\nU\x02ls\x85R\x85R.";
        assert_eq!(pickled(nested).words(None), "the server raised KeyError: ");
    }

    #[test]
    fn faults_of_python_and_of_the_registry_mean_the_same() {
        let fault = |code, text: &str| {
            let text = text.into();
            Raised::from_fault(&Fault { code, text })
        };
        for (code, text, kind) in [
            (1, "<class 'KeyError'>:'x'", Kind::Missing),
            (1, "<type 'exceptions.KeyError'>:'x'", Kind::Missing),
            (1, "<class 'TypeError'>:no", Kind::Arguments),
            (
                1,
                "<class 'Exception'>:method \"x\" is not supported",
                Kind::NoMethod,
            ),
            (1, "anything", Kind::Other),
            (-32_001, "'x'", Kind::Missing),
            (-32_601, "no", Kind::NoMethod),
            (-32_004, "later", Kind::Busy),
        ] {
            assert_eq!(fault(code, text).kind, kind, "{text}");
        }
        assert_eq!(fault(1, "<class 'TypeError'>:a\x1b").text, "a\x1b");
        assert!(
            fault(1, "<class 'TypeError'>:a\x1b")
                .words(None)
                .ends_with("a\\x1b")
        );
    }
}
