//! Keys: bytes that are never shown, their names, and the set that a listener accepts.

use super::Digest;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The bytes of a key. Never empty, never printed, overwritten when the last copy goes.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over. An empty key is refused: everybody knows it, and Python before 3.13
    /// skips the listener's half of the dialogue for it (cpython issue 88118).
    pub fn new(bytes: Vec<u8>) -> Result<Self, EmptySecret> {
        if bytes.is_empty() {
            return Err(EmptySecret);
        }
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The bytes. Inside the dialogues only: nobody else needs them.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret and what it is called. A clone shares the bytes.
#[derive(Clone, Debug)]
pub struct Key {
    name: Arc<str>,
    secret: Arc<Secret>,
}

impl Key {
    /// A key called `name`: in logs, metrics and access rules, never on the wire.
    pub fn new(name: &str, secret: Secret) -> Self {
        Self {
            name: name.into(),
            secret: Arc::new(secret),
        }
    }

    /// What the key is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What must stay secret.
    /// How many bytes the key has; never 0.
    #[expect(clippy::len_without_is_empty, reason = "no key is empty")]
    pub fn len(&self) -> usize {
        self.secret.expose().len()
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// The keys that a listener accepts, at least one. A clone shares them.
#[derive(Clone, Debug)]
pub struct Keys(Arc<[Key]>);

impl Keys {
    /// All keys accepted. With none nobody could ever come in, so that is refused.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Result<Self, NoKeys> {
        let keys: Arc<[Key]> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(NoKeys);
        }
        Ok(Self(keys))
    }

    /// The first key for which `matches` holds. All are tried, so the time taken does not tell
    /// which one it was.
    pub(super) fn find(&self, mut matches: impl FnMut(&Key) -> bool) -> Option<&Key> {
        let mut found = None;
        for key in &*self.0 {
            if matches(key) && found.is_none() {
                found = Some(key);
            }
        }
        found
    }

    /// The key that is these bytes, for protocols that show a key as it is. The time taken does not
    /// tell how much of it is right.
    pub fn shown(&self, bytes: &[u8]) -> Option<&Key> {
        let shown = Secret::new(bytes.to_vec()).ok()?;
        let label: &[&[u8]] = &[b"shown"];
        let proof = Digest::Sha256.mac(&shown, label);
        self.verify(Digest::Sha256, label, &proof)
    }

    /// The key of that name, if it made `proof` over a message by HMAC-SHA256.
    pub fn signer(&self, name: &str, message: &[u8], proof: &[u8]) -> Option<&Key> {
        let found = self.verify(Digest::Sha256, &[message], proof);
        found.filter(|key| &**key.name() == name)
    }

    /// The key that made `proof` over `parts`.
    pub(super) fn verify(&self, digest: Digest, parts: &[&[u8]], proof: &[u8]) -> Option<&Key> {
        self.find(|key| digest.verify(key.secret(), parts, proof))
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self(Arc::new([key]))
    }
}

/// A key must have at least one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is empty")]
pub struct EmptySecret;

/// A listener must accept at least one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no key to accept")]
pub struct NoKeys;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_key_and_an_empty_set_are_refused() {
        assert_eq!(Secret::new(Vec::new()).err(), Some(EmptySecret));
        assert_eq!(Keys::new([]).err(), Some(NoKeys));
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::new("k1", Secret::new(b"canary".to_vec()).unwrap());
        let shown = format!("{:?} {:#?}", key, Keys::from(key.clone()));
        assert!(shown.contains("k1") && !shown.contains("canary") && !shown.contains("99"));
    }

    #[test]
    fn a_key_that_is_shown_must_be_whole() {
        let key = Key::new("a", Secret::new(b"secret".to_vec()).unwrap());
        let keys = Keys::from(key);
        assert!(keys.shown(b"secret").is_some());
        for other in [&b""[..], b"secre", b"secrets", b"Secret"] {
            assert!(keys.shown(other).is_none(), "{other:?}");
        }
        let proof = Digest::Sha256.mac(&Secret::new(b"secret".to_vec()).unwrap(), &[b"m"]);
        assert!(keys.signer("a", b"m", &proof).is_some());
        assert!(keys.signer("b", b"m", &proof).is_none());
        assert!(keys.signer("a", b"n", &proof).is_none());
    }

    #[test]
    fn every_key_is_tried_and_the_first_match_counts() {
        let key = |name: &str| Key::new(name, Secret::new(vec![1]).unwrap());
        let keys = Keys::new(["a", "b", "c"].map(key)).unwrap();
        let mut tried = 0;
        let found = keys.find(|key| {
            tried += 1;
            &**key.name() != "a"
        });
        assert_eq!(found.map(|key| &**key.name()), Some("b"));
        assert_eq!(tried, 3);
    }
}
