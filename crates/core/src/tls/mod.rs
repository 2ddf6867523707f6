//! TLS, by rustls: certificates and keys from files, for both ends.

mod certificate;
mod client;
mod pin;
mod server;

pub use certificate::{
    CertificateError, Facts, KeyKind, PublicKey, fingerprint, read_chain, read_private_key,
};
pub use client::{ClientTls, ClientTlsError, Distrust, exporter};
pub use pin::{Pin, PinError};
pub use server::{Expiry, TlsError, TlsServer};
