//! Which servers are believed inside TLS, and what they are shown of us.

use std::sync::Arc;

use portyard_core::config::TlsVersion;
use portyard_core::endpoint::Host;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::FilePlace;
use portyard_core::tls::{ClientTls, Pin};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::site::Site;

/// The options. The certificate, the pin and the name are for the origin of the URL alone.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct Options {
    /// The certificates of the CAs to believe, PEM, in place of this system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<FilePlace>,
    /// The fingerprint of the certificate to believe, whatever name and dates it has: 64
    /// hexadecimal digits, or base64. With --ca both must hold.
    #[arg(long, value_name = "sha256:HEX")]
    pin: Option<Pin>,
    /// Our own certificate and its chain, PEM, for servers that want one.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert: Option<FilePlace>,
    /// The private key of --cert, PEM, readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key_file: Option<FilePlace>,
    /// The oldest version of TLS to speak.
    #[arg(long, value_name = "VERSION", value_enum, default_value = "1.2")]
    tls_min: Oldest,
    /// What the server's certificate must be for. [default: the host of URL]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Believe whatever certificate this host shows, and nobody else's: everybody on the way can
    /// read and change what is sent. --pin is the safe way.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["pin", "ca"])]
    insecure: Option<String>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Oldest {
    /// TLS 1.2.
    #[default]
    #[value(name = "1.2")]
    V12,
    /// TLS 1.3.
    #[value(name = "1.3")]
    V13,
}

impl Options {
    /// Settings for connections to a site; `is_first`: it is the origin of the URL.
    pub fn load(
        &self,
        site: &Site,
        is_first: bool,
        alpn: &[&str],
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), Fatal> {
        let mut tls = ClientTls {
            ca: self.ca.clone(),
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            believes_all: self.is_insecure(&site.at.host),
            min_version: match self.tls_min {
                Oldest::V12 => TlsVersion::V12,
                Oldest::V13 => TlsVersion::V13,
            },
            ..ClientTls::default()
        };
        if is_first {
            tls.pin = self.pin;
            tls.certificate = self.cert.clone().zip(self.key_file.clone());
            tls.server_name.clone_from(&self.server_name);
        }
        let name = tls
            .name(Some(&site.at.host))
            .map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?;
        let config = tls
            .config()
            .map_err(|error| Fatal::new(Exit::Config, error.to_string()))?;
        // Nothing is bound to the session here, and some servers of TLS 1.2 cannot do it.
        let mut config = Arc::unwrap_or_clone(config);
        config.require_ems = false;
        Ok((config.into(), name))
    }

    /// An option of these that does nothing for a URL with this host, with why.
    pub fn is_in_vain(&self, site: &Site) -> Option<String> {
        let host = self.insecure.as_ref()?;
        let is_for_other = !self.is_insecure(&site.at.host);
        (is_for_other || !site.is_tls).then(|| {
            format!("--insecure {host} does not go with {site}; name the host of an https URL")
        })
    }

    fn is_insecure(&self, host: &Host) -> bool {
        let named = self.insecure.as_deref();
        named.is_some_and(|named| match host {
            Host::Name(name) => name.eq_ignore_ascii_case(named),
            Host::Ip(ip) => named.trim_matches(['[', ']']).parse() == Ok(*ip),
        })
    }
}
