//! How a worker and the broker begin.

use super::field::{self, Fields};
use super::frame::{Writer, cut, take, text};
use super::{BrokerError, HELLO, NAME_MAX, WELCOME};

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The version it speaks; the broker answers in the same or rejects it.
    pub version: u16,
    /// Whether it reports DONE of each connection. If not, the broker asks the kernel.
    pub reports_done: bool,
    /// Connections it has at a time, at least 1.
    pub capacity: u32,
    /// Its share of the connections where pools weigh, at least 1.
    pub weight: u16,
    /// Its name in logs, status and metrics; empty for none.
    pub name: &'a str,
    /// The pool it means to work for, which is rejected where another one is served; empty for
    /// whichever is.
    pub pool: &'a str,
}

/// What the broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The version that is spoken from here on.
    pub version: u16,
    /// What the pool gives.
    pub mode: Mode,
    /// The pool.
    pub pool: &'a str,
}

/// What a pool gives to its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Accepted connections.
    Connections,
    /// Listening sockets, from which workers accept by themselves.
    Listener,
}

impl<'a> Hello<'a> {
    pub(super) fn decode(mut body: &'a [u8]) -> Result<Self, BrokerError> {
        let version = u16::from_be_bytes(take(&mut body)?);
        let flags = u16::from_be_bytes(take(&mut body)?);
        let capacity = u32::from_be_bytes(take(&mut body)?);
        let weight = u16::from_be_bytes(take(&mut body)?);
        if capacity == 0 {
            return Err(BrokerError::Value("capacity", 0));
        }
        if weight == 0 {
            return Err(BrokerError::Value("weight", 0));
        }
        Ok(Self {
            version,
            // Flags that are not known are of a later version, and may be left out.
            reports_done: flags & REPORTS_DONE != 0,
            capacity,
            weight,
            name: name(body, field::NAME)?.unwrap_or_default(),
            pool: name(body, field::POOL)?.unwrap_or_default(),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(HELLO);
        let flags = if self.reports_done { REPORTS_DONE } else { 0 };
        writer.bytes(&self.version.to_be_bytes());
        writer.bytes(&flags.to_be_bytes());
        writer.bytes(&self.capacity.to_be_bytes());
        writer.bytes(&self.weight.to_be_bytes());
        if !self.name.is_empty() {
            writer.field(field::NAME, cut(self.name, NAME_MAX).as_bytes());
        }
        if !self.pool.is_empty() {
            writer.field(field::POOL, cut(self.pool, NAME_MAX).as_bytes());
        }
        writer.finish(0)
    }
}

impl<'a> Welcome<'a> {
    pub(super) fn decode(mut body: &'a [u8]) -> Result<Self, BrokerError> {
        let version = u16::from_be_bytes(take(&mut body)?);
        let [mode, _] = take(&mut body)?;
        let mode = match mode {
            0 => Mode::Connections,
            1 => Mode::Listener,
            other => return Err(BrokerError::Value("mode", other.into())),
        };
        Ok(Self {
            version,
            mode,
            pool: name(body, field::POOL)?.unwrap_or_default(),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(WELCOME);
        writer.bytes(&self.version.to_be_bytes());
        writer.bytes(&[self.mode as u8, 0]);
        writer.field(field::POOL, cut(self.pool, NAME_MAX).as_bytes());
        writer.finish(0)
    }
}

/// The name in a field of type `wanted`.
pub(super) fn name(fields: &[u8], wanted: u8) -> Result<Option<&str>, BrokerError> {
    let mut found = None;
    for field in Fields::new(fields) {
        let (kind, value) = field?;
        if kind == wanted {
            found = Some(text(value, NAME_MAX)?);
        }
    }
    Ok(found)
}

const REPORTS_DONE: u16 = 1;
