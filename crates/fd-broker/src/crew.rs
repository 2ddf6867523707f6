//! The crew: programs of `[[worker]]` tables, kept running as workers.
//!
//! A worker needs not be a child of the broker's; these are, so that nobody else has to start them. They
//! connect as any other. All of this runs on the control thread; the processes themselves
//! are made by the thread outside of the sandbox, to whose life a program's is bound.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_core::wire::escape::escape;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::pool::is_name;
use crate::process::{
    Backoff, Event, Keeper, ProcessConfig, Program, RestartConfig, Said, Start, Stderr, describe,
    follow,
};

/// A `[[worker]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Its name, in the log and in the variable `FD_BROKER_WORKER` with the process's number behind it.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How many processes of it.
    #[serde(default = "one")]
    pub count: NonZeroU16,
    /// What each process is given.
    #[serde(default)]
    pub process: ProcessConfig,
    /// The waits before one that has ended is started again.
    #[serde(default)]
    pub restart: RestartConfig,
}

/// All programs that are kept running. Cheap to clone.
#[derive(Clone, Default)]
pub struct Crew(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    wanted: Vec<WorkerConfig>,
    running: BTreeMap<String, Running>,
    stopping: bool,
}

struct Running {
    config: WorkerConfig,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// The processes that run now.
    pids: Arc<Mutex<BTreeSet<i32>>>,
    /// How often one was started again.
    restarts: Arc<Mutex<u64>>,
}

impl WorkerConfig {
    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if !is_name(name) {
            return Err(format!(
                "[[worker]]: name = {name:?} is no name; write 1 to 64 letters, digits and . _ -"
            ));
        }
        if self.process.stderr == Stderr::Peer {
            return Err(format!(
                "[[worker]] {name}: process.stderr = \"peer\" is for programs that talk to a client; \
                 write \"log\" or \"null\""
            ));
        }
        let program = Program::new(&self.command, &self.process);
        program.map_err(|message| format!("[[worker]] {name}: {message}"))?;
        Ok(())
    }
}

impl Crew {
    /// Takes tables over, which have been checked.
    pub fn plan(&self, workers: &[WorkerConfig]) {
        self.lock().wanted = workers.to_vec();
    }

    /// Starts what is new, ends what is gone, and starts again what has changed. To be called on the
    /// control thread, once there is something to connect to.
    pub fn set_to_work(&self) {
        let mut state = self.lock();
        if state.stopping {
            return;
        }
        let wanted = state.wanted.clone();
        state.running.retain(|_, running| {
            let stays = wanted.contains(&running.config);
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        for config in wanted {
            if !state.running.contains_key(&config.name) {
                let name = config.name.clone();
                state.running.insert(name, Running::start(config));
            }
        }
    }

    /// Ends all of them, and returns when they are gone.
    pub async fn stop(&self) {
        let running = {
            let mut state = self.lock();
            state.stopping = true;
            std::mem::take(&mut state.running)
        };
        for one in running.values() {
            one.stop.cancel();
        }
        for task in running.into_values().flat_map(|one| one.tasks) {
            let _ = task.await;
        }
    }

    /// Whether a process is ours.
    pub fn has(&self, pid: i32) -> bool {
        self.lock()
            .running
            .values()
            .any(|one| lock(&one.pids).contains(&pid))
    }

    /// All processes.
    pub fn processes(&self) -> BTreeSet<i32> {
        let state = self.lock();
        let all = state
            .running
            .values()
            .flat_map(|one| lock(&one.pids).clone());
        all.collect()
    }

    /// Kills a process if it is ours, and has not been waited for.
    pub fn kill(&self, pid: i32) -> bool {
        let state = self.lock();
        for one in state.running.values() {
            // Held, so that it is not waited for meanwhile: its number stays its own.
            let pids = lock(&one.pids);
            if pids.contains(&pid) {
                return kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
            }
        }
        false
    }

    /// What the status says of them.
    pub fn status(&self) -> Value {
        let describe = |one: &Running| {
            json!({
                "name": one.config.name,
                "command": one.config.command,
                "count": one.config.count,
                "pids": *lock(&one.pids),
                "restarts": *lock(&one.restarts),
            })
        };
        self.lock().running.values().map(describe).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Running {
    fn start(config: WorkerConfig) -> Self {
        let (stop, pids, restarts) = (CancellationToken::new(), Arc::default(), Arc::default());
        let mut tasks = Vec::new();
        // Checked with the configuration; users may have gone since.
        match Program::new(&config.command, &config.process) {
            Ok(program) => {
                let program = Arc::new(program);
                for number in 1..=config.count.get() {
                    let member = Member {
                        name: format!("{}-{number}", config.name),
                        program: program.clone(),
                        backoff: Backoff::new(config.restart.clone()),
                        pids: Arc::clone(&pids),
                        restarts: Arc::clone(&restarts),
                    };
                    tasks.push(tokio::task::spawn_local(member.keep(stop.clone())));
                }
            }
            Err(error) => tracing::error!(worker = %config.name, error, "cannot be started"),
        }
        Self {
            config,
            stop,
            tasks,
            pids,
            restarts,
        }
    }
}

/// One process that is kept running.
struct Member {
    name: String,
    program: Arc<Program>,
    backoff: Backoff,
    pids: Arc<Mutex<BTreeSet<i32>>>,
    restarts: Arc<Mutex<u64>>,
}

impl Member {
    async fn keep(self, stop: CancellationToken) {
        let Self {
            name,
            program,
            backoff,
            pids,
            restarts,
        } = self;
        let (variable, stderr) = (name.clone(), program.stderr());
        let start = move || {
            Ok(Start {
                stderr: Some(match stderr {
                    Stderr::Log => Stdio::piped(),
                    Stderr::Null | Stderr::Peer => Stdio::null(),
                }),
                environment: vec![("FD_BROKER_WORKER", variable.clone())],
                ..Start::default()
            })
        };
        let keeper = Keeper {
            program,
            backoff,
            start,
        };
        let tell = |event| match event {
            Event::Started(pid, errors) => {
                lock(&pids).insert(pid);
                tracing::info!(worker = %name, pid, "started");
                if let Some(errors) = errors {
                    tokio::task::spawn_local(tell_errors(errors, name.clone(), pid));
                }
            }
            Event::Ended {
                pid,
                status,
                ran,
                wait,
            } => {
                lock(&pids).remove(&pid);
                *lock(&restarts) += 1;
                let end = describe(status);
                tracing::warn!(worker = %name, pid, %end, ?ran, ?wait, "has ended, is started again");
            }
            Event::Failed(error, wait) => {
                tracing::error!(worker = %name, ?wait, "{error}");
            }
            Event::Stopped(pid, status) => {
                lock(&pids).remove(&pid);
                tracing::info!(worker = %name, pid, end = %describe(status), "stopped");
            }
        };
        keeper.run(stop, tell).await;
    }
}

/// Puts what a worker writes to standard error into the log.
async fn tell_errors(errors: ChildStderr, name: String, pid: i32) {
    follow(errors, |said| match said {
        Said::Line(line) => {
            tracing::warn!(worker = %name, pid, "{}", escape(line, line.len()));
        }
        Said::Held(held) => tracing::warn!(worker = %name, pid, held, "lines left out"),
    })
    .await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one step; a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one() -> NonZeroU16 {
    NonZeroU16::MIN
}
