//! Whom the other end trusts, and whether a certificate signed another.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use portyard_core::exit::Fatal;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::item::{Certificate, Contents};
use crate::cert::wrong_file;

/// The authorities of `--ca`.
#[derive(Debug)]
pub struct Trust {
    /// Each of them.
    pub authorities: Vec<Certificate>,
}

impl Trust {
    /// Reads a file of certificates.
    pub fn read(path: &Path) -> Result<Self, Fatal> {
        let contents = Contents::read(path)?;
        let authorities: Vec<_> = contents
            .items
            .into_iter()
            .filter_map(|item| match item {
                super::item::Item::Certificate(certificate) => Some(*certificate),
                _ => None,
            })
            .collect();
        if authorities.is_empty() {
            return Err(wrong_file(path, "it holds no certificate"));
        }
        Ok(Self { authorities })
    }

    /// The one that signed a certificate, or is it.
    pub fn signer(&self, certificate: &Certificate) -> Option<&Certificate> {
        self.authorities
            .iter()
            .find(|authority| authority.der == certificate.der || signed(authority, certificate))
    }

    /// Why the TLS library of the daemons and the client refuses this chain, with its own words; the
    /// last resort for what nothing else has found.
    pub fn refusal(
        &self,
        chain: &[&Certificate],
        name: Option<&ServerName<'_>>,
        now: SystemTime,
    ) -> Option<String> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            if let Err(error) = roots.add(authority.der.clone()) {
                return Some(format!("an authority cannot be used: {error}"));
            }
        }
        let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let now = UnixTime::since_unix_epoch(since);
        let (leaf, rest) = chain.split_first()?;
        let between: Vec<CertificateDer<'_>> = rest
            .iter()
            .map(|certificate| certificate.der.clone())
            .collect();
        let provider = Arc::new(default_provider());
        let roots = Arc::new(roots);
        let verdict = match name {
            Some(name) => WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| error.to_string())
                .and_then(|verifier| {
                    verifier
                        .verify_server_cert(&leaf.der, &between, name, &[], now)
                        .map(drop)
                        .map_err(|error| error.to_string())
                }),
            None => WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| error.to_string())
                .and_then(|verifier| {
                    verifier
                        .verify_client_cert(&leaf.der, &between, now)
                        .map(drop)
                        .map_err(|error| error.to_string())
                }),
        };
        verdict.err()
    }
}

/// Whether `signer` signed `certificate`.
pub fn signed(signer: &Certificate, certificate: &Certificate) -> bool {
    let (Ok((_, signer)), Ok((_, certificate))) = (
        X509Certificate::from_der(&signer.der),
        X509Certificate::from_der(&certificate.der),
    ) else {
        return false;
    };
    certificate.issuer() == signer.subject()
        && certificate
            .verify_signature(Some(signer.public_key()))
            .is_ok()
}

/// Whether `signer` signed a revocation list.
pub fn signed_list(signer: &Certificate, list: &[u8]) -> bool {
    let (Ok((_, signer)), Ok((_, list))) = (
        X509Certificate::from_der(&signer.der),
        CertificateRevocationList::from_der(list),
    ) else {
        return false;
    };
    list.issuer() == signer.subject() && list.verify_signature(signer.public_key()).is_ok()
}
