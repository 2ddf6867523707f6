//! The connecting end of TLS: whom it believes, and what it shows of itself.
//!
//! A server is believed when its certificate leads to a CA of a file, or of the system, and is for
//! the name that was asked for; or when it has a known fingerprint. Believing everybody has to be asked for
//! in so many words ([`ClientTls::believes_all`]). A certificate that is not believed is told with its fingerprint ([`Distrust`]).

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError as Refusal, ClientConfig, ConnectionCommon, DigitallySignedStruct, Error,
    OtherError, RootCertStore, SignatureScheme,
};

use super::pin::Pin;
use super::server::versions;
use super::{CertificateError, Facts, fingerprint, read_chain, read_private_key};
use crate::config::TlsVersion;
use crate::endpoint::Host;
use crate::files::FilePlace;

/// What a client knows about TLS before it connects.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The certificates of the CAs to believe, in place of the system's.
    pub ca: Option<FilePlace>,
    /// The one certificate to believe. Without `ca` neither its signature, its name nor its dates
    /// matter then; with `ca` both must hold.
    pub pin: Option<Pin>,
    /// Believe whatever certificate is shown, if there is neither `ca` nor `pin`: whoever is on the way
    /// can read and change everything.
    pub believes_all: bool,
    /// Our own certificate, with its chain, and its private key.
    pub certificate: Option<(FilePlace, FilePlace)>,
    /// What the server's certificate must be for, in place of the host we connect to.
    pub server_name: Option<String>,
    /// Protocols to offer, the best first; none by default.
    pub alpn: Vec<Vec<u8>>,
    /// The oldest version of TLS to speak.
    pub min_version: TlsVersion,
    /// Whether a later connection may go on with the session of an earlier one, and so leave out
    /// the certificates.
    pub resumption: bool,
}

/// Why TLS cannot be used as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// A file of certificates or a key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate of the CA file cannot sign others.
    #[error("{place}: {why}")]
    Ca {
        /// The file.
        place: FilePlace,
        /// What is wrong.
        why: String,
    },
    /// There is nobody to believe.
    #[error(
        "this system has no certificates of CAs{0}; install them (ca-certificates), name a file \
         with --ca, or a fingerprint with --pin"
    )]
    NoRoots(String),
    /// Certificate and key of our own do not belong together, or cannot be used.
    #[error("{chain} and {key} cannot be used together: {why}")]
    Pair {
        /// The file of the certificate.
        chain: FilePlace,
        /// The file of the key.
        key: FilePlace,
        /// Why not.
        why: String,
    },
    /// The name is none.
    #[error("'{0}' is neither a host name nor an address, so no certificate is for it")]
    Name(String),
    /// A Unix socket has no name that a certificate could be for.
    #[error(
        "a Unix socket has no host name; say with --server-name what the certificate is for, or \
         --pin it"
    )]
    NoName,
    /// The library says no.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// A certificate that was not believed, and by what it can be recognised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Distrust {
    why: String,
    /// SHA-256 of the certificate that the server showed.
    pub shown: Pin,
}

impl ClientTls {
    /// Reads the files and makes the settings for any number of connections: the newest TLS first, the
    /// key exchange that quantum computers do not break before the others, and for TLS 1.2 the
    /// extended master secret, without which an [`exporter`] binds nothing.
    pub fn config(&self) -> Result<Arc<ClientConfig>, ClientTlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Verifier {
            chain: self.chain_verifier(&provider)?,
            pin: self.pin,
            provider: Arc::clone(&provider),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(self.min_version))
            .map_err(|error| ClientTlsError::Setup(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(read_chain(chain)?, read_private_key(key)?)
                .map_err(|error| ClientTlsError::Pair {
                    chain: chain.clone(),
                    key: key.clone(),
                    why: error.to_string(),
                })?,
        };
        config.require_ems = true;
        config.alpn_protocols.clone_from(&self.alpn);
        if !self.resumption {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config))
    }

    /// What the server's certificate must be for, when we connect to `host`; `None` is a Unix
    /// socket.
    pub fn name(&self, host: Option<&Host>) -> Result<ServerName<'static>, ClientTlsError> {
        let text = match (&self.server_name, host) {
            (None, Some(Host::Ip(ip))) => return Ok(ServerName::from(*ip)),
            (Some(name), _) | (None, Some(Host::Name(name))) => name.clone(),
            // An address is never sent, and a pin looks at no name.
            (None, None) if self.pin.is_some() && self.ca.is_none() => {
                return Ok(ServerName::from(IpAddr::from([0; 4])));
            }
            (None, None) => return Err(ClientTlsError::NoName),
        };
        ServerName::try_from(text.clone()).map_err(|_| ClientTlsError::Name(text))
    }

    fn chain_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<WebPkiServerVerifier>>, ClientTlsError> {
        let roots = match (&self.ca, self.pin) {
            (Some(place), _) => roots_of(place)?,
            (None, Some(_)) => return Ok(None),
            (None, None) if self.believes_all => return Ok(None),
            (None, None) => system_roots()?,
        };
        let builder =
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
        match builder.build() {
            Ok(verifier) => Ok(Some(verifier)),
            Err(error) => Err(ClientTlsError::Setup(error.to_string())),
        }
    }
}

impl Distrust {
    /// The certificate that was not believed, if that is what the error is about.
    pub fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(Refusal::Other(OtherError(why))) => why.downcast_ref(),
            _ => None,
        }
    }
}

/// What only the two ends of one TLS session know: the channel binding `tls-exporter` of RFC 9266.
/// Fails before the handshake is over.
pub fn exporter<Data>(session: &ConnectionCommon<Data>) -> Result<[u8; 32], Error> {
    session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]))
}

fn roots_of(place: &FilePlace) -> Result<RootCertStore, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(place)? {
        roots.add(certificate).map_err(|error| ClientTlsError::Ca {
            place: place.clone(),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, ClientTlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems keep certificates that no longer parse; the others do.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first();
        let why = why.map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(ClientTlsError::NoRoots(why));
    }
    Ok(roots)
}

/// Believes by chain, by pin, or by both; says of whom it does not believe what can be said.
#[derive(Debug)]
struct Verifier {
    /// `None` only where there is a pin, or everybody is believed.
    chain: Option<Arc<WebPkiServerVerifier>>,
    pin: Option<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Pin(fingerprint(end_entity));
        if let Some(pin) = self.pin
            && pin != shown
        {
            let why = format!("its certificate is {shown}, not the one that is pinned");
            return Err(distrust(why, shown));
        }
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| {
                let facts = Facts::of(end_entity).ok();
                distrust(reason(&error, facts.as_ref(), server_name, shown), shown)
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

fn distrust(why: String, shown: Pin) -> Error {
    let distrust = Distrust { why, shown };
    Error::InvalidCertificate(Refusal::Other(OtherError(Arc::new(distrust))))
}

/// What is wrong with the certificate, and what can be done.
fn reason(error: &Error, facts: Option<&Facts>, name: &ServerName<'_>, shown: Pin) -> String {
    let Error::InvalidCertificate(refusal) = error else {
        return format!("its certificate {shown} is not usable: {error}");
    };
    let remedy = format!(
        "if its owner confirms the fingerprint, pin it: --pin {shown}; or name its CA: --ca FILE"
    );
    match refusal {
        // A new CA that is called as the old one was makes a bad signature.
        Refusal::UnknownIssuer | Refusal::BadSignature => {
            let issuer = facts.map_or("", |facts| facts.issuer.as_str());
            format!("nobody trusted here has signed its certificate (issuer: {issuer}); {remedy}")
        }
        Refusal::NotValidForName | Refusal::NotValidForNameContext { .. } => {
            let names = facts.map_or(&[][..], |facts| &facts.names);
            let names = match names {
                [] => "no name at all".into(),
                some => some[..some.len().min(NAMES_SHOWN)].join(", "),
            };
            format!(
                "its certificate is for {names}, not for {}; connect by such a name, or expect \
                 it: --server-name NAME",
                name.to_str()
            )
        }
        Refusal::Expired | Refusal::ExpiredContext { .. } => {
            format!(
                "its certificate {shown} has expired; it needs a new one, or this clock is wrong"
            )
        }
        Refusal::NotValidYet | Refusal::NotValidYetContext { .. } => {
            format!("its certificate {shown} is not valid yet; is this clock right?")
        }
        // As 'openssl req -x509' makes them.
        _ if facts.is_some_and(|facts| facts.is_ca) => {
            format!("its certificate is that of a CA, which must not serve itself; {remedy}")
        }
        _ => format!("its certificate {shown} is not usable: {error}"),
    }
}

/// A certificate may have hundreds.
const NAMES_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConnection, NamedGroup, ServerConfig, ServerConnection};
    use std::path::Path;

    /// A server's certificate for `localhost` by a CA, both in a directory.
    struct Given {
        directory: tempfile::TempDir,
        config: Arc<ServerConfig>,
        pin: Pin,
    }

    fn given() -> Given {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".into()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let pin = Pin(fingerprint(certificate.der()));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Given {
            directory,
            config,
            pin,
        }
    }

    impl Given {
        fn believing(&self) -> ClientTls {
            ClientTls {
                ca: Some(FilePlace::Path(self.directory.path().join("ca.pem"))),
                ..ClientTls::default()
            }
        }

        /// Lets both ends talk in memory until the handshake is over.
        fn shake(&self, tls: &ClientTls, host: &str) -> Result<[[u8; 32]; 2], Error> {
            let name = tls.name(Some(&host.parse().unwrap())).unwrap();
            let mut client = ClientConnection::new(tls.config().unwrap(), name)?;
            let mut server = ServerConnection::new(Arc::clone(&self.config))?;
            while client.is_handshaking() || server.is_handshaking() {
                let mut wire = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                server.read_tls(&mut &wire[..]).unwrap();
                server.process_new_packets()?;
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                client.read_tls(&mut &wire[..]).unwrap();
                client.process_new_packets()?;
            }
            let group = client.negotiated_key_exchange_group().unwrap();
            assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
            Ok([exporter(&client)?, exporter(&server)?])
        }
    }

    #[test]
    fn an_unknown_issuer_is_told_with_fingerprint_and_remedy() {
        let (given, other) = (given(), given());
        let error = given.shake(&other.believing(), "localhost").unwrap_err();
        let error = Distrust::of(&error).unwrap().to_string();
        for part in ["--ca", "--pin", &given.pin.to_string()] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let given = given();
        let tls = given.believing();
        let error = given.shake(&tls, "127.0.0.1").unwrap_err().to_string();
        assert!(
            error.contains("dns:localhost, not for 127.0.0.1"),
            "{error}"
        );
        let renamed = ClientTls {
            server_name: Some("localhost".into()),
            ..tls
        };
        assert!(given.shake(&renamed, "127.0.0.1").is_ok());
    }

    #[test]
    fn a_pin_needs_neither_ca_nor_name_and_takes_no_other() {
        let given = given();
        let mut tls = ClientTls {
            pin: Some(given.pin),
            ..ClientTls::default()
        };
        assert!(given.shake(&tls, "127.0.0.1").is_ok());
        // With a CA both must hold.
        tls.ca = given.believing().ca;
        assert!(given.shake(&tls, "localhost").is_ok());
        assert!(given.shake(&tls, "127.0.0.1").is_err());
        tls.pin = Some(Pin([0; 32]));
        let error = given.shake(&tls, "localhost").unwrap_err().to_string();
        assert!(error.contains(&given.pin.to_string()), "{error}");
    }

    #[test]
    fn both_ends_of_a_session_export_the_same_and_another_session_something_else() {
        let given = given();
        let tls = given.believing();
        let [client, server] = given.shake(&tls, "localhost").unwrap();
        assert_eq!(client, server);
        assert_ne!(client, given.shake(&tls, "localhost").unwrap()[0]);
    }

    #[test]
    fn a_unix_socket_needs_a_name_or_a_pin() {
        let mut tls = ClientTls::default();
        assert!(matches!(tls.name(None), Err(ClientTlsError::NoName)));
        tls.pin = Some(Pin([0; 32]));
        assert!(tls.name(None).is_ok());
        tls.ca = Some(FilePlace::Path(Path::new("ca.pem").into()));
        assert!(matches!(tls.name(None), Err(ClientTlsError::NoName)));
        tls.server_name = Some("a b".into());
        assert!(matches!(tls.name(None), Err(ClientTlsError::Name(_))));
    }
}
