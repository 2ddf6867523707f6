//! A running daemon.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::admin;
use crate::build::DaemonBuilder;
use crate::notify::Manager;
use crate::process::{Collector, Finished, POLL, eventually};

/// A running daemon. Dropping it kills it, and fails the test when its sandbox has denied it something,
/// unless that was expected.
pub struct Daemon {
    child: Arc<Mutex<Child>>,
    manager: Manager,
    stdout: Collector,
    stderr: Collector,
    config: PathBuf,
    directory: TempDir,
    expects_denials: AtomicBool,
    /// Dropping it calls off the end of its lifetime.
    _lifetime: mpsc::Sender<()>,
}

impl Daemon {
    /// A daemon of this binary, such as `env!("CARGO_BIN_EXE_echo-tcp")`.
    pub fn build(binary: impl AsRef<Path>) -> DaemonBuilder {
        DaemonBuilder::new(binary.as_ref())
    }

    pub(crate) fn new(
        mut child: Child,
        manager: Manager,
        directory: TempDir,
        config: PathBuf,
        lifetime: Duration,
    ) -> Self {
        let stdout = Collector::start(child.stdout.take());
        let stderr = Collector::start(child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        let (call_off, called_off) = mpsc::channel::<()>();
        let doomed = child.clone();
        thread::spawn(move || {
            if called_off.recv_timeout(lifetime) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("testkit: the daemon has lived for {lifetime:?} and is killed");
                let _ = lock(&doomed).kill();
            }
        });
        Self {
            child,
            manager,
            stdout,
            stderr,
            config,
            directory,
            expects_denials: AtomicBool::new(false),
            _lifetime: call_off,
        }
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        let start = Instant::now();
        while !self
            .notifications()
            .iter()
            .any(|message| has_line(message, "READY=1"))
        {
            if let Some(finished) = self.try_wait() {
                let Finished { code, stderr, .. } = finished;
                panic!("the daemon has ended with {code:?} instead of getting ready:\n{stderr}");
            }
            assert!(
                start.elapsed() < READY_WAIT,
                "the daemon is not ready:\n{}",
                self.log()
            );
            thread::sleep(POLL);
        }
    }

    /// A directory of this daemon's own, for sockets and files.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Where the first listener of that name listens, such as `tcp://127.0.0.1:35001`.
    #[track_caller]
    pub fn endpoint(&self, label: &str) -> String {
        let found = self.endpoints(label).into_iter().next();
        found.unwrap_or_else(|| panic!("no listener is called {label}: {:?}", self.notifications()))
    }

    /// The Internet address of the first listener of that name.
    #[track_caller]
    pub fn address(&self, label: &str) -> SocketAddr {
        let found = self.addresses(label).into_iter().next();
        found.unwrap_or_else(|| panic!("{label} has no address: {:?}", self.notifications()))
    }

    /// The Internet addresses of all listeners of that name.
    pub fn addresses(&self, label: &str) -> Vec<SocketAddr> {
        let address = |endpoint: &String| endpoint.split_once("://")?.1.parse().ok();
        self.endpoints(label).iter().filter_map(address).collect()
    }

    fn endpoints(&self, label: &str) -> Vec<String> {
        let endpoint = |line: &str| {
            let (name, endpoint) = line.strip_prefix("X_PORTYARD_LISTENER=")?.split_once('=')?;
            (name == label).then(|| endpoint.to_owned())
        };
        let messages = self.notifications();
        messages
            .iter()
            .flat_map(|message| message.lines())
            .filter_map(endpoint)
            .collect()
    }

    /// Asks the admin endpoint, which must be configured: status code and body.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        admin::get(&self.endpoint("admin"), path)
    }

    /// Asks the admin endpoint to do something: status code and body.
    #[track_caller]
    pub fn admin_post(&self, path: &str) -> (u16, String) {
        admin::ask(&self.endpoint("admin"), "POST", path)
    }

    /// The value on the metrics page that stands behind this name with its labels.
    #[track_caller]
    pub fn metric(&self, line: &str) -> f64 {
        let (code, page) = self.admin_get("/metrics");
        assert_eq!(code, 200, "{page}");
        let value = page
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{line} is missing in\n{page}"));
        value
            .parse()
            .unwrap_or_else(|error| panic!("{line} {value}: {error}"))
    }

    /// The value of a counter on the metrics page, or of a gauge that counts.
    #[track_caller]
    pub fn count(&self, line: &str) -> u64 {
        let value = self.metric(line);
        // Exact, as long as nothing is counted to 2^53.
        format!("{value}")
            .parse()
            .unwrap_or_else(|error| panic!("{line} {value}: {error}"))
    }

    /// The status page.
    #[track_caller]
    pub fn status(&self) -> Value {
        let (code, page) = self.admin_get("/status");
        assert_eq!(code, 200, "{page}");
        serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error} in\n{page}"))
    }

    /// The daemon's process, even when a wrapping command is our child.
    pub fn pid(&self) -> u32 {
        self.manager
            .sender()
            .unwrap_or_else(|| lock(&self.child).id())
    }

    /// Sends a signal to the daemon.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.raw_pid(), signal).unwrap_or_else(|errno| panic!("{signal}: {errno}"));
    }

    /// Ends the daemon with SIGTERM and waits for it.
    #[track_caller]
    pub fn terminate(&self) -> Finished {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Ends the daemon at once and waits for it.
    #[track_caller]
    pub fn kill(&self) -> Finished {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// Waits for the daemon to end by itself.
    #[track_caller]
    pub fn wait(&self) -> Finished {
        let start = Instant::now();
        loop {
            if let Some(finished) = self.try_wait() {
                return finished;
            }
            assert!(
                start.elapsed() < EXIT_WAIT,
                "the daemon does not end:\n{}",
                self.log()
            );
            thread::sleep(POLL);
        }
    }

    /// How the daemon has ended, if it has.
    pub fn try_wait(&self) -> Option<Finished> {
        let status = lock(&self.child)
            .try_wait()
            .expect("a child of ours can be waited for")?;
        let (stderr, stdout) = (self.stderr.end(), self.stdout.end());
        Some(Finished {
            code: status.code(),
            stderr,
            stdout,
        })
    }

    /// Writes another configuration into the daemon's file.
    #[track_caller]
    pub fn rewrite_config(&self, text: &str) {
        let path = self.config_path();
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The sandbox will deny this daemon something.
    pub fn expect_denials(&self) {
        self.expects_denials.store(true, Ordering::Relaxed);
    }

    /// The daemon's configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Makes the daemon read its configuration and waits until it has; what it says of the result.
    #[track_caller]
    pub fn reload(&self) -> String {
        let before = self.notifications().len();
        self.signal(Signal::SIGHUP);
        let mut status = String::new();
        let mut reloading = false;
        eventually("RELOADING=1, then READY=1", || {
            for message in self.notifications().into_iter().skip(before) {
                reloading |= has_line(&message, "RELOADING=1");
                if reloading && has_line(&message, "READY=1") {
                    let line = message
                        .lines()
                        .find_map(|line| line.strip_prefix("STATUS="));
                    status = line.unwrap_or_default().into();
                    return true;
                }
            }
            false
        });
        status
    }

    /// What the daemon has written to standard error so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the log holds a text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("a log line with {text:?}"), || {
            self.log().contains(text)
        });
    }

    /// What the daemon has told its service manager so far.
    pub fn notifications(&self) -> Vec<String> {
        self.manager.messages()
    }

    /// Waits until a notification holds a text.
    #[track_caller]
    pub fn wait_for_notification(&self, text: &str) {
        let found = || {
            self.notifications()
                .iter()
                .any(|message| message.contains(text))
        };
        eventually(&format!("a notification with {text:?}"), found);
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).expect("a process number fits"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // Once waited for, its number may be another's.
        if matches!(child.try_wait(), Ok(None)) {
            if let Some(sender) = self
                .manager
                .sender()
                .and_then(|pid| i32::try_from(pid).ok())
            {
                let _ = kill(Pid::from_raw(sender), Signal::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        } else {
            let unexpected = !self.expects_denials.load(Ordering::Relaxed);
            let denied = self.log().contains("the sandbox has denied");
            assert!(
                !(unexpected && denied),
                "denied by its sandbox:\n{}",
                self.log()
            );
        }
    }
}

fn has_line(message: &str, line: &str) -> bool {
    message.lines().any(|found| found == line)
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

const READY_WAIT: Duration = Duration::from_secs(30);
const EXIT_WAIT: Duration = Duration::from_secs(30);
