//! A small pool of threads for work that would stall a loop, with a bounded queue.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

/// A handle to the pool. When the last one is gone, what has not begun is forgotten, and the threads
/// end.
#[derive(Clone)]
pub struct Offload {
    queue: Arc<Queue>,
    /// Joined by whoever drops the last handle.
    _threads: Arc<Threads>,
}

/// The pool has as many jobs waiting as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much work is waiting; try again later")]
pub struct Busy;

/// A job on the pool, and its result once it is done. Dropping it does not stop the job.
#[derive(Debug)]
pub struct Step<T>(oneshot::Receiver<T>);

type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    state: Mutex<State>,
    work: Condvar,
    limit: usize,
}

struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Threads {
    queue: Arc<Queue>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Offload {
    /// A pool of `threads` threads before which at most `limit` jobs wait.
    pub fn new(threads: NonZeroU16, limit: u32) -> std::io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                closed: false,
            }),
            work: Condvar::new(),
            limit: limit as usize,
        });
        let mut handles = Vec::new();
        for number in 0..threads.get() {
            let queue = queue.clone();
            let name = format!("offload-{number}");
            handles.push(
                thread::Builder::new()
                    .name(name)
                    .spawn(move || queue.work())?,
            );
        }
        let threads = Arc::new(Threads {
            queue: queue.clone(),
            handles: Mutex::new(handles),
        });
        Ok(Self {
            queue,
            _threads: threads,
        })
    }

    /// Runs `job` on the pool and returns its result; `Err(Busy)` when too many wait already, or
    /// when the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        self.queue.push(job, self.queue.limit)?.await
    }

    /// Begins the next step of work whose first step [`Offload::run`] has let in, while the caller
    /// does something else. It is never refused, so that what has begun can end; each caller has at
    /// most one at a time, which bounds the queue by their number.
    pub fn go_on<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Step<T> {
        match self.queue.push(job, usize::MAX) {
            Ok(step) => step,
            // No queue is that long; the step then fails as one that panicked.
            Err(Busy) => Step(oneshot::channel().1),
        }
    }

    /// How many jobs are waiting for a thread.
    pub fn waiting(&self) -> usize {
        self.queue.lock().jobs.len()
    }
}

impl<T> Future for Step<T> {
    type Output = Result<T, Busy>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| Busy)
    }
}

impl Queue {
    /// Queues a job, unless `limit` are waiting.
    fn push<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        limit: usize,
    ) -> Result<Step<T>, Busy> {
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.jobs.len() >= limit {
                return Err(Busy);
            }
            state.jobs.push_back(Box::new(move || {
                // Who asked may have gone meanwhile; then nobody needs the result.
                let _ = send.send(job());
            }));
        }
        self.work.notify_one();
        Ok(Step(receive))
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.closed {
                    return;
                }
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            // A panic must not cost the pool a thread; the asker sees its channel close.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code runs under the lock that could panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        {
            let mut state = self.queue.lock();
            state.closed = true;
            // Nobody is left to wait for what has not begun.
            state.jobs.clear();
        }
        self.queue.work.notify_all();
        let handles =
            std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in handles {
            // The last handle may be dropped by a job itself; a thread cannot join itself.
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_full_queue_refuses_and_recovers() {
        let pool = Offload::new(NonZeroU16::MIN, 1).unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = started.send(());
                    let _ = blocked.recv();
                    1
                })
                .await
            }
        });
        start.await.unwrap();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|| 2).await }
        });
        while pool.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 3).await, Err(Busy));
        let step = pool.go_on(|| 4);
        release.send(()).unwrap();
        assert_eq!(running.await.unwrap(), Ok(1));
        assert_eq!(waiting.await.unwrap(), Ok(2));
        assert_eq!(step.await, Ok(4));
    }

    #[tokio::test]
    async fn a_panicking_job_costs_no_thread() {
        let pool = Offload::new(NonZeroU16::MIN, 4).unwrap();
        assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(Busy));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }
}
