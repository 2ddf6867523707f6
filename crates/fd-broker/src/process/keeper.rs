//! A program that is kept running.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use portyard_core::config::Span;
use serde::{Deserialize, Serialize};
use tokio::process::ChildStderr;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::program::{Program, Start, StartError};

/// The `restart` table of whatever is kept running.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartConfig {
    /// How long to wait before a program that has ended is started again.
    pub delay: Span,
    /// The wait doubles with each end, up to this.
    pub delay_max: Span,
    /// A program that has run this long is well: the wait begins anew.
    pub healthy: Span,
}

/// The wait before the next start: it grows with each short run and begins anew after a long one.
#[derive(Debug, Clone)]
pub struct Backoff {
    config: RestartConfig,
    next: Duration,
}

/// What happens to a program that is kept running.
#[derive(Debug)]
pub enum Event {
    /// A process runs: its number, and the pipe of its standard error if that goes to the log.
    Started(i32, Option<ChildStderr>),
    /// It has ended by itself after this time, and the next is started after the wait.
    Ended {
        /// Its number.
        pid: i32,
        /// How it ended.
        status: ExitStatus,
        /// How long it ran.
        ran: Duration,
        /// How long is waited.
        wait: Duration,
    },
    /// It could not be started, and the next try is after the wait.
    Failed(StartError, Duration),
    /// It has ended because it was asked to.
    Stopped(i32, ExitStatus),
}

/// Keeps one process of a program running.
pub struct Keeper<F> {
    /// The program.
    pub program: Arc<Program>,
    /// The waits.
    pub backoff: Backoff,
    /// Makes what each process is given.
    pub start: F,
}

impl<F: FnMut() -> std::io::Result<Start>> Keeper<F> {
    /// Starts the program, again and again, until `stop` is cancelled; then ends it in order.
    pub async fn run(mut self, stop: CancellationToken, mut tell: impl FnMut(Event)) {
        while !stop.is_cancelled() {
            let started = (self.start)().map_err(|error| StartError::Process {
                program: self.program.path(),
                error,
            });
            let wait = match started.and_then(|start| self.program.start(start)) {
                Ok(mut child) => {
                    let pid = child.pid();
                    tell(Event::Started(pid, child.take_stderr()));
                    let status = tokio::select! {
                        status = child.wait() => status,
                        () = stop.cancelled() => {
                            let status = child.stop().await;
                            return tell(Event::Stopped(pid, status));
                        }
                    };
                    let ran = child.age();
                    let wait = self.backoff.after(ran);
                    tell(Event::Ended {
                        pid,
                        status,
                        ran,
                        wait,
                    });
                    wait
                }
                Err(error) => {
                    let wait = self.backoff.after(Duration::ZERO);
                    tell(Event::Failed(error, wait));
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

impl Backoff {
    /// Nothing has ended yet.
    pub fn new(config: RestartConfig) -> Self {
        let next = config.delay.0;
        Self { config, next }
    }

    /// How long to wait after a process that ran for `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= self.config.healthy.0 {
            self.next = self.config.delay.0;
        }
        let wait = self.next.min(self.config.delay_max.0);
        self.next = (wait * 2).min(self.config.delay_max.0);
        wait
    }
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self {
            delay: Span::millis(100),
            delay_max: Span::secs(30),
            healthy: Span::secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{ProcessConfig, describe};

    fn backoff(delay: u64) -> Backoff {
        Backoff::new(RestartConfig {
            delay: Span::millis(delay),
            ..RestartConfig::default()
        })
    }

    #[test]
    fn the_wait_grows_with_each_short_run_and_begins_anew_after_a_long_one() {
        let mut backoff = backoff(100);
        let mut waits = |runs: u32, ran: u64| -> Vec<u128> {
            let ran = Duration::from_secs(ran);
            (0..runs).map(|_| backoff.after(ran).as_millis()).collect()
        };
        assert_eq!(waits(4, 0), [100, 200, 400, 800]);
        assert_eq!(waits(1, 9), [1600]);
        assert_eq!(waits(8, 0)[7], 30_000);
        assert_eq!(waits(2, 10), [100, 100]);
    }

    fn keeper(command: &[&str]) -> Keeper<impl FnMut() -> std::io::Result<Start>> {
        let command: Vec<String> = command.iter().map(|word| (*word).into()).collect();
        Keeper {
            program: Program::new(&command, &ProcessConfig::default())
                .unwrap()
                .into(),
            backoff: backoff(1),
            start: || Ok(Start::default()),
        }
    }

    #[tokio::test]
    async fn what_ends_is_started_again_and_what_is_asked_to_end_is_not() {
        let stop = CancellationToken::new();
        let (mut ends, mut starts) = (0, 0);
        let keeper = keeper(&["/bin/sh", "-c", "exit 7"]);
        keeper
            .run(stop.clone(), |event| match event {
                Event::Started(..) => {
                    starts += 1;
                    if starts == 4 {
                        stop.cancel();
                    }
                }
                Event::Ended { status, .. } => {
                    assert_eq!(describe(status), "exit 7");
                    ends += 1;
                }
                Event::Failed(error, _) => panic!("{error}"),
                Event::Stopped(..) => {}
            })
            .await;
        assert_eq!(starts, 4);
        assert!(ends >= 3);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_tried_again_with_growing_waits() {
        let stop = CancellationToken::new();
        let mut waits = Vec::new();
        keeper(&["/nonexistent"])
            .run(stop.clone(), |event| {
                let Event::Failed(_, wait) = event else {
                    panic!("{event:?}");
                };
                waits.push(wait.as_millis());
                if waits.len() == 5 {
                    stop.cancel();
                }
            })
            .await;
        assert_eq!(waits, [1, 2, 4, 8, 16]);
    }
}
