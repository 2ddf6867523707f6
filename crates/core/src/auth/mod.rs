//! Authentication by shared key: where the keys come from, and who must prove one.

mod client;
mod key_file;
mod server;

use std::fmt;
use std::str::FromStr;

use portyard_wire::auth::{Digest, python};
use serde::{Deserialize, Serialize};

pub use client::{ProveError, Prover, UnknownKey};
pub use key_file::{FILE_MAX, KEYS_MAX, KeyFileError, is_key_name, key_line, read_keys};
pub use server::Authenticator;

/// Keys of fewer bytes may be guessed by whoever has seen a proof.
pub const SECURE_LENGTH: usize = 16;

/// Which dialogue proves a key. Their bytes are described in [`portyard_wire::auth`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// None: whoever connects is served.
    #[default]
    None,
    /// That of Python's `multiprocessing.connection`.
    Python,
    /// 32 random bytes and their HMAC.
    Recipe,
    /// Ours: both ends prove, the server first, bound to the TLS session where there is one.
    Mutual,
}

/// The weakest digest that is accepted, and for a client sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MinDigest {
    /// HMAC-MD5 too, which Pythons before 3.12 speak and nothing else.
    Md5,
    /// SHA-256 and better.
    #[default]
    Sha256,
}

/// A text names neither a dialect nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not one of {known}")]
pub struct NameError {
    name: String,
    known: &'static str,
}

impl Dialect {
    /// Whether nobody has to prove anything.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The name in configurations and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Python => "python",
            Self::Recipe => "recipe",
            Self::Mutual => "mutual",
        }
    }
}

impl MinDigest {
    /// Whether it is the one that holds unless another is written.
    pub const fn is_default(&self) -> bool {
        matches!(self, Self::Sha256)
    }

    /// The same for the Python dialogue.
    pub const fn python(self) -> python::MinDigest {
        match self {
            Self::Md5 => python::MinDigest::Md5,
            Self::Sha256 => python::MinDigest::Sha256,
        }
    }

    /// The one digest of the recipe, which names none on the wire.
    pub const fn recipe(self) -> Digest {
        match self {
            Self::Md5 => Digest::Md5,
            Self::Sha256 => Digest::Sha256,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name {
            "none" => Ok(Self::None),
            "python" => Ok(Self::Python),
            "recipe" => Ok(Self::Recipe),
            "mutual" => Ok(Self::Mutual),
            _ => Err(NameError {
                name: name.into(),
                known: "none, python, recipe, mutual",
            }),
        }
    }
}

impl FromStr for MinDigest {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name {
            "md5" => Ok(Self::Md5),
            "sha256" => Ok(Self::Sha256),
            _ => Err(NameError {
                name: name.into(),
                known: "md5, sha256",
            }),
        }
    }
}
