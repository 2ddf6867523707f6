//! Whether a key signed something. Certificates, revocation lists and requests have one form: what is
//! signed, the algorithm, the signature.

use portyard_core::tls::{KeyKind, PublicKey};
use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::asn1_rs::{Any, BitString, FromDer};
use x509_parser::x509::SubjectPublicKeyInfo;

/// Whether `key` signed `whole`; `None` when the signature is of a kind that TLS does not accept, so
/// that it cannot be checked here either.
pub fn is_by(key: &SubjectPublicKeyInfo<'_>, whole: &[u8]) -> Option<bool> {
    let signed = Signed::read(whole)?;
    let (key_algorithm, _) = element(content(key.raw)?)?;
    let key_algorithm = content(key_algorithm)?;
    let matching = default_provider()
        .signature_verification_algorithms
        .all
        .iter()
        .find(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == key_algorithm
                && algorithm.signature_alg_id().as_ref() == signed.algorithm
        })?;
    // The library calls a signature by a short key a wrong one.
    let known = PublicKey::of(key.raw).ok()?;
    if known.kind == KeyKind::Rsa && known.bits < RSA_MIN {
        return None;
    }
    let public = &key.subject_public_key.data;
    let verified = matching.verify_signature(public, signed.message, &signed.signature);
    Some(verified.is_ok())
}

struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    fn read(whole: &'a [u8]) -> Option<Self> {
        let (message, rest) = element(content(whole)?)?;
        let (algorithm, rest) = element(rest)?;
        let (_, signature) = BitString::from_der(rest).ok()?;
        Some(Self {
            message,
            algorithm: content(algorithm)?,
            signature: signature.data.to_vec(),
        })
    }
}

/// The first element, with its header, and what follows it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, _) = Any::from_der(bytes).ok()?;
    Some((&bytes[..bytes.len() - rest.len()], rest))
}

fn content(element: &[u8]) -> Option<&[u8]> {
    Any::from_der(element).ok().map(|(_, any)| any.data)
}

/// The shortest RSA key whose signatures rustls accepts.
pub const RSA_MIN: usize = 2048;
