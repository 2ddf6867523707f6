//! The methods, the same behind every door: a row for each, with its parameters and its help.
#![expect(
    clippy::unnecessary_wraps,
    reason = "all methods have the same form, whether they can fail or not"
)]

mod signature;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use portyard_wire::value::Value;

pub use self::signature::{Arguments, Signature};
use self::watch::watch;
pub use self::watch::{Watched, event};
use crate::error::MethodError;
use crate::store::{
    Answer, Applied, Batch, Compare, Cursor, Entry, Key, Only, Operation, Outcome, Prefix, Store,
    StoreError, Ttl,
};

/// One method.
pub struct Method {
    /// How it is called.
    pub signature: Signature,
    /// Whether it can change something.
    pub writes: bool,
    begin: fn(&Store, Vec<Value>) -> Result<Begun, MethodError>,
}

/// What a call has come to so far.
pub enum Begun {
    /// Its result.
    Done(Reply),
    /// It waits: for the disk, or for time to pass. Whatever it changes is queued already, so that
    /// calls that are begun one after the other share a sync.
    Waits(Pin<Box<dyn Future<Output = Result<Reply, MethodError>>>>),
}

/// A result, perhaps shared with the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Made for this call.
    Owned(Value),
    /// What is stored.
    Stored(Arc<Value>),
    /// Events. What of them a protocol cannot say is left out by name, so that a watch gets past it.
    Events(Value),
}

impl Reply {
    /// The value.
    pub fn value(&self) -> &Value {
        match self {
            Self::Owned(value) | Self::Events(value) => value,
            Self::Stored(value) => value,
        }
    }
}

impl From<Value> for Begun {
    fn from(value: Value) -> Self {
        Self::Done(Reply::Owned(value))
    }
}

/// The method of that name.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.signature.name == name)
}

/// Begins a call.
pub fn begin(store: &Store, name: &str, arguments: Arguments) -> Result<Begun, MethodError> {
    let method = find(name).ok_or_else(|| MethodError::NoSuchMethod(name.into()))?;
    let arguments = method.signature.arrange(arguments)?;
    (method.begin)(store, arguments)
}

/// Every method, in the order of help texts.
pub const METHODS: &[Method] = &[
    method(
        "get",
        &["name"],
        1,
        "the value of a key; KeyError if it is not there",
        get,
    ),
    writer("set", &["name", "value"], 2, "sets a key", set),
    writer(
        "delete",
        &["name"],
        1,
        "removes a key; KeyError if it is not there",
        delete,
    ),
    method("exists", &["name"], 1, "whether a key is there", exists),
    method(
        "keys",
        &[],
        0,
        "all keys, in the order in which they were first set",
        keys,
    ),
    writer(
        "cas",
        &["name", "expected", "value"],
        3,
        "sets a key if its value is the expected one (nil: if it is not there); whether it did",
        cas,
    ),
    writer(
        "cad",
        &["name", "expected"],
        2,
        "removes a key if its value is the expected one; whether it did",
        cad,
    ),
    writer(
        "setex",
        &["name", "value", "seconds"],
        3,
        "sets a key for so long",
        setex,
    ),
    writer(
        "expire",
        &["name", "seconds"],
        2,
        "lets a key end after so long; whether it is there",
        expire,
    ),
    writer(
        "persist",
        &["name"],
        1,
        "takes the end from a key; whether it had one",
        persist,
    ),
    method(
        "ttl",
        &["name"],
        1,
        "seconds until a key ends; nil if it does not; KeyError",
        ttl,
    ),
    writer(
        "incr",
        &["name", "by"],
        1,
        "adds to an integer, 1 by default; the sum",
        incr,
    ),
    method(
        "scan",
        &["prefix", "cursor", "limit"],
        0,
        "a page of pairs in the order of keys(): {entries: [[key, value], …], cursor}; nil cursor at the end",
        scan,
    ),
    method(
        "watch",
        &["prefix", "from_revision", "timeout", "limit"],
        0,
        "what happens to keys that begin so, from a revision on, as soon as there is something: {events, next}",
        watch,
    ),
    method("size", &[], 0, "how many keys there are", size),
    method(
        "entry",
        &["name"],
        1,
        "a value with its revision, version and end; KeyError",
        entry,
    ),
    method(
        "revision",
        &[],
        0,
        "the revision of the last change",
        revision,
    ),
    method(
        "add",
        &["a", "b"],
        2,
        "the sum of two numbers, for tests of clients",
        sum,
    ),
    method(
        "echo",
        &["value"],
        1,
        "returns its argument, for tests of clients",
        echo,
    ),
    method(
        "sleep",
        &["seconds"],
        1,
        "returns after so long, an hour at most, for tests of clients",
        sleep,
    ),
];

type Begin = fn(&Store, Vec<Value>) -> Result<Begun, MethodError>;

const fn method(
    name: &'static str,
    parameters: &'static [&'static str],
    required: usize,
    help: &'static str,
    begin: Begin,
) -> Method {
    Method {
        signature: Signature {
            name,
            parameters,
            required,
            help,
        },
        writes: false,
        begin,
    }
}

const fn writer(
    name: &'static str,
    parameters: &'static [&'static str],
    required: usize,
    help: &'static str,
    begin: Begin,
) -> Method {
    Method {
        writes: true,
        ..method(name, parameters, required, help, begin)
    }
}

/// Takes the arguments apart. There are as many as the method has parameters.
pub fn take<const N: usize>(arguments: Vec<Value>) -> [Value; N] {
    let mut arguments = arguments.into_iter();
    std::array::from_fn(|_| arguments.next().unwrap_or(Value::Nil))
}

fn get(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name] = take(arguments);
    let entry = stored(store, name)?;
    Ok(Begun::Done(Reply::Stored(entry.value)))
}

/// What is under a key, or the complaint that nothing is.
fn stored(store: &Store, key: Value) -> Result<Entry, MethodError> {
    let key = Key::try_from(key)?;
    let entry = store.get(&key);
    entry.ok_or_else(|| MethodError::Missing {
        key: key.to_value(),
    })
}

fn set(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name, value] = take(arguments);
    let operation = Operation::set(Key::try_from(name)?, value);
    apply(store, operation.into(), |_| Ok(Value::Nil))
}

fn setex(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name, value, seconds] = take(arguments);
    let operation = Operation::Set {
        key: Key::try_from(name)?,
        value,
        ttl: Ttl::For(milliseconds("seconds", &seconds)?),
        only: Only::Always,
    };
    apply(store, operation.into(), |_| Ok(Value::Nil))
}

fn delete(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name] = take(arguments);
    let key = Key::try_from(name)?;
    let operation = Operation::Delete(key.clone());
    apply(store, operation.into(), move |answer| match answer {
        Answer::Deleted(None) => Err(MethodError::Missing {
            key: key.to_value(),
        }),
        _ => Ok(Value::Nil),
    })
}

fn exists(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name] = take(arguments);
    Ok(Value::Bool(store.exists(&Key::try_from(name)?)).into())
}

fn keys(store: &Store, _: Vec<Value>) -> Result<Begun, MethodError> {
    let keys = store.keys();
    Ok(Value::List(keys.iter().map(Key::to_value).collect()).into())
}

fn cas(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name, expected, value] = take(arguments);
    let key = Key::try_from(name)?;
    let compare = match expected {
        Value::Nil => Compare::Absent(key.clone()),
        expected => Compare::Value(key.clone(), expected),
    };
    let operation = Operation::Set {
        key,
        value,
        ttl: Ttl::Keep,
        only: Only::Always,
    };
    if_so(store, compare, operation)
}

fn cad(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name, expected] = take(arguments);
    let key = Key::try_from(name)?;
    let compare = Compare::Value(key.clone(), expected);
    if_so(store, compare, Operation::Delete(key))
}

/// Queues an operation that is done only if the condition holds; whether it did.
fn if_so(store: &Store, compare: Compare, operation: Operation) -> Result<Begun, MethodError> {
    let batch = Batch {
        compares: vec![compare],
        operations: vec![operation],
    };
    let read = |applied| match applied {
        Ok(_) => Ok(Reply::Owned(Value::Bool(true))),
        Err(StoreError::Conflict { .. }) => Ok(Reply::Owned(Value::Bool(false))),
        Err(error) => Err(error.into()),
    };
    match store.submit(batch) {
        Applied::Done(applied) => read(applied).map(Begun::Done),
        Applied::Queued(safe) => Ok(Begun::Waits(Box::pin(
            async move { read(safe.wait().await) },
        ))),
    }
}

fn expire(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name, seconds] = take(arguments);
    let ttl = Ttl::For(milliseconds("seconds", &seconds)?);
    let operation = Operation::Expire(Key::try_from(name)?, ttl);
    apply(store, operation.into(), was_there)
}

fn persist(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name] = take(arguments);
    apply(
        store,
        Operation::persist(Key::try_from(name)?).into(),
        was_there,
    )
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is one of several readers of answers"
)]
fn was_there(answer: Answer) -> Result<Value, MethodError> {
    Ok(Value::Bool(answer == Answer::Expire(true)))
}

fn ttl(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name] = take(arguments);
    let entry = stored(store, name)?;
    Ok(seconds_left(entry.expires, store.now()).into())
}

fn seconds_left(expires: Option<u64>, now: u64) -> Value {
    match expires {
        None => Value::Nil,
        Some(at) => Value::Double(at.saturating_sub(now) as f64 / 1e3),
    }
}

fn incr(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name, by] = take(arguments);
    let by = match by {
        Value::Nil => 1,
        Value::Int(by) => by,
        other => return Err(wrong_kind("by", "an integer", &other)),
    };
    let operation = Operation::Increment(Key::try_from(name)?, by);
    apply(store, operation.into(), |answer| match answer {
        Answer::Number(sum) => Ok(Value::Int(sum)),
        _ => Ok(Value::Nil),
    })
}

fn scan(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [prefix, cursor, limit] = take(arguments);
    let prefix = beginning(prefix)?;
    let cursor = match cursor {
        Value::Nil => None,
        Value::String(text) => match text.parse() {
            Ok(place) => Some(Cursor(place)),
            Err(_) => return Err(MethodError::Value("this is no cursor of a scan".into())),
        },
        other => {
            return Err(wrong_kind(
                "cursor",
                "a string that scan has returned",
                &other,
            ));
        }
    };
    let limit = page_limit(&limit)?;
    let page = store.scan(prefix.as_ref(), cursor, limit);
    let pair =
        |(key, entry): (Key, Entry)| Value::List(vec![key.to_value(), Value::clone(&entry.value)]);
    let entries = page.entries.into_iter().map(pair).collect();
    let cursor = page
        .cursor
        .map_or(Value::Nil, |Cursor(place)| Value::String(place.to_string()));
    Ok(map([("entries", Value::List(entries)), ("cursor", cursor)]).into())
}

/// Which keys are meant.
fn beginning(prefix: Value) -> Result<Option<Prefix>, MethodError> {
    match prefix {
        Value::Nil => Ok(None),
        Value::String(text) => Ok(Some(Prefix::Text(text))),
        Value::Bytes(bytes) => Ok(Some(Prefix::Bytes(bytes))),
        other => Err(wrong_kind("prefix", "a string or bytes", &other)),
    }
}

/// How much of a list one answer holds.
fn page_limit(limit: &Value) -> Result<usize, MethodError> {
    match limit {
        Value::Nil => Ok(PAGE_DEFAULT),
        Value::Int(limit) => usize::try_from(*limit)
            .ok()
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| MethodError::Value(format!("limit is not from 1 to {PAGE_MAX}"))),
        other => Err(wrong_kind("limit", "an integer", other)),
    }
}

fn size(store: &Store, _: Vec<Value>) -> Result<Begun, MethodError> {
    Ok(int(store.len() as u64).into())
}

fn entry(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [name] = take(arguments);
    let entry = stored(store, name)?;
    let ttl = seconds_left(entry.expires, store.now());
    Ok(map([
        ("value", Value::clone(&entry.value)),
        ("revision", int(entry.revision)),
        ("created", int(entry.created)),
        ("version", int(entry.version)),
        ("ttl", ttl),
    ])
    .into())
}

fn revision(store: &Store, _: Vec<Value>) -> Result<Begun, MethodError> {
    Ok(int(store.revision()).into())
}

fn sum(_: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [a, b] = take(arguments);
    let sum = match (&a, &b) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int),
        (Value::Int(a), Value::Double(b)) => Some(Value::Double(*a as f64 + b)),
        (Value::Double(a), Value::Int(b)) => Some(Value::Double(a + *b as f64)),
        (Value::Double(a), Value::Double(b)) => Some(Value::Double(a + b)),
        (Value::Int(_) | Value::Double(_), other) | (other, _) => {
            return Err(wrong_kind("a and b", "numbers", other));
        }
    };
    let sum = sum.ok_or_else(|| MethodError::Overflow("the sum has more than 64 bits".into()))?;
    Ok(sum.into())
}

fn echo(_: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [value] = take(arguments);
    Ok(value.into())
}

fn sleep(_: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [seconds] = take(arguments);
    let span = Duration::from_millis(milliseconds("seconds", &seconds)?.min(SLEEP_MAX));
    Ok(Begun::Waits(Box::pin(async move {
        tokio::time::sleep(span).await;
        Ok(Reply::Owned(Value::Nil))
    })))
}

/// Queues one operation now, and reads its answer when it is safe.
fn apply(
    store: &Store,
    batch: Batch,
    read: impl FnOnce(Answer) -> Result<Value, MethodError> + 'static,
) -> Result<Begun, MethodError> {
    let read = |outcome: Outcome| {
        // A batch of one operation has one answer.
        let answer = outcome.answers.into_iter().next();
        answer.map_or(Ok(Value::Nil), read).map(Reply::Owned)
    };
    match store.submit(batch) {
        Applied::Done(outcome) => read(outcome?).map(Begun::Done),
        Applied::Queued(safe) => Ok(Begun::Waits(Box::pin(
            async move { read(safe.wait().await?) },
        ))),
    }
}

/// Seconds, whole or not, from 0 up, as milliseconds; beyond a hundred years they are that.
fn milliseconds(parameter: &str, seconds: &Value) -> Result<u64, MethodError> {
    let seconds = match seconds {
        Value::Int(seconds) => *seconds as f64,
        Value::Double(seconds) => *seconds,
        other => return Err(wrong_kind(parameter, "a number", other)),
    };
    if !(0.0..).contains(&seconds) {
        return Err(MethodError::Value(format!(
            "{parameter} must not be negative"
        )));
    }
    let capped = Duration::from_secs_f64(seconds.min(CENTURY));
    Ok(u64::try_from(capped.as_millis()).unwrap_or(u64::MAX))
}

/// An argument is of another kind than the parameter.
pub fn wrong_kind(parameter: &str, wanted: &str, given: &Value) -> MethodError {
    MethodError::Type(format!(
        "{parameter} must be {wanted}, not a {}",
        given.kind()
    ))
}

/// A count or a revision.
pub fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A map with names for keys.
pub fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Map(
        pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect(),
    )
}

const PAGE_DEFAULT: usize = 100;
/// A page is built while nothing else runs on its loop.
const PAGE_MAX: usize = 1000;
/// An hour, in milliseconds.
const SLEEP_MAX: u64 = 3_600_000;
/// In seconds.
const CENTURY: f64 = 3.2e9;
