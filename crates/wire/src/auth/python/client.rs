//! The end that connected: it answers first.

use super::super::machine::{Base, Steps};
use super::super::{AuthError, Key, Keys, Outcome};
use super::MinDigest;
use super::message::{self, FAILURE, WELCOME};
use crate::framing::python_message;

/// Random bytes that a client needs for one connection. The mark makes 40 of them.
pub const CLIENT_NONCE_LEN: usize = message::MARKED_LEN;

/// What `Client()` does: answer a challenge, then deliver one. It answers whoever it connected to,
/// as the protocol has it, but never a challenge that a client with its key has made.
#[derive(Debug)]
pub struct Client {
    base: Base,
    key: Key,
    min: MinDigest,
    offer: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Message 1 is due.
    Connected,
    /// Message 3 is due.
    Answered,
    /// Message 5 is due.
    Asked,
}

impl Client {
    /// Will ask with `nonce`, random and used once. With [`MinDigest::Sha256`] a listener up to
    /// Python 3.11 is refused as soon as it asks, and learns nothing.
    pub fn new(key: Key, min: MinDigest, nonce: [u8; CLIENT_NONCE_LEN]) -> Self {
        let offer = message::offer(&message::marked(&key, &nonce));
        Self {
            base: Base::default(),
            key,
            min,
            offer,
            state: State::Connected,
        }
    }

    fn answer(&mut self, message: &[u8]) -> Result<(), AuthError> {
        let asked = message::challenged(message)?;
        if asked == self.offer || message::is_marked(&self.key, asked) {
            return Err(AuthError::Reflected);
        }
        let answer = message::answer(&self.key, self.min, asked)?;
        self.base.send(&python_message(&answer));
        Ok(())
    }

    fn judge(&mut self, answer: &[u8]) -> Result<Outcome, AuthError> {
        let keys = Keys::from(self.key.clone());
        let verdict = message::verify(&keys, self.min, &self.offer, answer);
        let reply = if verdict.is_ok() { WELCOME } else { FAILURE };
        self.base.send(&python_message(reply));
        let (key, digest) = verdict?;
        Ok(Outcome {
            key: key.name().clone(),
            digest,
        })
    }
}

impl Steps for Client {
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
        match self.state {
            State::Connected => {
                self.answer(message)?;
                self.state = State::Answered;
            }
            State::Answered => match message {
                WELCOME => {
                    let challenge = message::challenge(&self.offer);
                    self.base.send(&python_message(&challenge));
                    self.state = State::Asked;
                }
                FAILURE => return Err(AuthError::Refused),
                _ => return Err(AuthError::Malformed("this is no verdict")),
            },
            State::Asked => return self.judge(message).map(Some),
        }
        Ok(None)
    }
}
