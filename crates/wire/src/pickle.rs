//! Python's pickles, as far as they are data.
//!
//! A pickle is a program for a small machine, and Python lets it import and call whatever it names.
//! This machine has no such instructions. [`decode`] reads what Python 2.7 and 3 write in protocols
//! 0 to 5 for `None`, booleans, numbers, text, bytes, lists, tuples and dicts, and refuses the rest by
//! name.
//!
//! Three names are known as part of how bytes are spelt, and nothing is called for them: before
//! protocol 3, Python 3 writes `b'…'` as `_codecs.encode('…', 'latin1')` or `bytes()`, and every Python
//! before protocol 5 writes `bytearray(…)`. Any other name is [`PickleError::Forbidden`].
//!
//! | Python | here |
//! |---|---|
//! | `str` of Python 2 | text if it is UTF-8, or else bytes |
//! | `int`, `long` | a whole number; beyond 64 bits it is refused |
//! | `tuple`, `list` | a list; as the key of a dict only a tuple can be |
//! | `bytes`, `bytearray` | bytes |
//! | an object in several places | a copy in each; one that holds itself is refused |
//! | a `set`, and all that has a class | refused |
//!
//! The way back is [`encode`], which writes what every Python reads. A date-time has no pickle without
//! a class, and is refused. [`encode_exception`] is the one thing that makes the reader call
//! something: one of Python's own exceptions. [`rpc`] is what travels over connections: requests and
//! replies.

pub mod rpc;

mod build;
mod exception;
mod input;
mod machine;
mod opcode;
mod text;
mod writer;

pub use exception::{BuiltinException, Exception, encode_exception};
pub use writer::{Protocol, encode};

use crate::value::{DEPTH_MAX, Value};

/// What a pickle may ask for. The length of the pickle itself is its transport's cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes that the value may take in memory, as [`Value::size`] counts; a shared object counts
    /// wherever it is. As much again may be in use while the pickle is read, and some sixteen times
    /// its length.
    pub size: usize,
}

/// Reads a pickle, to its last byte.
pub fn decode(pickle: &[u8], caps: &Caps) -> Result<Value, PickleError> {
    let (objects, root) = machine::run(pickle, caps.size)?;
    build::value(&objects, root, caps.size)
}

/// A pickle that is refused, or a value that has none. `at` is a byte of the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// An instruction that imports, builds or calls.
    #[error("the pickle is no data: it wants to run {0}")]
    Forbidden(&'static str),
    /// An instruction that no protocol has.
    #[error("the pickle has no instruction but {opcode:#04x} at byte {at}")]
    Unknown {
        /// The instruction.
        opcode: u8,
        /// Where.
        at: usize,
    },
    /// A protocol from the future.
    #[error(
        "the pickle is of protocol {version}; {} is the latest known here",
        opcode::LATEST
    )]
    Protocol {
        /// What it says.
        version: u8,
    },
    /// The pickle ends too early.
    #[error("the pickle ends before it says so")]
    Truncated,
    /// Bytes behind the end.
    #[error("the pickle ends at byte {at}, and something follows")]
    Trailing {
        /// The first byte behind it.
        at: usize,
    },
    /// An instruction without what it needs.
    #[error("the pickle is damaged before byte {at}: {why}")]
    Damaged {
        /// Behind the instruction.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// Text with lone surrogates, or damaged.
    #[error("the text before byte {at} has no UTF-8")]
    NotText {
        /// Behind the text.
        at: usize,
    },
    /// A number that is too large.
    #[error("the whole number before byte {at} does not fit into 64 bits")]
    IntRange {
        /// Behind the number.
        at: usize,
    },
    /// A value that only one side knows.
    #[error("a {0} cannot be told in a pickle and as a value alike")]
    NoForm(&'static str),
    /// A key that Python cannot hash.
    #[error("a {0} cannot be the key of a dict")]
    Key(&'static str),
    /// Two keys of a dict are equal.
    #[error("two keys of a dict are equal")]
    EqualKeys,
    /// An object holds itself.
    #[error("an object of the pickle holds itself")]
    Cycle,
    /// More nested than a value may be.
    #[error("the value is more than {DEPTH_MAX} lists and dicts deep")]
    Depth,
    /// More than the cap.
    #[error("the value takes more than {max} bytes of memory")]
    Size {
        /// The cap.
        max: usize,
    },
}

impl PickleError {
    /// Whether the pickle is whole, and what it holds is the trouble.
    const fn is_about_values(&self) -> bool {
        matches!(
            self,
            Self::Forbidden(_)
                | Self::NotText { .. }
                | Self::IntRange { .. }
                | Self::NoForm(_)
                | Self::Key(_)
                | Self::EqualKeys
                | Self::Cycle
                | Self::Depth
                | Self::Size { .. }
        )
    }
}

#[cfg(test)]
mod tests;
