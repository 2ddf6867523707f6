//! Whether a process has got a descriptor that it was sent.
//!
//! A process at its descriptor limit reads the message and loses what came with it. Who cannot report
//! that can be looked at.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use portyard_core::sandbox::outside;

/// The inode of a socket.
pub fn inode(socket: impl AsFd) -> Option<u64> {
    Some(fstat(socket).ok()?.st_ino)
}

/// Whether a process has the socket of this inode among its descriptors. True as well where that cannot
/// be told (another user's process, or no `/proc`), and where the process is far from its limit, so that
/// it must have.
pub fn is_installed(pid: i32, inode: u64) -> bool {
    // Landlock lets nobody look into a process that is not in the same sandbox.
    outside::run(move || look_for(pid, inode))
}

fn look_for(pid: i32, inode: u64) -> bool {
    let directory = format!("/proc/{pid}/fd");
    if pid <= 0 || !is_near_limit(pid, &directory) {
        return true;
    }
    let Ok(entries) = fs::read_dir(&directory) else {
        return true;
    };
    let wanted = format!("socket:[{inode}]");
    let (mut readable, mut has_any) = (false, false);
    for entry in entries.flatten() {
        has_any = true;
        if let Ok(link) = fs::read_link(entry.path()) {
            readable = true;
            if link.as_os_str() == wanted.as_str() {
                return true;
            }
        }
    }
    // Of a process that is ending there are none at all.
    has_any && !readable
}

/// Whether a process has about as many descriptors as it may have.
fn is_near_limit(pid: i32, directory: &str) -> bool {
    let Ok(about) = fs::metadata(directory) else {
        return false;
    };
    // The number of descriptors since Linux 6.2 (proc_pid_fd(5)), and 0 before.
    let open = about.size();
    if open == 0 {
        return true;
    }
    let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else {
        return true;
    };
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    // Numbers are reused from the lowest free one on, so that only a full table loses one.
    limit.is_none_or(|limit| open + MARGIN >= limit)
}

/// Whether a process exists.
pub fn is_alive(pid: i32) -> bool {
    let alive = move || kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH) && !is_zombie(pid);
    pid > 0 && outside::run(alive)
}

fn is_zombie(pid: i32) -> bool {
    // "PID (NAME) STATE …", and the name may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    matches!(state, Some('Z' | 'X'))
}

/// What a process may have opened or closed since.
const MARGIN: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_found_by_its_inode_alone() {
        let (ours, other) = UnixStream::pair().unwrap();
        let inode = inode(&ours).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let found = |inode| {
            let wanted = format!("socket:[{inode}]");
            fs::read_dir("/proc/self/fd")
                .unwrap()
                .flatten()
                .any(|entry| {
                    fs::read_link(entry.path())
                        .is_ok_and(|link| link.as_os_str() == wanted.as_str())
                })
        };
        assert!(found(inode) && is_installed(pid, inode));
        drop(ours);
        assert!(!found(inode));
        assert!(is_alive(pid));
        drop(other);
    }
}
