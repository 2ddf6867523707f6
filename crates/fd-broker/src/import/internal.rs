//! Services that other inetds have built in, and the daemon of ours that has them.

use std::path::PathBuf;

/// The command that serves a built-in service of that name, or what to do instead.
pub fn command(name: &str, datagrams: bool) -> Result<Vec<String>, &'static str> {
    let service = match (name, datagrams) {
        ("echo" | "discard" | "daytime" | "time", _) | ("chargen", false) => name,
        ("chargen", true) => {
            return Err(
                "chargen over UDP answers one datagram with many bytes to whoever's address \
                        is forged; nothing here does that",
            );
        }
        ("services" | "servers" | "xadmin", _) => {
            return Err(
                "the status of the broker is at its admin endpoint: see [admin] listen and /status",
            );
        }
        ("tcpmux", _) => return Err("TCPMUX is not offered; give each service a port of its own"),
        _ => return Err("no program here offers this"),
    };
    let daemon = if datagrams { "time-udp" } else { "echo-tcp" };
    let path = beside(daemon).display().to_string();
    Ok(vec![path, format!("--inetd={service}")])
}

/// What is said of a built-in service.
pub fn remark(datagrams: bool) -> &'static str {
    if datagrams {
        "Was built in. time-udp offers it as a daemon of its own as well, which is faster."
    } else {
        "Was built in. echo-tcp offers it as a daemon of its own as well, which is faster."
    }
}

/// Where a daemon of ours is: beside this one.
fn beside(daemon: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let directory = own.parent().filter(|parent| parent.is_absolute());
    directory
        .map_or_else(|| PathBuf::from("/usr/bin"), PathBuf::from)
        .join(daemon)
}
