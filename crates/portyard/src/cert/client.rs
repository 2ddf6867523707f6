//! `portyard cert client`: a certificate for a client.

use std::path::PathBuf;
use std::time::SystemTime;

use portyard_core::exit::{Exit, Fatal};
use time::OffsetDateTime;

use super::authority::{self, Authority};
use super::issue::{COMMON_NAME_MAX, Use, Wanted, issue};
use super::leaf::LeafArgs;
use super::names::Name;
use super::pair_paths;
use super::server::{save, say_files, toml_text};
use crate::out::Out;
use crate::stop::Outcome;

/// Make a certificate for a client, signed by an authority.
///
/// NAME is who the client is: a person, a program, a machine. It becomes the common name, and
/// beside that an alternative name of the kind that it looks like: alice@example.org an email
/// address, spiffe://yard/alice a URI, build.example.org and alice a DNS name, 192.0.2.7 an address.
///
/// A server lets such clients in when its configuration names the authority (client_ca) and asks for
/// certificates (client = \"required\"); 'portyard cert crl' takes a certificate back. It is good for
/// 397 days and ends with its authority at the latest. NAME.pem and NAME.key (mode 0600) appear
/// whole, or none does.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cert client alice@example.org --ca /etc/portyard
  portyard cert client 'Alice Miller' --email alice@example.org --ca /etc/portyard --out alice
  portyard cert client build.example.org --days 30

Exit codes: 0 done, 64 the command line is wrong or a file is in the way, 77 permission denied,
78 the authority cannot be used.")]
pub struct Args {
    /// Who the client is, at most 64 characters, or an alternative name of any length.
    name: String,
    /// An email address, as a further alternative name.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// The directory with ca.pem and ca.key of the authority that signs.
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
    #[command(flatten)]
    leaf: LeafArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let wrong = |why: String| Fatal::new(Exit::Usage, why);
    let (common_name, mut names) = parse(&args.name).map_err(wrong)?;
    if let Some(email) = &args.email {
        let name = Name::of_email(email).map_err(wrong)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let authority = Authority::read(&args.ca, SystemTime::now())?;
    let wanted = Wanted {
        usage: Use::Client,
        common_name,
        names: &names,
        days: args.leaf.days,
        key_type: args.leaf.key_type,
    };
    let issued = issue(&wanted, Some(&authority), OffsetDateTime::now_utc())?;
    let (chain, key) = pair_paths(args.leaf.out.as_deref(), &args.name);
    save(&issued, Some(&authority), (&chain, &key), args.leaf.force)?;

    let mut out = Out::new();
    let known: Vec<_> = common_name
        .map(|name| format!("CN={name}"))
        .into_iter()
        .chain(names.iter().map(ToString::to_string))
        .collect();
    let kind = format!("a client's certificate for {}", known.join(", "));
    say_files(&mut out, &issued, Some(&authority), (&chain, &key), &kind)?;
    out.line(format_args!(
        "\nIn the configuration of a daemon that asks for it:\n  \
         [listener.tls]\n  \
         client = \"required\"\n  \
         client_ca = {}\n\
         The client:\n  \
         portyard echo tcp://HOST:PORT --tls --ca CA.pem --cert {} --key-file {}",
        toml_text(&authority::certificate_path(authority.directory())),
        chain.display(),
        key.display()
    ))?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// The common name, where there is room for it, and the alternative name that it looks like.
fn parse(name: &str) -> Result<(Option<&str>, Vec<Name>), String> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("a name has at least one character and no control characters".into());
    }
    let fits = name.chars().count() <= COMMON_NAME_MAX;
    let names: Vec<_> = Name::of_client(name).into_iter().collect();
    match names.first() {
        None if !fits => Err(format!(
            "a name of more than {COMMON_NAME_MAX} characters must be a DNS name, an email address \
             or a URI"
        )),
        Some(Name::Dns(host)) if host.starts_with('*') => {
            Err("a client has one name; a * stands for many".into())
        }
        _ => Ok((Some(name).filter(|_| fits), names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_needs_a_place_among_the_alternatives() {
        let long = "x".repeat(65);
        assert!(parse(&long).is_err());
        let uri = format!("spiffe://{long}");
        assert_eq!(parse(&uri).unwrap(), (None, vec![Name::Uri(uri.clone())]));
        assert_eq!(
            parse("Alice Miller").unwrap(),
            (Some("Alice Miller"), Vec::new())
        );
        for wrong in ["", "a\nb", "*.example.org"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
