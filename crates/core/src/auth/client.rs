//! The connecting end of a key dialogue, over any stream.

use std::fmt;
use std::io::{self, Read, Write};

use portyard_wire::auth::{AuthError, Handshake, Key, Outcome, mutual, python, recipe};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Dialect, MinDigest, read_keys};
use crate::files::FilePlace;

/// What a client proves, and in which dialogue.
#[derive(Debug, Clone)]
pub struct Prover {
    dialect: Dialect,
    key: Key,
    min_digest: MinDigest,
}

/// There is no key of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no key named {wanted}; the keys are: {names}")]
pub struct UnknownKey {
    wanted: String,
    names: String,
}

/// Why a dialogue did not end well. The variant says who is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The dialogue says no.
    #[error("{}", advice(.error, .key))]
    Dialogue {
        /// What it says.
        error: AuthError,
        /// The key that was to be proved.
        key: String,
    },
    /// The peer closed in the middle.
    #[error(
        "the server closed instead of going on with the key dialogue; does it speak '{dialect}', \
         and has it the key {key}?"
    )]
    Closed {
        /// The dialogue we spoke.
        dialect: Dialect,
        /// The key that was to be proved.
        key: String,
    },
    /// The stream broke, or a deadline passed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Prover {
    /// Proves the key called `name`, or the first of `keys`. With [`Dialect::None`] nothing is said.
    pub fn new(
        dialect: Dialect,
        keys: &[Key],
        name: Option<&str>,
        min_digest: MinDigest,
    ) -> Result<Self, UnknownKey> {
        let named = |key: &&Key| name.is_none_or(|name| **key.name() == *name);
        let key = keys.iter().find(named).ok_or_else(|| {
            let names: Vec<&str> = keys.iter().map(|key| &**key.name()).collect();
            UnknownKey {
                wanted: name.unwrap_or("at all").into(),
                names: names.join(", "),
            }
        })?;
        Ok(Self {
            dialect,
            key: key.clone(),
            min_digest,
        })
    }

    /// Reads the key that is proved to a broker, the first of the file; `None` where none is named. An
    /// error says what to do.
    pub fn for_broker(
        dialect: Option<Dialect>,
        keys: Option<&FilePlace>,
    ) -> Result<Option<Self>, String> {
        let place = match (dialect, keys) {
            (None | Some(Dialect::None), None) => return Ok(None),
            (Some(Dialect::None), Some(_)) => {
                return Err(
                    "broker_keys has no effect with broker_auth = \"none\"; take one of them out"
                        .into(),
                );
            }
            (Some(dialect), None) => {
                return Err(format!(
                    "broker_auth = \"{dialect}\" needs broker_keys = \"FILE\", whose first key is one \
                     of those that the broker accepts"
                ));
            }
            (_, Some(place)) => place,
        };
        let wrong = |error: &dyn fmt::Display| format!("broker_keys: {error}");
        let keys = read_keys(place).map_err(|error| wrong(&error))?;
        let dialect = dialect.unwrap_or(Dialect::Mutual);
        let prover = Self::new(dialect, &keys, None, MinDigest::default());
        prover.map(Some).map_err(|error| wrong(&error))
    }

    /// The name of the key.
    pub fn key_name(&self) -> &str {
        self.key.name()
    }

    /// Has the dialogue, and reads nothing that comes behind it. `exporter` is that of the TLS
    /// session which carries it, if one does. The stream's deadlines count; the outcome is `None`
    /// where there is no dialogue.
    pub fn prove(
        &self,
        exporter: Option<[u8; 32]>,
        mut io: impl Read + Write,
    ) -> Result<Option<Outcome>, ProveError> {
        let Some(mut machine) = self.machine(exporter)? else {
            return Ok(None);
        };
        loop {
            if let Some(bytes) = machine.output() {
                io.write_all(&bytes)?;
                io.flush()?;
            }
            if let Some(outcome) = machine.outcome() {
                return Ok(Some(outcome));
            }
            let mut buffer = [0; BUFFER];
            let wanted = machine.wanted().min(BUFFER);
            let read = match io.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(self.closed()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error)),
            };
            if let Err(error) = machine.handle(&buffer[..read]) {
                // What is still to be said tells the peer why; it may be gone.
                if let Some(bytes) = machine.output() {
                    let _ = io.write_all(&bytes).and_then(|()| io.flush());
                }
                return Err(self.failed(error));
            }
        }
    }

    /// The same as [`prove`](Self::prove), for streams of tokio. A deadline is the caller's.
    pub async fn prove_async(
        &self,
        exporter: Option<[u8; 32]>,
        mut io: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<Option<Outcome>, ProveError> {
        let Some(mut machine) = self.machine(exporter)? else {
            return Ok(None);
        };
        loop {
            if let Some(bytes) = machine.output() {
                io.write_all(&bytes).await?;
                io.flush().await?;
            }
            if let Some(outcome) = machine.outcome() {
                return Ok(Some(outcome));
            }
            let mut buffer = [0; BUFFER];
            let wanted = machine.wanted().min(BUFFER);
            let read = match io.read(&mut buffer[..wanted]).await {
                Ok(0) => return Err(self.closed()),
                Ok(read) => read,
                Err(error) => return Err(self.broken(error)),
            };
            if let Err(error) = machine.handle(&buffer[..read]) {
                if let Some(bytes) = machine.output()
                    && io.write_all(&bytes).await.is_ok()
                {
                    let _ = io.flush().await;
                }
                return Err(self.failed(error));
            }
        }
    }

    fn machine(&self, exporter: Option<[u8; 32]>) -> io::Result<Option<Box<dyn Handshake + Send>>> {
        let key = self.key.clone();
        Ok(match self.dialect {
            Dialect::None => None,
            Dialect::Python => {
                let client = python::Client::new(key, self.min_digest.python(), nonce()?);
                Some(Box::new(client))
            }
            Dialect::Recipe => Some(Box::new(recipe::Client::new(key, self.min_digest.recipe()))),
            Dialect::Mutual => Some(Box::new(mutual::Client::new(key, nonce()?, exporter))),
        })
    }

    fn closed(&self) -> ProveError {
        ProveError::Closed {
            dialect: self.dialect,
            key: self.key.name().to_string(),
        }
    }

    fn broken(&self, error: io::Error) -> ProveError {
        match error.kind() {
            // Who refuses may close before it has read what we sent.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.closed(),
            _ => ProveError::Io(error),
        }
    }

    fn failed(&self, error: AuthError) -> ProveError {
        ProveError::Dialogue {
            error,
            key: self.key.name().to_string(),
        }
    }
}

fn nonce<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// What happened, and what the person at the terminal can do.
fn advice(error: &AuthError, key: &str) -> String {
    match error {
        AuthError::Refused => {
            format!("the server refused the key {key}: compare the key files of both ends")
        }
        AuthError::WrongKey => format!(
            "the server does not know the key {key}, so it may be somebody else: compare the key \
             files of both ends"
        ),
        AuthError::DigestRefused(digest) => format!(
            "the server asks for a proof with {digest}, as Pythons before 3.12 do; --min-digest \
             {digest} allows it"
        ),
        AuthError::Binding => "the server sees the connection in another TLS session than we do, \
             or in none: a proxy ends TLS in between, or somebody listens"
            .into(),
        AuthError::Reflected => "the server sent our own question back: it does not have the key, \
             and tried to use ours"
            .into(),
        AuthError::Malformed(_) | AuthError::FrameTooLong { .. } | AuthError::Version(_) => {
            format!(
                "the server does not speak this key dialogue ({error}); is it the right \
             one (--auth, broker_auth)?"
            )
        }
    }
}

/// The longest message of a dialogue has 268 bytes.
const BUFFER: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_wire::auth::{Digest, Keys, Secret};
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn key(name: &str, secret: &str) -> Key {
        Key::new(name, Secret::new(secret.into()).unwrap())
    }

    /// Proves towards a machine, and returns what the client says and what it left unread.
    fn prove(
        prover: &Prover,
        exporter: Option<[u8; 32]>,
        mut server: impl Handshake + Send + 'static,
    ) -> (Result<Option<Outcome>, ProveError>, Vec<u8>) {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || {
            let mut buffer = [0; 1];
            loop {
                let mut said = server.output().unwrap_or_default();
                let over = server.outcome().is_some();
                if over {
                    said.extend_from_slice(b"service");
                }
                // The client may be gone already.
                let _ = theirs.write_all(&said);
                if over || theirs.read(&mut buffer).unwrap_or(0) == 0 {
                    return;
                }
                if server.handle(&buffer).is_err() {
                    let _ = theirs.write_all(&server.output().unwrap_or_default());
                    return;
                }
            }
        });
        let result = prover.prove(exporter, &mut ours);
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).unwrap();
        serving.join().unwrap();
        (result, rest)
    }

    fn prover(dialect: Dialect, secret: &str) -> Prover {
        let keys = [key("k1", secret)];
        Prover::new(dialect, &keys, None, MinDigest::Sha256).unwrap()
    }

    fn listener(min: python::MinDigest) -> python::Listener {
        python::Listener::new(Keys::from(key("k", "secret")), min, nonce().unwrap())
    }

    #[test]
    fn a_refused_key_is_named_with_the_remedy() {
        let wrong = prover(Dialect::Python, "wrong");
        let (refused, _) = prove(&wrong, None, listener(python::MinDigest::Sha256));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("refused the key k1"), "{message}");
        assert!(message.contains("compare"), "{message}");
    }

    #[test]
    fn a_server_that_closes_is_told_apart_from_one_that_refuses() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let error = prover(Dialect::Python, "x").prove(None, &mut ours);
        assert!(matches!(error, Err(ProveError::Closed { .. })), "{error:?}");
    }

    #[test]
    fn nothing_of_the_service_is_read() {
        let right = prover(Dialect::Python, "secret");
        let (proved, rest) = prove(&right, None, listener(python::MinDigest::Sha256));
        let expected = Outcome {
            key: "k1".into(),
            digest: Digest::Sha256,
        };
        assert_eq!(proved.unwrap(), Some(expected));
        assert_eq!(rest, b"service");
    }

    #[test]
    fn mutual_holds_only_within_one_session() {
        let server = |exporter| {
            let keys = Keys::from(key("k", "secret"));
            mutual::Server::new(keys, nonce().unwrap(), exporter)
        };
        let right = prover(Dialect::Mutual, "secret");
        for exporter in [None, Some([7; 32])] {
            let (proved, _) = prove(&right, exporter, server(exporter));
            assert!(proved.unwrap().is_some());
        }
        for (ours, theirs) in [(None, Some([7; 32])), (Some([8; 32]), Some([7; 32]))] {
            assert!(prove(&right, ours, server(theirs)).0.is_err());
        }
    }

    #[test]
    fn a_key_is_chosen_by_its_name() {
        let keys = [key("new", "a"), key("old", "b")];
        let chosen = |name| {
            Prover::new(Dialect::Recipe, &keys, name, MinDigest::Sha256)
                .map(|prover| prover.key_name().to_owned())
        };
        assert_eq!(chosen(None).unwrap(), "new");
        assert_eq!(chosen(Some("old")).unwrap(), "old");
        let error = chosen(Some("none")).unwrap_err().to_string();
        assert!(error.contains("new, old"), "{error}");
    }
}
