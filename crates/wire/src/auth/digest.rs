//! The five digests that Python's dialogue knows, as HMAC.

use super::Secret;
use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use std::fmt;

/// What a proof is computed with: HMAC (RFC 2104) over one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// Only for peers that know nothing better: Python up to 3.11.
    Md5,
    /// Ours wherever there is a choice.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
}

impl Digest {
    /// Every digest, in the order of their names in Python's source.
    pub const ALL: [Self; 5] = [
        Self::Md5,
        Self::Sha256,
        Self::Sha384,
        Self::Sha3_256,
        Self::Sha3_384,
    ];

    /// The name that Python's `hashlib` gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha3_256 => "sha3_256",
            Self::Sha3_384 => "sha3_384",
        }
    }

    /// The digest of that name, spelled exactly so.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|digest| digest.name().as_bytes() == name)
    }

    /// Bytes in a proof.
    pub fn proof_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 | Self::Sha3_256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
        }
    }

    /// The proof over `parts`, one after the other.
    pub(super) fn mac(self, secret: &Secret, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Md5 => mac::<Hmac<md5::Md5>>(secret.expose(), parts),
            Self::Sha256 => mac::<Hmac<sha2::Sha256>>(secret.expose(), parts),
            Self::Sha384 => mac::<Hmac<sha2::Sha384>>(secret.expose(), parts),
            Self::Sha3_256 => mac::<SimpleHmac<sha3::Sha3_256>>(secret.expose(), parts),
            Self::Sha3_384 => mac::<SimpleHmac<sha3::Sha3_384>>(secret.expose(), parts),
        }
    }

    /// Whether `proof` is the proof over `parts`, in a time that does not tell where it differs.
    pub(super) fn verify(self, secret: &Secret, parts: &[&[u8]], proof: &[u8]) -> bool {
        match self {
            Self::Md5 => verify::<Hmac<md5::Md5>>(secret.expose(), parts, proof),
            Self::Sha256 => verify::<Hmac<sha2::Sha256>>(secret.expose(), parts, proof),
            Self::Sha384 => verify::<Hmac<sha2::Sha384>>(secret.expose(), parts, proof),
            Self::Sha3_256 => verify::<SimpleHmac<sha3::Sha3_256>>(secret.expose(), parts, proof),
            Self::Sha3_384 => verify::<SimpleHmac<sha3::Sha3_384>>(secret.expose(), parts, proof),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// HMAC-SHA-256 under any key.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    mac::<Hmac<sha2::Sha256>>(key, parts)
}

/// Whether `proof` begins the HMAC-SHA-256 over `parts`, in a time that does not tell where it
/// differs. An empty proof never does.
pub(super) fn hmac_sha256_begins(key: &[u8], parts: &[&[u8]], proof: &[u8]) -> bool {
    absorbed::<Hmac<sha2::Sha256>>(key, parts)
        .verify_truncated_left(proof)
        .is_ok()
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    absorbed::<M>(key, parts).finalize().into_bytes().to_vec()
}

fn verify<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]], proof: &[u8]) -> bool {
    absorbed::<M>(key, parts).verify_slice(proof).is_ok()
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn absorbed<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_of_another_length_is_wrong() {
        let secret = Secret::new(b"secret".to_vec()).unwrap();
        for digest in Digest::ALL {
            let proof = digest.mac(&secret, &[b"ab", b"c"]);
            assert_eq!(proof.len(), digest.proof_len());
            assert!(digest.verify(&secret, &[b"abc"], &proof));
            for len in 0..proof.len() {
                assert!(!digest.verify(&secret, &[b"abc"], &proof[..len]));
            }
            let longer = [&proof[..], b"\0"].concat();
            assert!(!digest.verify(&secret, &[b"abc"], &longer));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let secret = Secret::new(b"secret".to_vec()).unwrap();
        for digest in Digest::ALL {
            let proof = digest.mac(&secret, &[b"abc"]);
            for bit in 0..proof.len() * 8 {
                let mut wrong = proof.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!digest.verify(&secret, &[b"abc"], &wrong));
            }
        }
    }

    #[test]
    fn nothing_begins_no_proof() {
        let proof = hmac_sha256(b"k", &[b"abc"]);
        assert!(hmac_sha256_begins(b"k", &[b"abc"], &proof[..16]));
        assert!(!hmac_sha256_begins(b"k", &[b"abc"], b""));
        assert!(!hmac_sha256_begins(b"k", &[b"abd"], &proof[..16]));
    }

    #[test]
    fn names_are_exact() {
        for digest in Digest::ALL {
            assert_eq!(Digest::from_name(digest.name().as_bytes()), Some(digest));
        }
        for name in [&b"sha512"[..], b"SHA256", b"sha1", b"", b"sha256 "] {
            assert_eq!(Digest::from_name(name), None);
        }
    }
}
