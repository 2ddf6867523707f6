//! Which kind of key to make.

use std::fmt;
use std::str::FromStr;

use portyard_core::exit::{Exit, Fatal};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};

/// `ec`, or `rsa` with its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on the curve P-256: small, fast, and known to everything that speaks TLS 1.2.
    Ec,
    /// RSA with so many bits.
    Rsa(RsaBits),
}

/// The sizes of RSA keys that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaBits {
    /// 2048, the least that anything accepts today.
    B2048,
    /// 3072, as strong as P-256.
    B3072,
    /// 4096.
    B4096,
}

impl KeyType {
    /// A new key, from the system's random source.
    pub fn generate(self) -> Result<KeyPair, Fatal> {
        let made = match self {
            Self::Ec => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Rsa(bits) => KeyPair::generate_rsa_for(
                &PKCS_RSA_SHA256,
                match bits {
                    RsaBits::B2048 => RsaKeySize::_2048,
                    RsaBits::B3072 => RsaKeySize::_3072,
                    RsaBits::B4096 => RsaKeySize::_4096,
                },
            ),
        };
        made.map_err(|error| Fatal::new(Exit::OsError, format!("no key can be made: {error}")))
    }
}

impl FromStr for KeyType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "ec" => Self::Ec,
            "rsa" | "rsa:3072" => Self::Rsa(RsaBits::B3072),
            "rsa:2048" => Self::Rsa(RsaBits::B2048),
            "rsa:4096" => Self::Rsa(RsaBits::B4096),
            _ => return Err("write ec, rsa:2048, rsa:3072 (or rsa for short) or rsa:4096"),
        })
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec => "ec",
            Self::Rsa(RsaBits::B2048) => "rsa:2048",
            Self::Rsa(RsaBits::B3072) => "rsa:3072",
            Self::Rsa(RsaBits::B4096) => "rsa:4096",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_type_is_spelled_one_way() {
        for text in ["ec", "rsa:2048", "rsa:3072", "rsa:4096"] {
            assert_eq!(text.parse::<KeyType>().unwrap().to_string(), text);
        }
        for text in ["", "rsa:1024", "rsa:8192", "RSA", "dsa", "ec:256"] {
            assert!(text.parse::<KeyType>().is_err(), "{text}");
        }
    }
}
