//! What the control thread does by the clock: feed the watchdog, look for certificates that run out,
//! and leave when an inetd has no work.

use std::time::Duration;

use tokio::time::{Instant as Deadline, sleep, sleep_until};

use super::Daemon;
use super::active::Active;
use crate::endpoint::Endpoint;

/// When to show the service manager that we live; never, if nobody watches.
pub struct Heartbeat {
    pub interval: Duration,
    next: Option<Deadline>,
}

impl Heartbeat {
    pub fn new(interval: Option<Duration>) -> Self {
        let next = interval.map(|interval| Deadline::now() + interval);
        Self {
            interval: interval.unwrap_or(Duration::MAX),
            next,
        }
    }

    pub async fn beat(&mut self) {
        match self.next {
            Some(next) => {
                sleep_until(next).await;
                self.next = Some(Deadline::now() + self.interval);
            }
            None => std::future::pending().await,
        }
    }
}

/// When to look again at what runs out.
pub struct ExpiryWatch(Deadline);

impl ExpiryWatch {
    pub fn new() -> Self {
        Self(Deadline::now() + DAY)
    }

    /// Returns once a day.
    pub async fn look(&mut self) {
        sleep_until(self.0).await;
        self.0 = Deadline::now() + DAY;
    }
}

/// Whether an inetd's `wait` server has had nothing to do for long enough to leave.
pub struct IdleWatch {
    limit: Option<Duration>,
    seen: u64,
    since: Deadline,
}

impl IdleWatch {
    pub fn new<D: Daemon>(active: &[Active<D>], limit: Duration, one_connection: bool) -> Self {
        let is_inetd = |active: &Active<D>| active.endpoint == Endpoint::Inetd;
        let from_inetd = !active.is_empty() && active.iter().all(is_inetd);
        let limit = (from_inetd && !one_connection && !limit.is_zero()).then_some(limit);
        Self {
            limit,
            seen: 0,
            since: Deadline::now(),
        }
    }

    /// Returns when it is time to look again.
    pub async fn look(&self) {
        match self.limit {
            Some(limit) => sleep((limit / 8).clamp(LOOK_MIN, LOOK_MAX)).await,
            None => std::future::pending().await,
        }
    }

    pub fn is_over<D: Daemon>(&mut self, active: &[Active<D>]) -> bool {
        let work = |active: &Active<D>| {
            let metrics = &active.listener.metrics;
            (
                metrics.accepted.get() + metrics.datagrams.get(),
                active.listener.gate.present(),
            )
        };
        let (count, present) = active
            .iter()
            .map(work)
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if count != self.seen || present > 0 {
            (self.seen, self.since) = (count, Deadline::now());
        }
        self.limit
            .is_some_and(|limit| self.since.elapsed() >= limit)
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(1);
