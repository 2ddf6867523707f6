//! Which daemons there are, and what each wants to listen on.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::child;
use crate::catalog::{DAEMONS, Daemon};

/// A daemon that exists, and its listeners.
#[derive(Debug)]
pub struct Plan {
    /// Which one.
    pub daemon: Daemon,
    /// Its binary.
    pub program: PathBuf,
    /// What it wants to listen on.
    pub listeners: Vec<Listener>,
    /// Its effective configuration, these listeners included.
    pub defaults: toml::Table,
}

/// One `[[listener]]` of an effective configuration; the other keys are the daemon's business.
#[derive(Debug, Deserialize)]
pub struct Listener {
    /// The service.
    pub service: String,
    /// Its name, where it is not that of the service.
    pub name: Option<String>,
    /// Where.
    pub listen: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Printed {
    #[serde(default, rename = "listener")]
    listeners: Vec<Listener>,
}

impl Listener {
    /// The name in logs and status, and of the passed socket.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.service)
    }
}

/// The daemons to start, in the order of the table; at least one.
pub async fn plans(directory: Option<&Path>, only: &[String]) -> Result<Vec<Plan>, Fatal> {
    let directory = match directory {
        Some(directory) => directory.to_owned(),
        None => beside_us()?,
    };
    for name in only {
        if !DAEMONS.iter().any(|daemon| daemon.name == name) {
            let known: Vec<&str> = DAEMONS.iter().map(|daemon| daemon.name).collect();
            return Err(Fatal::new(
                Exit::Usage,
                format!(
                    "'{name}' is no daemon of the yard; there are {}",
                    known.join(", ")
                ),
            ));
        }
    }
    let mut plans = Vec::new();
    for &daemon in DAEMONS {
        let asked_for = only.iter().any(|name| name == daemon.name);
        let program = directory.join(daemon.name);
        if !only.is_empty() && !asked_for {
            continue;
        }
        if program.is_file() {
            let (defaults, listeners) = ask(&program, daemon.name).await?;
            plans.push(Plan {
                daemon,
                program,
                listeners,
                defaults,
            });
        } else if asked_for {
            return Err(missing(daemon.name, &directory));
        }
    }
    if plans.is_empty() {
        return Err(missing("a daemon", &directory));
    }
    Ok(plans)
}

/// The daemons but this one, as `--only` takes them.
pub fn others(daemon: &str) -> String {
    let others = DAEMONS.iter().map(|other| other.name);
    let others: Vec<&str> = others.filter(|other| *other != daemon).collect();
    others.join(",")
}

fn beside_us() -> Result<PathBuf, Fatal> {
    let us = std::env::current_exe().map_err(|error| {
        let message = format!("cannot find where this program is: {error}; is /proc mounted?");
        Fatal::new(Exit::OsError, message)
    })?;
    Ok(us.parent().unwrap_or(Path::new("/")).to_owned())
}

fn missing(what: &str, directory: &Path) -> Fatal {
    Fatal::new(
        Exit::Unavailable,
        format!(
            "there is no binary of {what} in {}; build all of them with 'cargo build --release' and \
             run target/release/portyard up",
            directory.display()
        ),
    )
}

/// Has the daemon print its effective configuration and reads the listeners.
async fn ask(program: &Path, name: &str) -> Result<(toml::Table, Vec<Listener>), Fatal> {
    let config = |what: String| Fatal::new(Exit::Config, format!("{name} --print-config: {what}"));
    let (status, output, complaint) = match timeout(PATIENCE, print_config(program)).await {
        Ok(Ok(printed)) => printed,
        Ok(Err(error)) => {
            let message = format!("cannot run {}: {error}", program.display());
            return Err(Fatal::new(Exit::from_io(&error), message));
        }
        Err(_) => {
            let message = format!("{name} --print-config did not end within {PATIENCE:?}");
            return Err(Fatal::new(Exit::TempFail, message));
        }
    };
    if !status.success() {
        let exit = child::exit_code(status);
        let complaint = escape(complaint.trim_ascii(), MAX_SHOWN);
        let others = others(name);
        let message = format!(
            "nothing was started: {name} --print-config failed ({status}): {complaint}. Put that \
             right, or start the others with --only {others}"
        );
        return Err(Fatal::new(exit, message));
    }
    let text = String::from_utf8(output).map_err(|_| config("the output is no UTF-8".into()))?;
    let odd = |error: toml::de::Error| {
        config(format!(
            "the output is not as expected: {}; are daemon and client of one version?",
            escape(error.message().as_bytes(), MAX_SHOWN)
        ))
    };
    let table: toml::Table = toml::from_str(&text).map_err(odd)?;
    let printed: Printed = table.clone().try_into().map_err(odd)?;
    Ok((table, printed.listeners))
}

async fn print_config(program: &Path) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut command = std::process::Command::new(program);
    command
        .arg("--print-config")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    child::forget_supervisor(&mut command);
    let mut child = Command::from(command).kill_on_drop(true).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both pipes are read to their end, so that neither fills and holds the daemon up.
    let (output, complaint, status) =
        tokio::join!(read_capped(stdout), read_capped(stderr), child.wait());
    Ok((status?, output?, complaint?))
}

async fn read_capped(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(MAX_PRINTED);
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Printing a configuration takes milliseconds; this is for a machine under load.
const PATIENCE: Duration = Duration::from_secs(10);
/// A configuration with thousands of listeners fits.
const MAX_PRINTED: u64 = 1 << 20;
const MAX_SHOWN: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_keys_of_a_configuration_are_ignored() {
        let text = "grace = \"9s\"\n[log]\nlevel = \"info\"\n[[listener]]\nservice = \"echo\"\n\
                    listen = [\"tcp://127.0.0.1:7007\"]\n[listener.limits]\nidle = \"5min\"\n";
        let printed: Printed = toml::from_str(text).unwrap();
        assert_eq!(printed.listeners[0].label(), "echo");
        assert_eq!(printed.listeners[0].listen, [Endpoint::tcp_loopback(7007)]);
        assert!(toml::from_str::<Printed>("").unwrap().listeners.is_empty());
    }
}
