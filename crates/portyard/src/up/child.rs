//! One daemon process: how it is started, and what its end means.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use portyard_core::exit::Exit;
use tokio::process::{Child, Command};

use super::sockets::Berth;

/// Starts the daemon of a berth with copies of its sockets, its configuration, and the place for its
/// notices.
pub fn start(berth: &Berth, config: &Path, notices: &Path) -> io::Result<Child> {
    let mut mappings = Vec::new();
    for (child_fd, passed) in (FIRST_DESCRIPTOR..).zip(&berth.sockets) {
        mappings.push(FdMapping {
            parent_fd: OwnedFd::from(passed.bound.socket.try_clone()?),
            child_fd,
        });
    }
    // Ourselves, even if the file was replaced by a newer build meanwhile.
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .arg0("portyard")
        .args(["exec-activated", "--parent"])
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(&berth.program)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // ^C at the terminal is for us; we tell the daemons.
        .process_group(0);
    forget_supervisor(&mut command);
    command.env("NOTIFY_SOCKET", notices);
    if !mappings.is_empty() {
        let names: Vec<&str> = berth
            .sockets
            .iter()
            .map(|passed| passed.name.as_str())
            .collect();
        command.env("LISTEN_FDS", mappings.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        // The numbers are consecutive, so none occurs twice.
        command.fd_mappings(mappings).map_err(io::Error::other)?;
    }
    Command::from(command).kill_on_drop(true).spawn()
}

/// Removes what the one who started us meant for us alone.
pub fn forget_supervisor(command: &mut std::process::Command) {
    for name in SUPERVISOR_VARIABLES {
        command.env_remove(name);
    }
}

/// Asks the daemon to drain. One that has ended does not mind.
pub fn terminate(child: &Child) {
    if let Some(pid) = pid(child) {
        let _ = kill(pid, Signal::SIGTERM);
    }
}

/// Ends the daemon and whatever it has started, at once.
pub fn kill_group(child: &Child) {
    if let Some(pid) = pid(child) {
        let _ = killpg(pid, Signal::SIGKILL);
    }
}

/// The process id, as long as the process has not been waited for.
fn pid(child: &Child) -> Option<Pid> {
    child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw)
}

/// A daemon's end as our exit code: its own where it is one of sysexits.h, else "a fault of ours".
pub fn exit_code(status: ExitStatus) -> Exit {
    let known = [
        Exit::Usage,
        Exit::Data,
        Exit::NoHost,
        Exit::Unavailable,
        Exit::OsError,
        Exit::Io,
        Exit::TempFail,
        Exit::NoPermission,
        Exit::Config,
    ];
    known
        .into_iter()
        .find(|exit| status.code() == Some(*exit as i32))
        .unwrap_or(Exit::Software)
}

/// `exit 78` or `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (_, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => signal.to_string(),
            Err(_) => format!("signal {number}"),
        },
        _ => status.to_string(),
    }
}

/// `SD_LISTEN_FDS_START` of `sd_listen_fds(3)`.
const FIRST_DESCRIPTOR: i32 = 3;

const SUPERVISOR_VARIABLES: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_means_nothing_to_us_is_a_fault() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(exit_code(exited(78)), Exit::Config);
        assert_eq!(exit_code(exited(101)), Exit::Software);
        assert_eq!(exit_code(exited(0)), Exit::Software);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), Exit::Software);
        assert_eq!(describe(exited(78)), "exit 78");
        assert_eq!(describe(ExitStatus::from_raw(9)), "SIGKILL");
    }
}
