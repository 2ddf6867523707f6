//! Holding sockets: listeners stay open under a name while everything behind them restarts.
//!
//! ```text
//!  [[hold]] ──► Table ◄── store, retrieve, delete, list ◄── control ◄── peers, by Rules
//!                 │
//!                 ├──► Keeper    the service manager's descriptor store: back at the next start
//!                 └──► handover  a successor that takes over over the control socket
//! ```
//!
//! [`Table`] and [`Rules`] decide and touch no socket; [`Holding`] is both behind a lock, with the
//! sockets.

mod config;
mod control;
mod keeper;
mod rules;
mod socket;
mod succession;
mod table;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portyard_core::daemon::Listening;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::life::Notifier;
use portyard_core::listen::{Bound, Handed, Inherited, UnixFile, open};
use portyard_core::wire::hold::{
    self as wire, Entry, Kind, Name, Origin, Reason, Record, Reply, Request,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::sleep_until;

pub use config::{HoldConfig, HoldingConfig, check};
pub use control::Control;
use keeper::{Keeper, Returned};
pub use rules::{Asker, Operation, Rules};
pub use socket::HeldSocket;
pub use succession::{CONTROL, Succession, control_path};
use table::{Caps, Held, Refusal, Table, no_such_name};

/// Everything that is held. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holding(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Told when something expires sooner than anything did.
    sooner: Notify,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    table: Table<HeldSocket>,
    rules: Rules,
    /// What the configuration holds, and the files of its Unix sockets.
    configured: HashMap<Name, Configured>,
    /// What a reload is about to hold.
    opened: Vec<(Name, Configured, Vec<(Kind, HeldSocket)>)>,
    keeper: Option<Keeper>,
    /// The numbers in the store of what peers have stored.
    kept_names: HashMap<Name, u64>,
    /// The numbers in the store of what we listen on, by identity.
    kept_bound: HashMap<u64, u64>,
    /// Whether all that we listen on is in the store.
    all_kept: bool,
}

#[derive(Debug)]
struct Configured {
    config: HoldConfig,
    files: Vec<UnixFile>,
}

/// What was asked, by operation: done, and refused.
#[derive(Debug, Default)]
pub struct Counts([[std::sync::atomic::AtomicU64; 2]; Operation::ALL.len()]);

/// A reply, and the sockets that go with it.
pub type Answer = (Reply, Vec<HeldSocket>);

impl Default for Inner {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                table: Table::new(caps(&HoldingConfig::default())),
                rules: Rules::default(),
                configured: HashMap::new(),
                opened: Vec::new(),
                keeper: None,
                kept_names: HashMap::new(),
                kept_bound: HashMap::new(),
                all_kept: false,
            }),
            sooner: Notify::new(),
            counts: Counts::default(),
        }
    }
}

impl Holding {
    /// Takes back what an earlier process had the service manager keep. Sockets that it listened on go
    /// to `inherited`; connections that waited are returned, with the names of their listeners.
    pub fn take_up(
        &self,
        notifier: &Notifier,
        inherited: &mut Inherited,
    ) -> Vec<(String, OwnedFd)> {
        let started = Keeper::start(notifier, inherited.take_stored());
        let (mut keeper, returned) = match started {
            Ok(Some(started)) => started,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::error!(%error, "nothing can be kept by the service manager");
                return Vec::new();
            }
        };
        let state = &mut *self.lock();
        let mut waiting = Vec::new();
        for returned in returned {
            let Returned {
                number,
                record,
                ago,
                descriptors,
            } = returned;
            match record {
                Record::Bound(bound) => {
                    for descriptor in descriptors {
                        if let Ok(identity) = socket::identity(&descriptor) {
                            state.kept_bound.insert(identity, number);
                        }
                        inherited.hand(handed(&bound, descriptor));
                    }
                }
                Record::Held(held) => {
                    let name = held.name.clone();
                    if put_back(&mut state.table, held, ago, descriptors) {
                        state.kept_names.insert(name, number);
                    } else {
                        keeper.forget(number);
                    }
                }
                Record::Waiting(one) => {
                    let listener = one.listener;
                    waiting.extend(descriptors.into_iter().map(|fd| (listener.clone(), fd)));
                    // From here on it is ours, and lives or dies with us like any other.
                    keeper.forget(number);
                }
            }
        }
        state.keeper = Some(keeper);
        waiting
    }

    /// Takes what a predecessor had stored under a name for a peer.
    pub fn take_over(&self, held: wire::Held, descriptors: Vec<OwnedFd>) {
        let state = &mut *self.lock();
        let name = held.name.clone();
        if put_back(&mut state.table, held, Duration::ZERO, descriptors)
            && let Err(error) = state.keep(&name)
        {
            tracing::warn!(%name, error, "this is lost at the next restart");
        }
    }

    /// Opens what the configuration wants to hold and is not held yet, for the [`Holding::apply`] that
    /// follows.
    pub fn open(&self, holds: &[HoldConfig], inherited: &mut Inherited) -> Result<(), Fatal> {
        let state = &mut *self.lock();
        state.opened.clear();
        for hold in holds {
            let Some(name) = hold.name() else { continue };
            let present = state.configured.get(&name);
            if present.is_some_and(|present| present.config == *hold) {
                continue;
            }
            if let Some(held) = state.table.get(&name)
                && let Origin::User(uid) = held.origin
            {
                return Err(Fatal::new(
                    Exit::Config,
                    format!(
                        "[[hold]] {name}: user {uid} has stored something under this name; delete it, \
                         or choose another name"
                    ),
                ));
            }
            // The same sockets under other options: they stay as they are.
            let again = present.filter(|present| same_places(&present.config, hold));
            let (files, sockets) = if again.is_some() {
                (None, None)
            } else {
                let (files, sockets) = open_all(&name, hold, inherited)?;
                (Some(files), Some(sockets))
            };
            let configured = Configured {
                config: hold.clone(),
                files: files.unwrap_or_default(),
            };
            state
                .opened
                .push((name, configured, sockets.unwrap_or_default()));
        }
        Ok(())
    }

    /// Holds what was opened, and no longer what the configuration holds no more.
    pub fn apply(&self, holds: &[HoldConfig], holding: &HoldingConfig) {
        let state = &mut *self.lock();
        state.table.set_caps(caps(holding));
        // They have been checked.
        state.rules = Rules::new(&holding.rules).unwrap_or_default();
        let wanted: HashSet<Name> = holds.iter().filter_map(HoldConfig::name).collect();
        let gone: Vec<Name> = state
            .configured
            .keys()
            .filter(|name| !wanted.contains(name))
            .cloned()
            .collect();
        for name in gone {
            tracing::info!(%name, "no longer held");
            state.configured.remove(&name);
            state.table.take(&name);
        }
        let now = Instant::now();
        for (name, mut configured, sockets) in std::mem::take(&mut state.opened) {
            if sockets.is_empty() {
                let before = state.configured.remove(&name);
                configured.files = before.map_or_else(Vec::new, |before| before.files);
            } else {
                for (kind, socket) in &sockets {
                    tracing::info!(%name, %kind, endpoint = socket.place, "held");
                }
                let held = Held {
                    sockets,
                    origin: Origin::Configured,
                    since: now,
                    until: None,
                    retrieved: 0,
                };
                state.table.put(name.clone(), held);
            }
            state.configured.insert(name, configured);
        }
    }

    /// Where the configuration has sockets held: names and endpoints.
    pub fn endpoints(&self) -> Vec<(String, String)> {
        let state = self.lock();
        let configured = state
            .table
            .behind(None)
            .filter(|(_, held)| held.origin == Origin::Configured);
        let places = |(name, held): (&Name, &Held<HeldSocket>)| -> Vec<(String, String)> {
            let place = |(_, socket): &(Kind, HeldSocket)| (name.to_string(), socket.place.clone());
            held.sockets.iter().map(place).collect()
        };
        configured.flat_map(places).collect()
    }

    /// Hears of all that the daemon listens on, and has it kept; true when all of it is.
    pub fn listening(&self, sockets: &[Listening<'_>]) -> bool {
        let state = &mut *self.lock();
        state.all_kept = state.keep_listening(sockets);
        state.all_kept
    }

    /// Has a connection kept that waits for a worker; false where that cannot be.
    pub fn keep_waiting(&self, listener: &str, connection: impl AsFd) -> bool {
        let state = &mut *self.lock();
        let Some(keeper) = &mut state.keeper else {
            return false;
        };
        let record = Record::Waiting(wire::Waiting {
            listener: listener.into(),
        });
        match keeper.keep(record, &[connection.as_fd()]) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(listener, %error, "a connection that waits is not kept");
                false
            }
        }
    }

    /// Leaves the files of Unix sockets where they are: somebody else has the sockets.
    pub fn leave_files(&self) {
        let configured = std::mem::take(&mut self.lock().configured);
        let files = configured.into_values().flat_map(|one| one.files);
        files.for_each(UnixFile::leave);
    }

    /// Whether what we listen on outlives us, in the service manager's hands.
    pub fn is_kept(&self) -> bool {
        self.lock().all_kept
    }

    /// Waits until the service manager has all that it was given. Blocks.
    pub fn settle(&self) {
        let state = self.lock();
        if let Some(keeper) = &state.keeper
            && !keeper.settle()
        {
            tracing::warn!("the service manager has not said that it keeps what it was given");
        }
    }

    /// Everything for a successor: the sockets that the configuration holds, then what peers have stored.
    pub fn hand_over(&self) -> Vec<(Record, Vec<HeldSocket>)> {
        let state = self.lock();
        let now = Instant::now();
        let mut all = Vec::new();
        for (name, held) in state.table.behind(None) {
            let sockets: Vec<HeldSocket> = held
                .sockets
                .iter()
                .map(|(_, socket)| socket.clone())
                .collect();
            match (held.origin, state.configured.get(name)) {
                (Origin::Configured, Some(configured)) => {
                    for (bound, socket) in state.bound_of(name, configured, held) {
                        all.push((Record::Bound(bound), vec![socket]));
                    }
                }
                (Origin::Configured, None) => {}
                (Origin::User(_), _) => {
                    all.push((Record::Held(record(name, held, now)), sockets));
                }
            }
        }
        all
    }

    /// Does what a peer asks for.
    pub fn answer(&self, asker: &Asker<'_>, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        let (operation, answer) = match request {
            Request::List { behind } => (Operation::List, Ok(self.list(asker, behind.as_ref()))),
            Request::Store {
                name,
                expiry,
                replace,
                ..
            } => (
                Operation::Store,
                self.store(asker, name, expiry, replace, descriptors),
            ),
            Request::Retrieve { name } => (Operation::Retrieve, self.retrieve(asker, &name)),
            Request::Delete { name } => (Operation::Delete, self.delete(asker, &name)),
            Request::TakeOver | Request::Received { .. } | Request::Serving => {
                let text = "this message belongs to a hand-over, and none is under way".into();
                return refused((Reason::Malformed, text));
            }
        };
        self.0.counts.count(operation, answer.is_ok());
        match answer {
            Ok(answer) => answer,
            Err((reason, text)) => {
                tracing::info!(
                    peer = %asker, operation = operation.label(), %reason, text, "request refused"
                );
                refused((reason, text))
            }
        }
    }

    /// Whether a peer may do something with a name; else what to tell it.
    pub fn permit(
        &self,
        asker: &Asker<'_>,
        operation: Operation,
        name: &Name,
    ) -> Result<(), Refusal> {
        self.lock().permit(asker, operation, name)
    }

    fn list(&self, asker: &Asker<'_>, behind: Option<&Name>) -> Answer {
        let state = self.lock();
        let now = Instant::now();
        let visible = state
            .table
            .behind(behind)
            .filter(|(name, _)| state.rules.allow(asker, Operation::List, name));
        let entries = visible.map(|(name, held)| entry(name, held, now));
        (Reply::listed(entries), Vec::new())
    }

    fn store(
        &self,
        asker: &Asker<'_>,
        name: Name,
        expiry: Option<Duration>,
        replace: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, Refusal> {
        let state = &mut *self.lock();
        state.permit(asker, Operation::Store, &name)?;
        if replace && state.table.get(&name).is_some() {
            state.permit(asker, Operation::Delete, &name)?;
        }
        state.table.may_store(&name, descriptors.len(), replace)?;
        let mut sockets = Vec::new();
        for descriptor in descriptors {
            let socket = HeldSocket::new(descriptor).map_err(|why| (Reason::WrongSocket, why))?;
            sockets.push(socket);
        }
        let now = Instant::now();
        let until = state.table.until(expiry, now);
        let held = Held {
            sockets,
            origin: Origin::User(asker.uid().unwrap_or(NOBODY)),
            since: now,
            until,
            retrieved: 0,
        };
        if state.table.put(name.clone(), held).is_some() {
            state.forget(&name);
        }
        if let Err(text) = state.keep(&name) {
            state.table.take(&name);
            return Err((Reason::Full, text));
        }
        tracing::info!(%name, by = %asker, "held");
        self.0.sooner.notify_one();
        Ok((Reply::Done, Vec::new()))
    }

    fn retrieve(&self, asker: &Asker<'_>, name: &Name) -> Result<Answer, Refusal> {
        let state = &mut *self.lock();
        state.permit(asker, Operation::Retrieve, name)?;
        let held = state.table.retrieve(name, Instant::now());
        let held = held.ok_or_else(|| no_such_name(name))?;
        let (kinds, sockets) = held.sockets.iter().cloned().unzip();
        tracing::info!(%name, by = %asker, "retrieved");
        Ok((Reply::Sockets { kinds }, sockets))
    }

    fn delete(&self, asker: &Asker<'_>, name: &Name) -> Result<Answer, Refusal> {
        let state = &mut *self.lock();
        state.permit(asker, Operation::Delete, name)?;
        state.table.delete(name)?;
        state.forget(name);
        tracing::info!(%name, by = %asker, "deleted");
        Ok((Reply::Done, Vec::new()))
    }

    /// Closes what has been held long enough, whenever something has. Never returns.
    pub async fn expire(&self) {
        loop {
            let sooner = self.0.sooner.notified();
            let next = {
                let state = &mut *self.lock();
                for (name, _) in state.table.expire(Instant::now()) {
                    tracing::info!(%name, "expired");
                    state.forget(&name);
                }
                state.table.next_expiry()
            };
            match next {
                Some(next) => tokio::select! {
                    () = sooner => {}
                    () = sleep_until(next.into()) => {}
                },
                None => sooner.await,
            }
        }
    }

    /// What `/status` shows.
    pub fn status(&self) -> Value {
        let state = self.lock();
        let now = Instant::now();
        let one = |(name, held): (&Name, &Held<HeldSocket>)| {
            let sockets = held.sockets.iter().map(
                |(kind, socket)| json!({ "kind": kind.to_string(), "endpoint": socket.place }),
            );
            json!({
                "name": name.as_str(),
                "origin": match held.origin {
                    Origin::Configured => Value::from("configuration"),
                    Origin::User(uid) => json!({ "uid": uid }),
                },
                "age_seconds": now.saturating_duration_since(held.since).as_secs(),
                "expires_in_seconds": held.until.map(|until| left(until, now).as_secs()),
                "retrieved": held.retrieved,
                "sockets": sockets.collect::<Vec<_>>(),
            })
        };
        Value::Array(state.table.behind(None).map(one).collect())
    }

    /// Names and sockets that are held.
    pub fn len(&self) -> (usize, usize) {
        self.lock().table.len()
    }

    /// What was asked.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one call of a map's; a panic cannot leave one half-done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn permit(&self, asker: &Asker<'_>, operation: Operation, name: &Name) -> Result<(), Refusal> {
        if self.rules.allow(asker, operation, name) {
            return Ok(());
        }
        let operation = operation.label();
        let text = format!(
            "no rule lets {asker} {operation} {name}; add \"allow {operation} {name} {asker}\" to \
             holding.rules"
        );
        Err((Reason::NotAllowed, text))
    }

    /// Has what a peer has stored under a name kept, where there is a store.
    fn keep(&mut self, name: &Name) -> Result<(), String> {
        let (Some(keeper), Some(held)) = (&mut self.keeper, self.table.get(name)) else {
            return Ok(());
        };
        let record = Record::Held(record(name, held, Instant::now()));
        let sockets: Vec<_> = held
            .sockets
            .iter()
            .map(|(_, socket)| socket.as_fd())
            .collect();
        let number = keeper
            .keep(record, &sockets)
            .map_err(|error| error.to_string())?;
        self.kept_names.insert(name.clone(), number);
        Ok(())
    }

    fn forget(&mut self, name: &Name) {
        if let (Some(keeper), Some(number)) = (&mut self.keeper, self.kept_names.remove(name)) {
            keeper.forget(number);
        }
    }

    /// Has all that we listen on and hold by configuration kept, and nothing else of the kind.
    fn keep_listening(&mut self, sockets: &[Listening<'_>]) -> bool {
        if self.keeper.is_none() {
            return false;
        }
        let mut wanted: Vec<(wire::Bound, HeldOr<'_>)> = Vec::new();
        for one in sockets.iter().filter(|one| !one.inherited) {
            let bound = wire::Bound {
                endpoint: one.endpoint.into(),
                listener: one.label.into(),
                opening: one.opening,
            };
            wanted.push((bound, HeldOr::Listening(one.socket)));
        }
        for (name, configured) in &self.configured {
            let Some(held) = self.table.get(name) else {
                continue;
            };
            for (bound, socket) in self.bound_of(name, configured, held) {
                wanted.push((bound, HeldOr::Held(socket)));
            }
        }
        let Some(keeper) = &mut self.keeper else {
            return false;
        };
        let mut before = std::mem::take(&mut self.kept_bound);
        let mut all = true;
        for (bound, socket) in wanted {
            let Ok(identity) = socket::identity(socket.as_fd()) else {
                all = false;
                continue;
            };
            let number = match before.remove(&identity) {
                Some(number) => Ok(number),
                None => keeper.keep(Record::Bound(bound.clone()), &[socket.as_fd()]),
            };
            match number {
                Ok(number) => {
                    self.kept_bound.insert(identity, number);
                }
                Err(error) => {
                    all = false;
                    tracing::warn!(
                        endpoint = bound.endpoint, %error, "a restart may refuse connections"
                    );
                }
            }
        }
        for number in before.into_values() {
            keeper.forget(number);
        }
        all
    }

    /// The sockets of a `[[hold]]`, as a successor finds them by its own.
    fn bound_of<'a>(
        &self,
        name: &'a Name,
        configured: &'a Configured,
        held: &'a Held<HeldSocket>,
    ) -> impl Iterator<Item = (wire::Bound, HeldSocket)> + use<'a> {
        let _ = self;
        let endpoints = configured.config.endpoints();
        // A host name may have stood for several sockets; then the last endpoint stands for the rest.
        let mut endpoints: Vec<Endpoint> = endpoints.map(|(endpoint, _)| endpoint).collect();
        let last = endpoints.last().cloned();
        if let Some(last) = last {
            while endpoints.len() < held.sockets.len() {
                endpoints.push(last.clone());
            }
        }
        let sockets = held.sockets.iter().map(|(_, socket)| socket.clone());
        endpoints
            .into_iter()
            .zip(sockets)
            .map(|(endpoint, socket)| {
                let bound = wire::Bound {
                    endpoint: endpoint.to_string(),
                    listener: label(name),
                    opening: 0,
                };
                (bound, socket)
            })
    }
}

enum HeldOr<'a> {
    Listening(&'a socket2::Socket),
    Held(HeldSocket),
}

impl AsFd for HeldOr<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Listening(socket) => socket.as_fd(),
            Self::Held(socket) => socket.as_fd(),
        }
    }
}

impl Counts {
    fn count(&self, operation: Operation, done: bool) {
        let counter = &self.0[operation as usize][usize::from(!done)];
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// How often an operation was done, and how often it was refused.
    pub fn of(&self, operation: Operation) -> [u64; 2] {
        let load =
            |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        let [done, refused] = &self.0[operation as usize];
        [load(done), load(refused)]
    }
}

/// Opens all endpoints of a `[[hold]]`.
fn open_all(
    name: &Name,
    hold: &HoldConfig,
    inherited: &mut Inherited,
) -> Result<(Vec<UnixFile>, Vec<(Kind, HeldSocket)>), Fatal> {
    let (mut files, mut sockets) = (Vec::new(), Vec::new());
    for (endpoint, transport) in hold.endpoints() {
        let mut bound = inherited.take_bound(&endpoint, &label(name), transport)?;
        if bound.is_empty() {
            bound = open(&endpoint, transport, &hold.socket, inherited, 1)?;
        }
        for Bound { socket, file, .. } in bound {
            files.extend(file);
            let held = HeldSocket::new(socket.into()).map_err(|why| {
                Fatal::new(Exit::Config, format!("[[hold]] {name}: {endpoint}: {why}"))
            })?;
            sockets.push(held);
        }
    }
    Ok((files, sockets))
}

/// Whether two tables hold the same sockets, whatever their options.
fn same_places(one: &HoldConfig, other: &HoldConfig) -> bool {
    one.endpoints().eq(other.endpoints())
}

/// The label of the sockets of a `[[hold]]`, which no listener's name is like.
fn label(name: &Name) -> String {
    format!("[[hold]] {name}")
}

/// A socket that a predecessor had bound, as [`Inherited`] takes it.
pub fn handed(bound: &wire::Bound, descriptor: OwnedFd) -> Handed {
    Handed {
        endpoint: bound.endpoint.clone(),
        label: bound.listener.clone(),
        opening: bound.opening,
        socket: descriptor.into(),
    }
}

fn put_back(
    table: &mut Table<HeldSocket>,
    held: wire::Held,
    ago: Duration,
    descriptors: Vec<OwnedFd>,
) -> bool {
    let name = &held.name;
    let mut sockets = Vec::new();
    for descriptor in descriptors {
        match HeldSocket::new(descriptor) {
            Ok(socket) => sockets.push(socket),
            Err(why) => {
                tracing::warn!(%name, why, "what was held is of no use any more");
                return false;
            }
        }
    }
    let now = Instant::now();
    let left = held.expiry.map(|expiry| expiry.saturating_sub(ago));
    let held = Held {
        sockets,
        origin: held.origin,
        since: now.checked_sub(held.age + ago).unwrap_or(now),
        until: left.and_then(|left| now.checked_add(left)),
        retrieved: held.retrieved,
    };
    table.put(name.clone(), held);
    true
}

fn record(name: &Name, held: &Held<HeldSocket>, now: Instant) -> wire::Held {
    wire::Held {
        name: name.clone(),
        origin: held.origin,
        age: now.saturating_duration_since(held.since),
        expiry: held.until.map(|until| left(until, now)),
        retrieved: held.retrieved,
        kinds: held.sockets.iter().map(|(kind, _)| *kind).collect(),
    }
}

fn entry(name: &Name, held: &Held<HeldSocket>, now: Instant) -> Entry {
    let socket = |(kind, socket): &(Kind, HeldSocket)| (*kind, socket.place.clone());
    Entry {
        name: name.clone(),
        origin: held.origin,
        age: now.saturating_duration_since(held.since),
        expiry: held.until.map(|until| left(until, now)),
        retrieved: held.retrieved,
        sockets: held.sockets.iter().map(socket).collect(),
    }
}

fn left(until: Instant, now: Instant) -> Duration {
    until.saturating_duration_since(now)
}

fn refused((reason, text): Refusal) -> Answer {
    (Reply::Refused { reason, text }, Vec::new())
}

fn caps(holding: &HoldingConfig) -> Caps {
    Caps {
        names: holding.names.get().into(),
        sockets: usize::try_from(holding.sockets.get()).unwrap_or(usize::MAX),
        expiry: (!holding.expiry.0.is_zero()).then_some(holding.expiry.0),
    }
}

/// The overflow user, for whoever the kernel does not name.
const NOBODY: u32 = 65534;
