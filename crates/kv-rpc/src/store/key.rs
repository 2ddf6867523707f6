//! Keys: typed, and equal where Python's are.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use portyard_wire::value::Value;

/// A key. Two keys are equal when Python holds them for equal: `1`, `True` and `1.0` are one key, and
/// so are `0.0` and `-0.0`. Text and bytes never are.
///
/// It keeps the form in which it was made, and the store the form in which it was first set.
#[derive(Clone)]
pub struct Key {
    form: Form,
    /// Made once, as a write looks into several maps.
    hash: u64,
}

/// A map of keys, which takes the hash that a key brings. Nobody outside can foresee it.
pub type KeyMap<T> = HashMap<Key, T, BuildHasherDefault<Brought>>;

/// Hands on what a key has hashed already.
#[derive(Default)]
pub struct Brought(u64);

/// Why a value is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A list, a map or a date-time: Python's `TypeError: unhashable type`.
    #[error("a {0} cannot be a key")]
    Unhashable(&'static str),
    /// Not a number, which equals nothing and could never be found again.
    #[error("NaN cannot be a key, as it equals nothing")]
    NotANumber,
}

/// The beginning that keys must have, of text or of bytes. Keys of other kinds never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Strings that begin like this.
    Text(String),
    /// Bytes that begin like this.
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Form {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// What equality and hashes look at. A number that is whole and fits is an `Int`, however it was
/// written; other doubles differ when their bits do, as zero and NaN are not among them.
#[derive(PartialEq, Eq, Hash)]
enum Canon<'a> {
    Nil,
    Int(i64),
    Double(u64),
    String(&'a str),
    Bytes(&'a [u8]),
}

impl Key {
    fn new(form: Form) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let hash = STATE.hash_one(form.canon());
        Self { form, hash }
    }

    /// The key as a value, in its form.
    pub fn to_value(&self) -> Value {
        match &self.form {
            Form::Nil => Value::Nil,
            Form::Bool(truth) => Value::Bool(*truth),
            Form::Int(number) => Value::Int(*number),
            Form::Double(number) => Value::Double(*number),
            Form::String(text) => Value::String(text.as_ref().into()),
            Form::Bytes(bytes) => Value::Bytes(bytes.as_ref().into()),
        }
    }

    /// The text, when it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.form {
            Form::String(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, when it is bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.form {
            Form::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// About how many bytes it takes in memory, itself included.
    pub fn size(&self) -> usize {
        let inside = match &self.form {
            Form::String(text) => text.len(),
            Form::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        size_of::<Self>() + inside
    }

    /// How many bytes of text or of bytes it has: what the limit on keys counts. Numbers have 8.
    pub fn length(&self) -> usize {
        match &self.form {
            Form::String(text) => text.len(),
            Form::Bytes(bytes) => bytes.len(),
            _ => 8,
        }
    }
}

impl Form {
    fn canon(&self) -> Canon<'_> {
        match self {
            Form::Nil => Canon::Nil,
            Form::Bool(truth) => Canon::Int(i64::from(*truth)),
            Form::Int(number) => Canon::Int(*number),
            Form::Double(number) => match whole(*number) {
                Some(number) => Canon::Int(number),
                None => Canon::Double(number.to_bits()),
            },
            Form::String(text) => Canon::String(text),
            Form::Bytes(bytes) => Canon::Bytes(bytes),
        }
    }
}

impl Prefix {
    /// Whether a key begins like this.
    pub fn matches(&self, key: &Key) -> bool {
        match self {
            Self::Text(prefix) => key.as_text().is_some_and(|text| text.starts_with(prefix)),
            Self::Bytes(prefix) => key.as_bytes().is_some_and(|all| all.starts_with(prefix)),
        }
    }

    /// How many bytes it has.
    pub fn length(&self) -> usize {
        match self {
            Self::Text(prefix) => prefix.len(),
            Self::Bytes(prefix) => prefix.len(),
        }
    }
}

impl From<&str> for Prefix {
    fn from(prefix: &str) -> Self {
        Self::Text(prefix.into())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.form.canon() == other.form.canon()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.form.fmt(f)
    }
}

impl Hasher for Brought {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "a key brings its hash as one number");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl TryFrom<Value> for Key {
    type Error = KeyError;

    fn try_from(value: Value) -> Result<Self, KeyError> {
        Ok(Self::new(match value {
            Value::Nil => Form::Nil,
            Value::Bool(truth) => Form::Bool(truth),
            Value::Int(number) => Form::Int(number),
            Value::Double(number) if number.is_nan() => return Err(KeyError::NotANumber),
            Value::Double(number) => Form::Double(number),
            Value::String(text) => Form::String(text.into()),
            Value::Bytes(bytes) => Form::Bytes(bytes.into()),
            Value::DateTime(_) | Value::List(_) | Value::Map(_) => {
                return Err(KeyError::Unhashable(value.kind()));
            }
        }))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::new(Form::String(text.into()))
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::new(Form::Int(number))
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self::new(Form::Bytes(bytes.into()))
    }
}

/// For messages: text as Rust quotes it, which escapes what a terminal would obey, and long keys cut.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Nil => f.write_str("nil"),
            Form::Bool(truth) => truth.fmt(f),
            Form::Int(number) => number.fmt(f),
            Form::Double(number) => write!(f, "{number:?}"),
            Form::String(text) => {
                let start: String = text.chars().take(SHOWN).collect();
                let more = if start.len() < text.len() { "…" } else { "" };
                write!(f, "{start:?}{more}")
            }
            Form::Bytes(bytes) => {
                let start = &bytes[..bytes.len().min(SHOWN)];
                let more = if start.len() < bytes.len() { "…" } else { "" };
                write!(f, "b\"{}\"{more}", start.escape_ascii())
            }
        }
    }
}

/// The whole number that a double is, if it is one of 64 bits.
fn whole(number: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-BOUND..BOUND).contains(&number) {
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
        return Some(number as i64);
    }
    None
}

/// How much of a key a message shows.
const SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    fn key(value: Value) -> Key {
        Key::try_from(value).unwrap()
    }

    fn one(a: Value, b: Value) -> bool {
        let (a, b) = (key(a), key(b));
        let hasher = RandomState::new();
        let equal = a == b;
        assert!(!equal || hasher.hash_one(&a) == hasher.hash_one(&b));
        equal
    }

    #[test]
    fn keys_are_equal_where_pythons_are() {
        use Value::{Bool, Bytes, Double, Int};
        assert!(one(Int(1), Bool(true)));
        assert!(one(Int(1), Double(1.0)));
        assert!(one(Bool(false), Double(-0.0)));
        assert!(one(Double(0.0), Double(-0.0)));
        assert!(one(Int(i64::MIN), Double(-9_223_372_036_854_775_808.0)));
        assert!(one(Double(f64::INFINITY), Double(f64::INFINITY)));
        // The nearest double of the largest integer is one more than it.
        assert!(!one(Int(i64::MAX), Double(9_223_372_036_854_775_808.0)));
        // 2**53 + 1 has no double.
        assert!(!one(Int((1 << 53) + 1), Double(9_007_199_254_740_992.0)));
        assert!(!one(Double(0.5), Double(-0.5)));
        assert!(!one(Value::from("1"), Int(1)));
        assert!(!one(Value::from("a"), Bytes(b"a".into())));
        assert!(!one(Value::Nil, Bool(false)));
    }

    #[test]
    fn what_python_cannot_hash_is_refused() {
        for value in [
            Value::List(vec![]),
            Value::Map(vec![]),
            Value::DateTime("20260101T00:00:00".into()),
        ] {
            let kind = value.kind();
            assert_eq!(Key::try_from(value), Err(KeyError::Unhashable(kind)));
        }
        let nan = Key::try_from(Value::Double(f64::NAN));
        assert_eq!(nan, Err(KeyError::NotANumber));
    }

    #[test]
    fn a_message_shows_a_key_escaped_and_cut() {
        assert_eq!(Key::from("a\x1b[2J").to_string(), r#""a\u{1b}[2J""#);
        assert_eq!(Key::from(&b"\0a"[..]).to_string(), r#"b"\x00a""#);
        assert!(Key::from("x".repeat(1000).as_str()).to_string().len() < 80);
    }
}
