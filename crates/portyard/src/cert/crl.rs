//! `portyard cert crl`: the list of certificates that an authority has taken back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::FilePlace;
use portyard_core::tls::read_chain;
use rcgen::{CertificateRevocationListParams, RevocationReason, RevokedCertParams, SerialNumber};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::revocation_list::RevokedCertificate;

use super::authority::{Authority, certificate_path, crl_path, key_path};
use super::{FILE_MAX, wrong_file};
use crate::out::Out;
use crate::save::{self, Existing, Lock, Saved};
use crate::stop::Outcome;

/// Take certificates back: make or renew an authority's revocation list.
///
/// Writes ca.crl.pem beside ca.pem. What the list has is kept, each --revoke adds a certificate, and
/// the number of the list goes up. Without --revoke the list is renewed, which must happen before
/// its days are over: servers that check the list let nobody in when it is out of date.
///
/// A server takes the list into account when its configuration names it, and reads it again on
/// reload. What has been taken back stays so.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cert crl --ca /etc/portyard --revoke alice@example.org.pem
  portyard cert crl --ca /etc/portyard --revoke-serial 4a:0f:13:…:9c
  portyard cert crl --ca /etc/portyard --days 90
  portyard cert show /etc/portyard/ca.crl.pem

Exit codes: 0 done, 64 the command line is wrong, 75 another run changes the same list, 77 permission
denied, 78 the authority, the list or a certificate is not what it should be.")]
pub struct Args {
    /// The directory with ca.pem and ca.key of the authority.
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
    /// Take back the first certificate of this file; may be given several times.
    #[arg(long, value_name = "CERT.pem")]
    revoke: Vec<PathBuf>,
    /// Take back the certificate with this serial number, in the digits that 'show' prints.
    #[arg(long, value_name = "HEX")]
    revoke_serial: Vec<String>,
    /// In how many days the next list comes at the latest.
    #[arg(long, value_name = "N", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let authority = Authority::read(&args.ca, SystemTime::now())?;
    let path = crl_path(&args.ca);
    let _lock = Lock::beside(&path)?;
    let now = OffsetDateTime::now_utc();
    let mut list = List::read(&path, &authority)?;
    let mut added = Vec::new();
    for file in &args.revoke {
        let serial = serial_of(file, &authority)?;
        list.add(serial, now, &file.display().to_string(), &mut added)?;
    }
    for text in &args.revoke_serial {
        list.add(parse_serial(text)?, now, text, &mut added)?;
    }
    let next = now + Duration::days(args.days.into());
    let (number, count) = (list.number, list.revoked.len());
    let pem = list.sign(&authority, now, next)?;
    let file = Saved {
        path: &path,
        bytes: pem.as_bytes(),
        secret: false,
    };
    save::all(&[file], Existing::Replaced)?;

    let mut out = Out::new();
    for line in added {
        out.line(line)?;
    }
    let day = next.date();
    out.line(format_args!(
        "{}: list {number} with {count} revoked certificates; renew it before {day} with\n  \
         portyard cert crl --ca {}",
        path.display(),
        args.ca.display()
    ))?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// A list that is being extended.
struct List {
    /// Of the list that will be written.
    number: u64,
    revoked: Vec<RevokedCertParams>,
}

impl List {
    /// What the list at `path` has, and nothing when there is none. A list of another authority, or
    /// one that somebody has changed, is refused.
    fn read(path: &Path, authority: &Authority) -> Result<Self, Fatal> {
        if let Ok(false) = fs::exists(path) {
            return Ok(Self {
                number: 1,
                revoked: Vec::new(),
            });
        }
        let bytes = FilePlace::Path(path.into())
            .read(FILE_MAX)
            .map_err(|error| Fatal::new(Exit::Config, error.to_string()))?;
        let list = CertificateRevocationListDer::from_pem_slice(&bytes)
            .map_err(|error| wrong_file(path, format_args!("it holds no list: {error}")))?;
        let (_, list) = CertificateRevocationList::from_der(&list)
            .map_err(|error| wrong_file(path, format_args!("it holds no list: {error}")))?;
        let by_authority = X509Certificate::from_der(&authority.chain[0])
            .is_ok_and(|(_, own)| list.verify_signature(own.public_key()).is_ok());
        if !by_authority {
            let own = certificate_path(authority.directory());
            return Err(wrong_file(
                path,
                format_args!(
                    "it is not signed by {}; move it away to begin a new list",
                    own.display()
                ),
            ));
        }
        let number = match list.crl_number() {
            Some(number) => u64::try_from(number.clone()).ok(),
            None => Some(0),
        };
        let number = number
            .and_then(|number| number.checked_add(1))
            .ok_or_else(|| wrong_file(path, "its number cannot go up any more"))?;
        let revoked = list
            .iter_revoked_certificates()
            .map(entry)
            .collect::<Option<_>>()
            .ok_or_else(|| wrong_file(path, "it has an entry that cannot be kept"))?;
        Ok(Self { number, revoked })
    }

    fn add(
        &mut self,
        serial: Vec<u8>,
        now: OffsetDateTime,
        shown: &str,
        said: &mut Vec<String>,
    ) -> Result<(), Fatal> {
        let there =
            |entry: &&RevokedCertParams| significant(entry.serial_number.as_ref()) == serial;
        if let Some(entry) = self.revoked.iter().find(there) {
            let day = entry.revocation_time.date();
            said.push(format!("{shown}: revoked already, on {day}"));
            return Ok(());
        }
        if self.revoked.len() == ENTRIES_MAX {
            let message =
                format!("the list has {ENTRIES_MAX} entries; it is time for a new authority");
            return Err(Fatal::new(Exit::Config, message));
        }
        self.revoked.push(RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        said.push(format!("{shown}: revoked"));
        Ok(())
    }

    fn sign(
        self,
        authority: &Authority,
        now: OffsetDateTime,
        next: OffsetDateTime,
    ) -> Result<String, Fatal> {
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: next,
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: None,
            revoked_certs: self.revoked,
            key_identifier_method: authority.key_id(),
        };
        let signed = params.signed_by(&authority.issuer);
        signed.and_then(|list| list.pem()).map_err(|error| {
            let key = key_path(authority.directory());
            wrong_file(&key, format_args!("it cannot sign a list: {error}"))
        })
    }
}

/// An entry of a list that was read, as one that can be written.
fn entry(revoked: &RevokedCertificate<'_>) -> Option<RevokedCertParams> {
    let moment = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).ok();
    let invalidity_date = match revoked.invalidity_date() {
        Some((_, date)) => Some(moment(date.timestamp())?),
        None => None,
    };
    Some(RevokedCertParams {
        serial_number: SerialNumber::from_slice(significant(revoked.raw_serial())),
        revocation_time: moment(revoked.revocation_date.timestamp())?,
        reason_code: revoked.reason_code().and_then(|(_, code)| reason(code.0)),
        invalidity_date,
    })
}

fn reason(code: u8) -> Option<RevocationReason> {
    use RevocationReason as R;
    Some(match code {
        1 => R::KeyCompromise,
        2 => R::CaCompromise,
        3 => R::AffiliationChanged,
        4 => R::Superseded,
        5 => R::CessationOfOperation,
        6 => R::CertificateHold,
        8 => R::RemoveFromCrl,
        9 => R::PrivilegeWithdrawn,
        10 => R::AaCompromise,
        _ => return None,
    })
}

/// The serial number of a file's first certificate, which must be one that the authority signed.
fn serial_of(path: &Path, authority: &Authority) -> Result<Vec<u8>, Fatal> {
    let chain = read_chain(&FilePlace::Path(path.into()))
        .map_err(|error| Fatal::new(Exit::Config, error.to_string()))?;
    let (_, certificate) = X509Certificate::from_der(&chain[0])
        .map_err(|_| wrong_file(path, "its first certificate is not an X.509 certificate"))?;
    if chain[0] == authority.chain[0] {
        return Err(wrong_file(
            path,
            "this is the authority itself, which cannot take itself back; make a new one, and give \
             that to those who trust this one",
        ));
    }
    if !authority.signed(&certificate) {
        let own = certificate_path(authority.directory());
        return Err(wrong_file(
            path,
            format_args!(
                "it is not signed by {}; only its own authority can take a certificate back",
                own.display()
            ),
        ));
    }
    Ok(significant(certificate.raw_serial()).to_vec())
}

/// Hexadecimal digits, with or without colons between the bytes.
fn parse_serial(text: &str) -> Result<Vec<u8>, Fatal> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let value = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let whole = digits.iter().all(u8::is_ascii_hexdigit) && digits.len().is_multiple_of(2);
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(value).collect();
    match bytes {
        // RFC 5280 section 4.1.2.2.
        Some(bytes) if whole && (1..=20).contains(&significant(&bytes).len()) => {
            Ok(significant(&bytes).to_vec())
        }
        _ => Err(Fatal::new(
            Exit::Usage,
            format!("'{text}' is not a serial number; write 1 to 20 bytes as 4a:0f:…"),
        )),
    }
}

/// A number without the zeros before it.
fn significant(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0);
    start.map_or(&[], |start| &number[start..])
}

/// Entries of about 40 bytes, so that the list stays below what is read.
const ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_read_as_they_are_shown() {
        assert_eq!(parse_serial("4a:0f:13").unwrap(), [0x4a, 0x0f, 0x13]);
        assert_eq!(parse_serial("00FF").unwrap(), [0xff]);
        for text in ["", "0", "4a:0", "xyz0", "00:00", "+1", &"11".repeat(21)] {
            assert!(parse_serial(text).is_err(), "{text}");
        }
    }
}
