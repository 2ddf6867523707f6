//! Certificates and private keys in PEM files, and what a certificate says.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage};
use x509_parser::objects::{oid_registry, oid2sn};
use x509_parser::oid_registry as oids;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

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
    /// The subject's public key.
    pub key: PublicKey,
    /// What the key may do, in the words of RFC 5280 section 4.2.1.3; `None` does not limit it.
    pub usages: Option<Vec<&'static str>>,
    /// What it may do it for, in the words of RFC 5280 section 4.2.1.12 where it has one, else a
    /// number; `None` does not limit it.
    pub extended_usages: Option<Vec<String>>,
    /// The algorithm of the issuer's signature, such as `ecdsa-with-SHA256`.
    pub signature: String,
}

/// The kind and size of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The algorithm.
    pub kind: KeyKind,
    /// The size: of an RSA key its modulus, of others the field; 0 when it is not known.
    pub bits: usize,
}

/// The algorithm of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, whatever the padding.
    Rsa,
    /// A curve that TLS knows: `P-256`, `P-384`, `P-521`.
    Ec(&'static str),
    /// Ed25519.
    Ed25519,
    /// One that rustls does not know, by name or number.
    Other(String),
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
            key: PublicKey::parsed(parsed.public_key()),
            usages: match parsed.key_usage() {
                Ok(Some(extension)) => Some(usages(*extension.value)),
                _ => None,
            },
            extended_usages: match parsed.extended_key_usage() {
                Ok(Some(extension)) => Some(extended_usages(extension.value)),
                _ => None,
            },
            signature: algorithm(&parsed.signature_algorithm.algorithm),
        })
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo, as certificates and requests hold it.
    pub fn of(info: &[u8]) -> Result<Self, String> {
        let (_, info) = SubjectPublicKeyInfo::from_der(info)
            .map_err(|error| format!("it is not a public key: {error}"))?;
        Ok(Self::parsed(&info))
    }

    fn parsed(info: &SubjectPublicKeyInfo<'_>) -> Self {
        let curve = || info.algorithm.parameters.as_ref()?.as_oid().ok();
        let (kind, bits) = match info.parsed() {
            Ok(Parsed::RSA(key)) => (KeyKind::Rsa, bit_length(key.modulus)),
            Ok(Parsed::EC(point)) => match curve() {
                Some(curve) if curve == oids::OID_EC_P256 => (KeyKind::Ec("P-256"), 256),
                Some(curve) if curve == oids::OID_NIST_EC_P384 => (KeyKind::Ec("P-384"), 384),
                Some(curve) if curve == oids::OID_NIST_EC_P521 => (KeyKind::Ec("P-521"), 521),
                curve => {
                    let name = curve.map_or_else(String::new, |curve| algorithm(&curve));
                    (KeyKind::Other(format!("EC {name}")), point.key_size())
                }
            },
            _ if info.algorithm.algorithm == oids::OID_SIG_ED25519 => (KeyKind::Ed25519, 256),
            _ => (KeyKind::Other(algorithm(&info.algorithm.algorithm)), 0),
        };
        Self { kind, bits }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, self.bits) {
            (KeyKind::Rsa, bits) => write!(f, "RSA {bits} bits"),
            (KeyKind::Ec(curve), _) => write!(f, "EC {curve}"),
            (KeyKind::Ed25519, _) => f.write_str("Ed25519"),
            (KeyKind::Other(name), 0) => f.write_str(name),
            (KeyKind::Other(name), bits) => write!(f, "{name} {bits} bits"),
        }
    }
}

fn usages(usage: KeyUsage) -> Vec<&'static str> {
    let named = USAGES.iter().enumerate();
    named
        .filter(|(bit, _)| usage.flags >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

fn extended_usages(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let named = [
        (usage.any, "any"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let known = named
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| (*name).into());
    known
        .chain(usage.other.iter().map(oids::Oid::to_id_string))
        .collect()
}

/// The name of an algorithm, or its number where it has none.
fn algorithm(number: &oids::Oid<'_>) -> String {
    oid2sn(number, oid_registry()).map_or_else(|_| number.to_id_string(), String::from)
}

fn bit_length(number: &[u8]) -> usize {
    let start = number.iter().position(|byte| *byte != 0);
    start.map_or(0, |start| {
        let zeros = number[start].leading_zeros() as usize;
        (number.len() - start) * 8 - zeros
    })
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

/// The names of the bits of a key usage, from bit 0 on (RFC 5280 section 4.2.1.3).
const USAGES: [&str; 9] = [
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
];
/// The largest certificate, key or bundle file. The web's roots are a quarter of this.
const PEM_MAX: u64 = 1 << 20;
/// The largest file of revocations: a hundred thousand of them.
pub(super) const CRL_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn facts_are_those_that_openssl_was_given() {
        let der = CertificateDer::from_pem_slice(FACTS.as_bytes()).unwrap();
        let facts = Facts::of(&der).unwrap();
        assert_eq!(facts.subject, "O=Example, CN=facts");
        assert_eq!(facts.issuer, facts.subject);
        let names = [
            "dns:facts.example",
            "ip:192.0.2.7",
            "ip:2001:db8::7",
            "email:a@example.org",
            "uri:spiffe://a/b",
        ];
        assert_eq!(facts.names, names);
        let end = UNIX_EPOCH + Duration::from_secs(2_110_554_434);
        assert_eq!(facts.not_after, end);
        assert_eq!(facts.serial, "12:34");
        assert!(!facts.is_ca);
        assert_eq!(facts.fingerprint[..4], [0x77, 0x3e, 0xd1, 0x2b]);
        assert_eq!(facts.key.to_string(), "EC P-256");
        let usages = vec!["digitalSignature", "keyAgreement"];
        assert_eq!(facts.usages, Some(usages));
        let extended = ["serverAuth", "1.2.3.4"].map(String::from);
        assert_eq!(facts.extended_usages, Some(extended.into()));
        assert_eq!(facts.signature, "ecdsa-with-SHA256");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let der = CertificateDer::from_pem_slice(FACTS.as_bytes()).unwrap();
        assert!(Facts::of(&der[..der.len() - 1]).is_err());
        assert!(Facts::of(&[&der[..], &[0]].concat()).is_err());
        assert!(Facts::of(b"").is_err());
    }

    #[test]
    fn keys_are_told_by_kind_and_size() {
        for (key, shown) in [
            (RSA_1024, "RSA 1024 bits"),
            (ED25519, "Ed25519"),
            (P521, "EC P-521"),
        ] {
            let info = STANDARD.decode(key).unwrap();
            assert_eq!(PublicKey::of(&info).unwrap().to_string(), shown);
        }
        let odd = PublicKey::of(&STANDARD.decode(SECP256K1).unwrap()).unwrap();
        assert_eq!(odd.kind, KeyKind::Other("EC 1.3.132.0.10".into()));
        assert_eq!(odd.bits, 256);
        assert!(PublicKey::of(b"").is_err());
    }

    /// Made by OpenSSL 3.0: openssl req -new -x509 -set_serial 0x1234 -subj /O=Example/CN=facts and
    /// the extensions that the test names.
    const FACTS: &str = "\
-----BEGIN CERTIFICATE-----
MIIB/zCCAaWgAwIBAgICEjQwCgYIKoZIzj0EAwIwIjEQMA4GA1UECgwHRXhhbXBs
ZTEOMAwGA1UEAwwFZmFjdHMwHhcNMjYxMTIwMTcwNzE0WhcNMzYxMTE3MTcwNzE0
WjAiMRAwDgYDVQQKDAdFeGFtcGxlMQ4wDAYDVQQDDAVmYWN0czBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABLMQpml/AP0eGZGX+Ss11fJ6ilQ2x07m3SvaG02vb0ym
cIH3HW9kz0WMFqfI9rQ0w+NZFAyojeV8l8vQFH0+z6SjgcowgccwHQYDVR0OBBYE
FFdqSFXhklgvAdoy9fynjQzfGsXoMB8GA1UdIwQYMBaAFFdqSFXhklgvAdoy9fyn
jQzfGsXoME0GA1UdEQRGMESCDWZhY3RzLmV4YW1wbGWHBMAAAgeHECABDbgAAAAA
AAAAAAAAAAeBDWFAZXhhbXBsZS5vcmeGDHNwaWZmZTovL2EvYjAMBgNVHRMBAf8E
AjAAMA4GA1UdDwEB/wQEAwIDiDAYBgNVHSUEETAPBggrBgEFBQcDAQYDKgMEMAoG
CCqGSM49BAMCA0gAMEUCIF8XjAlBF9cLniwtCWC+UE+vh9yOcdMvCEQsvpAox1nY
AiEA69wPOhrzkClQZ+n3WKl28BrRfpDVseyInS0xuMS+XGk=
-----END CERTIFICATE-----";
    /// Made by openssl genpkey, without the lines around them.
    const RSA_1024: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDpboh9T+kNmT3/GpyTulirrqieQ98gfeca\
                            iUFkSTUjTqcyP9f9b96+Jp1+RyKJr143VS1DOMBffOB6piaCRjUPErjTlyKaqdHdkOzfpVke\
                            YvRY2EWtntkNaAtkPEwH3sjRxNVxNs5oA+3FowCVS0ZWt9gh1KM6ViY6Hx+WBNXLUwIDAQAB";
    const ED25519: &str = "MCowBQYDK2VwAyEARKwIEoyCC5I8vZDgaYZcNh0T345zpJal2plJOY3qKyY=";
    const P521: &str = "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAHHVQNeZ3DCslzRqjqRjmOLzBbFCqljr+zd/3VUKL\
                        x+Pnkfttjx+KaS/qfRc7jAYGDcjt4VM3TT3lnOzXrq2D6J4AOfUOGyfiNF05iYqgmMLls/arL4el\
                        MFfJYNuIp9lUVPFV8NgPOkS4PM1iHEaNV4+2e8C3vwL2jXo4lw1Z4Kuy+9I=";
    const SECP256K1: &str = "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEKuYMHlirbFNJYYAEB5nkE4OQyXgickKXnEQLaVDe\
                             Ih/uRkoFubJ8G4wcEKP5XnJTQI5P5qVjtdtsowIlC7IqsQ==";
}
