//! TLS, by rustls: certificates and keys from files, for both ends.

mod certificate;
mod server;

pub use certificate::{CertificateError, Facts, fingerprint, read_chain, read_private_key};
pub use server::{Expiry, TlsError, TlsServer};
