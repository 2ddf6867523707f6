//! When to start a daemon again, and when to give up.

use std::process::ExitStatus;
use std::time::Duration;

use portyard_core::exit::Exit;

use super::child;

/// The memory of one daemon's failures.
#[derive(Debug)]
pub struct Policy {
    /// How long to wait after the next failure.
    delay: Duration,
    /// Ends in a row before READY.
    failed_starts: u8,
}

/// How one process ended.
#[derive(Debug)]
pub struct End {
    /// What the kernel says; `None`: it could not be started at all.
    pub status: Option<ExitStatus>,
    /// How long it was ready; `None`: it never was.
    pub ready_for: Option<Duration>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this long.
    Restart(Duration),
    /// Close the yard with this code, for this reason.
    GiveUp(Exit, &'static str),
}

impl Policy {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self {
            delay: FIRST_DELAY,
            failed_starts: 0,
        }
    }

    /// Decides after an end that nobody asked for.
    pub fn judge(&mut self, end: &End) -> Verdict {
        let exit = end.status.map_or(Exit::OsError, child::exit_code);
        match exit {
            // Trying again cannot help.
            Exit::Usage => return Verdict::GiveUp(exit, "refuses its command line"),
            Exit::Config => return Verdict::GiveUp(exit, "refuses its configuration"),
            _ => {}
        }
        match end.ready_for {
            None => self.failed_starts += 1,
            Some(healthy) => {
                self.failed_starts = 0;
                if healthy >= HEALTHY {
                    self.delay = FIRST_DELAY;
                }
            }
        }
        if self.failed_starts >= MAX_FAILED_STARTS {
            return Verdict::GiveUp(exit, "failed five times in a row before it was ready");
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(LAST_DELAY);
        Verdict::Restart(delay)
    }
}

/// A crash is over in a moment for clients, who wait in the listener's queue meanwhile.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// A daemon that keeps crashing costs next to nothing.
const LAST_DELAY: Duration = Duration::from_secs(10);
/// Ready this long, a daemon counts as well again.
const HEALTHY: Duration = Duration::from_secs(10);
const MAX_FAILED_STARTS: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn crash(ready_for: Option<u64>) -> End {
        End {
            status: Some(ExitStatus::from_raw(6)),
            ready_for: ready_for.map(Duration::from_millis),
        }
    }

    fn delays(policy: &mut Policy, end: &End, times: usize) -> Vec<u128> {
        (0..times)
            .map(|_| match policy.judge(end) {
                Verdict::Restart(delay) => delay.as_millis(),
                Verdict::GiveUp(..) => 0,
            })
            .collect()
    }

    #[test]
    fn a_refusal_is_final() {
        for (code, exit) in [(64, Exit::Usage), (78, Exit::Config)] {
            let end = End {
                status: Some(ExitStatus::from_raw(code << 8)),
                ready_for: Some(HEALTHY),
            };
            assert!(matches!(Policy::new().judge(&end), Verdict::GiveUp(e, _) if e == exit));
        }
    }

    #[test]
    fn the_fifth_failed_start_in_a_row_is_the_last() {
        let mut policy = Policy::new();
        assert_eq!(delays(&mut policy, &crash(None), 4), [100, 200, 400, 800]);
        assert_eq!(delays(&mut policy, &crash(Some(1)), 1), [1600]);
        assert_eq!(
            delays(&mut policy, &crash(None), 4),
            [3200, 6400, 10_000, 10_000]
        );
        assert!(matches!(
            policy.judge(&crash(None)),
            Verdict::GiveUp(Exit::Software, _)
        ));
    }

    #[test]
    fn health_makes_the_next_restart_quick_again() {
        let mut policy = Policy::new();
        assert_eq!(delays(&mut policy, &crash(Some(9_999)), 3), [100, 200, 400]);
        assert_eq!(delays(&mut policy, &crash(Some(10_000)), 2), [100, 100]);
    }
}
