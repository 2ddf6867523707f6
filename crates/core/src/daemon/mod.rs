//! A daemon from its first line to its last: what all five share, in boot order.
//!
//! A daemon is a name, a flavour (streams or datagrams) and a table of services. [`run`] does the
//! rest: arguments, configuration, log, sockets, READY, serve, reload, drain.

mod active;
mod control;
mod helm;
mod plan;
mod reload;
mod report;
mod shared;
mod timers;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::AccessConfig;
use crate::cli::Arguments;
use crate::config::{Config, ConfigError, ListenerConfig, Source};
use crate::event_loop::Run;
use crate::exit::{Exit, Fatal};
use crate::life::{self, Notifier};
use crate::listen::Inherited;
use crate::listener::Flavour;
use crate::observe::log;
use crate::sandbox::Needs;
pub use helm::{Helm, Listening};
use plan::{Plan, Read};
pub use shared::{Asked, Boot, NoCommands, NoSettings, Shared};

/// A daemon: what [`run`] needs to know of it.
pub trait Daemon: Sized + 'static {
    /// Streams or datagrams.
    type Flavour: Run<Limits: Default + DeserializeOwned + Serialize>;
    /// The `[listener.options]` table.
    type Options: Clone + Default + DeserializeOwned + Serialize;
    /// What its services share; `()` for nothing.
    type Shared: Shared;

    /// The name of program, package, configuration, unit and protocol page.
    const NAME: &'static str;
    /// The version that `--version` prints.
    const VERSION: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// The services; the first is the default.
    const SERVICES: &'static [ServiceRow<Self>];

    /// Checks what the listeners and the daemon's own tables say of each other. `source` gives an error
    /// its place.
    fn check(
        config: &ConfigOf<Self>,
        settings: &SettingsOf<Self>,
        source: &Source,
    ) -> Result<(), ConfigError> {
        let _ = (config, settings, source);
        Ok(())
    }

    /// Listeners that the daemon's own tables ask for, beside those in `[[listener]]`. `access` is the
    /// daemon's list, `source` gives an error its place. Nothing is opened yet, perhaps never.
    fn listeners(
        shared: &Self::Shared,
        settings: &SettingsOf<Self>,
        access: &AccessConfig,
        source: &Source,
    ) -> Result<Vec<ListenerOf<Self>>, ConfigError> {
        let _ = (shared, settings, access, source);
        Ok(Vec::new())
    }

    /// What the daemon does after its start, beside what core does for every daemon: the sandbox denies
    /// the rest. Told of a configuration that has not been checked yet.
    fn needs(config: &ConfigOf<Self>, settings: &SettingsOf<Self>) -> Needs {
        let _ = (config, settings);
        Needs::default()
    }

    /// The protocols that TLS offers by ALPN where a listener's table names none, best first.
    const ALPN: &'static [&'static str] = &[];
}

/// One row of a daemon's table of services.
pub struct ServiceRow<D: Daemon> {
    /// The name in `service = "…"` and on the command line.
    pub name: &'static str,
    /// Where the built-in defaults offer it.
    pub home: Home,
    /// One line for `--help`.
    pub about: &'static str,
    /// Builds the service for a listener, or says which option is wrong and what to do.
    pub build: Build<D>,
}

/// Where the built-in defaults offer a service.
#[derive(Debug, Clone, Copy)]
pub enum Home {
    /// A port on the loopback address.
    Port(u16),
    /// A Unix socket of this name in the daemon's [`life::runtime_directory`].
    Socket(&'static str),
    /// Nowhere.
    Nowhere,
}

/// Makes a service of a listener's table and of what the services share.
pub type Build<D> = fn(&ListenerOf<D>, <D as Daemon>::Shared) -> Result<ServiceOf<D>, String>;
/// A daemon's service.
pub type ServiceOf<D> = Arc<<<D as Daemon>::Flavour as Flavour>::Service>;
/// A daemon's `[[listener]]` table.
pub type ListenerOf<D> =
    ListenerConfig<<<D as Daemon>::Flavour as Flavour>::Limits, <D as Daemon>::Options>;
/// A daemon's configuration.
pub type ConfigOf<D> = Config<<<D as Daemon>::Flavour as Flavour>::Limits, <D as Daemon>::Options>;

/// The daemon's own tables.
pub type SettingsOf<D> = <<D as Daemon>::Shared as Shared>::Settings;

/// The daemon's own arguments.
type CommandsOf<D> = <<D as Daemon>::Shared as Shared>::Commands;

/// Runs the daemon that the command line asks for. This is the whole of its `main`.
pub fn run<D: Daemon>() -> ExitCode {
    let services = service_table::<D>();
    let (arguments, commands) =
        Arguments::parse_for::<CommandsOf<D>>(D::NAME, D::VERSION, D::ABOUT, &services);
    // Under an inetd, descriptor 2 is the peer: no message of ours may go there.
    let stderr_is_peer = log::stderr_is_peer();
    match boot::<D>(&arguments, &commands, stderr_is_peer) {
        Ok(()) => Exit::Ok.into(),
        Err(fatal) => {
            tracing::error!("{fatal}");
            if !stderr_is_peer && !tracing::event_enabled!(tracing::Level::ERROR) {
                eprintln!("{}: {fatal}", D::NAME);
            }
            fatal.exit.into()
        }
    }
}

/// The daemon's command line, for man pages and completions.
pub fn command_line<D: Daemon>() -> clap::Command {
    let services = service_table::<D>();
    Arguments::command_for::<CommandsOf<D>>(D::NAME, D::VERSION, D::ABOUT, &services)
}

fn boot<D: Daemon>(
    arguments: &Arguments,
    commands: &CommandsOf<D>,
    stderr_is_peer: bool,
) -> Result<(), Fatal> {
    let read = Read::from_file(arguments)?;
    if let Some(answer) = command::<D>(arguments, commands, &read)? {
        return print(&answer);
    }
    let mut inherited = Inherited::from_environment()?;
    let notifier = Notifier::from_environment();
    let shared = D::Shared::default();
    let plan = Plan::new(read, arguments, &inherited.names(), &shared)?;
    if let Some(answer) = answer_only(arguments, &plan)? {
        return print(&answer);
    }
    let log = log::start(D::NAME, &plan.log_config(arguments), stderr_is_peer);
    life::raise_descriptor_limit(life::NEEDED)?;
    let listeners: Vec<_> = plan
        .listeners
        .iter()
        .map(|planned| (planned.service_name, &planned.endpoint))
        .collect();
    shared.inherit(Boot {
        commands,
        settings: &plan.settings,
        listeners: &listeners,
        notifier: &notifier,
        inherited: &mut inherited,
    })?;
    control::run(arguments, plan, shared, inherited, notifier, &log)
}

/// What a command of the daemon's own prints instead of serving.
fn command<D: Daemon>(
    arguments: &Arguments,
    commands: &CommandsOf<D>,
    read: &Read<D>,
) -> Result<Option<String>, Fatal> {
    let asked = Asked {
        settings: &read.settings,
        admin: read.config.admin.listen.as_ref(),
        config: arguments.config.as_deref(),
    };
    D::Shared::command(commands, &asked).transpose()
}

fn print(answer: &str) -> Result<(), Fatal> {
    match io::stdout().write_all(answer.as_bytes()) {
        // A reader that has gone (`| head`) has what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Fatal::new(
            Exit::Io,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// What `--check`, `--print-config` and `--explain` print instead of serving.
fn answer_only<D: Daemon>(arguments: &Arguments, plan: &Plan<D>) -> Result<Option<String>, Fatal> {
    if let Some(address) = arguments.explain {
        return Ok(Some(plan.explain(address)));
    }
    if arguments.print_config {
        return plan.print().map(Some);
    }
    if arguments.check {
        return Ok(Some(format!("{}: the configuration is good\n", D::NAME)));
    }
    Ok(None)
}

fn os_error(what: &str, error: &io::Error) -> Fatal {
    Fatal::new(Exit::OsError, format!("{what}: {error}"))
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Socket(file) => f.write_str(file),
            Self::Nowhere => f.write_str("-"),
        }
    }
}

fn service_table<D: Daemon>() -> String {
    let homes = D::SERVICES.iter().map(|row| row.home);
    let has_socket = homes.clone().any(|home| matches!(home, Home::Socket(_)));
    let mut text = String::from(if has_socket {
        "Services (default port on 127.0.0.1, or socket in the runtime directory):\n"
    } else {
        "Services (default port on 127.0.0.1):\n"
    });
    let homes: Vec<String> = homes.map(|home| home.to_string()).collect();
    let width = homes.iter().map(String::len).max().unwrap_or(0).max(6);
    for (row, home) in D::SERVICES.iter().zip(homes) {
        // Writing into a String does not fail.
        let _ = writeln!(text, "  {:<12} {home:<width$} {}", row.name, row.about);
    }
    text
}
