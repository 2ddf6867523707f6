//! The end that was connected to: it proves first.

use super::super::machine::{Base, Steps};
use super::super::{AuthError, Key, Keys, Outcome};
use super::{
    Exporter, HEADER_LEN, HINT_LEN, Kind, NONCE_LEN, Reason, SERVER_NONCE_END, Said, VERSION,
    check_header, check_settings, hint_matches, outcome, trailing_nonce,
};

/// Waits for a hello, proves the key that it means, and wants the client's proof.
#[derive(Debug)]
pub struct Server {
    base: Base,
    keys: Keys,
    nonce: [u8; NONCE_LEN],
    exporter: Option<Exporter>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Proved {
        key: Key,
        said: Said,
        proof: Vec<u8>,
    },
}

impl Server {
    /// Accepts any of `keys`. `nonce` is random and used once. With an exporter the client must
    /// have the same one; without, it must have none.
    pub fn new(keys: Keys, nonce: [u8; NONCE_LEN], exporter: Option<Exporter>) -> Self {
        Self {
            base: Base::default(),
            keys,
            nonce,
            exporter,
            state: State::Waiting,
        }
    }

    fn judge(&mut self, message: &[u8]) -> Result<Option<Outcome>, AuthError> {
        check_header(message, self.wanted(), &[Kind::Proof, Kind::Refusal])?;
        match &self.state {
            State::Waiting => {
                self.state = self.prove(message)?;
                Ok(None)
            }
            State::Proved { key, said, proof } => {
                check_settings(message, self.exporter.as_ref())?;
                if said.client_proved(key, proof, &message[HEADER_LEN..]) {
                    Ok(Some(outcome(key)))
                } else {
                    Err(AuthError::WrongKey)
                }
            }
        }
    }

    fn prove(&mut self, hello: &[u8]) -> Result<State, AuthError> {
        check_settings(hello, self.exporter.as_ref())?;
        let client_nonce = trailing_nonce(hello);
        if client_nonce == self.nonce {
            return Err(AuthError::Reflected);
        }
        let hint = &hello[HEADER_LEN..HEADER_LEN + HINT_LEN];
        let meant = |key: &Key| hint_matches(key, client_nonce, hint);
        let key = self.keys.find(meant).ok_or(AuthError::WrongKey)?.clone();

        let mut message = Kind::Proof.header(self.exporter.as_ref()).to_vec();
        message.extend_from_slice(&self.nonce);
        let said = Said::new(hello, &message, self.exporter.as_ref());
        message.extend(said.server_proof(&key));
        self.base.send(&message);
        let proof = message.split_off(SERVER_NONCE_END);
        Ok(State::Proved { key, said, proof })
    }

    /// Says why, as long as the client waits for a proof.
    fn refuse(&mut self, error: &AuthError) {
        if matches!(self.state, State::Waiting) {
            let reason = match error {
                AuthError::WrongKey => Reason::Key,
                AuthError::Version(_) => Reason::Version,
                AuthError::Binding => Reason::Binding,
                _ => Reason::Other,
            };
            let refusal = [VERSION, Kind::Refusal as u8, reason as u8, 0];
            self.base.send(&refusal);
        }
    }

    fn wanted(&self) -> Kind {
        match self.state {
            State::Waiting => Kind::Hello,
            State::Proved { .. } => Kind::Answer,
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

    fn need(&self, so_far: &[u8]) -> Result<usize, AuthError> {
        let wanted = self.wanted();
        // A message of another kind or version is judged by its header, without waiting for more.
        Ok(match so_far {
            [VERSION, kind, _, _, ..] if *kind == wanted as u8 => wanted.message_len(),
            _ => HEADER_LEN,
        })
    }

    fn step(&mut self, message: &[u8]) -> Result<Option<Outcome>, AuthError> {
        let result = self.judge(message);
        if let Err(error) = &result {
            self.refuse(error);
        }
        result
    }
}
