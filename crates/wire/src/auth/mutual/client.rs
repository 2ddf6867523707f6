//! The end that connected: it proves only to who has proved.

use super::super::machine::{Base, Steps};
use super::super::{AuthError, Key, Outcome};
use super::{
    Exporter, HEADER_LEN, Kind, NONCE_LEN, Reason, SERVER_NONCE_END, Said, VERSION, check_header,
    check_settings, hint, outcome, trailing_nonce,
};

/// Says hello, and proves its key once the server has.
#[derive(Debug)]
pub struct Client {
    base: Base,
    key: Key,
    exporter: Option<Exporter>,
    hello: Vec<u8>,
}

impl Client {
    /// Will prove `key`. `nonce` is random and used once. With an exporter the server must have the
    /// same one; without, it must have none.
    pub fn new(key: Key, nonce: [u8; NONCE_LEN], exporter: Option<Exporter>) -> Self {
        let header = Kind::Hello.header(exporter.as_ref());
        let hello = [&header[..], &hint(&key, &nonce), &nonce].concat();
        Self {
            base: Base::sending(hello.clone()),
            key,
            exporter,
            hello,
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

    fn need(&self, so_far: &[u8]) -> Result<usize, AuthError> {
        // Everything but a proof is judged by its header, without waiting for more.
        Ok(match so_far {
            [VERSION, kind, _, _, ..] if *kind == Kind::Proof as u8 => Kind::Proof.message_len(),
            _ => HEADER_LEN,
        })
    }

    fn step(&mut self, message: &[u8]) -> Result<Option<Outcome>, AuthError> {
        if let &[version, kind, reason, _] = message
            && kind == Kind::Refusal as u8
        {
            return Err(Reason::error(reason, version));
        }
        check_header(message, Kind::Proof, &[Kind::Hello, Kind::Answer])?;
        check_settings(message, self.exporter.as_ref())?;
        let (offer, proof) = message.split_at(SERVER_NONCE_END);
        if trailing_nonce(offer) == trailing_nonce(&self.hello) {
            return Err(AuthError::Reflected);
        }
        let said = Said::new(&self.hello, offer, self.exporter.as_ref());
        if !said.server_proved(&self.key, proof) {
            return Err(AuthError::WrongKey);
        }
        self.base.send(&Kind::Answer.header(self.exporter.as_ref()));
        self.base.send(&said.client_proof(&self.key, proof));
        Ok(Some(outcome(&self.key)))
    }
}
