//! The sandbox: what the process may do once its sockets, keys and state are open, enforced by the
//! kernel for all of its threads.
//!
//! A daemon says beforehand what it will still do ([`Needs`]); [`Sandbox::close`] denies the rest.
//! Landlock ([`paths`]) says which files and ports, seccomp ([`filter`], [`calls`]) which system
//! calls, and `no_new_privs` goes with both. They are laid on the control thread before any other is
//! started, and every thread inherits them; what cannot be done within is done by the one thread
//! [`outside`]. A reload that needs more than was granted is refused by [`Sandbox::allows`].
//!
//! A kernel without one of the two layers is told in the log once, and the other is used: a daemon that
//! did not start would not make anybody safer.

mod calls;
mod denied;
mod filter;
mod names;
mod needs;
pub mod outside;
mod paths;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use denied::{DenialCollector, Denials, total as denials};
use filter::Filters;
use needs::Grant;
pub use needs::{Needs, Netlink, Outside};

/// The `sandbox` key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All that the kernel can enforce.
    #[default]
    Strict,
    /// Nothing.
    Off,
}

/// How much of a layer is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// All of it.
    Full,
    /// What an older kernel knows of.
    Partial,
    /// Nothing: the kernel does not have it, or will not have it here.
    Missing,
    /// Nothing, as the configuration says.
    Off,
}

/// The sandbox of this process, closed or not.
#[derive(Debug)]
pub struct Sandbox {
    landlock: Layer,
    seccomp: Layer,
    needs: Needs,
    grants: BTreeSet<Grant>,
}

/// Landlock is enforced, so that an error may be its.
static CLOSED: AtomicBool = AtomicBool::new(false);

impl Sandbox {
    /// Closes the sandbox for the calling thread and all that it starts. To be called while there is
    /// no other thread, once in the life of a process.
    pub fn close(mode: Mode, needs: Needs) -> io::Result<Self> {
        let grants = needs.grants();
        let (mut landlock, mut seccomp) = (Layer::Off, Layer::Off);
        if mode == Mode::Strict {
            let filters = Filters::new(&needs, std::process::id()).map_err(io::Error::other)?;
            match needs.outside {
                Outside::Nothing => {}
                Outside::Looks => {
                    denied::catch()?;
                    // Without seccomp, its thread does without it as well.
                    if outside::start(Some(filters.clone())).is_err() {
                        outside::start(None)?;
                    }
                }
                Outside::Programs => outside::start(None)?,
            }
            landlock = paths::restrict(&needs, &grants).unwrap_or_else(|error| {
                tracing::warn!(%error, "landlock cannot be used");
                Layer::Missing
            });
            CLOSED.store(landlock != Layer::Missing, Ordering::Release);
            seccomp = match denied::catch().and_then(|()| install(&filters)) {
                Ok(()) => Layer::Full,
                Err(error) => {
                    tracing::warn!(%error, "seccomp cannot be used");
                    Layer::Missing
                }
            };
        }
        let sandbox = Self {
            landlock,
            seccomp,
            needs,
            grants,
        };
        sandbox.announce();
        Ok(sandbox)
    }

    fn announce(&self) {
        let outside = self.needs.outside.label();
        let (landlock, seccomp) = (self.landlock.label(), self.seccomp.label());
        if [self.landlock, self.seccomp].contains(&Layer::Missing) {
            tracing::warn!(
                landlock,
                seccomp,
                outside,
                "the sandbox is closed only in part: this kernel does not offer the rest"
            );
        } else {
            tracing::info!(landlock, seccomp, outside, "sandbox");
        }
    }

    /// Whether a configuration can do with what was granted, or why it needs a restart.
    pub fn allows(&self, needs: &Needs) -> Result<(), String> {
        let enforced = |layer| matches!(layer, Layer::Full | Layer::Partial);
        if !enforced(self.landlock) && !enforced(self.seccomp) {
            return Ok(());
        }
        let lacks = |what: &str| {
            Err(format!(
                "the sandbox was closed without {what}, which this configuration needs: restart the \
                 daemon to use it"
            ))
        };
        let wanted = if enforced(self.landlock) {
            needs.grants()
        } else {
            BTreeSet::new()
        };
        for (path, right) in wanted {
            let granted = |(at, given): &Grant| path.starts_with(at) && given.covers(right);
            let named = |at: &str| right == needs::Right::Read && path.starts_with(at);
            let by_name = self.needs.names && names::BY_NAME.iter().any(|at| named(at));
            if !by_name && !self.grants.iter().any(granted) {
                return lacks(&format!("{} {}", right.describe(), path.display()));
            }
        }
        if let Some(port) = needs.ports.difference(&self.needs.ports).next() {
            return lacks(&format!("the right to connect to TCP port {port}"));
        }
        if needs.names && !self.needs.names {
            return lacks("looking up hosts and users by name");
        }
        if needs.abstract_sockets && !self.needs.abstract_sockets {
            return lacks("connecting to abstract Unix sockets");
        }
        if needs.outside > self.needs.outside {
            return lacks(match needs.outside {
                Outside::Programs => "starting programs",
                Outside::Looks | Outside::Nothing => "looking at other processes",
            });
        }
        Ok(())
    }

    /// What `/status` shows.
    pub fn status(&self) -> Value {
        let denied: Map<String, Value> = denied::counts()
            .map(|(call, count)| (call.into(), count.into()))
            .collect();
        json!({
            "landlock": self.landlock.label(),
            "seccomp": self.seccomp.label(),
            "outside": self.needs.outside.label(),
            "permits": self.permits(),
            "denied": denied,
        })
    }

    /// What the configuration has made it permit.
    fn permits(&self) -> Vec<String> {
        if self.landlock == Layer::Off {
            return Vec::new();
        }
        let paths = self.grants.iter();
        let paths = paths.map(|(path, right)| format!("{} {}", right.label(), path.display()));
        let ports = self.needs.ports.iter();
        let ports = ports.map(|port| format!("connect {port}"));
        let names = self.needs.names.then(|| "names".to_owned());
        paths.chain(ports).chain(names).collect()
    }

    /// Whether each layer is enforced, by its name.
    pub fn layers(&self) -> [(&'static str, Layer); 2] {
        [("landlock", self.landlock), ("seccomp", self.seccomp)]
    }
}

/// What to say behind an error that may be the sandbox's; nothing behind others.
pub fn hint(error: &io::Error) -> &'static str {
    let denied = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
    if denied && CLOSED.load(Ordering::Acquire) {
        " (perhaps by the sandbox, which was closed at the start: then a restart helps)"
    } else {
        ""
    }
}

/// Files of the system that say which time zone is local.
pub fn time_zone(needs: &mut Needs) {
    // tzset(3): a path, perhaps behind a colon, or a name in the database.
    if let Ok(zone) = std::env::var("TZ")
        && let path = Path::new(zone.trim_start_matches(':'))
        && path.is_absolute()
    {
        needs.read(path);
    }
    if let Some(database) = std::env::var_os("TZDIR") {
        needs.list(database);
    }
}

fn install(filters: &Filters) -> io::Result<()> {
    let seccomp = |error: seccompiler::Error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other),
    };
    // In this order: the last does not let anybody install another.
    seccompiler::apply_filter(&filters.alone).map_err(seccomp)?;
    seccompiler::apply_filter(&filters.denied).map_err(seccomp)?;
    seccompiler::apply_filter(&filters.known).map_err(seccomp)
}

impl Layer {
    /// Its word in log, status and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Missing => "missing",
            Self::Off => "off",
        }
    }
}

impl Outside {
    /// Its word in log and status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Looks => "looks",
            Self::Programs => "programs",
        }
    }
}
