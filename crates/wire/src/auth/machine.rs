//! What all six machines have in common: a message is collected, then it is a step.

use super::{AuthError, Handshake, Outcome};

/// A dialogue as steps, one per message of the peer.
pub(super) trait Steps {
    /// The state that every dialogue has.
    fn base(&mut self) -> &mut Base;

    /// The same, to look at.
    fn base_ref(&self) -> &Base;

    /// How long the message under way must be before more can be said, given its beginning. When
    /// that many bytes are there and the answer has not changed, the message is complete. Bounded
    /// by the protocol, never by the peer.
    fn need(&self, so_far: &[u8]) -> Result<usize, AuthError>;

    /// A whole message. `Some` ends the dialogue.
    fn step(&mut self, message: &[u8]) -> Result<Option<Outcome>, AuthError>;
}

/// What is neither a state nor a key.
#[derive(Debug, Default)]
pub(super) struct Base {
    partial: Vec<u8>,
    output: Vec<u8>,
    end: Option<Result<Outcome, AuthError>>,
}

impl Base {
    /// Begins with bytes to send.
    pub(super) fn sending(output: Vec<u8>) -> Self {
        Self {
            output,
            ..Self::default()
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }
}

impl<T: Steps> Handshake for T {
    fn handle(&mut self, input: &[u8]) -> Result<usize, AuthError> {
        let mut rest = input;
        while self.base().end.is_none() {
            match advance(self, &mut rest) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.base().end = Some(Err(error)),
            }
        }
        match &self.base().end {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(input.len() - rest.len()),
        }
    }

    fn wanted(&self) -> usize {
        let base = self.base_ref();
        if base.end.is_some() {
            return 0;
        }
        // What is wrong about the beginning is said by `handle`, which takes a byte for that.
        let need = self.need(&base.partial).unwrap_or_default();
        need.saturating_sub(base.partial.len()).max(1)
    }

    fn output(&mut self) -> Option<Vec<u8>> {
        let output = std::mem::take(&mut self.base().output);
        (!output.is_empty()).then_some(output)
    }

    fn outcome(&self) -> Option<Outcome> {
        self.base_ref().end.clone()?.ok()
    }
}

/// Takes from `rest` what the message under way lacks; `false` when that is not enough.
fn advance<T: Steps>(machine: &mut T, rest: &mut &[u8]) -> Result<bool, AuthError> {
    let mut message = std::mem::take(&mut machine.base().partial);
    loop {
        let missing = machine.need(&message)?.saturating_sub(message.len());
        if missing == 0 {
            machine.base().end = machine.step(&message)?.map(Ok);
            return Ok(true);
        }
        let (now, later) = rest.split_at(missing.min(rest.len()));
        message.extend_from_slice(now);
        *rest = later;
        if now.len() < missing {
            machine.base().partial = message;
            return Ok(false);
        }
    }
}
