//! TLS, by rustls: certificates and keys from files, for both ends.

mod certificate;

pub use certificate::{CertificateError, Facts, fingerprint, read_chain, read_private_key};
