//! The end that was connected to: it asks first.

use super::super::machine::{Base, Steps};
use super::super::{AuthError, Key, Keys, Outcome};
use super::MinDigest;
use super::message::{self, FAILURE, WELCOME};
use crate::framing::python_message;

/// Random bytes that a listener needs for one connection.
pub const LISTENER_NONCE_LEN: usize = message::RANDOM_LEN;

/// What `Listener.accept()` does: deliver a challenge, then answer one. It answers only who has
/// proved a key, with that key.
#[derive(Debug)]
pub struct Listener {
    base: Base,
    keys: Keys,
    min: MinDigest,
    offer: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Message 2 is due.
    Asked,
    /// Message 4 is due.
    Convinced { key: Key, proved: Outcome },
    /// Message 6 is due.
    Answered { proved: Outcome },
}

impl Listener {
    /// Asks with `nonce`, random and used once, and accepts any of `keys`.
    pub fn new(keys: Keys, min: MinDigest, nonce: [u8; LISTENER_NONCE_LEN]) -> Self {
        let offer = message::offer(&nonce);
        Self {
            base: Base::sending(python_message(&message::challenge(&offer))),
            keys,
            min,
            offer,
            state: State::Asked,
        }
    }

    fn judge(&mut self, answer: &[u8]) -> Result<State, AuthError> {
        let verdict = message::verify(&self.keys, self.min, &self.offer, answer);
        let reply = if verdict.is_ok() { WELCOME } else { FAILURE };
        self.base.send(&python_message(reply));
        let (key, digest) = verdict?;
        let proved = Outcome {
            key: key.name().clone(),
            digest,
        };
        Ok(State::Convinced {
            key: key.clone(),
            proved,
        })
    }

    fn answer(&mut self, key: &Key, message: &[u8]) -> Result<(), AuthError> {
        let asked = message::challenged(message)?;
        if asked == self.offer {
            return Err(AuthError::Reflected);
        }
        let answer = message::answer(key, self.min, asked)?;
        self.base.send(&python_message(&answer));
        Ok(())
    }
}

impl Steps for Listener {
    fn base(&mut self) -> &mut Base {
        &mut self.base
    }

    fn base_ref(&self) -> &Base {
        &self.base
    }

    fn need(&self, so_far: &[u8]) -> Result<usize, AuthError> {
        message::need(so_far)
    }

    fn step(&mut self, frame: &[u8]) -> Result<Option<Outcome>, AuthError> {
        let message = message::payload(frame)?;
        match &self.state {
            State::Asked => self.state = self.judge(message)?,
            State::Convinced { key, proved } => {
                let (key, proved) = (key.clone(), proved.clone());
                self.answer(&key, message)?;
                self.state = State::Answered { proved };
            }
            State::Answered { proved } => {
                return match message {
                    WELCOME => Ok(Some(proved.clone())),
                    FAILURE => Err(AuthError::Refused),
                    _ => Err(AuthError::Malformed("this is no verdict")),
                };
            }
        }
        Ok(None)
    }
}
