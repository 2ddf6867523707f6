//! From a connection to a session: PROXY header, TLS, authentication, then the service.
//!
//! All of it runs in the connection's own task, within one deadline, and counts against a cap of its
//! own: whoever has proved nothing delays nobody who has.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use portyard_wire::auth::{AuthError, Handshake, mutual};
use portyard_wire::proxy;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::server::TlsStream;

use super::admission::Applicant;
use super::connection::{Connection, Parts};
use super::trust::Trust;
use super::{Ended, Peer, Serving, Stream};
use crate::access::{Action, Explanation, Identity};
use crate::auth::Authenticator;
use crate::config::{AtLimit, ClientCertificates, StreamLimits};
use crate::endpoint::Transport;
use crate::event_loop::EventLoop;
use crate::listener::{Listener, Settings, Streams, source_of};
use crate::observe::metrics::Ending;
use crate::tls::{Facts, TlsServer};

/// Brings a connection to its service.
pub(super) fn establish(
    parts: Parts,
    settings: Arc<Settings<Streams>>,
    trust: Arc<Trust>,
    proving: Proving,
) -> Serving {
    Box::pin(async move {
        let service = settings.service.clone();
        // Boxed, so that a session does not carry the memory of its handshakes.
        match Box::pin(prove(parts, settings, trust, proving)).await {
            Ok(connection) => service.serve(connection).await,
            Err(why) => Ended::Unproved(why),
        }
    })
}

/// A place among the connections that have proved nothing yet. Dropping it gives the place back.
pub(super) struct Proving(Arc<Listener<Streams>>);

impl Proving {
    /// Takes a place, unless all are taken, or chance has it that this one must go: from
    /// `handshakes_early` on, the more places are taken, the likelier. So a crowd of silent peers
    /// cannot keep everybody out until their deadline (OpenSSH's `MaxStartups`).
    pub fn enter(listener: &Arc<Listener<Streams>>, limits: &StreamLimits) -> Option<Self> {
        if !listener.proving.try_enter() {
            return None;
        }
        let place = Self(listener.clone());
        let (early, full) = (limits.handshakes_early, limits.handshakes.get());
        let over = listener.proving.present().saturating_sub(early);
        if over > 0 && early < full {
            // As likely as places above the early mark are taken.
            let chance = f64::from(over) / f64::from(full - early);
            if dice() < chance {
                return None;
            }
        }
        Some(place)
    }
}

/// A number from 0 up to 1 that nobody can foresee: std seeds each hasher anew.
pub(crate) fn dice() -> f64 {
    let bits = RandomState::new().hash_one(()) >> 32;
    u32::try_from(bits).map_or(0.0, |bits| f64::from(bits) / 2_f64.powi(32))
}

impl Drop for Proving {
    fn drop(&mut self) {
        self.0.proving.leave();
    }
}

/// Why a connection did not get as far as its service.
struct Failure {
    why: Ending,
    /// What to tell the operator.
    said: String,
    /// Whether its source is to pay for it.
    costs: bool,
}

async fn prove(
    mut parts: Parts,
    settings: Arc<Settings<Streams>>,
    trust: Arc<Trust>,
    proving: Proving,
) -> Result<Connection, Ending> {
    let home = parts.home.clone();
    let listener = parts.permit.listener().clone();
    let slot = parts.slot;
    let deadline = Instant::now() + settings.limits.handshake.0;
    let stages = async {
        if trust.balancers.include(home.registry.peer(slot)) {
            announced(&mut parts, &settings).await?;
        }
        let mut exporter = None;
        if let Some(tls) = &trust.tls {
            let (encrypted, bound) = encrypt(parts, &settings, tls).await?;
            parts = encrypted;
            exporter = Some(bound);
        }
        let connection = Connection::new(parts);
        match &trust.auth {
            Some(auth) => authenticate(connection, &settings, auth, exporter).await,
            None => Ok(connection),
        }
    };
    let result = match timeout_at(deadline, stages).await {
        Ok(result) => result,
        Err(_) => Err(Failure {
            why: Ending::Handshake,
            said: "it took longer than limits.handshake".into(),
            costs: true,
        }),
    };
    drop(proving);
    result.map_err(|failure| {
        report(
            &home,
            &listener,
            &settings,
            home.registry.peer(slot),
            &failure,
        );
        failure.why
    })
}

/// Counts and tells a failure, and makes its source pay.
fn report(
    home: &EventLoop,
    listener: &Listener<Streams>,
    settings: &Settings<Streams>,
    peer: Peer,
    failure: &Failure,
) {
    let Failure { why, said, costs } = failure;
    // All local users are one source, and so is everybody behind a balancer: they are not punished
    // together.
    let trust = settings.trust.as_ref();
    let is_balancer = trust.is_some_and(|trust| trust.balancers.include(peer));
    let barred = *costs
        && !is_balancer
        && peer.ip().is_some_and(|ip| {
            let tariff = settings.limits.tariff();
            let source = source_of(Some(ip));
            listener.penalties.add(source, home.milliseconds(), &tariff)
        });
    if !costs {
        tracing::debug!(listener = %listener.name, %peer, %why, said, "not served");
    } else if let Some(held) = home.refusals.pass() {
        tracing::info!(listener = %listener.name, %peer, %why, said, barred, held, "not served");
    }
}

/// Reads the balancer's header, and applies to the peer it names what would have applied at accept.
async fn announced(parts: &mut Parts, settings: &Arc<Settings<Streams>>) -> Result<(), Failure> {
    let header = read_header(&mut parts.stream).await?;
    let proxy::Header::Inet { source, .. } = header else {
        // A health check of the balancer's own, or a local client of it: its address stays.
        return Ok(());
    };
    let (home, listener) = (&parts.home, parts.permit.listener().clone());
    let peer = Peer::Internet(source);
    home.registry.set_peer(parts.slot, peer);
    let explanation = settings.access.explain(source.ip());
    if explanation.action == Action::Deny {
        return Err(denied(&explanation));
    }
    let tariff = settings.limits.tariff();
    let prefix = source_of(Some(source.ip()));
    if listener
        .penalties
        .refuses(prefix, home.milliseconds(), &tariff)
    {
        return Err(Failure {
            why: Ending::Denied,
            said: "its source has failed too often".into(),
            costs: false,
        });
    }
    let mut applicant = Applicant::new(prefix);
    let give_up = Instant::now() + settings.limits.queue_timeout.0;
    while let Err((refusal, wait)) = applicant.apply(home, &mut parts.permit) {
        if settings.limits.at_limit != AtLimit::Queue || Instant::now() + wait > give_up {
            return Err(Failure {
                why: Ending::Denied,
                said: format!("its source is at the limit {refusal}"),
                costs: false,
            });
        }
        sleep(wait.max(Duration::from_millis(5))).await;
    }
    Ok(())
}

/// Reads exactly the header: what follows is the service's, or TLS's.
async fn read_header(stream: &mut Stream) -> Result<proxy::Header, Failure> {
    let mut bytes = Vec::new();
    loop {
        match proxy::parse(&bytes) {
            Ok(Some((header, _))) => return Ok(header),
            Ok(None) => {}
            Err(error) => {
                return Err(Failure {
                    why: Ending::Proxy,
                    said: error.to_string(),
                    costs: false,
                });
            }
        }
        let mut rest = stream.take(proxy::wanted(&bytes) as u64);
        match rest.read_buf(&mut bytes).await {
            Ok(0) => return Err(broken(&io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}

/// The TLS handshake, then what the access rules say of the client's certificate.
async fn encrypt(
    parts: Parts,
    settings: &Settings<Streams>,
    tls: &TlsServer,
) -> Result<(Parts, mutual::Exporter), Failure> {
    let Parts {
        stream,
        home,
        slot,
        permit,
    } = parts;
    let accepted = tls.acceptor.accept(stream).into_fallible().await;
    let rebuild = |stream| Parts {
        stream,
        home,
        slot,
        permit,
    };
    let stream = match accepted {
        Ok(stream) => stream,
        Err((error, stream)) => {
            let failure = tls_failure(&error);
            // The alert that says why is on its way; a reset would overtake it.
            Connection::new(rebuild(stream)).finish().await;
            return Err(failure);
        }
    };
    let facts = client_facts(&stream)?;
    if tls.client != ClientCertificates::Off {
        let none = Vec::new();
        let explanation = settings.access.check_identity(Identity::Certificate {
            common_name: facts
                .as_ref()
                .and_then(|facts| facts.common_name.as_deref()),
            names: facts.as_ref().map_or(&none, |facts| &facts.names),
        });
        if explanation.action == Action::Deny {
            let failure = denied(&explanation);
            Connection::new(rebuild(Stream::Tls(Box::new(stream))))
                .finish()
                .await;
            return Err(failure);
        }
    }
    let mut exporter = [0; 32];
    let session = stream.get_ref().1;
    session
        .export_keying_material(&mut exporter, EXPORTER_LABEL, Some(&[]))
        .map_err(|error| tls_failure(&io::Error::other(error)))?;
    tracing::debug!(
        version = ?session.protocol_version(), suite = ?session.negotiated_cipher_suite(),
        server_name = session.server_name(),
        subject = facts.as_ref().map(|facts| &*facts.subject),
        names = ?facts.as_ref().map(|facts| &facts.names),
        "TLS"
    );
    Ok((rebuild(Stream::Tls(Box::new(stream))), exporter))
}

fn client_facts(stream: &TlsStream<Stream>) -> Result<Option<Facts>, Failure> {
    let shown = stream.get_ref().1.peer_certificates();
    let facts = shown.and_then(<[_]>::first).map(|shown| Facts::of(shown));
    facts.transpose().map_err(|said| Failure {
        why: Ending::Tls,
        said,
        costs: true,
    })
}

/// Proves a key with the peer, and tells it in its own dialect when that fails.
async fn authenticate(
    mut connection: Connection,
    settings: &Settings<Streams>,
    auth: &Authenticator,
    exporter: Option<mutual::Exporter>,
) -> Result<Connection, Failure> {
    let machine = auth
        .begin(exporter)
        .map_err(|error| broken(&io::Error::other(error)))?;
    let Some(mut machine) = machine else {
        return Ok(connection);
    };
    let in_messages = settings.service.transport() == Transport::SeqPacket;
    let result = converse(&mut connection, &mut *machine, in_messages).await;
    if let Some(last) = machine.output() {
        connection
            .write_all(&last)
            .await
            .map_err(|error| broken(&error))?;
    }
    let failure = match result {
        Ok(Ok(())) => {
            let Some(outcome) = machine.outcome() else {
                return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
            };
            let explanation = settings.access.check_identity(Identity::Key(&outcome.key));
            if explanation.action == Action::Allow {
                tracing::debug!(key = %outcome.key, digest = %outcome.digest, "authenticated");
                let registry = &connection.home.registry;
                registry.set_key(connection.slot, outcome.key);
                return Ok(connection);
            }
            denied(&explanation)
        }
        Ok(Err(error)) => auth_failure(&error),
        Err(error) => return Err(broken(&error)),
    };
    connection.finish().await;
    Err(failure)
}

/// Passes bytes between the peer and the machine until that has decided.
async fn converse(
    connection: &mut Connection,
    machine: &mut dyn Handshake,
    in_messages: bool,
) -> io::Result<Result<(), AuthError>> {
    let mut buffer = [0; MESSAGE_MAX];
    loop {
        if let Some(bytes) = machine.output() {
            connection.write_all(&bytes).await?;
        }
        let wanted = machine.wanted().min(MESSAGE_MAX);
        if wanted == 0 {
            return Ok(Ok(()));
        }
        let length = if in_messages {
            // What is not read of a message is lost. A descriptor that comes with one is closed.
            poll_fn(|cx| connection.poll_receive(cx, &mut buffer))
                .await?
                .length
        } else {
            poll_fn(|cx| connection.poll_read(cx, &mut buffer[..wanted])).await?
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match machine.handle(&buffer[..length]) {
            // A message belongs to the dialogue or to the service, never to both.
            Ok(taken) if taken < length => {
                let error = "a message that goes on behind the end of the dialogue";
                return Ok(Err(AuthError::Malformed(error)));
            }
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn auth_failure(error: &AuthError) -> Failure {
    let hint = match error {
        AuthError::DigestRefused(_) => {
            "; a Python before 3.12 knows MD5 alone: min_digest = \"md5\" lets it in"
        }
        _ => "",
    };
    Failure {
        why: Ending::Auth,
        said: format!("{error}{hint}"),
        costs: true,
    }
}

/// A peer that shows a bad certificate pays. One that does not like ours, or that is no TLS client at
/// all, is a mistake of somebody's.
fn tls_failure(error: &io::Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let costs = matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    );
    let why = if inner.is_some() {
        Ending::Tls
    } else {
        Ending::Broken
    };
    Failure {
        why,
        said: error.to_string(),
        costs,
    }
}

fn denied(explanation: &Explanation<'_>) -> Failure {
    Failure {
        why: Ending::Denied,
        said: explanation.to_string(),
        costs: true,
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure {
        why: Ending::Broken,
        said: error.to_string(),
        costs: false,
    }
}

/// RFC 9266, 2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// The longest message of any dialogue, with its frame.
const MESSAGE_MAX: usize = 268;
