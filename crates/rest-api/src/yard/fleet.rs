//! The daemons that are looked after: each has a task that asks it again and again.
//!
//! The tasks run on the control thread, which has little else to do; what they find is published as
//! whole values that the listeners' loops share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::ask;
use super::config::YardConfig;
use super::reading::{self, Before};
use super::view::{Change, Connections, Daemon, Done, History, Rates, State, Taken};

/// All daemons. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    latest: watch::Sender<Latest>,
    tasks: Mutex<JoinSet<()>>,
}

/// What is known at a moment.
#[derive(Clone, Default)]
pub struct Latest {
    /// In the order of the configuration.
    pub members: Vec<Member>,
    /// The newest first.
    pub changes: Arc<VecDeque<Change>>,
    /// Actions that were taken from here, the newest first.
    pub taken: Arc<VecDeque<Taken>>,
}

/// One daemon.
#[derive(Clone)]
pub struct Member {
    /// What the configuration says of it.
    pub config: Arc<YardConfig>,
    /// What it has said.
    pub daemon: Arc<Daemon>,
    /// Has it asked at once.
    hurry: Arc<Notify>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self(Arc::new(Inner {
            latest: watch::Sender::default(),
            tasks: Mutex::default(),
        }))
    }
}

impl Fleet {
    /// Looks after these from now on. What is known of those that stay, stays. To be called on the
    /// control thread.
    pub fn watch(&self, configs: &[YardConfig]) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.latest();
        let is_same = configs.len() == old.members.len()
            && configs
                .iter()
                .zip(&old.members)
                .all(|(new, old)| *new == *old.config);
        if is_same {
            return;
        }
        // Dropping it ends the tasks.
        *tasks = JoinSet::new();
        let members: Vec<Member> = configs
            .iter()
            .map(|config| {
                let known = old.members.iter().find(|known| *known.config == *config);
                known.cloned().unwrap_or_else(|| Member::new(config))
            })
            .collect();
        for member in &members {
            tasks.spawn(look_after(self.clone(), member.clone()));
        }
        self.0.latest.send_modify(|latest| latest.members = members);
    }

    /// What is known now.
    pub fn latest(&self) -> Latest {
        self.0.latest.borrow().clone()
    }

    /// Tells of everything that becomes known from now on.
    pub fn subscribe(&self) -> watch::Receiver<Latest> {
        self.0.latest.subscribe()
    }

    /// Tells that an action was taken.
    pub fn note(&self, done: &Done, by: &str) {
        self.0.latest.send_modify(|latest| {
            let taken = Arc::make_mut(&mut latest.taken);
            let id = taken.front().map_or(0, |taken| taken.id) + 1;
            taken.truncate(CHANGES - 1);
            taken.push_front(Taken {
                id,
                at: seconds_now(),
                by: by.into(),
                done: done.clone(),
            });
        });
    }

    /// Ends the tasks.
    pub async fn stop(&self) {
        let mut tasks = {
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        tasks.shutdown().await;
    }

    fn publish(&self, config: &Arc<YardConfig>, daemon: Daemon) {
        self.0.latest.send_modify(|latest| {
            let member = latest
                .members
                .iter_mut()
                .find(|member| Arc::ptr_eq(&member.config, config));
            // A reload has put another in its place.
            let Some(member) = member else {
                return;
            };
            let old = std::mem::replace(&mut member.daemon, Arc::new(daemon));
            let new = &member.daemon;
            if old.state != new.state {
                tell(&old, new);
                // Only who reads a moment ago has the old list still.
                let changes = Arc::make_mut(&mut latest.changes);
                let id = changes.front().map_or(0, |change| change.id) + 1;
                changes.truncate(CHANGES - 1);
                changes.push_front(Change {
                    id,
                    at: new.since,
                    name: new.name.clone(),
                    from: old.state,
                    to: new.state,
                    why: new.error.clone(),
                });
            }
        });
    }
}

impl Latest {
    /// The daemon of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.config.name == name)
    }
}

impl Member {
    fn new(config: &YardConfig) -> Self {
        let daemon = Daemon {
            name: config.name.clone(),
            admin: config.admin.to_string(),
            since: seconds_now(),
            keys: config.keys.is_some(),
            history: Some(History {
                every: config.every.0.as_secs_f64(),
                ..History::default()
            }),
            ..Daemon::default()
        };
        Self {
            config: Arc::new(config.clone()),
            daemon: Arc::new(daemon),
            hurry: Arc::default(),
        }
    }

    /// Has it asked at once: something was done to it.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }
}

/// Asks a daemon again and again.
async fn look_after(fleet: Fleet, member: Member) {
    let Member {
        config,
        daemon,
        hurry,
    } = member;
    let mut daemon = Daemon::clone(&daemon);
    let (mut before, mut last) = (Before::default(), None);
    // What nobody has been told of yet may be starting at this moment, as we are.
    let missed_from = Instant::now() + config.timeout.0.min(STARTING);
    loop {
        let asked = Instant::now();
        let state = daemon.state;
        match inquire(&config).await {
            Ok((status, healthy)) => {
                let passed = last
                    .replace(asked)
                    .map_or(Duration::ZERO, |last| asked - last);
                reading::read(
                    &mut daemon,
                    status,
                    healthy,
                    &mut before,
                    passed.as_secs_f64(),
                );
                daemon.seen = Some(seconds_now());
                daemon.error = None;
                if !config.can_be_steered() {
                    daemon.actions.clear();
                }
            }
            Err(_) if daemon.state == State::Unknown && Instant::now() < missed_from => {
                tokio::time::sleep(SOON).await;
                continue;
            }
            Err(why) => {
                last = None;
                daemon.state = State::Unreachable;
                daemon.error = Some(why);
                daemon.rates = Rates::default();
                // Nobody is connected to what is not there.
                daemon.connections = Connections {
                    present: 0,
                    ..daemon.connections
                };
                daemon.actions.clear();
                daemon.pools.clear();
            }
        }
        if daemon.state != state {
            daemon.since = seconds_now();
        }
        note(&mut daemon);
        fleet.publish(&config, daemon.clone());
        tokio::select! {
            () = tokio::time::sleep_until(asked + config.every.0) => {}
            () = hurry.notified() => tokio::time::sleep(SOON).await,
        }
    }
}

/// A status, and whether all is well.
async fn inquire(config: &YardConfig) -> Result<(Value, bool), String> {
    let requests = ["/status", "/healthz"].map(|path| (Method::GET, path, String::new()));
    let [status, health] = ask(&config.admin, requests, config.timeout.0, STATUS_MAX).await?;
    if !status.status.is_success() {
        return Err(format!("it answers /status with {}", status.status));
    }
    let value: Value = serde_json::from_slice(&status.body).map_err(|_| {
        "its /status is no JSON; is this the admin endpoint of a daemon?".to_owned()
    })?;
    if !value["daemon"].is_string() {
        return Err("its /status does not say which daemon it is".into());
    }
    Ok((value, health.status.is_success()))
}

/// Adds the figures of this moment to those of the last while.
fn note(daemon: &mut Daemon) {
    let (present, rates) = (daemon.connections.present, daemon.rates);
    let history = daemon.history.get_or_insert_default();
    push(&mut history.present, present);
    push(&mut history.work, rates.accepted + rates.datagrams);
    push(&mut history.received, rates.received_bytes);
    push(&mut history.sent, rates.sent_bytes);
}

fn push<T>(figures: &mut Vec<T>, figure: T) {
    if figures.len() >= HISTORY {
        figures.remove(0);
    }
    figures.push(figure);
}

/// A line in the log for each change, never one for each time that nobody answers.
fn tell(old: &Daemon, new: &Daemon) {
    let (name, from, to) = (&new.name, old.state.word(), new.state.word());
    let why = new.error.as_deref().unwrap_or_default();
    if matches!(new.state, State::Unreachable | State::Unhealthy) {
        tracing::warn!(daemon = %name, from, to, why, "a daemon of the yard is not well");
    } else {
        tracing::info!(daemon = %name, from, to, "a daemon of the yard");
    }
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Far more than a daemon with hundreds of listeners says.
const STATUS_MAX: usize = 4 << 20;
/// Two minutes at the default pace: what a chart of a card's width shows.
const HISTORY: usize = 60;
const CHANGES: usize = 50;
/// Those that are started together are there by then.
const STARTING: Duration = Duration::from_secs(2);
/// What an action does takes a moment, and so does a start.
const SOON: Duration = Duration::from_millis(200);
