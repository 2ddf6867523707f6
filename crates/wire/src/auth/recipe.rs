//! The plain handshake: a few lines in any language.
//!
//! The server sends 32 random bytes. The client answers with their HMAC under the shared key: 32
//! bytes for SHA-256. The server goes on to serve, or closes. Nothing is framed, and nothing tells
//! the client that it was accepted.
//!
//! This is the exchange of the Python Cookbook, third edition, 11.9 "Authenticating Clients
//! Simply", where the digest is whatever `hmac.new` had as its default (MD5) and the answer is 16
//! bytes. Here both ends name the digest, and SHA-256 is the one to take.
//!
//! What it cannot do: the server proves nothing, and a client answers whoever asks, so somebody in
//! between can pass a question on and use the answer. Inside TLS with a verified certificate that is
//! no harm; elsewhere [`mutual`](super::mutual) is better.

use super::machine::{Base, Steps};
use super::{AuthError, Digest, Key, Keys, Outcome};

/// Bytes in the server's question.
pub const NONCE_LEN: usize = 32;

/// The end that asks.
#[derive(Debug)]
pub struct Server {
    base: Base,
    keys: Keys,
    digest: Digest,
    nonce: [u8; NONCE_LEN],
}

impl Server {
    /// Asks with `nonce`, random and used once, and accepts an answer under any of `keys`.
    pub fn new(keys: Keys, digest: Digest, nonce: [u8; NONCE_LEN]) -> Self {
        Self {
            base: Base::sending(nonce.to_vec()),
            keys,
            digest,
            nonce,
        }
    }
}

impl Steps for Server {
    fn base(&mut self) -> &mut Base {
        &mut self.base
    }

    fn base_ref(&self) -> &Base {
        &self.base
    }

    fn need(&self, _: &[u8]) -> Result<usize, AuthError> {
        Ok(self.digest.proof_len())
    }

    fn step(&mut self, answer: &[u8]) -> Result<Option<Outcome>, AuthError> {
        match self.keys.verify(self.digest, &[&self.nonce], answer) {
            Some(key) => Ok(Some(outcome(key, self.digest))),
            None => Err(AuthError::WrongKey),
        }
    }
}

/// The end that answers. Its outcome says that it has answered, not that it was accepted.
#[derive(Debug)]
pub struct Client {
    base: Base,
    key: Key,
    digest: Digest,
}

impl Client {
    /// Will answer one question under `key`.
    pub fn new(key: Key, digest: Digest) -> Self {
        Self {
            base: Base::default(),
            key,
            digest,
        }
    }
}

impl Steps for Client {
    fn base(&mut self) -> &mut Base {
        &mut self.base
    }

    fn base_ref(&self) -> &Base {
        &self.base
    }

    fn need(&self, _: &[u8]) -> Result<usize, AuthError> {
        Ok(NONCE_LEN)
    }

    fn step(&mut self, question: &[u8]) -> Result<Option<Outcome>, AuthError> {
        let answer = self.digest.mac(self.key.secret(), &[question]);
        self.base.send(&answer);
        Ok(Some(outcome(&self.key, self.digest)))
    }
}

fn outcome(key: &Key, digest: Digest) -> Outcome {
    Outcome {
        key: key.name().clone(),
        digest,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Handshake;
    use super::super::testing::{hex, key, keys, talk};
    use super::*;
    use std::array::from_fn;

    fn nonce() -> [u8; NONCE_LEN] {
        from_fn(|i| u8::try_from(i).unwrap())
    }

    /// `hmac.new(b"secret", bytes(range(32)), name).digest()` in Python 3.13.0.
    const FROM_PYTHON: [(Digest, &str); 2] = [
        (Digest::Md5, "0daba9e53256b66a2aa1fd3d7346bf04"),
        (
            Digest::Sha256,
            "47860bcbb991426bea828dbf6097dff33339b093e3b9f61d9aef8a052f93e402",
        ),
    ];

    #[test]
    fn a_wrong_key_is_refused_in_silence() {
        let mut server = Server::new(keys(["right"]), Digest::Sha256, nonce());
        let mut client = Client::new(key("wrong"), Digest::Sha256);
        let (served, _, transcript) = talk(&mut server, &mut client, 1);
        assert_eq!(served, Err(AuthError::WrongKey));
        assert_eq!(transcript.len(), 2);
        assert_eq!(server.handle(b"x"), Err(AuthError::WrongKey));
    }

    #[test]
    fn another_digest_is_a_wrong_answer() {
        let mut server = Server::new(keys(["secret"]), Digest::Sha256, nonce());
        let mut client = Client::new(key("secret"), Digest::Sha3_256);
        assert_eq!(
            talk(&mut server, &mut client, 99).0,
            Err(AuthError::WrongKey)
        );
    }

    #[test]
    fn the_answer_is_pythons() {
        for (digest, answer) in FROM_PYTHON {
            let mut server = Server::new(keys(["other", "secret"]), digest, nonce());
            let question = server.output().unwrap();
            assert_eq!(question, nonce());
            let mut client = Client::new(key("secret"), digest);
            assert_eq!(client.handle(&question), Ok(32));
            assert_eq!(client.output(), Some(hex(answer)));
            assert_eq!(server.handle(&hex(answer)), Ok(digest.proof_len()));
            let expected = Outcome {
                key: "secret".into(),
                digest,
            };
            assert_eq!(server.outcome().as_ref(), Some(&expected));
            assert_eq!(client.outcome(), Some(expected));
        }
    }

    #[test]
    fn what_follows_the_answer_is_the_services() {
        let mut server = Server::new(keys(["secret"]), Digest::Sha256, nonce());
        let stream = [&hex(FROM_PYTHON[1].1)[..], b"hello"].concat();
        assert_eq!(server.handle(&stream), Ok(32));
        assert_eq!(server.handle(b"hello"), Ok(0));
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let mut server = Server::new(keys(["secret"]), Digest::Sha256, [9; NONCE_LEN]);
        let replayed = server.handle(&hex(FROM_PYTHON[1].1));
        assert_eq!(replayed, Err(AuthError::WrongKey));
    }

    #[test]
    fn nothing_is_decided_before_the_whole_answer() {
        let mut server = Server::new(keys(["secret"]), Digest::Sha256, nonce());
        assert_eq!(server.handle(&[0; 31]), Ok(31));
        assert_eq!(server.outcome(), None);
    }
}
