//! TLS, by rustls: certificates and keys from files, for both ends.

mod certificate;
mod client;
mod pin;

pub use certificate::{CertificateError, Facts, fingerprint, read_chain, read_private_key};
pub use client::{ClientTls, ClientTlsError, Distrust, exporter};
pub use pin::{Pin, PinError};
