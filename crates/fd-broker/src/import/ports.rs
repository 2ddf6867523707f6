//! Names of ports, as services(5) has them.

use std::collections::HashMap;
use std::path::Path;

/// Names and aliases, each with a protocol, to ports.
#[derive(Debug, Default)]
pub struct Ports(HashMap<(String, String), u16>);

impl Ports {
    /// Those of this machine; none where the file cannot be read.
    pub fn system() -> Self {
        Self::parse(&super::read(Path::new("/etc/services")).unwrap_or_default())
    }

    /// Those of a text.
    pub fn parse(text: &str) -> Self {
        let mut ports = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(place)) = (words.next(), words.next()) else {
                continue;
            };
            let Some((port, protocol)) = place.split_once('/') else {
                continue;
            };
            let Ok(port) = port.parse() else { continue };
            for name in std::iter::once(name).chain(words) {
                ports
                    .entry((name.to_owned(), protocol.to_owned()))
                    .or_insert(port);
            }
        }
        Self(ports)
    }

    /// The port of a name or number.
    pub fn find(&self, name: &str, datagrams: bool) -> Option<u16> {
        let protocol = if datagrams { "udp" } else { "tcp" };
        name.parse()
            .ok()
            .or_else(|| self.0.get(&(name.to_owned(), protocol.to_owned())).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_numbers_are_found_by_protocol() {
        let ports = Ports::parse("# a\nhttp 80/tcp www # web\ntftp\t69/udp\nbad x/tcp\n");
        assert_eq!(ports.find("www", false), Some(80));
        assert_eq!(ports.find("tftp", true), Some(69));
        assert_eq!(ports.find("tftp", false), None);
        assert_eq!(ports.find("8080", false), Some(8080));
        assert_eq!(ports.find("70000", false), None);
    }
}
