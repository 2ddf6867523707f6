//! A program for as long as its answer takes.

use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use portyard_core::sys::{child_descriptor, register_descriptor};
use tokio::process::Child;
use tokio::time::timeout;

/// A program that runs in a process group of its own. Dropping it ends the program and whatever that has
/// started there.
pub struct Running {
    /// Nobody waits for it, so that its number stays its own.
    pub child: Child,
    pid: Option<Pid>,
}

impl Running {
    /// Of one that has just been started.
    pub fn new(child: Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            child,
            pid: pid.map(Pid::from_raw),
        }
    }

    /// The signal that has ended the program, which has closed its output; `None` if it has ended by itself, or
    /// goes on without an output.
    pub async fn killed_by(&self) -> Option<Signal> {
        let pid = self.pid?;
        // The output of who dies is closed a moment before. Without a descriptor left nobody waits for that.
        if let Ok(ended) = child_descriptor(pid).and_then(register_descriptor) {
            let _ended = timeout(DYING, ended.readable()).await;
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(pid), flags) {
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(signal),
            _ => None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What it has left running ends with it, though it may have ended itself.
        if let Some(group) = self.pid {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// How long a program may take to end once it has closed its output, before it counts as one that goes on.
const DYING: Duration = Duration::from_millis(500);
