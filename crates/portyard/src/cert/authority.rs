//! The authority that signs: `ca.pem` and `ca.key` of a directory.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::{FileError, FilePlace};
use portyard_core::tls::{CertificateError, Facts, read_chain, read_private_key};
use rcgen::{Issuer, KeyIdMethod, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::wrong_file;

/// An authority that can sign: its certificate is good and its key is the right one.
pub struct Authority {
    /// What its certificate says.
    pub facts: Facts,
    /// Its certificate, and those that `ca.pem` holds after it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its name and key, for the library that signs.
    pub issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    /// Reads the authority of a directory and checks that what it signs will be believed.
    pub fn read(directory: &Path, now: SystemTime) -> Result<Self, Fatal> {
        let path = certificate_path(directory);
        let chain = read_chain(&place(&path)).map_err(|error| unreadable(directory, &error))?;
        let key_path = key_path(directory);
        let key =
            read_private_key(&place(&key_path)).map_err(|error| unreadable(directory, &error))?;
        let facts = Facts::of(&chain[0]).map_err(|why| wrong_file(&path, why))?;
        check(&facts, now).map_err(|why| wrong_file(&path, why))?;

        let signing = any_supported_type(&key)
            .map_err(|error| wrong_file(&key_path, format_args!("it cannot sign: {error}")))?;
        CertifiedKey::new(chain.clone(), Arc::clone(&signing))
            .keys_match()
            .map_err(|_| {
                let of = path.display();
                wrong_file(&key_path, format_args!("it is not the key of {of}"))
            })?;
        let pair = KeyPair::try_from(&key)
            .map_err(|error| wrong_file(&key_path, format_args!("it cannot sign: {error}")))?;
        check_name(&chain[0]).map_err(|why| wrong_file(&path, why))?;
        let issuer = Issuer::from_ca_cert_der(&chain[0], pair)
            .map_err(|error| wrong_file(&path, format_args!("it cannot be used: {error}")))?;
        Ok(Self {
            facts,
            chain,
            issuer,
            directory: directory.into(),
        })
    }

    /// The certificates that what it signs needs beside it: its own and those above it, without the
    /// one that signed itself, which clients have.
    pub fn between(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.chain.iter().filter(|certificate| {
            X509Certificate::from_der(certificate)
                .is_ok_and(|(_, parsed)| parsed.subject() != parsed.issuer())
        })
    }

    /// Whether it signed this certificate.
    pub fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        X509Certificate::from_der(&self.chain[0]).is_ok_and(|(_, own)| {
            certificate.issuer() == own.subject()
                && certificate.verify_signature(Some(own.public_key())).is_ok()
        })
    }

    /// The number of its key, as its certificate gives it: who looks for the signer of a list
    /// compares it.
    pub fn key_id(&self) -> KeyIdMethod {
        let given = X509Certificate::from_der(&self.chain[0]).ok();
        let given = given.as_ref().and_then(|(_, own)| {
            own.iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                })
        });
        given.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
    }

    /// Where its files lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.facts.subject)
            .finish_non_exhaustive()
    }
}

/// The certificate of a directory's authority.
pub fn certificate_path(directory: &Path) -> PathBuf {
    directory.join("ca.pem")
}

/// Its key.
pub fn key_path(directory: &Path) -> PathBuf {
    directory.join("ca.key")
}

/// Its revocation list.
pub fn crl_path(directory: &Path) -> PathBuf {
    directory.join("ca.crl.pem")
}

fn check(facts: &Facts, now: SystemTime) -> Result<(), String> {
    if !facts.is_ca {
        return Err(
            "it is no authority's certificate: nobody believes what it signs; \
                    make an authority with 'portyard cert ca'"
                .into(),
        );
    }
    let may_sign = |usages: &Vec<&str>| usages.contains(&"keyCertSign");
    if !facts.usages.as_ref().is_none_or(may_sign) {
        return Err("it may not sign certificates (its key usage lacks keyCertSign)".into());
    }
    if facts.not_after < now {
        return Err("it has expired; make a new authority with 'portyard cert ca'".into());
    }
    if facts.not_before > now {
        return Err("it is not valid yet; is the clock right?".into());
    }
    Ok(())
}

/// The library that signs keeps one value of each kind of a name and one kind a level; with another
/// name than the authority's a certificate would never be believed.
fn check_name(certificate: &[u8]) -> Result<(), &'static str> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err("it is not an X.509 certificate");
    };
    let mut kinds = Vec::new();
    for level in parsed.subject().iter() {
        let mut attributes = level.iter();
        let kind = match (attributes.next(), attributes.next()) {
            (Some(attribute), None) => attribute.attr_type(),
            _ => return Err("its name has several values at one level, which cannot be copied"),
        };
        if kinds.contains(&kind) {
            return Err("its name has several values of one kind, which cannot be copied");
        }
        kinds.push(kind);
    }
    if kinds.is_empty() {
        return Err("it has no name (its subject is empty)");
    }
    Ok(())
}

fn place(path: &Path) -> FilePlace {
    FilePlace::Path(path.into())
}

fn unreadable(directory: &Path, error: &CertificateError) -> Fatal {
    match error {
        CertificateError::File(FileError::Unreadable { path, error })
            if error.kind() == ErrorKind::NotFound =>
        {
            Fatal::new(
                Exit::Config,
                format!(
                    "{} is not there; make an authority with 'portyard cert ca --out {}', or name \
                     the directory of one with --ca",
                    path.display(),
                    directory.display()
                ),
            )
        }
        CertificateError::File(FileError::Unreadable { error: cause, .. })
            if cause.kind() == ErrorKind::PermissionDenied =>
        {
            Fatal::new(Exit::NoPermission, error.to_string())
        }
        _ => Fatal::new(Exit::Config, error.to_string()),
    }
}
