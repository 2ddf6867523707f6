//! Why a call fails, in terms that every door can say in its own way.

use portyard_wire::value::Value;
use portyard_wire::xmlrpc::python_repr;

use crate::store::{Entry, KeyError, StoreError, WatchError};

/// A failed call. The variants are those of Python where Python has one, because its clients raise
/// them again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MethodError {
    /// There is no such method.
    #[error("method {} is not supported", quoted(.0))]
    NoSuchMethod(String),
    /// Nothing is stored under the key.
    #[error("{}", key_repr(key))]
    Missing {
        /// The key.
        key: Value,
    },
    /// The arguments are too many, too few or of the wrong kind: Python's `TypeError`.
    #[error("{0}")]
    Type(String),
    /// An argument is of the right kind and out of its range: Python's `ValueError`.
    #[error("{0}")]
    Value(String),
    /// A number would leave 64 bits.
    #[error("{0}")]
    Overflow(String),
    /// A condition does not hold; what is there instead.
    #[error("{why}")]
    Conflict {
        /// Which one, in words.
        why: String,
        /// What is there.
        current: Option<Entry>,
    },
    /// Over a limit.
    #[error("{0}")]
    TooLarge(String),
    /// A watch cannot begin at that revision.
    #[error("{why}")]
    History {
        /// Why not.
        why: String,
        /// The first revision at which it can.
        resume: u64,
    },
    /// The method needs a connection on which the server may speak unasked.
    #[error("method {} is not supported over HTTP, which cannot push: call \"watch\"", quoted(.0))]
    NotOverHttp(String),
    /// The listener takes no writes.
    #[error("{0} is refused here: this listener is read-only")]
    ReadOnly(String),
    /// Too much is under way; nothing was changed, and it may be tried again.
    #[error("{0}")]
    Busy(String),
    /// The store has failed or is closed.
    #[error("{why}")]
    Unavailable {
        /// What happened.
        why: String,
        /// Whether it may have been done none the less.
        maybe_applied: bool,
    },
}

impl MethodError {
    /// The exception that Python would raise.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "KeyError",
            Self::Type(_) => "TypeError",
            Self::Value(_) | Self::TooLarge(_) => "ValueError",
            Self::Overflow(_) => "OverflowError",
            Self::NoSuchMethod(_) | Self::NotOverHttp(_) => "Exception",
            Self::History { .. } => "LookupError",
            Self::ReadOnly(_) => "PermissionError",
            Self::Conflict { .. } | Self::Busy(_) | Self::Unavailable { .. } => "RuntimeError",
        }
    }

    /// The faultString of Python's `SimpleXMLRPCServer`: the class, a colon, the text.
    pub fn python_text(&self) -> String {
        format!("<class '{}'>:{self}", self.class())
    }

    /// The code in the registry of XML-RPC's interoperability (Dan Libby, 2001), and in JSON-RPC.
    pub const fn code(&self) -> i32 {
        match self {
            Self::NoSuchMethod(_) | Self::NotOverHttp(_) => -32_601,
            Self::Type(_) | Self::Value(_) => -32_602,
            Self::Missing { .. } => -32_001,
            Self::Conflict { .. } => -32_002,
            Self::TooLarge(_) | Self::Overflow(_) => -32_003,
            Self::Busy(_) => -32_004,
            Self::Unavailable { .. } => -32_005,
            Self::ReadOnly(_) => -32_006,
            Self::History { .. } => -32_007,
        }
    }
}

impl From<WatchError> for MethodError {
    fn from(error: WatchError) -> Self {
        Self::History {
            why: error.to_string(),
            resume: error.resume(),
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

impl From<KeyError> for MethodError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unhashable(kind) => {
                Self::Type(format!("unhashable type: '{}'", class_of(kind)))
            }
            KeyError::NotANumber => Self::Value(error.to_string()),
        }
    }
}

/// What Python's clients call a kind of value.
fn class_of(kind: &str) -> &str {
    match kind {
        "map" => "dict",
        "date-time" => "DateTime",
        other => other,
    }
}

impl From<StoreError> for MethodError {
    fn from(error: StoreError) -> Self {
        let why = error.to_string();
        match error {
            StoreError::Conflict { current, .. } => Self::Conflict { why, current },
            StoreError::Overflow { .. } => Self::Overflow(why),
            StoreError::NotAnInteger { kind, .. } => {
                Self::Type(format!("can only increment an integer, not a {kind}"))
            }
            StoreError::TooLarge { .. } => Self::TooLarge(why),
            StoreError::Busy => Self::Busy(why),
            StoreError::Failed { maybe_applied, .. } => Self::Unavailable { why, maybe_applied },
            StoreError::Closed => Self::Unavailable {
                why,
                maybe_applied: false,
            },
        }
    }
}

/// A key as Python's `repr` shows it.
fn key_repr(key: &Value) -> String {
    match key {
        Value::Nil => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => format!("{number:?}"),
        Value::String(text) => python_repr(text),
        Value::Bytes(bytes) => format!("<xmlrpc.client.Binary object of {} bytes>", bytes.len()),
        other => other.kind().into(),
    }
}
