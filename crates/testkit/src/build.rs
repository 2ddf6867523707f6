//! How a daemon is to be started.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::notify::Manager;
use crate::peers::peer;
use crate::process::{Finished, finish};

/// A daemon that has not been started yet.
pub struct DaemonBuilder {
    binary: PathBuf,
    directory: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    wrap: Vec<String>,
    nofile: Option<u64>,
    passed: Vec<(OwnedFd, String)>,
    stdin: Option<OwnedFd>,
    lifetime: Duration,
}

impl DaemonBuilder {
    pub(crate) fn new(binary: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("portyard-test-").tempdir();
        Self {
            binary: binary.into(),
            directory: directory.expect("a temporary directory can be made"),
            arguments: Vec::new(),
            variables: Vec::new(),
            wrap: Vec::new(),
            nofile: None,
            passed: Vec::new(),
            stdin: None,
            lifetime: LIFETIME,
        }
    }

    /// A directory of this daemon's own, for sockets and files; it goes when the daemon goes.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// One argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Several arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// A configuration: written to a file, which is passed with `--config`.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        let path = self.config_path();
        if !path.exists() {
            self.arguments.push("--config".into());
            self.arguments.push(path.display().to_string());
        }
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self
    }

    /// A listener, such as `tcp://127.0.0.1:0=echo`, passed with `--listen`.
    #[must_use]
    pub fn listen(self, listener: impl Into<String>) -> Self {
        self.arg("--listen").arg(listener)
    }

    /// At most so many descriptors, by `prlimit`.
    #[must_use]
    pub fn nofile(mut self, limit: u64) -> Self {
        self.nofile = Some(limit);
        self
    }

    /// A command that starts the daemon, such as `strace` with its options.
    #[must_use]
    pub fn wrap<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.wrap = command.into_iter().map(Into::into).collect();
        self
    }

    /// A socket passed as systemd does: the next descriptor from 3 on, with a name.
    #[must_use]
    pub fn pass(mut self, socket: impl Into<OwnedFd>, name: &str) -> Self {
        self.passed.push((socket.into(), name.into()));
        self
    }

    /// What becomes descriptor 0, as an inetd leaves it there.
    #[must_use]
    pub fn stdin(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(socket.into());
        self
    }

    /// How long the daemon may live; after that it is killed, so that no test hangs on it.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Starts the daemon and waits until it says that it is ready; panics with its standard error
    /// when it ends instead.
    #[track_caller]
    pub fn start(mut self) -> Daemon {
        let manager = Manager::start(self.dir());
        let stdin = self.stdin.take().map_or_else(Stdio::null, Stdio::from);
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", manager.path());
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.binary.display()));
        // The command holds our copies of what was passed.
        drop(command);
        let config = self.config_path();
        let daemon = Daemon::new(child, manager, self.directory, config, self.lifetime);
        daemon.wait_until_ready();
        daemon
    }

    /// Runs the program to its end, for what answers and exits, such as `--check`.
    #[track_caller]
    pub fn run(mut self) -> Finished {
        let mut command = self.command();
        finish(&mut command, b"")
    }

    fn config_path(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    fn command(&mut self) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(limit) = self.nofile {
            words.push(peer("prlimit").display().to_string());
            words.extend([format!("--nofile={limit}:{limit}"), "--".into()]);
        }
        if let Some((program, rest)) = self.wrap.split_first() {
            words.push(peer(program).display().to_string());
            words.extend_from_slice(rest);
        }
        if !self.passed.is_empty() {
            // Only the process itself knows the number it will have.
            let shell = ["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"];
            words.extend(shell.map(String::from));
        }
        words.push(self.binary.display().to_string());
        words.append(&mut self.arguments.clone());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for name in OURS_TO_SET {
            command.env_remove(name);
        }
        if !self.passed.is_empty() {
            let names: Vec<_> = self.passed.iter().map(|(_, name)| name.clone()).collect();
            command.env("LISTEN_FDS", names.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
            let mappings = (3..)
                .zip(self.passed.drain(..))
                .map(|(child_fd, (parent_fd, _))| FdMapping {
                    parent_fd,
                    child_fd,
                });
            let mapped = command.fd_mappings(mappings.collect());
            mapped.expect("each descriptor is passed once");
        }
        command.envs(self.variables.drain(..));
        command
    }
}

/// What must not leak in from whoever runs the tests.
const OURS_TO_SET: [&str; 9] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "JOURNAL_STREAM",
    "TCPREMOTEIP",
    "REMOTE_ADDR",
];

/// Far longer than any test takes.
const LIFETIME: Duration = Duration::from_secs(600);
