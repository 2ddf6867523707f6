//! The thread outside of the sandbox, for what cannot be done in it.
//!
//! It runs closures of the daemon's own, one after the other: a program that starts must not inherit
//! the sandbox, and landlock never lets a process look into one that is not in it. As a thread of the
//! process it is no wall against somebody who already runs code of his own in it; it is one against
//! every mistake that makes a daemon open, start or signal what it should not.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{OnceLock, mpsc};
use std::thread;

use super::filter::Filters;

type Job = Box<dyn FnOnce() + Send>;

static JOBS: OnceLock<mpsc::Sender<Job>> = OnceLock::new();

/// Starts the thread; once in the life of a process. It installs `filters` on itself first, if any.
pub fn start(filters: Option<Filters>) -> io::Result<()> {
    let (jobs, given) = mpsc::channel::<Job>();
    let (began, begun) = mpsc::channel();
    thread::Builder::new()
        .name("outside".into())
        .spawn(move || {
            let installed = filters.map_or(Ok(()), |filters| super::install(&filters));
            let works = installed.is_ok();
            // Its starter waits for it.
            let _ = began.send(installed);
            if works {
                while let Ok(job) = given.recv() {
                    job();
                }
            }
        })?;
    begun.recv().map_err(io::Error::other)??;
    let _ = JOBS.set(jobs);
    Ok(())
}

/// Runs `work` outside and waits for it; here, where there is no sandbox. Blocks: not for what takes
/// longer than a fork. A panic of the work's is the caller's.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(jobs) = JOBS.get() else {
        return work();
    };
    let (answer, answered) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        // The channel has room for the answer, and its other end waits for it.
        let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
    });
    if let Err(mpsc::SendError(job)) = jobs.send(job) {
        // The thread is gone, with the process about to follow.
        job();
    }
    match answered.recv() {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(gone) => resume_unwind(Box::new(gone)),
    }
}
