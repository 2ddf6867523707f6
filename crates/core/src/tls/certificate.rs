//! Certificates and private keys in PEM files, and what a certificate says.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::files::{FileError, FilePlace, Links};

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is read, and is not what it should be.
    #[error("{place}: {why}")]
    Content {
        /// The file.
        place: FilePlace,
        /// What is wrong and what to do.
        why: String,
    },
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The distinguished name, `CN=host, O=…`; may be empty.
    pub subject: String,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The distinguished name of who signed it.
    pub issuer: String,
    /// The subject's alternative names: `dns:NAME`, `ip:ADDRESS`, `email:NAME`, `uri:URI`. These are
    /// what clients check, not the subject (RFC 9525).
    pub names: Vec<String>,
    /// The first moment at which it is good.
    pub not_before: SystemTime,
    /// The last.
    pub not_after: SystemTime,
    /// The serial number, as hexadecimal digits.
    pub serial: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
}

/// Reads the certificates of a PEM file, the server's or client's own first.
pub fn read_chain(place: &FilePlace) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |why: String| CertificateError::Content {
        place: place.clone(),
        why,
    };
    let bytes = place.read(PEM_MAX)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("it is not PEM: {error}")))?;
    if chain.is_empty() {
        let why = "it holds no certificate; a PEM file with BEGIN CERTIFICATE is needed";
        return Err(wrong(why.into()));
    }
    Ok(chain)
}

/// Reads the one private key of a PEM file that nobody else can read. The path may be a symbolic
/// link, as certbot makes them.
pub fn read_private_key(place: &FilePlace) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let bytes = place.read_secret(Links::Followed, PEM_MAX)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| CertificateError::Content {
        place: place.clone(),
        why: format!("it holds no private key that can be read without a password: {error}"),
    })
}

/// SHA-256 of a certificate, by which it can be pinned.
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

impl Facts {
    /// Reads a certificate.
    pub fn of(certificate: &[u8]) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("it is not an X.509 certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("something follows the certificate".into());
        }
        let names = match parsed.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(name)
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            subject: parsed.subject().to_string(),
            common_name: parsed
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok().map(Into::into)),
            issuer: parsed.issuer().to_string(),
            names,
            not_before: moment(parsed.validity().not_before.timestamp()),
            not_after: moment(parsed.validity().not_after.timestamp()),
            serial: parsed.raw_serial_as_string(),
            is_ca: parsed.is_ca(),
            fingerprint: fingerprint(certificate),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("dns:{name}")),
        GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| format!("ip:{address}"))
        }
        _ => None,
    }
}

pub(super) fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// The largest certificate, key or bundle file. The web's roots are a quarter of this.
const PEM_MAX: u64 = 1 << 20;
/// The largest file of revocations: a hundred thousand of them.
pub(super) const CRL_MAX: u64 = 4 << 20;
