//! A process that we have started.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::ChildStderr;
use tokio::time::timeout;

/// A running process, the leader of a session of its own. It is waited for even when this is dropped,
/// but not ended then.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    pid: Pid,
    started: Instant,
    kill_after: Duration,
}

impl Child {
    /// A process that has just been started; `None` if it has been waited for already.
    pub(super) fn new(inner: tokio::process::Child, kill_after: Duration) -> Option<Self> {
        let pid = i32::try_from(inner.id()?).ok()?;
        Some(Self {
            inner,
            pid: Pid::from_raw(pid),
            started: Instant::now(),
            kill_after,
        })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How long it has run.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The reading end of its standard error, if that is a pipe; once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.inner.stderr.take()
    }

    /// Waits for its end. May be dropped and called again.
    pub async fn wait(&mut self) -> ExitStatus {
        // The kernel knows our own child until it has told us of its end.
        self.inner.wait().await.unwrap_or_default()
    }

    /// Ends it and what it has started: SIGTERM to the session's group, and SIGKILL when the process is
    /// still there after its time.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        if let Ok(status) = timeout(self.kill_after, self.wait()).await {
            return status;
        }
        tracing::warn!(pid = self.pid(), after = ?self.kill_after, "did not end after SIGTERM, killed");
        self.signal(Signal::SIGKILL);
        self.wait().await
    }

    /// Signals its group. Once it has been waited for, its number may be another's.
    fn signal(&self, signal: Signal) {
        if self.inner.id().is_none() {
            return;
        }
        // Without a group of its own it has not come as far as its session.
        if killpg(self.pid, signal).is_err() {
            let _ = kill(self.pid, signal);
        }
    }
}

/// An end in words: `exit 1`, `SIGKILL`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(Ok(signal))) => signal.as_str().into(),
        (None, _) => "unknown end".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{ProcessConfig, Program, Start};
    use portyard_core::config::Span;
    use portyard_testkit::eventually;

    fn shell(script: &str, kill_after: Span) -> Child {
        let config = ProcessConfig {
            kill_after,
            ..ProcessConfig::default()
        };
        let command = ["/bin/sh", "-c", script].map(String::from);
        let program = Program::new(&command, &config).unwrap();
        program.start(Start::default()).unwrap()
    }

    #[tokio::test]
    async fn an_end_is_told_in_words() {
        assert_eq!(
            describe(shell("exit 3", Span::secs(9)).wait().await),
            "exit 3"
        );
        assert_eq!(
            describe(shell("kill -9 $$", Span::secs(9)).wait().await),
            "SIGKILL"
        );
        let status = shell("exec sleep 100", Span::secs(100)).stop().await;
        assert_eq!(describe(status), "SIGTERM");
    }

    #[tokio::test]
    async fn who_ignores_sigterm_is_killed_with_all_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!(
            "trap '' TERM; sleep 100 & echo $! >{0}.x; mv {0}.x {0}; wait; wait",
            file.display()
        );
        let mut child = shell(&script, Span::millis(50));
        eventually("it ignores SIGTERM", || file.exists());
        assert_eq!(describe(child.stop().await), "SIGKILL");
        let other = std::fs::read_to_string(file).unwrap();
        let other = Pid::from_raw(other.trim().parse().unwrap());
        // Gone, or waiting for whoever inherits it to notice.
        let state = || std::fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        eventually("what it has started is gone", || {
            let state = state();
            state.is_empty() || state.contains(") Z")
        });
    }
}
