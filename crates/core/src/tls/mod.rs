//! TLS, by rustls: certificates and keys from files, for both ends.

mod certificate;

pub use certificate::{
    CertificateError, Facts, KeyKind, PublicKey, fingerprint, read_chain, read_private_key,
};
