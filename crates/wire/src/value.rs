//! The values that the key/value protocols carry, whatever they look like on the wire.
//!
//! XML-RPC, JSON, Python's pickles and the store agree on these. What a protocol cannot say it refuses
//! by name; nothing is changed in silence.

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`, `null`, `<nil/>`.
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number of 64 bits. Larger ones are refused where they arrive.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A moment as XML-RPC spells it, `19980717T14:08:55`, kept as it came.
    DateTime(String),
    /// Values in order.
    List(Vec<Value>),
    /// Pairs in the order in which they came; no two keys are equal. XML-RPC and JSON know only
    /// strings for keys.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// What it is, in one word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::DateTime(_) => "date-time",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// About how many bytes it takes in memory, itself included: what limits on values count.
    pub fn size(&self) -> usize {
        let inside = match self {
            Self::Nil | Self::Bool(_) | Self::Int(_) | Self::Double(_) => 0,
            Self::String(text) | Self::DateTime(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.iter().map(Self::size).sum(),
            Self::Map(pairs) => pairs.iter().map(|(k, v)| k.size() + v.size()).sum(),
        };
        size_of::<Self>() + inside
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

/// How deep values may lie in each other. Every decoder refuses more, so that everything that walks
/// through a value may recurse.
pub const DEPTH_MAX: usize = 64;
