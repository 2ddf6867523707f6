//! The services database: services(5), the format of /etc/services.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use portyard_core::exit::{Exit, Fatal};
use serde::Serialize;

/// One line of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The official name.
    pub name: String,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp`, or another protocol's name.
    pub protocol: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// What stands behind `#`; empty if nothing.
    pub comment: String,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// An official name or an alias, in the exact case.
    Name(String),
    /// A port.
    Port(u16),
}

impl Entry {
    /// Reads one line; `None` for an empty one, a comment, and whatever is not an entry, which
    /// getservent(3) passes over as well.
    pub fn parse(line: &str) -> Option<Self> {
        let (fields, comment) = line.split_once('#').unwrap_or((line, ""));
        let mut fields = fields.split_ascii_whitespace();
        let name = fields.next()?;
        let (port, protocol) = fields.next()?.split_once('/')?;
        if protocol.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            name: name.into(),
            port: port.parse().ok()?,
            protocol: protocol.into(),
            aliases: fields.map(Into::into).collect(),
            comment: comment.trim().into(),
        })
    }

    /// Whether the entry is one for this key and, where given, this protocol.
    pub fn matches(&self, key: &Key, protocol: Option<&str>) -> bool {
        let found = match key {
            Key::Name(name) => self.name == *name || self.aliases.contains(name),
            Key::Port(port) => self.port == *port,
        };
        found && protocol.is_none_or(|protocol| self.protocol == protocol)
    }
}

/// Reads the entries of a file, in its order. Bytes that are no UTF-8 are replaced.
pub fn read(path: &Path) -> Result<Vec<Entry>, Fatal> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(Entry::parse).collect())
}

fn unreadable(path: &Path, error: &io::Error) -> Fatal {
    let shown = path.display();
    if error.kind() == io::ErrorKind::NotFound {
        let message = format!(
            "there is no {shown}; the Debian package netbase has /etc/services \
             (apt-get install netbase), or name another file with --file"
        );
        return Fatal::new(Exit::Unavailable, message);
    }
    Fatal::new(
        Exit::from_io(error),
        format!("cannot read {shown}: {error}"),
    )
}

/// IANA's complete list is below 2 MB.
const MAX_FILE: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_entry_is_passed_over() {
        for line in [
            "",
            "# echo 7/tcp",
            "echo",
            "echo 7",
            "echo 7/",
            "echo /tcp",
            "echo 70000/tcp",
            "echo x/tcp",
            "echo +7/tcp",
            "echo -7/tcp",
        ] {
            assert_eq!(Entry::parse(line), None, "{line}");
        }
    }

    #[test]
    fn an_entry_has_aliases_and_a_comment() {
        let entry = Entry::parse("discard\t9/tcp\tsink null # drops it ").unwrap();
        assert_eq!((entry.name.as_str(), entry.port), ("discard", 9));
        assert_eq!(entry.aliases, ["sink", "null"]);
        assert_eq!(entry.comment, "drops it");
        assert!(entry.matches(&Key::Name("sink".into()), None));
        assert!(entry.matches(&Key::Port(9), Some("tcp")));
        assert!(!entry.matches(&Key::Port(9), Some("udp")));
        assert!(!entry.matches(&Key::Name("Discard".into()), None));
    }
}
