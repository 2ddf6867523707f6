//! The listening end: a fresh dialogue for each connection, under the keys of this moment.

use std::fmt;

use portyard_wire::auth::{Handshake, Key, Keys, mutual, python, recipe};

use super::{Dialect, MinDigest, SECURE_LENGTH, read_keys};
use crate::files::FilePlace;

/// What a listener demands of its peers.
pub struct Authenticator {
    /// The dialogue.
    pub dialect: Dialect,
    /// The weakest digest of a proof.
    pub min_digest: MinDigest,
    /// The names of keys so short that they might be guessed.
    pub short: Vec<String>,
    keys: Keys,
}

impl Authenticator {
    /// Reads the keys. `None` when the dialect demands none; an error says what to do.
    pub fn new(
        dialect: Dialect,
        min_digest: MinDigest,
        keys: Option<&FilePlace>,
    ) -> Result<Option<Self>, String> {
        let place = match (dialect, keys) {
            (Dialect::None, None) => return Ok(None),
            (Dialect::None, Some(_)) => {
                return Err(
                    "auth_keys has no effect with auth = \"none\"; write auth = \"python\", \
                     \"recipe\" or \"mutual\", or take it out"
                        .into(),
                );
            }
            (_, None) => {
                return Err(format!(
                    "auth = \"{dialect}\" needs auth_keys = \"FILE\" ('portyard keygen' makes one)"
                ));
            }
            (_, Some(place)) => place,
        };
        if min_digest == MinDigest::Md5 && dialect == Dialect::Mutual {
            return Err("auth = \"mutual\" knows no MD5; take min_digest out".into());
        }
        let keys = read_keys(place).map_err(|error| format!("auth_keys: {error}"))?;
        let is_short = |key: &&Key| key.len() < SECURE_LENGTH;
        let short = keys
            .iter()
            .filter(is_short)
            .map(|key| key.name().to_string());
        let short = short.collect();
        // read_keys gives one at least.
        let keys = Keys::new(keys).map_err(|error| format!("auth_keys: {error}"))?;
        Ok(Some(Self {
            dialect,
            min_digest,
            short,
            keys,
        }))
    }

    /// Begins a dialogue with nonces of its own. `exporter` binds the mutual one to its TLS session.
    pub fn begin(
        &self,
        exporter: Option<mutual::Exporter>,
    ) -> Result<Option<Box<dyn Handshake>>, getrandom::Error> {
        let keys = self.keys.clone();
        Ok(Some(match self.dialect {
            Dialect::None => return Ok(None),
            Dialect::Python => {
                let nonce = random()?;
                Box::new(python::Listener::new(keys, self.min_digest.python(), nonce))
            }
            Dialect::Recipe => {
                let nonce = random()?;
                Box::new(recipe::Server::new(keys, self.min_digest.recipe(), nonce))
            }
            Dialect::Mutual => Box::new(mutual::Server::new(keys, random()?, exporter)),
        }))
    }
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}
