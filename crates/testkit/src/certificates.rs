//! Throw-away certificates: an authority of a test's own, and what it signs.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// An authority and the certificates it signs, as PEM files with P-256 keys in a directory that goes
/// when this goes. Another `Certificates` is an authority that has nothing to do with this one.
pub struct Certificates {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
    made: Cell<u64>,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate in PEM, followed by those between it and the authority.
    pub chain: PathBuf,
    /// The private key in PEM, with mode 0600.
    pub key: PathBuf,
    serial: SerialNumber,
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// A new authority, good for a year.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("portyard-certificates-")
            .tempdir()
            .expect("a temporary directory can be made");
        let ca = directory.path().join("ca.pem");
        let key = generate();
        // Were two of one name, a peer would speak of a bad signature instead of a stranger.
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        let params = authority(&format!("Portyard test authority {number}"), 1);
        let certificate = params.self_signed(&key).expect("the authority is valid");
        write(&ca, &certificate.pem(), 0o644);
        write(
            &directory.path().join("ca.key"),
            &key.serialize_pem(),
            0o600,
        );
        Self {
            directory,
            issuer: Issuer::new(params, key),
            ca,
            // Serial number 1 is the authority's.
            made: Cell::new(1),
        }
    }

    /// The directory, for files that belong beside the certificates.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// The authority's certificate; its key is `ca.key` beside it.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// For a server with these DNS names and IP addresses, good for 30 days.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.expiring(names, 30)
    }

    /// For a server, good for another `days`; with a negative number it has ended already.
    pub fn expiring(&self, names: &[&str], days: i64) -> Pair {
        let params = leaf(names, ExtendedKeyUsagePurpose::ServerAuth);
        self.signed("server", until(params, days), &self.issuer, "")
    }

    /// For a server, ended yesterday.
    pub fn expired(&self, names: &[&str]) -> Pair {
        self.expiring(names, -1)
    }

    /// For a server, good from tomorrow on.
    pub fn not_yet(&self, names: &[&str]) -> Pair {
        let mut params = leaf(names, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = OffsetDateTime::now_utc() + Duration::days(1);
        params.not_after = params.not_before + Duration::days(30);
        self.signed("server", params, &self.issuer, "")
    }

    /// For a client. The name is an alternative name too: of an email address where it holds `@`, a
    /// URI where it holds `://`, and else a DNS name.
    pub fn client(&self, name: &str) -> Pair {
        let params = leaf(&[name], ExtendedKeyUsagePurpose::ClientAuth);
        self.signed("client", params, &self.issuer, "")
    }

    /// For a client, ended yesterday.
    pub fn expired_client(&self, name: &str) -> Pair {
        let params = leaf(&[name], ExtendedKeyUsagePurpose::ClientAuth);
        self.signed("client", until(params, -1), &self.issuer, "")
    }

    /// For a server, signed by an authority that this one has signed; the chain holds both.
    pub fn intermediate(&self, names: &[&str]) -> Pair {
        let mut params = authority("Portyard test intermediate", 0);
        params.serial_number = Some(self.serial());
        params.use_authority_key_identifier_extension = true;
        let key = generate();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the intermediate is valid");
        let issuer = Issuer::new(params, key);
        let params = leaf(names, ExtendedKeyUsagePurpose::ServerAuth);
        self.signed("server", params, &issuer, &certificate.pem())
    }

    /// For a server, signed by itself. This authority has no part in it.
    pub fn self_signed(&self, names: &[&str]) -> Pair {
        let mut params = leaf(names, ExtendedKeyUsagePurpose::ServerAuth);
        let key = generate();
        let serial = self.serial();
        params.serial_number = Some(serial.clone());
        let certificate = params.self_signed(&key).expect("the certificate is valid");
        self.pair("self-signed", &certificate.pem(), &key, serial)
    }

    /// The authority's list of revoked certificates, good for 30 days.
    pub fn crl(&self, revoked: &[&Pair]) -> PathBuf {
        self.list(revoked, 30)
    }

    /// The same, which should have been renewed yesterday.
    pub fn expired_crl(&self, revoked: &[&Pair]) -> PathBuf {
        self.list(revoked, -1)
    }

    fn list(&self, revoked: &[&Pair], days: i64) -> PathBuf {
        let now = OffsetDateTime::now_utc();
        let number = self.serial();
        let path = self.dir().join(format!("crl-{}.pem", self.made.get()));
        let entry = |pair: &&Pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: now - Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update: now + Duration::days(days),
            crl_number: number,
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("the list is valid");
        write(&path, &list.pem().expect("a list has PEM"), 0o644);
        path
    }

    fn signed(
        &self,
        kind: &str,
        mut params: CertificateParams,
        issuer: &Issuer<'_, KeyPair>,
        rest: &str,
    ) -> Pair {
        let serial = self.serial();
        params.serial_number = Some(serial.clone());
        params.use_authority_key_identifier_extension = true;
        let key = generate();
        let certificate = params
            .signed_by(&key, issuer)
            .expect("the certificate is valid");
        self.pair(kind, &(certificate.pem() + rest), &key, serial)
    }

    fn pair(&self, kind: &str, chain: &str, key: &KeyPair, serial: SerialNumber) -> Pair {
        let path = |ending| {
            let name = format!("{kind}-{}.{ending}", self.made.get());
            self.dir().join(name)
        };
        let pair = Pair {
            chain: path("pem"),
            key: path("key"),
            serial,
        };
        write(&pair.chain, chain, 0o644);
        write(&pair.key, &key.serialize_pem(), 0o600);
        pair
    }

    /// Each certificate and list has a number of its own, which is in the names of its files too.
    fn serial(&self) -> SerialNumber {
        self.made.set(self.made.get() + 1);
        SerialNumber::from(self.made.get())
    }
}

/// An authority that may have `below` authorities below it.
fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = until(CertificateParams::default(), 365);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(1));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = until(CertificateParams::default(), 30);
    params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
    params.distinguished_name = DistinguishedName::new();
    if let Some(first) = names.first() {
        params.distinguished_name.push(DnType::CommonName, *first);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

/// Begun long enough ago that a certificate of the past has begun before it ended.
fn until(mut params: CertificateParams, days: i64) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(days.min(0).abs() + 1);
    // A little over, so that "so many days left" holds while the test runs.
    params.not_after = now + Duration::days(days) + Duration::HOUR;
    params
}

fn alternative(name: &str) -> SanType {
    if let Ok(address) = name.parse::<IpAddr>() {
        return SanType::IpAddress(address);
    }
    let text = Ia5String::try_from(name).expect("a name in a certificate is ASCII");
    if name.contains("://") {
        SanType::URI(text)
    } else if name.contains('@') {
        SanType::Rfc822Name(text)
    } else {
        SanType::DnsName(text)
    }
}

fn generate() -> KeyPair {
    KeyPair::generate().expect("the system has random bytes")
}

fn write(path: &Path, text: &str, mode: u32) {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(text.as_bytes())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// How many have been made in this process, for their names.
static AUTHORITIES: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Finished, finish, peer};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn openssl(words: &[&str], files: &[&Path]) -> Finished {
        finish(Command::new(peer("openssl")).args(words).args(files), b"")
    }

    #[track_caller]
    fn verify(words: &[&str], ca: &Path, pair: &Pair) -> Finished {
        let ca = ca.display().to_string();
        let chain = pair.chain.display().to_string();
        let words = [
            &[
                "verify",
                "-x509_strict",
                "-CAfile",
                &ca,
                "-untrusted",
                &chain,
            ][..],
            words,
        ]
        .concat();
        openssl(&words, &[&pair.chain])
    }

    #[test]
    fn openssl_believes_what_the_authority_signed_and_nothing_else() {
        let ours = Certificates::new();
        let names = ["localhost", "127.0.0.1", "::1"];
        let (server, client) = (ours.server(&names), ours.client("alice@example.org"));
        let far = ours.intermediate(&names);
        for pair in [&server, &far] {
            verify(&["-purpose", "sslserver"], ours.ca(), pair).success();
            verify(&["-verify_hostname", "localhost"], ours.ca(), pair).success();
            verify(&["-verify_ip", "::1"], ours.ca(), pair).success();
            let other = verify(&["-verify_hostname", "other"], ours.ca(), pair);
            assert!(other.stderr.contains("hostname mismatch"), "{other:?}");
        }
        verify(&["-purpose", "sslclient"], ours.ca(), &client).success();
        verify(&["-verify_email", "alice@example.org"], ours.ca(), &client).success();
        let wrong = verify(&["-purpose", "sslserver"], ours.ca(), &client);
        assert_ne!(wrong.code, Some(0), "{wrong:?}");
        let strangers = Certificates::new();
        for stranger in [strangers.server(&names), ours.self_signed(&names)] {
            let refused = verify(&[], ours.ca(), &stranger);
            assert_ne!(refused.code, Some(0), "{refused:?}");
        }
    }

    #[test]
    fn time_passes_as_it_was_said() {
        let ours = Certificates::new();
        let names = ["localhost"];
        let expired = [ours.expired(&names), ours.expired_client("alice")];
        for pair in &expired {
            let refused = verify(&[], ours.ca(), pair);
            assert!(refused.stderr.contains("has expired"), "{refused:?}");
        }
        let early = verify(&[], ours.ca(), &ours.not_yet(&names));
        assert!(early.stderr.contains("not yet valid"), "{early:?}");
        let soon = ours.expiring(&names, 3);
        verify(&[], ours.ca(), &soon).success();
        let days = |days: i64| (days * 86_400).to_string();
        for (seconds, code) in [(days(3), 0), (days(4), 1)] {
            let words = ["x509", "-noout", "-checkend", &seconds, "-in"];
            let said = openssl(&words, &[&soon.chain]);
            assert_eq!(said.code, Some(code), "{said:?}");
        }
    }

    #[test]
    fn a_list_revokes_what_it_names() {
        let ours = Certificates::new();
        let (good, bad) = (ours.client("good"), ours.client("bad"));
        let checked = |list: &Path, pair: &Pair| {
            let list = list.display().to_string();
            verify(&["-crl_check", "-CRLfile", &list], ours.ca(), pair)
        };
        let list = ours.crl(&[&bad]);
        checked(&list, &good).success();
        let revoked = checked(&list, &bad);
        assert!(
            revoked.stderr.contains("certificate revoked"),
            "{revoked:?}"
        );
        let old = checked(&ours.expired_crl(&[&bad]), &good);
        assert!(old.stderr.contains("CRL has expired"), "{old:?}");
    }

    #[test]
    fn keys_are_for_their_owner_alone() {
        let ours = Certificates::new();
        for key in [ours.dir().join("ca.key"), ours.server(&["localhost"]).key] {
            let mode = fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{}", key.display());
        }
    }
}
