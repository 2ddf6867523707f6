//! What changes the store: one thread, or where there is no disk to wait for the callers' own.
//!
//! It takes every batch that was queued while the last commit reached the disk, tries them in order on
//! a [`Draft`], makes one commit of them, and only then lets readers see them, answers those who wait
//! and wakes watchers. So what is acknowledged is on the disk, and so is what anybody has read.
//!
//! An engine that keeps nothing needs no thread to wait in: a batch is applied where it is submitted,
//! under the same turn, and the thread only removes what has ended.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::batch::{Batch, Outcome};
use super::clock::Time;
use super::draft::{Draft, Settled};
use super::error::StoreError;
use super::history::History;
use super::index::Index;
use super::limits::Limits;
use super::load::panic_text;
use super::metrics::{Metrics, add};
use super::persistence::{Changes, Persistence};

/// Whether a store serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// A write has failed. Nothing more is acknowledged; reads go on from memory. The process should
    /// end, and begin again from what is on the disk.
    Failed(Arc<str>),
    /// It was closed, everything acknowledged is safe.
    Closed,
}

/// What watchers wait for.
#[derive(Debug, Clone)]
pub struct Status {
    pub revision: u64,
    pub health: Health,
    /// Nobody is to wait any more, though it goes on.
    pub dismissed: bool,
}

/// What the handles, the watchers and the committer share.
pub struct Shared {
    pub limits: Limits,
    pub time: Time,
    pub metrics: Metrics,
    view: RwLock<(Index, History)>,
    queue: Mutex<Queue>,
    work: Condvar,
    /// Whose turn it is to change something.
    turn: Mutex<()>,
    /// Whether the engine keeps nothing, so that nobody need wait.
    at_once: bool,
    status: watch::Sender<Status>,
    /// The health for those who wait for the end alone, whom no commit wakes.
    health: watch::Sender<Health>,
}

/// The answer that a batch will get.
pub type Promise = oneshot::Receiver<Result<Outcome, StoreError>>;

/// What became of a batch that was submitted.
pub enum Submitted {
    /// It is done.
    Done(Outcome),
    /// It waits for its commit.
    Queued(Promise),
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Of all batches that wait for an answer, those being committed among them.
    waiting: u64,
    bytes: u64,
    closed: bool,
    /// Something ends earlier than the thread knows.
    sooner: bool,
}

struct Job {
    batch: Batch,
    bytes: u64,
    answer: Answering,
}

type Answering = oneshot::Sender<Result<Outcome, StoreError>>;

impl Shared {
    pub fn new(index: Index, limits: Limits, time: Time, durable: bool) -> Self {
        let revision = index.state.revision;
        let status = Status {
            revision,
            health: Health::Serving,
            dismissed: false,
        };
        let shared = Self {
            limits,
            time,
            metrics: Metrics::default(),
            queue: Mutex::default(),
            work: Condvar::new(),
            turn: Mutex::default(),
            at_once: !durable,
            health: watch::Sender::new(Health::Serving),
            status: watch::Sender::new(status),
            view: RwLock::new((index, History::after(revision))),
        };
        shared.view(|index, _| shared.measure(index));
        shared
    }

    /// Queues a batch, or applies it where there is nothing to wait for.
    pub fn submit(&self, batch: Batch) -> Result<Submitted, StoreError> {
        let bytes = self.limits.admit(&batch)?;
        if self.at_once {
            return self.apply_now(batch, bytes).map(Submitted::Done);
        }
        let (answer, promise) = oneshot::channel();
        {
            let mut queue = self.queue();
            if queue.closed {
                return Err(self.refusal());
            }
            let bytes_after = queue.bytes.saturating_add(bytes);
            // One that is larger than the limit may go alone, or it could never go.
            let too_much = queue.waiting > 0 && bytes_after > self.limits.waiting_bytes;
            if queue.waiting >= self.limits.waiting || too_much {
                add(&self.metrics.busy, 1);
                return Err(StoreError::Busy);
            }
            queue.waiting += 1;
            queue.bytes = bytes_after;
            self.metrics.waiting.store(queue.waiting, Ordering::Relaxed);
            queue.jobs.push_back(Job {
                batch,
                bytes,
                answer,
            });
        }
        self.work.notify_one();
        Ok(Submitted::Queued(promise))
    }

    fn apply_now(&self, batch: Batch, bytes: u64) -> Result<Outcome, StoreError> {
        let _turn = self.turn();
        if self.queue().closed {
            return Err(self.refusal());
        }
        let (settled, answer, end_before) = self.view(|index, _| {
            let mut draft = Draft::new(index, &self.limits, self.time.now());
            draft.sweep(SWEEP_MAX);
            let answer = draft.run(batch, bytes);
            (draft.settle(), answer, index.next_end())
        });
        if !settled.events.is_empty() {
            self.metrics.batches_per_commit.observe(1);
            self.metrics
                .commit_microseconds
                .observe_duration(Duration::ZERO);
            add(&self.metrics.commits, 1);
            let end = self.publish(settled);
            if end.is_some_and(|end| end_before.is_none_or(|before| end < before)) {
                self.queue().sooner = true;
                self.work.notify_one();
            }
        }
        add(&self.metrics.batches, 1);
        if matches!(answer, Err(StoreError::Conflict { .. })) {
            add(&self.metrics.conflicts, 1);
        }
        answer
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // After a panic the committer has ended, and with it the store.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nothing more in; the committer ends when it has done what is queued.
    pub fn close(&self) {
        self.queue().closed = true;
        self.work.notify_one();
    }

    /// Looks at what is committed. No code that runs here may wait.
    pub fn view<T>(&self, look: impl FnOnce(&Index, &History) -> T) -> T {
        // The committer alone writes, and what it left after a panic is not served as healthy.
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        look(&view.0, &view.1)
    }

    /// Lets watchers go that wait.
    pub fn dismiss(&self) {
        self.status.send_modify(|status| status.dismissed = true);
    }

    /// Tells of every commit, and of the end.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The health now.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Waits until the store does not serve any more, and says why.
    pub async fn ended(&self) -> Health {
        let mut health = self.health.subscribe();
        let ended = health.wait_for(|health| *health != Health::Serving).await;
        // The sender is ours, so it is there.
        ended.map_or(Health::Closed, |health| health.clone())
    }

    /// Why nothing is let in.
    fn refusal(&self) -> StoreError {
        match self.health() {
            Health::Failed(reason) => StoreError::Failed {
                reason,
                maybe_applied: false,
            },
            Health::Serving | Health::Closed => StoreError::Closed,
        }
    }

    /// The committer's life.
    pub fn work(&self, mut engine: Box<dyn Persistence>) {
        let work = catch_unwind(AssertUnwindSafe(|| self.serve(&mut *engine)));
        match work.unwrap_or_else(|panic| Err(panic_text(&*panic))) {
            Ok(()) => match engine.close() {
                Ok(()) => self.end(Health::Closed),
                Err(reason) => self.end(Health::Failed(reason.into())),
            },
            Err(reason) => {
                self.end(Health::Failed(reason.into()));
                engine.abandon();
            }
        }
    }

    fn serve(&self, engine: &mut dyn Persistence) -> Result<(), String> {
        let durable = engine.durable();
        while let Some(jobs) = self.take() {
            let _turn = self.turn();
            let size = jobs.len() as u64;
            let bytes = jobs.iter().map(|job| job.bytes).sum::<u64>();
            let (settled, changes, answers) = self.run(jobs, durable);
            if !settled.events.is_empty() {
                let begin = Instant::now();
                // Dropping the answers tells those who wait that theirs may be on the disk.
                engine.commit(changes)?;
                self.metrics
                    .commit_microseconds
                    .observe_duration(begin.elapsed());
                self.metrics.batches_per_commit.observe(size);
                add(&self.metrics.commits, 1);
                self.publish(settled);
            }
            add(&self.metrics.batches, size);
            self.leave(size, bytes);
            for (answering, answer) in answers {
                if matches!(answer, Err(StoreError::Conflict { .. })) {
                    add(&self.metrics.conflicts, 1);
                }
                // Who asked may have gone meanwhile.
                let _ = answering.send(answer);
            }
        }
        Ok(())
    }

    /// Waits for batches or for an entry's end. `None` when the store is closed and all is done.
    fn take(&self) -> Option<VecDeque<Job>> {
        let next_end = self.view(|index, _| index.next_end());
        let wait = next_end.map_or(IDLE, |end| {
            let left = Duration::from_millis(end.saturating_sub(self.time.now()));
            left.min(SWEEP)
        });
        let queue = self.queue();
        let idle = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed && !queue.sooner;
        let waited = self.work.wait_timeout_while(queue, wait, idle);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.sooner = false;
        if queue.closed && queue.jobs.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut queue.jobs))
    }

    fn run(&self, jobs: VecDeque<Job>, durable: bool) -> (Settled, Changes, Vec<Answered>) {
        self.view(|index, _| {
            let mut draft = Draft::new(index, &self.limits, self.time.now());
            draft.sweep(SWEEP_MAX);
            let mut answers = Vec::with_capacity(jobs.len());
            for job in jobs {
                answers.push((job.answer, draft.run(job.batch, job.bytes)));
            }
            let changes = draft.changes(durable);
            (draft.settle(), changes, answers)
        })
    }

    /// Lets readers and watchers see what is committed, and says when the next entry ends.
    fn publish(&self, settled: Settled) -> Option<u64> {
        let revision = settled.state.revision;
        let next_end = {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            let (index, history) = &mut *view;
            for (key, record) in settled.changed {
                index.replace(&key, record);
            }
            index.state = settled.state;
            index.bytes = settled.bytes;
            history.add(settled.events, &self.limits);
            self.measure(index);
            index.next_end()
        };
        add(&self.metrics.expired, settled.expired);
        self.status.send_modify(|status| status.revision = revision);
        next_end
    }

    fn measure(&self, index: &Index) {
        let metrics = &self.metrics;
        metrics
            .revision
            .store(index.state.revision, Ordering::Relaxed);
        metrics.keys.store(index.state.count, Ordering::Relaxed);
        metrics.bytes.store(index.bytes, Ordering::Relaxed);
    }

    /// Counts batches as answered.
    fn leave(&self, batches: u64, bytes: u64) {
        let mut queue = self.queue();
        queue.waiting -= batches;
        queue.bytes -= bytes;
        self.metrics.waiting.store(queue.waiting, Ordering::Relaxed);
    }

    /// Takes nothing more, and refuses what has not begun.
    fn end(&self, health: Health) {
        // Watchers first: whoever hears that it is over finds them told.
        let told = health.clone();
        self.status.send_modify(|status| status.health = told);
        self.health.send_replace(health);
        let jobs = {
            let mut queue = self.queue();
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        for job in jobs {
            let _ = job.answer.send(Err(self.refusal()));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code runs under the lock that could panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answered = (Answering, Result<Outcome, StoreError>);

/// How long the committer sleeps when nothing will end.
const IDLE: Duration = Duration::from_secs(60);
/// How late an ended entry may be removed. The wall clock may be set, so the next end is looked at
/// that often.
const SWEEP: Duration = Duration::from_millis(250);
/// How many ended entries one commit removes, so that writers do not wait for all.
const SWEEP_MAX: usize = 1_000;
