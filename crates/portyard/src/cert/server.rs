//! `portyard cert server`: a certificate for a server.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use portyard_core::exit::{Exit, Fatal};
use time::OffsetDateTime;

use super::authority::{self, Authority};
use super::issue::{COMMON_NAME_MAX, Issued, Use, Wanted, issue};
use super::leaf::LeafArgs;
use super::names::Name;
use super::pair_paths;
use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// Make a certificate for a server, signed by an authority or by itself.
///
/// Each NAME is a DNS name or an IP address that clients use to reach the server. A client compares
/// what it was told to connect to with these names, and with nothing else: for tcp://localhost:7007
/// the name is localhost, for tcp://127.0.0.1:7007 it is 127.0.0.1. A name such as *.example.org
/// stands for one label: a.example.org, neither example.org nor a.b.example.org.
///
/// The certificate is good for 397 days, as browsers refuse more; renew it with --force. It ends
/// with its authority at the latest. Files are called after the first NAME: NAME.pem, with the
/// authority's own certificate in it where clients need that, and NAME.key (mode 0600). Both appear
/// whole, or none does.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cert server localhost 127.0.0.1 ::1 --self-signed
  portyard cert server host.example.org --ca /etc/portyard
  portyard cert server '*.example.org' example.org --ca /etc/portyard --out wild
  portyard cert server host.example.org --ca /etc/portyard --force
  portyard cert server 192.0.2.7 --key-type rsa:2048

Exit codes: 0 done, 64 the command line is wrong or a file is in the way, 77 permission denied,
78 the authority cannot be used.")]
pub struct Args {
    /// The DNS names and IP addresses of the server.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The directory with ca.pem and ca.key of the authority that signs.
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
    /// Sign it with its own key: only clients that are given this very certificate believe it.
    #[arg(long, conflicts_with = "ca")]
    self_signed: bool,
    #[command(flatten)]
    leaf: LeafArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let names = names(&args.names)?;
    let first = &args.names[0];
    let authority = if args.self_signed {
        None
    } else {
        Some(Authority::read(&args.ca, SystemTime::now())?)
    };
    let wanted = Wanted {
        usage: Use::Server,
        common_name: Some(first.as_str()).filter(|name| name.len() <= COMMON_NAME_MAX),
        names: &names,
        days: args.leaf.days,
        key_type: args.leaf.key_type,
    };
    let issued = issue(&wanted, authority.as_ref(), OffsetDateTime::now_utc())?;
    let (chain, key) = pair_paths(args.leaf.out.as_deref(), first);
    save(&issued, authority.as_ref(), (&chain, &key), args.leaf.force)?;

    let mut out = Out::new();
    let covers: Vec<_> = names.iter().map(ToString::to_string).collect();
    let kind = format!("a server's certificate for {}", covers.join(", "));
    say_files(&mut out, &issued, authority.as_ref(), (&chain, &key), &kind)?;
    // Who is signed by nobody is trusted itself.
    let trusted = match &authority {
        Some(authority) => authority::certificate_path(authority.directory()),
        None => chain.clone(),
    };
    out.line(format_args!(
        "\nIn the configuration of a daemon:\n  \
         [listener.tls]\n  \
         certificates = [{{ chain = {}, key = {} }}]\n\
         A client:\n  \
         portyard echo tcp://{}:PORT --tls --ca {}",
        toml_text(&chain),
        toml_text(&key),
        host(&names),
        trusted.display()
    ))?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// Writes both files, and never over those of the authority, whatever the names are.
pub fn save(
    issued: &Issued,
    authority: Option<&Authority>,
    (chain, key): (&Path, &Path),
    force: bool,
) -> Result<(), Fatal> {
    let same = |one: &Path, other: &Path| matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other);
    if let Some(directory) = authority.map(Authority::directory)
        && (same(chain, &authority::certificate_path(directory))
            || same(key, &authority::key_path(directory)))
    {
        let message = "these would be the files of the authority itself; name others with --out";
        return Err(Fatal::new(Exit::Usage, message));
    }
    issued.save(chain, key, force)
}

/// Says what was written.
pub fn say_files(
    out: &mut Out,
    issued: &Issued,
    authority: Option<&Authority>,
    (chain, key): (&Path, &Path),
    kind: &str,
) -> Result<(), Stop> {
    let signer = authority.map_or("itself", |authority| authority.facts.subject.as_str());
    let end = issued.not_after.date();
    let line = format!(
        "{}: {kind}, signed by {signer}, good until {end}",
        chain.display()
    );
    out.peer_line(line.as_bytes(), LINE_MAX)?;
    if issued.cut {
        out.line("  (its authority ends then; it would have been good for longer)")?;
    }
    out.line(format_args!(
        "{}: its key; nobody else may have it",
        key.display()
    ))
}

/// A path as TOML spells a string.
pub fn toml_text(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

fn names(texts: &[String]) -> Result<Vec<Name>, Fatal> {
    let mut names = Vec::new();
    for text in texts {
        let name = Name::of_server(text).map_err(|why| Fatal::new(Exit::Usage, why))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A host that the certificate is good for, as an endpoint spells it.
fn host(names: &[Name]) -> String {
    names
        .iter()
        .find_map(|name| match name {
            Name::Dns(name) if !name.starts_with('*') => Some(name.clone()),
            Name::Ip(address) if address.is_ipv6() => Some(format!("[{address}]")),
            Name::Ip(address) => Some(address.to_string()),
            _ => None,
        })
        .unwrap_or_else(|| "HOST".into())
}

/// Characters of a line that holds names.
const LINE_MAX: usize = 4096;
