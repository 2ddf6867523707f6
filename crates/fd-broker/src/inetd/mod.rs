//! `[[service]]`: programs that are started for their peers, and places to which peers are passed on.
//!
//! ```text
//! stream, nowait    core's accept path ─► Service::take ─► launcher: a program per connection
//! the same, warm    core's accept path ─► Service::take ─► a process that is kept, by message
//! behind TLS, keys  core's accept path ─► Service::serve ─► relay ◄─► launcher: a program
//! redirect          core's accept path ─► Service::serve ─► relay ◄─► another place
//! wait, datagrams   launcher: watch ─► one program that has the socket itself
//! ```
//!
//! Limits, access lists and deadlines of the first three are core's; a connection keeps its permit
//! until its program has ended. Everything that starts or ends a process runs on the launcher's thread.

mod config;
mod entry;
mod environment;
mod launcher;
mod metrics;
mod relay;
mod service;
mod times;
mod warm;
mod watch;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use portyard_core::access::AccessConfig;
use portyard_core::clock::{Now, Zone};
use portyard_core::config::{ConfigError, ListenerConfig, Source, StreamLimits};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::listen::{Bound, Inherited, open};
use serde_json::{Value, json};
use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch as channel};

pub use config::ServiceConfig;
pub use entry::{Entry, PROGRAM, REDIRECT};
pub use service::Service;

use crate::settings::Options;
use entry::{Planned, Watch};
use launcher::Order;
pub use launcher::{Alone, Gate};
use metrics::Metrics;
use tokio_util::sync::CancellationToken;
use warm::Warm;
use watch::{SharedFile, Watched, take_file};

/// The services of a broker. Cheap to clone.
#[derive(Clone)]
pub struct Inetd(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    zone: Zone,
    /// How many connections have a program.
    running: channel::Sender<usize>,
    orders: mpsc::UnboundedSender<Order>,
    gate: Gate,
    state: Mutex<State>,
}

struct State {
    /// What the last configuration that was read asks for.
    planned: Planned,
    /// Warm processes by the names of their services, each with what retires them.
    warm: HashMap<String, (Arc<Warm>, CancellationToken)>,
    /// Sockets that are watched, by what they were opened for.
    watched: HashMap<Key, Vec<Held>>,
    /// For the launcher, until it is started.
    waiting: Option<mpsc::UnboundedReceiver<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// An endpoint, and which of several services that ask for the same: they can if it is a free port.
type Key = (Endpoint, Transport, usize);

/// A socket and another descriptor of it.
type Doubled = (Bound, Socket);

/// A socket that the launcher watches.
struct Held {
    /// Where it really listens.
    endpoint: Endpoint,
    /// What is done with it; `None`: its service is gone. Closed when nobody watches any more.
    service: channel::Sender<Option<Watch>>,
    /// Another descriptor of it, for whoever comes after us; none once its service is gone.
    socket: Option<Socket>,
    /// Removed by whoever watches last.
    file: SharedFile,
}

/// A socket that is watched, for whoever comes after us.
pub struct Listening {
    /// What it was opened by, as the configuration spells it.
    pub endpoint: String,
    /// What tells it from a listener's.
    pub label: String,
    /// The socket.
    pub socket: OwnedFd,
}

impl Inetd {
    /// Checks the `[[service]]` tables and returns the listeners that they come to; `access` is the
    /// daemon's own list. The rest is kept for [`Inetd::open`].
    pub fn plan(
        &self,
        services: &[ServiceConfig],
        access: &AccessConfig,
        source: &Source,
    ) -> Result<Vec<ListenerConfig<StreamLimits, Options>>, ConfigError> {
        let mut planned = Planned::new(services, access, source)?;
        let listeners = std::mem::take(&mut planned.listeners);
        self.state().planned = planned;
        Ok(listeners)
    }

    /// Opens the sockets of `wait` services that are not open yet, and takes the last plan over: all
    /// of it, or nothing.
    pub fn open(&self, inherited: &mut Inherited) -> Result<(), Fatal> {
        let mut state = self.state();
        let planned = std::mem::take(&mut state.planned);
        let mut opened: Vec<(Key, Watch, Option<Vec<Doubled>>)> = Vec::new();
        for watch in planned.watches {
            let mut key: Key = (watch.endpoint.clone(), watch.transport, 0);
            let is_taken = |key: &Key| opened.iter().any(|(other, ..)| other == key);
            while is_taken(&key) {
                key.2 += 1;
            }
            let held = state.watched.get(&key);
            let bound = if held.is_some_and(|held| held.iter().any(Held::is_watched)) {
                None
            } else {
                let (endpoint, transport, _) = &key;
                let label = label(&watch.entry.name);
                // A program may wait in it.
                let mut bound = inherited.take_bound_as_is(endpoint, &label, *transport)?;
                if bound.is_empty() {
                    let prover = watch.prover.as_ref();
                    bound = open(endpoint, *transport, &watch.socket, inherited, 1, prover)?;
                }
                Some(duplicated(bound)?)
            };
            opened.push((key, watch, bound));
        }
        // From here on nothing fails.
        self.keep_warm(&mut state, planned.warm);
        self.0.zone.reload();
        for (key, all) in &mut state.watched {
            if !opened.iter().any(|(other, ..)| other == key) {
                for held in all {
                    held.service.send_replace(None);
                    held.socket = None;
                }
            }
        }
        for (key, watch, bound) in opened {
            // All that is counted is shown from the start.
            self.0.metrics.service(&watch.entry.name);
            let Some(bound) = bound else {
                for held in state.watched.get(&key).into_iter().flatten() {
                    held.service.send_replace(Some(watch.clone()));
                }
                continue;
            };
            let mut all = Vec::new();
            for (mut bound, socket) in bound {
                let file: SharedFile = Arc::new(Mutex::new(bound.file.take()));
                tracing::info!(service = %watch.entry.name, endpoint = %bound.endpoint, "watching");
                let endpoint = bound.endpoint.clone();
                let (send, service) = channel::channel(Some(watch.clone()));
                self.order(Order::Watch(Box::new(Watched {
                    bound,
                    file: file.clone(),
                    service,
                })));
                all.push(Held {
                    endpoint,
                    service: send,
                    socket: Some(socket),
                    file,
                });
            }
            state.watched.insert(key, all);
        }
        state
            .watched
            .retain(|_, all| all.iter().any(Held::is_watched));
        Ok(())
    }

    /// All sockets that are watched, but for those that came from whoever started us.
    pub fn listening(&self) -> Vec<Listening> {
        let state = self.state();
        let mut all = Vec::new();
        for ((endpoint, ..), held) in &state.watched {
            for held in held.iter().filter(|_| !endpoint.is_inherited()) {
                let Some(watch) = held.service.borrow().clone() else {
                    continue;
                };
                let copy = held
                    .socket
                    .as_ref()
                    .map(|it| it.as_fd().try_clone_to_owned());
                // One that cannot be duplicated is opened anew by whoever comes after us.
                if let Some(Ok(socket)) = copy {
                    all.push(Listening {
                        endpoint: endpoint.to_string(),
                        label: label(&watch.entry.name),
                        socket,
                    });
                }
            }
        }
        all
    }

    /// Holds back who watches sockets, and lets them go on.
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// Programs that have a socket for themselves.
    pub async fn alone(&self) -> Vec<Alone> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Programs(answer));
        answered.await.unwrap_or_default()
    }

    /// Leaves the files of Unix sockets where they are: somebody else has the sockets.
    pub fn leave_files(&self) {
        for held in self.state().watched.values().flatten() {
            if let Some(file) = take_file(&held.file) {
                file.leave();
            }
        }
    }

    /// Keeps the processes that the entries ask for: those there are, where nothing about them changes.
    fn keep_warm(&self, state: &mut State, entries: Vec<Arc<Entry>>) {
        let mut before = std::mem::take(&mut state.warm);
        for entry in entries {
            let Some((recipe, patience)) = entry.recipe.clone() else {
                continue;
            };
            let kept = before.remove(&entry.name);
            let (same, other): (Vec<_>, Vec<_>) = kept
                .into_iter()
                .partition(|(pool, _)| pool.recipe == recipe);
            for (_, retire) in other {
                retire.cancel();
            }
            let (pool, retire) = same.into_iter().next().unwrap_or_else(|| {
                let metrics = self.0.metrics.service(&entry.name);
                let pool = Arc::new(Warm::new(recipe, patience, metrics));
                let retire = CancellationToken::new();
                self.order(Order::Keep(entry.clone(), pool.clone(), retire.clone()));
                (pool, retire)
            });
            // An entry is planned once and opened once.
            let _ = entry.warm.set(pool.clone());
            state.warm.insert(entry.name.clone(), (pool, retire));
        }
        for (_, (_, retire)) in before {
            retire.cancel();
        }
    }

    /// Starts the launcher, which reports to `faults` what the daemon cannot go on with.
    pub fn start(
        &self,
        page: &portyard_core::observe::metrics::Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        self.0.metrics.register(page);
        let mut state = self.state();
        let Some(orders) = state.waiting.take() else {
            return Ok(());
        };
        let thread = launcher::start(
            orders,
            self.0.metrics.clone(),
            self.0.zone.clone(),
            self.0.gate.clone(),
            faults.clone(),
        );
        let thread = thread.map_err(|error| {
            Fatal::new(
                Exit::OsError,
                format!("the thread for programs cannot start: {error}"),
            )
        })?;
        state.thread = Some(thread);
        Ok(())
    }

    /// Where `wait` services listen.
    pub fn endpoints(&self) -> Vec<(String, String)> {
        let state = self.state();
        let all = state.watched.values().flatten();
        all.filter_map(|held| {
            let service = held.service.borrow();
            Some((
                service.as_ref()?.entry.name.clone(),
                held.endpoint.to_string(),
            ))
        })
        .collect()
    }

    /// What `/status` shows of the `wait` services, and of the programs of all.
    pub fn status(&self) -> Value {
        let state = self.state();
        let describe = |held: &Held| {
            let service = held.service.borrow();
            let name = service.as_ref()?.entry.name.clone();
            let metrics = self.0.metrics.service(&name);
            Some(json!({
                "name": name,
                "endpoint": held.endpoint.to_string(),
                "running": metrics.running.get(),
                "started": metrics.started.get(),
                "failed": metrics.failed.get(),
                "unread": metrics.unread.get(),
                "refused": metrics.refused(),
            }))
        };
        let waiting: Vec<Value> = state
            .watched
            .values()
            .flatten()
            .filter_map(describe)
            .collect();
        let describe = |(name, (pool, _)): (&String, &(Arc<Warm>, CancellationToken))| {
            let (served, queued) = pool.counts();
            let metrics = self.0.metrics.service(name);
            json!({
                "name": name,
                "running": metrics.running.get(),
                "started": metrics.started.get(),
                "connections": served,
                "waiting": queued,
            })
        };
        let warm: Vec<Value> = state.warm.iter().map(describe).collect();
        json!({
            "wait": waiting,
            "warm": warm,
            "connections_with_programs": *self.0.running.borrow(),
        })
    }

    /// Starts nothing new for `wait` services.
    pub fn drain(&self) {
        self.order(Order::Drain);
    }

    /// Returns when no connection has a program any more.
    pub async fn empty(&self) {
        // Its sender is ours.
        let _ = self
            .0
            .running
            .subscribe()
            .wait_for(|count| *count == 0)
            .await;
    }

    /// Ends all programs, and the launcher.
    pub async fn stop(&self) {
        self.order(Order::Stop);
        let thread = self.state().thread.take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the thread for programs has failed");
            }
        }
    }

    /// Whether it is time to use a service, by the local clock.
    fn is_time(&self, entry: &Entry) -> bool {
        if entry.times.is_always() {
            return true;
        }
        let now = Now::read().seconds;
        entry
            .times
            .allow(now.saturating_add(self.0.zone.offset(now).into()))
    }

    fn order(&self, order: Order) {
        // Without a launcher the process is ending already.
        let _ = self.0.orders.send(order);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here panics half-way through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_watched(&self) -> bool {
        !self.service.is_closed()
    }
}

impl Default for Inetd {
    fn default() -> Self {
        let (orders, waiting) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            metrics: Metrics::default(),
            zone: Zone::system(),
            running: channel::Sender::new(0),
            orders,
            gate: Gate::default(),
            state: Mutex::new(State {
                planned: Planned::default(),
                warm: HashMap::new(),
                watched: HashMap::new(),
                waiting: Some(waiting),
                thread: None,
            }),
        }))
    }
}

/// The label of a service's sockets, which no listener's name is like.
fn label(name: &str) -> String {
    format!("[[service]] {name}")
}

/// Each socket with another descriptor of it.
fn duplicated(bound: Vec<Bound>) -> Result<Vec<Doubled>, Fatal> {
    let duplicate = |bound: Bound| match bound.share() {
        Ok(socket) => Ok((bound, socket)),
        Err(error) => {
            let message = format!("the socket of {} cannot be shared: {error}", bound.endpoint);
            Err(Fatal::new(Exit::OsError, message))
        }
    };
    bound.into_iter().map(duplicate).collect()
}
