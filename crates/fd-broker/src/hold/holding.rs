//! What is held, shared by all of the daemon: opened with it, told of by it, kept beyond it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portyard_core::daemon::Listening;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::life::Notifier;
use portyard_core::listen::{Inherited, UnixFile};
use portyard_core::wire::hold::{self as wire, Kind, Name, Origin, Record};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::config::{HoldConfig, HoldingConfig};
use super::configured::{Configured, Opened, open_all, same_places};
use super::form::{handed, left, put_back, record};
use super::keeper::{Keeper, Returned};
use super::metrics::Counts;
use super::rules::Rules;
use super::socket::{HeldSocket, identity};
use super::state::{State, caps};
use super::table::Held;

/// Everything that is held. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holding(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Told when something expires sooner than anything did.
    sooner: Notify,
    counts: Counts,
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
                        if let Ok(identity) = identity(&descriptor) {
                            state.kept_bound.insert(identity, number);
                        }
                        inherited.hand(handed(&bound, descriptor));
                    }
                }
                Record::Held(held) => {
                    let name = held.name.clone();
                    if put_back(&mut state.table, &held, ago, descriptors) {
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
                // Never put there: neither workers nor programs can wait for the next start.
                Record::Worker(_) | Record::Served(_) | Record::Running(_) => {
                    keeper.forget(number);
                }
            }
        }
        state.keeper = Some(keeper);
        waiting
    }

    /// Takes what a predecessor had stored under a name for a peer.
    pub fn take_over(&self, held: &wire::Held, descriptors: Vec<OwnedFd>) {
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
            let stay = present.is_some_and(|present| same_places(&present.config, hold));
            state.opened.push(if stay {
                let (config, files) = (hold.clone(), Vec::new());
                Opened {
                    name,
                    configured: Configured { config, files },
                    sockets: Vec::new(),
                }
            } else {
                let present = present.zip(state.table.get(&name));
                open_all(name, hold, present, inherited)?
            });
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
        for opened in std::mem::take(&mut state.opened) {
            let Opened {
                name,
                mut configured,
                sockets,
            } = opened;
            if sockets.is_empty() {
                let before = state.configured.remove(&name);
                configured.files = before.map_or_else(Vec::new, |before| before.files);
            } else {
                if let Some(before) = state.configured.remove(&name) {
                    configured.keep_files(before);
                }
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

    /// Hears of all that the daemon listens on, and has it kept; true when all of it is. `more` is what its
    /// own tables have opened.
    pub fn listening(&self, sockets: &[Listening<'_>], more: Vec<(wire::Bound, OwnedFd)>) -> bool {
        let state = &mut *self.lock();
        state.all_kept = state.keep_listening(sockets, more);
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
                    for (bound, socket) in configured.bound(name, held) {
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

    /// Something expires sooner than anything did.
    pub(super) fn sooner(&self) -> &Notify {
        &self.0.sooner
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one call of a map's; a panic cannot leave one half-done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
