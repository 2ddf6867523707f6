//! The `[[hold]]` and `[holding]` tables.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};

use portyard_core::config::{SocketOptions, Span};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::wire::hold::{Name, SOCKETS_MAX};
use serde::{Deserialize, Serialize};

use super::rules::Rules;

/// A `[[hold]]` table: a name, and sockets that the broker opens and holds under it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HoldConfig {
    /// The name that daemons retrieve them by.
    pub name: String,
    /// Where to listen.
    pub listen: Vec<Endpoint>,
    /// What a Unix or inherited socket is; tcp:// is a stream and udp:// is datagrams anyway.
    #[serde(default)]
    pub kind: KindConfig,
    /// Options of the sockets.
    #[serde(default)]
    pub socket: SocketOptions,
}

/// What a socket is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KindConfig {
    /// It accepts byte streams.
    #[default]
    Stream,
    /// It receives datagrams.
    Datagram,
    /// It accepts connections of whole messages.
    Packet,
}

/// The `[holding]` table: who may do what with which names, and how much is held.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HoldingConfig {
    /// The rules; whatever none allows is denied.
    pub rules: Vec<String>,
    /// Names that peers may store at a time.
    pub names: NonZeroU16,
    /// Sockets that peers may store at a time, all names together.
    pub sockets: NonZeroU32,
    /// The longest expiry that a peer may ask for, and what it gets that asks for none; `"0s"`: what
    /// is stored may stay for good.
    pub expiry: Span,
}

impl Default for HoldingConfig {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            names: DEFAULT_NAMES,
            sockets: DEFAULT_SOCKETS,
            expiry: Span::secs(0),
        }
    }
}

impl HoldConfig {
    /// The name, which [`check`] has seen to be one.
    pub fn name(&self) -> Option<Name> {
        self.name.parse().ok()
    }

    /// Each endpoint with what is to be opened there.
    pub fn endpoints(&self) -> impl Iterator<Item = (Endpoint, Transport)> {
        self.listen.iter().map(|endpoint| {
            let kind = match endpoint {
                Endpoint::Tcp(_) => KindConfig::Stream,
                Endpoint::Udp(_) => KindConfig::Datagram,
                _ => self.kind,
            };
            let transport = kind.transport();
            (endpoint.clone().with_transport(transport), transport)
        })
    }

    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let wrong = |what: &str| Err(format!("[[hold]] {name:?}: {what}"));
        if self.name().is_none() {
            return wrong("a name is 1 to 255 printable ASCII characters without spaces");
        }
        if self.listen.is_empty() {
            return wrong("listen is empty; name an endpoint, such as \"tcp://0.0.0.0:80\"");
        }
        if self.listen.len() > SOCKETS_MAX {
            return wrong(&format!("listen has more than {SOCKETS_MAX} endpoints"));
        }
        for (endpoint, transport) in self.endpoints() {
            if !endpoint.fits(transport) {
                return wrong(&format!(
                    "its kind does not fit {endpoint}; only a Unix socket keeps messages whole"
                ));
            }
            if matches!(endpoint, Endpoint::Broker { .. } | Endpoint::Inetd) {
                return wrong(&format!(
                    "{endpoint} cannot be held here; open the socket itself"
                ));
            }
        }
        Ok(())
    }
}

impl KindConfig {
    fn transport(self) -> Transport {
        match self {
            Self::Stream => Transport::Stream,
            Self::Datagram => Transport::Datagram,
            Self::Packet => Transport::SeqPacket,
        }
    }
}

/// Checks what types cannot say.
pub fn check(holds: &[HoldConfig], holding: &HoldingConfig) -> Result<(), String> {
    let mut names = HashSet::new();
    for hold in holds {
        hold.check()?;
        if !names.insert(&hold.name) {
            return Err(format!(
                "[[hold]]: the name {:?} is there twice; list all endpoints in one table",
                hold.name
            ));
        }
    }
    Rules::new(&holding.rules).map(|_| ())
}

/// More than any machine has services; each costs a descriptor or two.
const DEFAULT_NAMES: NonZeroU16 = match NonZeroU16::new(256) {
    Some(names) => names,
    None => NonZeroU16::MIN,
};

/// Two for each name: IPv4 and IPv6.
const DEFAULT_SOCKETS: NonZeroU32 = match NonZeroU32::new(512) {
    Some(sockets) => sockets,
    None => NonZeroU32::MIN,
};
