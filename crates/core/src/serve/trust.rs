//! What a listener demands before it serves: a balancer's header, TLS, a key.

use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::Peer;
use crate::access::{AccessList, Kind};
use crate::auth::{Authenticator, MinDigest, SECURE_LENGTH};
use crate::config::{ClientCertificates, ConfigError, ListenerConfig, Source};
use crate::endpoint::Endpoint;
use crate::tls::{Expiry, TlsServer};

/// The stages between a connection and its service, in their order. A listener without any has none
/// of this, and its connections cost nothing more.
#[derive(Debug)]
pub struct Trust {
    /// Whose PROXY header is believed.
    pub balancers: Balancers,
    /// Encryption.
    pub tls: Option<TlsServer>,
    /// Proof of a key.
    pub auth: Option<Authenticator>,
}

/// The peers that must begin with a PROXY header. All others must not: from them it is not believed,
/// and breaks the protocol of the service.
#[derive(Debug, Default)]
pub struct Balancers {
    nets: Vec<IpNet>,
    unix: bool,
}

impl Trust {
    /// Reads the files that a listener's table names and checks that its keys fit each other. `None`
    /// when it demands nothing.
    pub fn new<L, O>(
        listener: &ListenerConfig<L, O>,
        access: &AccessList,
        source: &Source,
    ) -> Result<Option<Self>, ConfigError> {
        let at = listener.service.span();
        let wrong = |message: String| source.error(&at, message);
        let tls = listener.tls.as_ref().map(TlsServer::new).transpose();
        let tls = tls.map_err(|error| wrong(format!("tls: {error}")))?;
        let auth = Authenticator::new(
            listener.auth,
            listener.min_digest,
            listener.auth_keys.as_ref(),
        );
        let auth = auth.map_err(wrong)?;
        let certificates = tls
            .as_ref()
            .is_some_and(|tls| tls.client != ClientCertificates::Off);
        if access.concerns(Kind::Certificate) && !certificates {
            return Err(wrong(
                "its access rules look at certificates, but none is asked for; \
                 write tls.client = \"required\" and tls.client_ca"
                    .into(),
            ));
        }
        if access.concerns(Kind::Key) && auth.is_none() {
            return Err(wrong(
                "its access rules look at keys, but none is asked for; \
                 write auth = \"mutual\" (or \"python\", \"recipe\") and auth_keys"
                    .into(),
            ));
        }
        let balancers = Balancers::new(listener, source)?;
        let nothing = tls.is_none() && auth.is_none() && balancers.is_empty();
        Ok((!nothing).then_some(Self {
            balancers,
            tls,
            auth,
        }))
    }
}

impl Trust {
    /// What runs out.
    pub fn expiries(&self) -> impl Iterator<Item = &Expiry> {
        self.tls.iter().flat_map(|tls| &tls.expiries)
    }

    /// What somebody should mend while it still works, for a listener at `endpoint`.
    pub fn warnings(&self, endpoint: &Endpoint, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        for expiry in self.expiries() {
            let (days, Expiry { name, place, .. }) = (expiry.days_left(now), expiry);
            let kind = expiry.kind.replace('_', " ");
            if days < 0 {
                warnings.push(format!(
                    "the {kind} of {name} in {place} ran out {} days ago",
                    -days
                ));
            } else if days < WARN_DAYS {
                warnings.push(format!(
                    "the {kind} of {name} in {place} runs out in {days} days"
                ));
            }
        }
        let Some(auth) = &self.auth else {
            return warnings;
        };
        let local = matches!(endpoint, Endpoint::Unix(_) | Endpoint::Abstract(_));
        if auth.min_digest == MinDigest::Md5 && !local {
            warnings.push(
                "min_digest = \"md5\" lets proofs by HMAC-MD5 in over a network; \
                 write \"sha256\" once no Python before 3.12 is left, or use TLS"
                    .into(),
            );
        }
        for name in &auth.short {
            warnings.push(format!(
                "the key {name} has fewer than {SECURE_LENGTH} bytes and might be guessed; \
                 'portyard keygen' makes a better one"
            ));
        }
        warnings
    }
}

impl Balancers {
    fn new<L, O>(listener: &ListenerConfig<L, O>, source: &Source) -> Result<Self, ConfigError> {
        let mut balancers = Self::default();
        for text in &listener.proxy {
            let net = text.get_ref();
            match (net.parse::<IpNet>(), net.parse::<IpAddr>()) {
                (Ok(net), _) => balancers.nets.push(net),
                (_, Ok(address)) => balancers.nets.push(address.into()),
                _ if net == "unix" => balancers.unix = true,
                _ => {
                    let message = format!(
                        "proxy: '{net}' is not an address, a prefix such as \"10.0.0.0/8\", or \"unix\""
                    );
                    return Err(source.error(&text.span(), message));
                }
            }
        }
        Ok(balancers)
    }

    /// Whether a peer is one of them.
    pub fn include(&self, peer: Peer) -> bool {
        match peer.ip() {
            None => self.unix,
            Some(ip) => {
                let ip = ip.to_canonical();
                self.nets.iter().any(|net| net.contains(&ip))
            }
        }
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty() && !self.unix
    }
}

/// Three weeks: time enough to renew by hand, and for a renewal that failed to be noticed.
const WARN_DAYS: i64 = 21;
