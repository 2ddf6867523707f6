//! The `[listener.tls]` table.

use serde::{Deserialize, Serialize};

use crate::files::FilePlace;

/// TLS on a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// What the server shows: the first whose names fit the name that the client asks for, else the
    /// first of all.
    pub certificates: Vec<CertificateConfig>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The protocols offered by ALPN, best first. Who asks for others only is refused; who does not
    /// ask is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// Whether clients show a certificate.
    pub client: ClientCertificates,
    /// The authorities that sign clients' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<FilePlace>,
    /// Their lists of revoked certificates. With any list, a certificate of an authority that has
    /// none, or only one past its next update, is refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<FilePlace>,
}

/// A certificate with its chain, and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The PEM file of the certificate and of those that lead to an authority.
    pub chain: FilePlace,
    /// The PEM file of its private key, readable by nobody else.
    pub key: FilePlace,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum TlsVersion {
    /// RFC 5246, with extended master secret (RFC 7627) alone.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// What is asked of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Nothing.
    #[default]
    Off,
    /// A certificate is asked for; one that is shown must be good.
    Optional,
    /// No good certificate, no service.
    Required,
}
