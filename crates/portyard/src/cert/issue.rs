//! Making a certificate and its key.

use std::path::Path;
use std::time::SystemTime;

use portyard_core::exit::{Exit, Fatal};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::authority::Authority;
use super::key_type::KeyType;
use super::names::Name;
use crate::save::{self, Existing, Saved};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Signing others.
    Authority,
    /// Being the server of a TLS connection.
    Server,
    /// Being the client of one.
    Client,
}

/// A certificate to be made.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// What it is for.
    pub usage: Use,
    /// The name for people, at most [`COMMON_NAME_MAX`] characters; none when there is no room.
    pub common_name: Option<&'a str>,
    /// The names that peers compare.
    pub names: &'a [Name],
    /// How long it is good.
    pub days: u32,
    /// Its key.
    pub key_type: KeyType,
}

/// A certificate that has been made.
pub struct Issued {
    /// When it ends: as wanted, or earlier when its authority does.
    pub not_after: OffsetDateTime,
    /// Whether its authority ends before it would.
    pub cut: bool,
    chain: String,
    key: Zeroizing<String>,
}

/// Makes a certificate, signed by `authority` or else by itself.
pub fn issue(
    wanted: &Wanted<'_>,
    authority: Option<&Authority>,
    now: OffsetDateTime,
) -> Result<Issued, Fatal> {
    let failed = |error: rcgen::Error| {
        let message = format!("no certificate can be made of this: {error}");
        Fatal::new(Exit::Software, message)
    };
    let key = wanted.key_type.generate()?;
    let mut params = params(wanted, now).map_err(failed)?;
    params.serial_number = Some(serial()?);
    let mut cut = false;
    let certificate = match authority {
        None => params.self_signed(&key).map_err(failed)?,
        Some(authority) => {
            let moment = |time: SystemTime| OffsetDateTime::from(time);
            let end = moment(authority.facts.not_after);
            cut = params.not_after > end;
            params.not_after = params.not_after.min(end);
            params.not_before = params.not_before.max(moment(authority.facts.not_before));
            params.use_authority_key_identifier_extension = true;
            params.signed_by(&key, &authority.issuer).map_err(failed)?
        }
    };
    let mut chain = certificate.pem();
    for above in authority.iter().flat_map(|authority| authority.between()) {
        chain.push_str(&pem(above));
    }
    Ok(Issued {
        not_after: params.not_after,
        cut,
        chain,
        key: Zeroizing::new(key.serialize_pem()),
    })
}

impl Issued {
    /// Writes both files, or none; `force` replaces those that are there.
    pub fn save(&self, chain: &Path, key: &Path, force: bool) -> Result<(), Fatal> {
        let existing = if force {
            Existing::Replaced
        } else {
            Existing::Kept("nothing was written (--force replaces it)")
        };
        let key = Saved {
            path: key,
            bytes: self.key.as_bytes(),
            secret: true,
        };
        let chain = Saved {
            path: chain,
            bytes: self.chain.as_bytes(),
            secret: false,
        };
        save::all(&[key, chain], existing)
    }
}

/// 127 random bits (RFC 5280 allows 20 bytes; the CA/Browser Forum asks for 64 bits at least).
pub fn serial() -> Result<SerialNumber, Fatal> {
    let mut bytes = [0_u8; 16];
    random(&mut bytes)?;
    // Positive, and always of the same length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Fills a buffer from the system's random source.
pub fn random(bytes: &mut [u8]) -> Result<(), Fatal> {
    getrandom::fill(bytes).map_err(|error| {
        let message = format!("the system gives no random bytes: {error}");
        Fatal::new(Exit::OsError, message)
    })
}

fn params(wanted: &Wanted<'_>, now: OffsetDateTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    // For peers whose clocks are behind.
    params.not_before = now - Duration::HOUR;
    params.not_after = now + Duration::days(wanted.days.into());
    params.subject_alt_names = wanted
        .names
        .iter()
        .map(Name::san)
        .collect::<Result<_, _>>()?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = wanted.common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let (is_ca, usages, extended) = match wanted.usage {
        // It signs servers and clients, not further authorities.
        Use::Authority => (
            IsCa::Ca(BasicConstraints::Constrained(0)),
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            Vec::new(),
        ),
        Use::Server => (
            IsCa::ExplicitNoCa,
            leaf_usages(wanted.key_type),
            vec![ExtendedKeyUsagePurpose::ServerAuth],
        ),
        Use::Client => (
            IsCa::ExplicitNoCa,
            leaf_usages(wanted.key_type),
            vec![ExtendedKeyUsagePurpose::ClientAuth],
        ),
    };
    params.is_ca = is_ca;
    params.key_usages = usages;
    params.extended_key_usages = extended;
    Ok(params)
}

fn leaf_usages(key_type: KeyType) -> Vec<KeyUsagePurpose> {
    match key_type {
        KeyType::Ec => vec![KeyUsagePurpose::DigitalSignature],
        // Old clients of TLS 1.2 encrypt to an RSA key instead of letting it sign.
        KeyType::Rsa(_) => vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ],
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The most characters of a common name (`ub-common-name` of RFC 5280).
pub const COMMON_NAME_MAX: usize = 64;
