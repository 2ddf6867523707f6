//! `portyard cert`: certificates for servers and clients, an authority of one's own, and what is
//! wrong with those one has.
//!
//! A subcommand is a file: [`ca`], [`server`], [`client`], [`crl`], [`show`]. The first three issue
//! by way of [`issue`], with a [`key_type`] and [`names`]; all that sign read an [`authority`], and [`signature`] tells
//! who signed what.

mod authority;
mod ca;
mod client;
mod crl;
mod issue;
mod key_type;
mod leaf;
mod names;
mod server;
mod show;
mod signature;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use portyard_core::exit::{Exit, Fatal};

use crate::stop::Outcome;

/// Make certificates for servers and clients, and tell what is wrong with those there are.
///
/// 'ca' makes an authority, 'server' and 'client' make certificates that it signs, 'crl' takes them
/// back, and 'show' explains certificates, keys, revocation lists and requests, and what would fail.
///
/// This does what 'openssl req -new -x509 -nodes' is used for, with the names where clients look for
/// them (the subject's alternative names), the usages that they ask for, random serial numbers, and
/// keys that are never readable by others.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cert ca --out /etc/portyard
  portyard cert server host.example.org localhost 127.0.0.1 --ca /etc/portyard
  portyard cert client alice@example.org --ca /etc/portyard
  portyard cert show host.example.org.pem --ca /etc/portyard/ca.pem --name host.example.org
  portyard cert crl --ca /etc/portyard --revoke alice@example.org.pem
  portyard cert server localhost 127.0.0.1 ::1 --self-signed

'portyard cert COMMAND --help' tells the rest.

Exit codes: 0 done, 1 something would fail (show), 64 the command line is wrong or a file is in the
way, 75 another run changes the same files, 77 permission denied, 78 a file is not what it should be.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ca(ca::Args),
    Server(server::Args),
    Client(client::Args),
    Crl(crl::Args),
    Show(show::Args),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Ca(args) => ca::run(args),
        Command::Server(args) => server::run(args),
        Command::Client(args) => client::run(args),
        Command::Crl(args) => crl::run(args),
        Command::Show(args) => show::run(args),
    }
}

/// A file that is not what it should be.
fn wrong_file(path: &Path, why: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Config, format!("{}: {why}", path.display()))
}

/// What a file of the names' user is called: the name, with what shells and file systems mind
/// replaced by `_`.
fn file_stem(name: &str) -> String {
    let stem: String = name
        .chars()
        .take(STEM_MAX)
        .map(|c| {
            let harmless = c.is_ascii_alphanumeric() || "._-@+".contains(c);
            if harmless { c } else { '_' }
        })
        .collect();
    match stem.strip_prefix(['-', '.']) {
        Some(rest) => format!("_{rest}"),
        None => stem,
    }
}

/// The paths of a certificate and its key: `PREFIX.pem` and `PREFIX.key`, in the directory PREFIX
/// under the name where it is one.
fn pair_paths(out: Option<&Path>, name: &str) -> (PathBuf, PathBuf) {
    let prefix = match out {
        None => file_stem(name).into(),
        Some(out) if out.is_dir() => out.join(file_stem(name)),
        Some(out) => out.to_path_buf(),
    };
    let with = |ending: &str| {
        let mut path = prefix.clone().into_os_string();
        path.push(ending);
        PathBuf::from(path)
    };
    (with(".pem"), with(".key"))
}

/// The largest file that is read.
const FILE_MAX: u64 = 1 << 20;
/// A file name has at most 255 bytes; this leaves room for endings.
const STEM_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        _args: Args,
    }

    #[test]
    fn every_subcommand_shows_examples() {
        for command in Alone::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            for heading in ["Examples:", "Exit codes:"] {
                assert!(help.contains(heading), "{} {heading}", command.get_name());
            }
        }
    }

    #[test]
    fn a_name_becomes_a_file_that_no_shell_minds() {
        for (name, stem) in [
            ("host.example.org", "host.example.org"),
            ("*.example.org", "_.example.org"),
            ("::1", "__1"),
            ("alice@example.org", "alice@example.org"),
            ("spiffe://yard/alice", "spiffe___yard_alice"),
            ("../../etc", "_._.._etc"),
            ("-rf", "_rf"),
        ] {
            assert_eq!(file_stem(name), stem);
        }
        assert_eq!(file_stem(&"x".repeat(300)).len(), STEM_MAX);
    }

    #[test]
    fn a_prefix_may_have_dots() {
        let (chain, key) = pair_paths(Some(Path::new("/none/host.example")), "x");
        assert_eq!(chain, Path::new("/none/host.example.pem"));
        assert_eq!(key, Path::new("/none/host.example.key"));
        let (chain, _) = pair_paths(Some(Path::new("/")), "x");
        assert_eq!(chain, Path::new("/x.pem"));
    }
}
