//! One daemon of the yard, kept running until the yard closes.

use std::time::Duration;

use portyard_core::exit::Fatal;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::child;
use super::log::Log;
use super::notify::{Inbox, Notice};
use super::outfit::Outfit;
use super::policy::{End, Policy, Verdict};
use super::sockets::Berth;

/// What the yard as a whole is doing; only ever goes on to a later phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Daemons run, and run again when they end.
    Open,
    /// Daemons finish what they do and end.
    Drain,
    /// Daemons end now.
    Kill,
}

impl Phase {
    /// The first signal drains, the second kills.
    pub fn after_signal(self) -> Self {
        match self {
            Self::Open => Self::Drain,
            Self::Drain | Self::Kill => Self::Kill,
        }
    }
}

/// What it takes to keep one daemon.
pub struct Keeper {
    /// The daemon and its sockets, open as long as this lives.
    pub berth: Berth,
    /// Its configuration.
    pub outfit: Outfit,
    /// What it says.
    pub notices: Inbox,
    /// Where its lines go.
    pub log: Log,
    /// The yard's phase.
    pub phase: watch::Receiver<Phase>,
    /// Told the daemon's name each time it becomes ready.
    pub ready: mpsc::Sender<&'static str>,
}

/// Why one process of the daemon is over.
enum Over {
    /// The yard closes.
    Asked,
    /// It ended by itself; what it said last.
    Ended(End, String),
}

impl Keeper {
    /// Starts the daemon, again and again, until the yard closes or the daemon is given up.
    pub async fn keep(mut self) -> Result<(), Fatal> {
        let daemon = self.berth.daemon;
        let mut policy = Policy::new();
        while *self.phase.borrow() == Phase::Open {
            let Over::Ended(end, last_line) = self.run_once().await else {
                break;
            };
            let how = end.status.map_or("not started".into(), child::describe);
            match policy.judge(&end) {
                Verdict::GiveUp(exit, why) => {
                    let said = if last_line.is_empty() { "" } else { ": " };
                    let message = format!("{daemon} {why} ({how}){said}{last_line}");
                    return Err(Fatal::new(exit, message));
                }
                Verdict::Restart(delay) => {
                    let text = format!("ended unexpectedly ({how}); starting again in {delay:?}");
                    self.log.line(daemon, &text);
                    tokio::select! {
                        () = sleep(delay) => {}
                        // The only change is towards the end.
                        _ = self.phase.changed() => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// One process from its start to its end.
    async fn run_once(&mut self) -> Over {
        let daemon = self.berth.daemon;
        // What an earlier process said last is not about this one.
        self.notices.waiting();
        let started = self
            .outfit
            .lay_out()
            .and_then(|()| child::start(&self.berth, self.outfit.path(), self.notices.path()));
        let mut process = match started {
            Ok(process) => process,
            Err(error) => {
                let message = format!("cannot be started: {error}");
                self.log.line(daemon, &message);
                let end = End {
                    status: None,
                    ready_for: None,
                };
                return Over::Ended(end, message);
            }
        };
        let output = process.stdout.take();
        let errors = process.stderr.take();
        let follow_output = output.map(|pipe| tokio::spawn(self.log.clone().follow(daemon, pipe)));
        let follow_errors = errors.map(|pipe| tokio::spawn(self.log.clone().follow(daemon, pipe)));
        let (status, ready_at) = self.watch(&mut process).await;
        finish(follow_output).await;
        let last_line = finish(follow_errors).await;
        if *self.phase.borrow() > Phase::Open {
            let how = status.map_or("unknown".into(), child::describe);
            self.log.line(daemon, &format!("closed ({how})"));
            return Over::Asked;
        }
        let end = End {
            status,
            ready_for: ready_at.map(|at| at.elapsed()),
        };
        Over::Ended(end, last_line)
    }

    /// Waits for the end of the process, while listening to it and to the yard.
    async fn watch(
        &mut self,
        process: &mut Child,
    ) -> (Option<std::process::ExitStatus>, Option<Instant>) {
        let daemon = self.berth.daemon;
        let mut ready_at = None;
        let mut handled = Phase::Open;
        // The next moment at which patience ends: for READY, or for draining.
        let mut patience = Some(Instant::now() + READY_DEADLINE);
        loop {
            let phase = *self.phase.borrow_and_update();
            if phase > handled {
                handled = phase;
                if phase == Phase::Kill {
                    child::kill_group(process);
                } else {
                    child::terminate(process);
                    patience = Some(Instant::now() + DRAIN_DEADLINE);
                }
            }
            tokio::select! {
                status = process.wait() => {
                    // READY and the end may come in one moment.
                    let notices = self.notices.waiting();
                    self.hear(notices, &mut ready_at).await;
                    return (status.ok(), ready_at);
                }
                Ok(notices) = self.notices.next() => {
                    self.hear(notices, &mut ready_at).await;
                    if ready_at.is_some() && handled == Phase::Open {
                        patience = None;
                    }
                }
                Ok(()) = self.phase.changed() => {}
                () = until(patience) => {
                    let late = match handled {
                        Phase::Open => format!("not ready (READY=1) within {READY_DEADLINE:?}: killed"),
                        _ => format!("not drained within {DRAIN_DEADLINE:?}: killed"),
                    };
                    self.log.line(daemon, &late);
                    child::kill_group(process);
                    patience = None;
                }
            }
        }
    }

    async fn hear(&self, notices: Vec<Notice>, ready_at: &mut Option<Instant>) {
        let daemon = self.berth.daemon;
        for notice in notices {
            match notice {
                Notice::Ready if ready_at.is_none() => {
                    *ready_at = Some(Instant::now());
                    // The yard listens as long as it has keepers.
                    let _ = self.ready.send(daemon).await;
                }
                // It was told to; or it ends by itself, which its end will tell.
                Notice::Ready | Notice::Stopping => {}
                Notice::Status(status) => self.log.line(daemon, &format!("status: {status}")),
            }
        }
    }
}

/// Never, if there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Reads what is left in a pipe of an ended process; whoever else holds it open is not waited for.
async fn finish(follower: Option<JoinHandle<String>>) -> String {
    let Some(mut follower) = follower else {
        return String::new();
    };
    if let Ok(last) = timeout(LAST_WORDS, &mut follower).await {
        last.unwrap_or_default()
    } else {
        follower.abort();
        String::new()
    }
}

const READY_DEADLINE: Duration = Duration::from_secs(10);
/// Longer than the 9 s of grace that a daemon gives its connections by default.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);
const LAST_WORDS: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_kills() {
        assert_eq!(Phase::Open.after_signal(), Phase::Drain);
        assert_eq!(Phase::Drain.after_signal(), Phase::Kill);
        assert_eq!(Phase::Kill.after_signal(), Phase::Kill);
        assert!(Phase::Open < Phase::Drain && Phase::Drain < Phase::Kill);
    }
}
