//! How long things may take.

use std::future::Future;
use std::time::{Duration, Instant};

use portyard_core::exit::{Exit, Fatal};
use tokio::time::timeout_at;

/// The deadlines of a call.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Each step: a look-up, a connection, the next piece of an answer.
    pub step: Duration,
    /// The end of it all, and how long that was from the start.
    pub end: Option<(Instant, Duration)>,
}

impl Pace {
    /// When a step that begins at `start` must be over.
    pub fn deadline(&self, start: Instant) -> Instant {
        let step = start + self.step;
        self.end.map_or(step, |(end, _)| step.min(end))
    }

    /// What a step may take that begins now; an error when the end has come.
    pub fn left(&self) -> Result<Duration, Fatal> {
        let now = Instant::now();
        let left = self.deadline(now).saturating_duration_since(now);
        if left.is_zero() {
            return Err(self.over());
        }
        Ok(left)
    }

    /// Lets a step come to its end; `late` says what to tell when it does not.
    pub async fn step<T>(
        &self,
        step: impl Future<Output = T>,
        late: impl FnOnce() -> Fatal,
    ) -> Result<T, Fatal> {
        let deadline = self.deadline(Instant::now());
        match timeout_at(deadline.into(), step).await {
            Ok(done) => Ok(done),
            Err(_) => Err(self.late(late)),
        }
    }

    /// Why a step is late: it, or everything.
    pub fn late(&self, late: impl FnOnce() -> Fatal) -> Fatal {
        match self.end {
            Some((end, _)) if Instant::now() >= end => self.over(),
            _ => late(),
        }
    }

    fn over(&self) -> Fatal {
        let total = self.end.map_or(Duration::ZERO, |(_, total)| total);
        Fatal::new(
            Exit::TempFail,
            format!("it takes longer than {total:?} in all (--max-time); nothing waits any longer"),
        )
    }
}
