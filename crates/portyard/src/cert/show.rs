//! `portyard cert show`: what is in a file, and what would fail with it.

mod item;
mod judge;
mod print;
mod private_key;
mod trust;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use portyard_core::exit::{Exit, Fatal};
use rustls::pki_types::ServerName;

use self::item::Contents;
use self::judge::Question;
use self::trust::Trust;
use crate::out::Out;
use crate::stop::Outcome;

/// Explain certificates, private keys, revocation lists and requests, and say what would fail.
///
/// For each certificate: whom it is for and who signed it, the names that clients compare, for how
/// long it is good, its key, what it may be used for, its serial number, and its fingerprint as
/// --pin takes it. Then what would fail, and why: ended, not begun or ending within 21 days; no
/// names, or not the one of --name; another key than that of --key; a key file that others can read;
/// weak keys and signatures; missing usages; certificates that are in the wrong order, missing, or
/// not signed by the authority of --ca.
///
/// Files are PEM or DER. A file whose first certificate is not an authority's is taken for what a
/// server or client presents; else it is taken for a list of authorities.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cert show host.pem
  portyard cert show host.pem --ca ca.pem --name host.example.org --key host.key
  portyard cert show ca.pem ca.key ca.crl.pem
  portyard cert show /etc/ssl/certs/ca-certificates.crt --json | grep expired

Exit codes: 0 all is fine, 1 something would fail, 64 the command line is wrong, 77 permission
denied, 78 a file cannot be read or holds none of these.")]
pub struct Args {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The authorities that the other end trusts.
    #[arg(long, value_name = "CA.pem")]
    ca: Option<PathBuf>,
    /// The host that clients connect to: a DNS name or an IP address.
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// The private key that belongs to the certificate.
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    /// One JSON object a file; times are seconds since 1970.
    #[arg(long)]
    json: bool,
}

/// Something to be said about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether something would fail; else it is good to know.
    pub fails: bool,
    /// What, and what to do.
    pub text: String,
}

impl Finding {
    fn fails(text: impl Into<String>) -> Self {
        Self {
            fails: true,
            text: text.into(),
        }
    }

    fn note(text: impl Into<String>) -> Self {
        Self {
            fails: false,
            text: text.into(),
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let now = SystemTime::now();
    let name = args.name.as_deref().map(server_name).transpose()?;
    let trust = args.ca.as_deref().map(Trust::read).transpose()?;
    let key = args.key.as_deref().map(Contents::read).transpose()?;
    let mut out = Out::new();
    let mut failing = 0;
    let mut show = |path: &Path, contents: &Contents, findings: &[Finding]| {
        failing += findings.iter().filter(|finding| finding.fails).count();
        if args.json {
            print::json(&mut out, path, contents, findings, now)
        } else {
            print::text(&mut out, path, contents, findings, now)
        }
    };
    let question = Question {
        now,
        name: name.as_ref(),
        trust: trust.as_ref(),
        key: key.as_ref(),
    };
    for path in &args.files {
        let contents = Contents::read(path)?;
        let findings = judge::judge(&contents, &question);
        show(path, &contents, &findings)?;
    }
    if let (Some(path), Some(contents)) = (&args.key, &key) {
        let findings = judge::judge_key_file(contents);
        show(path, contents, &findings)?;
    }
    if !args.json {
        match failing {
            0 => out.line("nothing here would fail")?,
            1 => out.line("1 thing would fail")?,
            count => out.line(format_args!("{count} things would fail"))?,
        }
    }
    out.flush()?;
    Ok(if failing == 0 { Exit::Ok } else { Exit::No })
}

fn server_name(text: &str) -> Result<ServerName<'static>, Fatal> {
    ServerName::try_from(text.to_owned()).map_err(|_| {
        let message = format!(
            "'{text}' is neither a DNS name nor an IP address; write the host alone, without scheme \
             and port"
        );
        Fatal::new(Exit::Usage, message)
    })
}
