//! The options by which a client trusts a server and is trusted: TLS, certificates, keys.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use portyard_core::auth::{Dialect, MinDigest, ProveError, Prover, read_keys};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::FilePlace;
use portyard_core::tls::{ClientTls, Distrust, Pin, exporter};
use portyard_wire::auth::AuthError;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::connect::Target;
use crate::connected::{Connected, Until};

/// The options, the same for every command that opens a stream. None of them works by itself: a
/// certificate is not looked at without --tls, nor a key without --auth, so both are demanded.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS and keys")]
pub struct Options {
    /// Speak TLS (1.3 or 1.2). The server must have a certificate for its host name or address,
    /// signed by a CA of --ca or else of this system; or the one of --pin.
    #[arg(long)]
    tls: bool,
    /// The certificates of the CAs to believe, PEM, in place of this system's.
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<FilePlace>,
    /// The fingerprint of the certificate to believe, whatever name and dates it has: 64
    /// hexadecimal digits, or base64. With --ca both must hold.
    #[arg(long, value_name = "sha256:HEX", requires = "tls")]
    pin: Option<Pin>,
    /// Our own certificate and its chain, PEM, for servers that want one.
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key_file"])]
    cert: Option<FilePlace>,
    /// The private key of --cert, PEM, readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key_file: Option<FilePlace>,
    /// What the server's certificate must be for. [default: the host of ENDPOINT; a Unix socket
    /// has none]
    #[arg(long, value_name = "NAME", requires = "tls")]
    server_name: Option<String>,
    /// Prove a shared key before anything else: 'python' as multiprocessing.connection does,
    /// 'recipe' for 32 random bytes and their HMAC, 'mutual' for both ends, bound to the TLS session.
    #[arg(long, value_name = "DIALOGUE", requires = "auth_key_file", value_parser = dialects())]
    auth: Option<Dialect>,
    /// The named keys, a line each: NAME:base64:BYTES or NAME:text:WORDS. Readable by its owner
    /// alone; credential:NAME is a file in $CREDENTIALS_DIRECTORY.
    #[arg(long, value_name = "FILE", requires = "auth")]
    auth_key_file: Option<FilePlace>,
    /// Which of the keys. [default: the first]
    #[arg(long, value_name = "NAME", requires = "auth")]
    auth_key: Option<String>,
    /// The weakest digest to prove with. Pythons before 3.12 know only md5. [default: sha256]
    #[arg(long, value_name = "md5|sha256", requires = "auth", value_parser = digests())]
    min_digest: Option<MinDigest>,
}

/// What the options say, with their files read.
#[derive(Debug, Default)]
pub struct Trust {
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    prover: Option<Prover>,
}

impl Options {
    /// Reads the files, for connections to `target`.
    pub fn load(&self, target: &Target) -> Result<Trust, Fatal> {
        self.load_for(target, false)
    }

    /// The same; with `resumption` a later connection may go on with the session of an earlier one.
    pub fn load_for(&self, target: &Target, resumption: bool) -> Result<Trust, Fatal> {
        if target.transport == Transport::Datagram && (self.tls || self.auth.is_some()) {
            let message = format!(
                "TLS and keys are for streams, and {} takes datagrams",
                target.endpoint
            );
            return Err(Fatal::new(Exit::Usage, message));
        }
        Ok(Trust {
            tls: self.load_tls(&target.endpoint, resumption)?,
            prover: self.load_prover()?,
        })
    }

    fn load_tls(
        &self,
        endpoint: &Endpoint,
        resumption: bool,
    ) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, Fatal> {
        if !self.tls {
            return Ok(None);
        }
        let tls = ClientTls {
            ca: self.ca.clone(),
            pin: self.pin,
            believes_all: false,
            certificate: self.cert.clone().zip(self.key_file.clone()),
            server_name: self.server_name.clone(),
            alpn: Vec::new(),
            resumption,
            ..ClientTls::default()
        };
        let host = match endpoint {
            Endpoint::Tcp(at) => Some(&at.host),
            _ => None,
        };
        let wrong = |error: &dyn std::error::Error| Fatal::new(Exit::Config, error.to_string());
        let name = tls
            .name(host)
            .map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?;
        Ok(Some((tls.config().map_err(|error| wrong(&error))?, name)))
    }

    fn load_prover(&self) -> Result<Option<Prover>, Fatal> {
        let (Some(dialect), Some(place)) = (self.auth, &self.auth_key_file) else {
            return Ok(None);
        };
        let keys = read_keys(place).map_err(|error| Fatal::new(Exit::Config, error.to_string()))?;
        let min_digest = self.min_digest.unwrap_or_default();
        Prover::new(dialect, &keys, self.auth_key.as_deref(), min_digest)
            .map(Some)
            .map_err(|error| Fatal::new(Exit::Usage, format!("{place}: {error}")))
    }
}

impl Trust {
    /// Connects, and has the dialogues that come before the service; each gets `timeout`.
    pub fn connect(&self, target: &Target, timeout: Duration) -> Result<Connected, Fatal> {
        let failed = |error: io::Error| target.failure(&error);
        let socket = target.stream(timeout)?;
        let connected = match &self.tls {
            None => Connected::plain(socket),
            Some((config, name)) => {
                Connected::tls(socket, Arc::clone(config), name.clone(), timeout)
                    .map_err(|error| shake_failure(target, &error))?
            }
        };
        connected.set_write_timeout(timeout).map_err(failed)?;
        if let Some(prover) = &self.prover {
            let exporter = connected.exporter().map_err(failed)?;
            let until = Until {
                connected: &connected,
                deadline: Instant::now() + timeout,
            };
            prover
                .prove(exporter, until)
                .map_err(|error| prove_failure(target, &error))?;
        }
        connected.set_read_timeout(timeout).map_err(failed)?;
        Ok(connected)
    }

    /// Whether there is any dialogue before the service.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.prover.is_none()
    }

    /// Whether the service is spoken inside TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The same dialogues over a stream of tokio. A deadline is the caller's.
    pub async fn begin(
        &self,
        target: &Target,
        mut stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, Fatal> {
        let mut binding = None;
        if let Some((config, name)) = &self.tls {
            let session = TlsConnector::from(Arc::clone(config))
                .connect(name.clone(), stream)
                .await
                .map_err(|error| shake_failure(target, &error))?;
            let exported = exporter(session.get_ref().1);
            binding = exported
                .map_err(|error| tls_failure(&target.endpoint, &error))?
                .into();
            stream = Box::new(session);
        }
        if let Some(prover) = &self.prover {
            prover
                .prove_async(binding, &mut stream)
                .await
                .map_err(|error| prove_failure(target, &error))?;
        }
        Ok(stream)
    }
}

/// A stream of tokio, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// What to tell about an error of TLS, after which the connection is over.
pub fn tls_failure(endpoint: &impl fmt::Display, error: &Error) -> Fatal {
    use AlertDescription as Alert;
    if let Some(distrust) = Distrust::of(error) {
        let message = format!("{endpoint} is not trusted: {distrust}");
        return Fatal::new(Exit::NoPermission, message);
    }
    match error {
        Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired),
        ) => Fatal::new(
            Exit::NoPermission,
            format!(
                "{endpoint} does not accept us by our certificate ({alert:?}); --cert and \
                 --key-file name one that it does"
            ),
        ),
        Error::AlertReceived(alert) => Fatal::new(
            Exit::Data,
            format!(
                "{endpoint} ended TLS ({alert:?}); it may want a certificate (--cert), another \
                 --server-name, or an older TLS than we speak"
            ),
        ),
        _ => Fatal::new(
            Exit::Data,
            format!("{endpoint} does not speak TLS as it should ({error}); is it a port of TLS?"),
        ),
    }
}

/// What to tell about a handshake that failed.
pub fn shake_failure(target: &Target, error: &io::Error) -> Fatal {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            let endpoint = &target.endpoint;
            let message =
                format!("{endpoint} closed during the TLS handshake; is it a port of TLS?");
            Fatal::new(Exit::Io, message)
        }
        _ => target.failure(error),
    }
}

fn prove_failure(target: &Target, error: &ProveError) -> Fatal {
    let endpoint = &target.endpoint;
    let exit = match error {
        ProveError::Io(error) => {
            let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
            if late.contains(&error.kind()) {
                let message = format!(
                    "{endpoint} does not go on with the key dialogue in time; is --auth right?"
                );
                return Fatal::new(Exit::TempFail, message);
            }
            return target.failure(error);
        }
        ProveError::Dialogue {
            error: AuthError::Malformed(_) | AuthError::FrameTooLong { .. } | AuthError::Version(_),
            ..
        } => Exit::Data,
        ProveError::Dialogue { .. } | ProveError::Closed { .. } => Exit::NoPermission,
    };
    Fatal::new(exit, format!("{endpoint}: {error}"))
}

fn dialects() -> impl TypedValueParser<Value = Dialect> {
    PossibleValuesParser::new(["python", "recipe", "mutual"]).try_map(|name| name.parse())
}

fn digests() -> impl TypedValueParser<Value = MinDigest> {
    PossibleValuesParser::new(["md5", "sha256"]).try_map(|name| name.parse())
}
