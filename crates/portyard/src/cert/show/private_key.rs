//! Private keys, of which only the public half is ever kept.

use portyard_core::tls::PublicKey;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;

use super::item::PrivateKey;

/// The public half; `None` when it is not of a kind that TLS can use here.
pub fn public_half(key: &PrivateKeyDer<'_>) -> Option<PrivateKey> {
    let signing = any_supported_type(key).ok()?;
    let info = signing.public_key()?;
    Some(PrivateKey {
        key: PublicKey::of(&info).ok()?,
        info: info.to_vec(),
    })
}
