//! Who is served, who waits, and who is turned away.

use std::any::Any;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portyard_wire::broker::Why;
use tokio::io::AsyncWriteExt;

use super::arrival::{Accepted, Arrival};
use super::connection::{Peer, Session};
use super::establish::Proving;
use crate::access::{Action, Kind};
use crate::config::AtLimit;
use crate::event_loop::EventLoop;
use crate::limits::{Prefix, Token};
use crate::listener::{Listener, Permit, Settings, Streams, source_of};
use crate::observe::metrics::Refusal;

/// Decides about an accepted connection and starts to serve it.
///
/// Returns late only when all places are taken and the listener queues: not accepting more is how
/// the kernel's backlog, and with it the peers, are made to wait.
pub(super) async fn admit(
    home: &Rc<EventLoop>,
    listener: &Arc<Listener<Streams>>,
    arrival: Arrival,
) {
    let peer = arrival.peer;
    listener.metrics.accepted.inc();
    let settings = listener.settings();
    if let Some(address) = peer.ip()
        && settings.access.check(address) == Action::Deny
    {
        tracing::debug!(
            listener = %listener.name, %peer, rule = %settings.access.explain(address), "refused"
        );
        return turn_away(home, listener, arrival, Refusal::Access, AtLimit::Refuse);
    }
    if peer == Peer::Local
        && settings.access.concerns(Kind::User)
        && !is_welcome(&settings, &arrival)
    {
        return turn_away(home, listener, arrival, Refusal::Access, AtLimit::Refuse);
    }
    let limits = &settings.limits;
    // What a broker gives does not wait here: another worker may have room for it.
    let at_limit = match arrival.ticket {
        Some(_) => AtLimit::Refuse,
        None => limits.at_limit,
    };
    let source = source_of(peer.ip());
    // A balancer is many peers; what holds for each of them is applied when it has named it.
    let trust = settings.trust.as_ref();
    let is_balancer = trust.is_some_and(|trust| trust.balancers.include(peer));
    if trust.is_some()
        && !is_balancer
        && listener
            .penalties
            .refuses(source, home.milliseconds(), &limits.tariff())
    {
        return turn_away(home, listener, arrival, Refusal::Penalty, AtLimit::Refuse);
    }
    let mut permit = match listener.try_enter() {
        Some(permit) => permit,
        None if at_limit == AtLimit::Queue => listener.enter().await,
        None => {
            return turn_away(home, listener, arrival, Refusal::Connections, at_limit);
        }
    };
    if is_balancer {
        return start(home, arrival, permit);
    }
    let mut applicant = Applicant::new(source);
    match applicant.apply(home, &mut permit) {
        Ok(()) => start(home, arrival, permit),
        Err((refusal, _)) if at_limit != AtLimit::Queue => {
            turn_away(home, listener, arrival, refusal, at_limit);
        }
        Err((refusal, wait)) => {
            let candidate = Candidate { arrival, permit };
            queue(home, candidate, applicant, refusal, wait);
        }
    }
}

/// Goes on with a connection that a predecessor had admitted, and whose peer has proved what it had to.
/// Waits until there is room for it.
pub(super) async fn go_on(
    home: &Rc<EventLoop>,
    listener: &Arc<Listener<Streams>>,
    arrival: Arrival,
    key: Option<Arc<str>>,
    legacy: Box<dyn Any + Send>,
) {
    listener.metrics.accepted.inc();
    let permit = listener.enter().await;
    let peer = arrival.peer;
    let stream = arrival.into_stream();
    let settings = listener.settings();
    let session = Session::new(stream, peer, permit, home.clone(), settings, None);
    if let Some(key) = key {
        home.registry.set_key(session.slot(), key);
    }
    // The service asks for it when it is polled first.
    home.registry.set_legacy(session.slot(), legacy);
    tokio::task::spawn_local(session);
}

/// Whether the access rules want the user at the other end.
fn is_welcome(settings: &Settings<Streams>, arrival: &Arrival) -> bool {
    // Without credentials nothing is known of the peer, so no rule can let it in.
    arrival.user().is_ok_and(|user| {
        let explanation = settings.access.check_identity(user);
        if explanation.action == Action::Deny {
            tracing::debug!(?user, rule = %explanation, "refused");
        }
        explanation.action == Action::Allow
    })
}

/// A source that asks for leave to have one more connection.
pub(super) struct Applicant {
    source: Prefix,
    /// Whether the rate has let it pass already.
    has_token: bool,
}

/// A connection that has a place and waits for its source's leave.
struct Candidate {
    arrival: Arrival,
    permit: Permit,
}

impl Applicant {
    pub fn new(source: Prefix) -> Self {
        Self {
            source,
            has_token: false,
        }
    }

    /// Passes rate and per-source limit, or says which one stopped it and when to try again.
    pub fn apply(
        &mut self,
        home: &EventLoop,
        permit: &mut Permit,
    ) -> Result<(), (Refusal, Duration)> {
        let listener = permit.listener().clone();
        let limits = &listener.settings().limits;
        if !self.has_token && limits.rate.0.is_some() {
            match listener.take_token(self.source, home.milliseconds()) {
                Token::Taken => self.has_token = true,
                Token::Wait(wait) => return Err((Refusal::Rate, wait)),
            }
        }
        match limits.per_source {
            Some(ceiling) if !permit.try_count(self.source, ceiling.get()) => {
                Err((Refusal::PerSource, PER_SOURCE_RETRY))
            }
            _ => Ok(()),
        }
    }
}

fn start(home: &Rc<EventLoop>, arrival: Arrival, permit: Permit) {
    // One look at the settings decides both what is demanded and what is served.
    let settings = permit.listener().settings();
    if settings.service.takes_sockets() {
        return settings.service.take(home, Accepted::new(arrival, permit));
    }
    let proving = settings.trust.as_ref().map(|trust| {
        let proving = Proving::enter(permit.listener(), &settings.limits);
        proving.map(|proving| (trust.clone(), proving))
    });
    if let Some(None) = proving {
        let listener = permit.listener();
        let why = Refusal::Handshakes;
        return turn_away(home, listener, arrival, why, AtLimit::Refuse);
    }
    let peer = arrival.peer;
    let mut arrival = arrival;
    let mut ticket = arrival.ticket.take();
    if ticket.as_mut().is_some_and(|ticket| !ticket.take()) {
        tracing::debug!(listener = %permit.listener().name, %peer, "its broker is gone");
        return;
    }
    let stream = arrival.into_stream();
    // The registry accounts for the task: a drain waits until every session has left it.
    let proving = proving.flatten();
    let session = Session::new(stream, peer, permit, home.clone(), settings, proving);
    if let Some(ticket) = ticket {
        home.registry.hold(session.slot(), ticket);
    }
    tokio::task::spawn_local(session);
}

/// Lets an applicant wait for its turn, in a room of bounded size and for a bounded time.
fn queue(
    home: &Rc<EventLoop>,
    candidate: Candidate,
    mut applicant: Applicant,
    refusal: Refusal,
    mut wait: Duration,
) {
    let Candidate {
        arrival,
        mut permit,
    } = candidate;
    let listener = permit.listener().clone();
    if !listener.waiting.try_enter() {
        return turn_away(home, &listener, arrival, refusal, AtLimit::Refuse);
    }
    let home = home.clone();
    tokio::task::spawn_local(async move {
        let deadline = tokio::time::sleep(listener.settings().limits.queue_timeout.0);
        tokio::pin!(deadline);
        let mut refusal = refusal;
        let turned_away = loop {
            tokio::select! {
                () = tokio::time::sleep(wait.max(RETRY_MIN)) => {}
                () = &mut deadline => break true,
                () = listener.closed.cancelled() => break true,
            }
            match applicant.apply(&home, &mut permit) {
                Ok(()) => break false,
                Err(again) => (refusal, wait) = again,
            }
        };
        listener.waiting.leave();
        if turned_away {
            turn_away(&home, &listener, arrival, refusal, AtLimit::Refuse);
        } else {
            start(&home, arrival, permit);
        }
    });
}

pub(super) fn turn_away(
    home: &EventLoop,
    listener: &Arc<Listener<Streams>>,
    arrival: Arrival,
    why: Refusal,
    how: AtLimit,
) {
    listener.metrics.refuse(why);
    if why != Refusal::Access
        && let Some(held) = home.refusals.pass()
    {
        tracing::info!(listener = %listener.name, %why, held, "connection refused at a limit");
    }
    if arrival.ticket.is_some() {
        return arrival.give_back(why.to_broker());
    }
    if how != AtLimit::Banner {
        return arrival.reset();
    }
    let mut stream = arrival.into_stream();
    let settings = listener.settings();
    tokio::task::spawn_local(async move {
        // A fresh connection has room for a banner; one that has not gets a reset.
        let banner = settings.limits.banner.as_bytes();
        let said = async {
            stream.write_all(banner).await?;
            stream.shutdown().await
        };
        if !matches!(tokio::time::timeout(BANNER_WAIT, said).await, Ok(Ok(()))) {
            stream.reset_on_close();
        }
    });
}

impl Refusal {
    /// What a broker is told when we do not serve a connection that it gives us.
    fn to_broker(self) -> Why {
        match self {
            Self::Access | Self::Penalty => Why::Denied,
            Self::Connections | Self::PerSource | Self::Rate | Self::Handshakes => Why::Full,
            Self::Descriptors => Why::Resources,
        }
    }
}

impl Peer {
    /// The peer's address, where it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Internet(address) => Some(address.ip()),
            Self::Local => None,
        }
    }
}

/// How often an applicant looks whether its source has left a place.
const PER_SOURCE_RETRY: Duration = Duration::from_millis(50);
const RETRY_MIN: Duration = Duration::from_millis(5);
const BANNER_WAIT: Duration = Duration::from_secs(1);
