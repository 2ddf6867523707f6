//! `portyard cert ca`: an authority of one's own.

use std::fs;
use std::path::PathBuf;

use portyard_core::exit::{Exit, Fatal};
use time::OffsetDateTime;

use super::authority::{certificate_path, key_path};
use super::issue::{COMMON_NAME_MAX, Use, Wanted, issue, serial};
use super::key_type::KeyType;
use crate::out::Out;
use crate::stop::Outcome;

/// Make an authority: a certificate that clients trust, and the key that signs with it.
///
/// Writes ca.pem, which everybody may have, and ca.key (mode 0600), with which anybody could be any
/// server or client to those who trust ca.pem. The authority signs certificates and revocation
/// lists, and no further authorities. It is good for 3650 days: those who trust it have to be given
/// the next one by hand, long before.
///
/// Both files appear whole, or none does. Files that are there stay unless --force is given; with
/// another authority in their place, nothing that the old one signed is believed any more.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cert ca
  portyard cert ca --out /etc/portyard --name 'Example test authority'
  portyard cert ca --key-type rsa:4096 --days 1825

Exit codes: 0 done, 64 the command line is wrong or a file is in the way, 77 permission denied.")]
pub struct Args {
    /// Its name, at most 64 characters; the default ends in random digits, so that no two are alike.
    #[arg(long, value_name = "CN")]
    name: Option<String>,
    /// For how many days it is good.
    #[arg(long, value_name = "N", default_value_t = 3650)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// The kind of key: ec (P-256), rsa (3072 bits), or rsa:2048, rsa:3072, rsa:4096.
    #[arg(long, value_name = "TYPE", default_value_t = KeyType::Ec)]
    key_type: KeyType,
    /// Where to write ca.pem and ca.key; the directory is made when it is not there.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Replace the files that are there.
    #[arg(long)]
    force: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name()?,
    };
    check_name(&name)?;
    fs::create_dir_all(&args.out).map_err(|error| {
        let message = format!("{} cannot be made: {error}", args.out.display());
        Fatal::new(Exit::from_io(&error), message)
    })?;
    let wanted = Wanted {
        usage: Use::Authority,
        common_name: Some(&name),
        names: &[],
        days: args.days,
        key_type: args.key_type,
    };
    let issued = issue(&wanted, None, OffsetDateTime::now_utc())?;
    let (chain, key) = (certificate_path(&args.out), key_path(&args.out));
    issued.save(&chain, &key, args.force)?;

    let mut out = Out::new();
    let (end, directory) = (issued.not_after.date(), args.out.display());
    out.line(format_args!(
        "{}: the authority '{name}', good until {end}; give it to those who shall trust it",
        chain.display()
    ))?;
    out.line(format_args!(
        "{}: its key; it never leaves this machine",
        key.display()
    ))?;
    out.line(format_args!(
        "\nCertificates that it signs:\n  \
         portyard cert server NAME... --ca {directory}\n  \
         portyard cert client NAME --ca {directory}\n\
         Clients that trust it:\n  \
         portyard echo tcp://HOST:PORT --tls --ca {}",
        chain.display()
    ))?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// Two authorities of one name confuse whoever has to choose between them by name.
fn default_name() -> Result<String, Fatal> {
    let serial = serial()?.to_bytes();
    let digits = serial.iter().rev().take(4);
    Ok(digits.fold(String::from("Portyard CA "), |name, byte| {
        format!("{name}{byte:02x}")
    }))
}

fn check_name(name: &str) -> Result<(), Fatal> {
    let fits = (1..=COMMON_NAME_MAX).contains(&name.chars().count());
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("a name has 1 to {COMMON_NAME_MAX} characters and no control characters");
    Err(Fatal::new(Exit::Usage, message))
}
