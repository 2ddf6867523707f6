//! The server's end: which certificate is shown, and whose is asked for.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{CRL_MAX, CertificateError, Facts, moment, read_chain, read_private_key};
use crate::config::{CertificateConfig, ClientCertificates, TlsConfig, TlsVersion};
use crate::files::FilePlace;

/// TLS as a listener speaks it. A reload makes a new one: with it end all resumptions, so that nobody
/// comes in by an old ticket whose certificate has been revoked since.
pub struct TlsServer {
    /// Makes sessions of connections.
    pub acceptor: TlsAcceptor,
    /// What is asked of clients.
    pub client: ClientCertificates,
    /// What runs out and when.
    pub expiries: Vec<Expiry>,
}

/// Something that is good up to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// `certificate`, `client_ca` or `crl`.
    pub kind: &'static str,
    /// The file.
    pub place: String,
    /// Whose it is, or for a CRL who made it.
    pub name: String,
    /// The last moment.
    pub not_after: SystemTime,
}

impl TlsServer {
    /// Reads all files of the table and checks them against each other, or says which of them is
    /// wrong and what to do. Nothing half-written passes: each key must belong to its certificate.
    pub fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut expiries = Vec::new();
        let resolver = ByName::new(&config.certificates, &provider, &mut expiries)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(config.min_version))?;
        let builder = match client_verifier(config, &provider, &mut expiries)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::new(resolver));
        server.alpn_protocols = config
            .alpn
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        // Without it a TLS 1.2 session has no exporter that is its own (RFC 7627).
        server.require_ems = true;
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        // Early data can be replayed, so none is taken (RFC 8446, 8).
        server.max_early_data_size = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            client: config.client,
            expiries,
        })
    }
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate, a key or a list.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The keys of the table do not fit each other.
    #[error("{0}")]
    Table(&'static str),
    /// rustls says no.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The versions that are spoken, if none is older than this.
pub(super) fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEW: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];
    match oldest {
        TlsVersion::V12 => &BOTH,
        TlsVersion::V13 => &NEW,
    }
}

fn wrong(place: &FilePlace, why: impl Into<String>) -> TlsError {
    TlsError::Certificate(CertificateError::Content {
        place: place.clone(),
        why: why.into(),
    })
}

/// Certificates by the names they are good for.
#[derive(Debug)]
struct ByName(Vec<Named>);

#[derive(Debug)]
struct Named {
    /// Lower case, `*.` for any one label.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl ByName {
    fn new(
        certificates: &[CertificateConfig],
        provider: &CryptoProvider,
        expiries: &mut Vec<Expiry>,
    ) -> Result<Self, TlsError> {
        if certificates.is_empty() {
            return Err(TlsError::Table(
                "tls.certificates is empty; name at least one, as in \
                 [{ chain = \"server.pem\", key = \"server.key\" }] ('portyard cert server' makes them)",
            ));
        }
        let named = certificates
            .iter()
            .map(|config| Named::read(config, provider, expiries));
        named.collect::<Result<_, _>>().map(Self)
    }
}

impl Named {
    fn read(
        config: &CertificateConfig,
        provider: &CryptoProvider,
        expiries: &mut Vec<Expiry>,
    ) -> Result<Self, TlsError> {
        let chain = read_chain(&config.chain)?;
        let key = read_private_key(&config.key)?;
        let mut names = Vec::new();
        for (number, certificate) in chain.iter().enumerate() {
            let facts = Facts::of(certificate).map_err(|why| wrong(&config.chain, why))?;
            expiries.push(Expiry::of("certificate", &config.chain, &facts));
            if number == 0 {
                let hosts = facts
                    .names
                    .iter()
                    .filter_map(|name| name.strip_prefix("dns:"));
                names = hosts.map(str::to_ascii_lowercase).collect();
            }
        }
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            let why = format!(
                "it does not fit the certificate in {}: {error}",
                config.chain
            );
            wrong(&config.key, why)
        })?;
        let key = Arc::new(key);
        Ok(Self { names, key })
    }

    fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => name == host,
        })
    }
}

impl ResolvesServerCert for ByName {
    /// A name that we do not have gets the first certificate: whether that will do is for the client
    /// to say.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let named = |named: &&Named| host.as_deref().is_some_and(|host| named.is_for(host));
        // RSA beside EC under one name is for clients that know only one of them.
        let usable = |named: &&Named| {
            let schemes = hello.signature_schemes();
            named.key.key.choose_scheme(schemes).is_some()
        };
        let all = || self.0.iter();
        all()
            .filter(named)
            .find(usable)
            .or_else(|| all().find(usable))
            .or_else(|| all().next())
            .map(|named| named.key.clone())
    }
}

fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
    expiries: &mut Vec<Expiry>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let place = match (&config.client_ca, config.client) {
        (None, ClientCertificates::Off) if config.crls.is_empty() => return Ok(None),
        (_, ClientCertificates::Off) => {
            return Err(TlsError::Table(
                "tls.client_ca and tls.crls have no effect with client = \"off\"; \
                 write client = \"required\" or \"optional\", or take them out",
            ));
        }
        (None, _) => {
            return Err(TlsError::Table(
                "tls.client asks for certificates; name who signs them with client_ca = \"ca.pem\"",
            ));
        }
        (Some(place), _) => place,
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(place)? {
        let facts = Facts::of(&certificate).map_err(|why| wrong(place, why))?;
        expiries.push(Expiry::of("client_ca", place, &facts));
        roots
            .add(certificate)
            .map_err(|error| wrong(place, format!("it cannot sign certificates: {error}")))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    for place in &config.crls {
        builder = builder.with_crls(read_crls(place, expiries)?);
    }
    // A list past its next update may lack the very revocation that matters.
    builder = builder.enforce_revocation_expiration();
    if config.client == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder
        .build()
        .map_err(|error| wrong(place, format!("clients cannot be verified: {error}")))?;
    Ok(Some(verifier))
}

fn read_crls(
    place: &FilePlace,
    expiries: &mut Vec<Expiry>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = place.read(CRL_MAX).map_err(CertificateError::from)?;
    let crls: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(place, format!("it is not PEM: {error}")))?;
    if crls.is_empty() {
        return Err(wrong(place, "it holds no list; BEGIN X509 CRL is needed"));
    }
    for crl in &crls {
        let (_, list) = CertificateRevocationList::from_der(crl)
            .map_err(|error| wrong(place, format!("it is not a list of revocations: {error}")))?;
        let Some(next) = list.next_update() else {
            return Err(wrong(
                place,
                "it does not say when the next one comes (nextUpdate)",
            ));
        };
        expiries.push(Expiry {
            kind: "crl",
            place: place.to_string(),
            name: list.issuer().to_string(),
            not_after: moment(next.timestamp()),
        });
    }
    Ok(crls)
}

impl Expiry {
    fn of(kind: &'static str, place: &FilePlace, facts: &Facts) -> Self {
        let name = match facts.names.first() {
            Some(name) if facts.subject.is_empty() => name.clone(),
            _ => facts.subject.clone(),
        };
        Self {
            kind,
            place: place.to_string(),
            name,
            not_after: facts.not_after,
        }
    }

    /// Whole days from `now` on; negative when it is over.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        let days = |span: std::time::Duration| i64::try_from(span.as_secs() / DAY).unwrap_or(0);
        match self.not_after.duration_since(now) {
            Ok(left) => days(left),
            Err(over) => -days(over.duration()) - 1,
        }
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

const DAY: u64 = 86_400;
