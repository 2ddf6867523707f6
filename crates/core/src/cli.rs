//! The command line that all daemons share.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args as _, Command, FromArgMatches, Parser};

use crate::config::Level;
use crate::observe::log::stderr_is_peer;

/// The arguments of a daemon.
#[derive(Debug, Clone, Default, Parser)]
pub struct Arguments {
    /// Read the configuration from FILE.
    ///
    /// Without it the daemon runs on built-in defaults: every service on the loopback address, on
    /// a port above 1024. `configs/` in the distribution holds a file that documents every key.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration and exit: 0 when it is good, 78 when it is not.
    #[arg(long)]
    pub check: bool,

    /// Print the effective configuration as TOML and exit.
    #[arg(long)]
    pub print_config: bool,

    /// Say for each listener whether ADDRESS may use it, and which rule decides; then exit.
    #[arg(long, value_name = "ADDRESS")]
    pub explain: Option<IpAddr>,

    /// Listen here instead of where the configuration says. May be repeated.
    ///
    /// ENDPOINT is tcp://HOST:PORT, udp://HOST:PORT, HOST:PORT, `unix:/PATH`, `unix:@NAME`, systemd:NAME,
    /// systemd (every passed socket), fd:N, inetd, or broker:/PATH#NAME for what fd-broker has. SERVICE is the daemon's first service when left
    /// out. The rest of a listener's settings is that of the first configured one with SERVICE.
    #[arg(long, value_name = "ENDPOINT[=SERVICE]")]
    pub listen: Vec<String>,

    /// Serve the socket that an inetd left on descriptor 0; short for `--listen inetd[=SERVICE]`.
    ///
    /// A connection (`nowait`) is served and the process ends. A listening stream or a datagram
    /// socket (`wait`) is served until nothing has come for `inetd_idle`.
    #[arg(long, value_name = "SERVICE", num_args = 0..=1, require_equals = true)]
    pub inetd: Option<Option<String>>,

    /// Write log lines of this level and above, whatever the configuration says.
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub log_level: Option<Level>,
}

impl Arguments {
    /// Parses a daemon's command line, with arguments of its own; prints help, version or a usage
    /// error and exits as asked.
    pub fn parse_for<C: clap::Args>(
        name: &'static str,
        version: &'static str,
        about: &'static str,
        services: &str,
    ) -> (Self, C) {
        Self::try_parse_for(name, version, about, services, std::env::args_os())
            .unwrap_or_else(|error| exit_with(&error))
    }

    /// A daemon's command line, with arguments of its own.
    pub fn command_for<C: clap::Args>(
        name: &'static str,
        version: &'static str,
        about: &'static str,
        services: &str,
    ) -> Command {
        C::augment_args(Self::augment_args(Command::new(name)))
            .version(version)
            .about(about)
            .after_long_help(format!("{services}\n{AFTER_HELP}"))
    }

    fn try_parse_for<C: clap::Args>(
        name: &'static str,
        version: &'static str,
        about: &'static str,
        services: &str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, C), clap::Error> {
        let matches = Self::command_for::<C>(name, version, about, services)
            .try_get_matches_from(arguments)?;
        Ok((
            Self::from_arg_matches(&matches)?,
            C::from_arg_matches(&matches)?,
        ))
    }
}

/// clap exits with 2 on a wrong command line; sysexits says 64.
fn exit_with(error: &clap::Error) -> ! {
    // Under an inetd, standard error is the peer.
    if !(error.use_stderr() && stderr_is_peer()) {
        let _ = error.print();
    }
    let code = if error.use_stderr() {
        crate::exit::Exit::Usage as i32
    } else {
        0
    };
    std::process::exit(code)
}

fn parse_level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        _ => Err("use error, warn, info, debug or trace".into()),
    }
}

const AFTER_HELP: &str = "\
Signals:
  SIGTERM, SIGINT  drain: stop accepting, finish what runs, cut the rest after `grace`;
                   a second one leaves at once
  SIGHUP           read the configuration again; a bad file keeps the old one and says so

Environment:
  LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID   sockets passed by systemd, used by systemd:NAME
                   endpoints; without --config and --listen they replace the default listeners,
                   each with the service it is named after
  NOTIFY_SOCKET, WATCHDOG_USEC             the service manager to report to
  TZ               the time zone

Exit codes:
  0 done   64 command line   65 damaged data   69 address or data in use   70 fault of the program
  71 out of resources   74 reading or writing failed   77 permission denied   78 configuration";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::NoCommands;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        let all = std::iter::once("x")
            .chain(arguments.iter().copied())
            .map(OsString::from);
        Arguments::try_parse_for::<NoCommands>("x", "1", "about", "services", all)
            .map(|(arguments, _)| arguments)
    }

    #[test]
    fn inetd_takes_a_service_only_behind_an_equals_sign() {
        assert_eq!(parse(&["--inetd"]).unwrap().inetd, Some(None));
        assert_eq!(
            parse(&["--inetd=time"]).unwrap().inetd,
            Some(Some("time".into()))
        );
        assert!(parse(&["--inetd", "time"]).is_err());
    }

    #[test]
    fn a_wrong_level_names_the_right_ones() {
        let error = parse(&["--log-level", "loud"]).unwrap_err().to_string();
        assert!(error.contains("error, warn, info"), "{error}");
    }
}
