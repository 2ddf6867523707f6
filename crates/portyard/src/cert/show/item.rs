//! What a file holds, whatever its form.

use std::fmt;
use std::path::Path;

use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::{FileError, FilePlace, Links};
use portyard_core::tls::{Facts, PublicKey};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::Finding;
use super::private_key;
use crate::cert::{FILE_MAX, wrong_file};

/// The contents of a file.
#[derive(Debug)]
pub struct Contents {
    /// In the order of the file; never empty together with `findings`.
    pub items: Vec<Item>,
    /// What is wrong with the file itself.
    pub findings: Vec<Finding>,
}

/// One thing in a file.
#[derive(Debug)]
pub enum Item {
    /// A certificate.
    Certificate(Box<Certificate>),
    /// A private key, and its public half where it is of a kind that TLS can use here.
    Key(Option<PrivateKey>),
    /// What an authority has taken back.
    List(Box<List>),
    /// A request to an authority.
    Request {
        /// Whom the certificate shall be for.
        subject: String,
        /// Its key.
        key: Option<PublicKey>,
    },
    /// Something else, by the name that PEM gives it.
    Other(String),
}

/// A certificate that could be read.
#[derive(Debug)]
pub struct Certificate {
    /// All of it.
    pub der: CertificateDer<'static>,
    /// What it says.
    pub facts: Facts,
}

/// The public half of a private key.
#[derive(Debug)]
pub struct PrivateKey {
    /// Kind and size.
    pub key: PublicKey,
    /// The public key as a certificate holds it.
    pub info: Vec<u8>,
}

/// A revocation list.
#[derive(Debug)]
pub struct List {
    /// All of it.
    pub der: Vec<u8>,
    /// Who signed it.
    pub issuer: String,
    /// Its number, in decimal.
    pub number: Option<String>,
    /// When it was made, in seconds since 1970.
    pub this_update: i64,
    /// When the next one comes at the latest.
    pub next_update: Option<i64>,
    /// How many certificates it names.
    pub count: usize,
}

impl Contents {
    /// Reads a file; an error when it is none of what we know.
    pub fn read(path: &Path) -> Result<Self, Fatal> {
        let place = FilePlace::Path(path.into());
        let bytes = place.read(FILE_MAX).map_err(|error| {
            let exit = match &error {
                FileError::Unreadable { error, .. }
                    if error.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    Exit::NoPermission
                }
                _ => Exit::Config,
            };
            Fatal::new(exit, error.to_string())
        })?;
        let mut contents = Self::parse(&bytes);
        if contents.items.is_empty() && contents.findings.is_empty() {
            return Err(wrong_file(
                path,
                "it holds no certificate, key, revocation list or request, neither as PEM nor as DER",
            ));
        }
        if contents.holds_a_key()
            && let Err(error) = place.read_secret(Links::Followed, FILE_MAX)
        {
            contents.findings.push(Finding::fails(error.to_string()));
        }
        Ok(contents)
    }

    /// The certificates, in their order.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.items.iter().filter_map(|item| match item {
            Item::Certificate(certificate) => Some(&**certificate),
            _ => None,
        })
    }

    /// The first private key that can be used.
    pub fn private_key(&self) -> Option<&PrivateKey> {
        self.items.iter().find_map(|item| match item {
            Item::Key(key) => key.as_ref(),
            _ => None,
        })
    }

    fn holds_a_key(&self) -> bool {
        let is_key = |item: &Item| match item {
            Item::Key(_) => true,
            Item::Other(label) => label.ends_with("PRIVATE KEY"),
            _ => false,
        };
        self.items.iter().any(is_key)
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut contents = Self {
            items: Vec::new(),
            findings: Vec::new(),
        };
        if find(bytes, b"-----BEGIN ").is_some() {
            contents.parse_pem(bytes);
        } else {
            contents.parse_der(bytes);
        }
        contents
    }

    fn parse_pem(&mut self, bytes: &[u8]) {
        // Sections of other kinds are passed over by the parser, and would not be missed.
        for label in labels(bytes).filter(|label| !KNOWN.contains(&label.as_str())) {
            if label == "ENCRYPTED PRIVATE KEY" {
                self.fails(PASSWORD);
            }
            self.items.push(Item::Other(label));
        }
        if find(bytes, b"Proc-Type: 4,ENCRYPTED").is_some() {
            self.fails(PASSWORD);
            self.items.push(Item::Other("encrypted PRIVATE KEY".into()));
            return;
        }
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
            match section {
                Ok((kind, der)) => self.section(kind, der),
                Err(error) => {
                    self.fails(format!("what follows is broken PEM: {error}"));
                    return;
                }
            }
        }
    }

    fn section(&mut self, kind: SectionKind, der: Vec<u8>) {
        let item = match kind {
            SectionKind::Certificate => certificate(der),
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                PrivateKeyDer::from_pem(kind, der)
                    .map(|key| Item::Key(private_key::public_half(&key)))
                    .ok_or_else(|| "it is not a private key".into())
            }
            SectionKind::Crl => list(&der),
            SectionKind::Csr => request(&der),
            SectionKind::PublicKey => Ok(Item::Other("PUBLIC KEY".into())),
            _ => Ok(Item::Other("unknown".into())),
        };
        match item {
            Ok(item) => self.items.push(item),
            Err(why) => self.fails(format!("part {} of the file: {why}", self.items.len() + 1)),
        }
    }

    fn parse_der(&mut self, bytes: &[u8]) {
        let item = certificate(bytes.into())
            .or_else(|_| list(bytes))
            .or_else(|_| request(bytes));
        if let Ok(item) = item {
            self.items.push(item);
        } else if let Ok(key) = PrivateKeyDer::try_from(bytes)
            && let Some(half) = private_key::public_half(&key)
        {
            self.items.push(Item::Key(Some(half)));
        } else if bytes.starts_with(&[0x30]) && find(bytes, PKCS12).is_some() {
            self.fails(
                "it looks like PKCS #12, which nothing here reads; turn it into PEM: \
                 openssl pkcs12 -in FILE -nodes -out FILE.pem",
            );
            return;
        } else {
            return;
        }
        self.findings.push(Finding::note(
            "it is DER; configurations want PEM: openssl x509 -inform DER -in FILE -out FILE.pem",
        ));
    }

    fn fails(&mut self, text: impl Into<String>) {
        self.findings.push(Finding::fails(text));
    }
}

/// What an item is called.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(_) => f.write_str("certificate"),
            Self::Key(_) => f.write_str("private key"),
            Self::List(_) => f.write_str("revocation list"),
            Self::Request { .. } => f.write_str("certificate request"),
            Self::Other(label) => write!(f, "{label}"),
        }
    }
}

fn certificate(der: Vec<u8>) -> Result<Item, String> {
    let facts = Facts::of(&der)?;
    let der = der.into();
    Ok(Item::Certificate(Box::new(Certificate { der, facts })))
}

fn list(der: &[u8]) -> Result<Item, String> {
    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|error| format!("it is not a revocation list: {error}"))?;
    let list = List {
        issuer: list.issuer().to_string(),
        number: list.crl_number().map(ToString::to_string),
        this_update: list.last_update().timestamp(),
        next_update: list.next_update().map(|time| time.timestamp()),
        count: list.iter_revoked_certificates().count(),
        der: der.to_vec(),
    };
    Ok(Item::List(Box::new(list)))
}

fn request(der: &[u8]) -> Result<Item, String> {
    let (_, request) = X509CertificationRequest::from_der(der)
        .map_err(|error| format!("it is not a certificate request: {error}"))?;
    let info = &request.certification_request_info;
    Ok(Item::Request {
        subject: info.subject.to_string(),
        key: PublicKey::of(info.subject_pki.raw).ok(),
    })
}

/// What stands behind each BEGIN.
fn labels(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let label = line.trim_ascii().strip_prefix(b"-----BEGIN ")?;
            let label = label.strip_suffix(b"-----")?;
            Some(String::from_utf8_lossy(label).into_owned())
        })
        .take(LABELS_MAX)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The labels that the parser hands out.
const KNOWN: [&str; 7] = [
    "CERTIFICATE",
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "X509 CRL",
    "CERTIFICATE REQUEST",
    "PUBLIC KEY",
];
const PASSWORD: &str = "the private key is encrypted, and a daemon has nobody to ask for the \
                        password: openssl pkey -in FILE -out FILE.key (then chmod 600)";
/// The object identifier pkcs7-data (1.2.840.113549.1.7.1), with which such a file begins.
const PKCS12: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// Far more than any bundle has.
const LABELS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_passed_over() {
        let text = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let contents = Contents::parse(text.as_bytes());
        assert!(matches!(&contents.items[..], [Item::Other(label)] if label == "EC PARAMETERS"));
    }

    #[test]
    fn broken_files_are_failures_and_not_panics() {
        for text in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n",
        ] {
            let contents = Contents::parse(text.as_bytes());
            assert!(
                contents.findings.iter().any(|finding| finding.fails),
                "{text}"
            );
        }
        let empty = Contents::parse(b"hello");
        assert!(empty.items.is_empty() && empty.findings.is_empty());
    }
}
