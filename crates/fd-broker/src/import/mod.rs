//! `--import`: the configuration of another inetd as `[[service]]` tables.
//!
//! A file is read as xinetd.conf(5) or inetd.conf(5), whichever it looks like, into [`Draft`]s, which
//! are written as TOML. What has no counterpart becomes a comment in its place and a warning; a service
//! that would be open to more peers than before, or that cannot work, is written as a comment whole.

mod access;
mod draft;
mod inetd;
mod internal;
mod ports;
mod sections;
mod xinetd;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use portyard_core::exit::{Exit, Fatal};

use draft::Draft;
use ports::Ports;

/// What a file came to.
#[derive(Debug, Default)]
pub struct Imported {
    /// The services, in the order of the file.
    drafts: Vec<Draft>,
    /// What could not be translated, each with file and line.
    warnings: Vec<String>,
}

/// Reads a file and writes TOML to standard output, warnings to standard error. The exit code says
/// whether all of it was translated.
pub fn import(path: &Path) -> Result<String, Fatal> {
    let imported = Imported::read(path)?;
    let failed = |error: io::Error| {
        Fatal::new(
            Exit::Io,
            format!("cannot write to standard output: {error}"),
        )
    };
    let text = imported.text(path);
    if imported.warnings.is_empty() {
        return Ok(text);
    }
    io::stdout().write_all(text.as_bytes()).map_err(failed)?;
    for warning in &imported.warnings {
        eprintln!("fd-broker: {warning}");
    }
    let message = format!(
        "not all of it was translated ({}); look at the comments in what was written",
        imported.warnings.len()
    );
    Err(Fatal::new(Exit::No, message))
}

impl Imported {
    fn read(path: &Path) -> Result<Self, Fatal> {
        let text = read(path).map_err(|error| {
            Fatal::new(
                Exit::from_io(&error),
                format!("{} cannot be read: {error}", path.display()),
            )
        })?;
        let ports = Ports::system();
        Ok(if sections::is_like(&text) {
            xinetd::import(path, &text, &ports)
        } else {
            inetd::import(path, &text, &ports)
        })
    }

    fn warn(&mut self, place: &str, what: &str) {
        self.warnings.push(format!("{place}: {what}"));
    }

    /// The services as TOML.
    fn text(&self, path: &Path) -> String {
        let mut text = format!(
            "# Translated from {} by fd-broker --import. Check it with\n\
             # fd-broker --config THIS_FILE --check; configs/fd-broker.toml explains every key.\n",
            path.display()
        );
        for draft in &self.drafts {
            text.push('\n');
            text.push_str(&draft.to_toml());
        }
        text
    }
}

/// Reads a text file of a size that a person could have written. Bytes that are no UTF-8 are replaced.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(
            "it is larger than 1 MiB; is it the right file?",
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

const MAX_BYTES: u64 = 1 << 20;
