//! The names in a certificate: which texts can be one, and of which kind.

use std::fmt;
use std::net::IpAddr;

use rcgen::SanType;
use rcgen::string::Ia5String;

/// A name that clients and servers compare (a "subject alternative name").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A host; the first label may be `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A person.
    Email(String),
    /// Anything with a scheme, such as `spiffe://…`.
    Uri(String),
}

impl Name {
    /// A name that a server can be called by: a DNS name or an IP address.
    pub fn of_server(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        check_dns(text).map_err(|remedy| {
            format!("'{text}' is neither a DNS name nor an IP address; {remedy}")
        })?;
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }

    /// What a client's name is, by its look; `None` when it can only be a common name.
    pub fn of_client(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            Some(Self::Ip(address))
        } else if is_uri(text) {
            Some(Self::Uri(text.into()))
        } else if is_email(text) {
            Some(Self::Email(text.into()))
        } else {
            check_dns(text).ok()?;
            Some(Self::Dns(text.to_ascii_lowercase()))
        }
    }

    /// An email address.
    pub fn of_email(text: &str) -> Result<Self, String> {
        if is_email(text) {
            Ok(Self::Email(text.into()))
        } else {
            Err(format!(
                "'{text}' is not an email address; write it as alice@example.org"
            ))
        }
    }

    /// The form that goes into a certificate.
    pub fn san(&self) -> Result<SanType, rcgen::Error> {
        let ascii = |text: &String| Ia5String::try_from(text.as_str());
        Ok(match self {
            Self::Dns(text) => SanType::DnsName(ascii(text)?),
            Self::Ip(address) => SanType::IpAddress(*address),
            Self::Email(text) => SanType::Rfc822Name(ascii(text)?),
            Self::Uri(text) => SanType::URI(ascii(text)?),
        })
    }
}

/// As [`portyard_core::tls::Facts`] spells them.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) => write!(f, "dns:{text}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::Email(text) => write!(f, "email:{text}"),
            Self::Uri(text) => write!(f, "uri:{text}"),
        }
    }
}

/// What to do when a text is not a DNS name, or a wildcard that clients take for one.
fn check_dns(text: &str) -> Result<(), &'static str> {
    if text.contains("://") || text.contains('/') {
        return Err("write the host alone, without scheme, path or prefix length");
    }
    if text.contains('@') {
        return Err("an email address is for a client's certificate");
    }
    if text.contains(':') || text.contains('[') {
        return Err("write the host without a port, and IPv6 addresses without brackets");
    }
    if !text.is_ascii() {
        return Err("write its ASCII form, which begins with xn--");
    }
    if text.ends_with('.') {
        return Err("leave out the dot at its end");
    }
    let (labels, wildcard) = match text.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if labels.contains('*') {
        return Err("a * stands for the whole first label, as in *.example.org");
    }
    if wildcard && !labels.contains('.') {
        return Err("clients believe no * in front of a single label; write *.example.org");
    }
    if text.len() > 253 || !labels.split('.').all(is_label) {
        return Err(
            "a DNS name has labels of 1 to 63 letters, digits and inner dashes, with dots between \
             them, and at most 253 characters",
        );
    }
    // It would be an address with a number too large.
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("its end is a number, and as an IP address it is wrong");
    }
    Ok(())
}

/// The underscore is in no host name by the book, but in the names of many containers.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, host)| {
        !local.is_empty()
            && local.bytes().all(|byte| byte.is_ascii_graphic())
            && !host.starts_with('*')
            && check_dns(host).is_ok()
    })
}

fn is_uri(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_dns_names_and_addresses() {
        for (text, name) in [
            ("localhost", "dns:localhost"),
            ("Host-1.Example.ORG", "dns:host-1.example.org"),
            ("*.example.org", "dns:*.example.org"),
            ("my_service", "dns:my_service"),
            ("127.0.0.1", "ip:127.0.0.1"),
            ("2001:DB8::1", "ip:2001:db8::1"),
        ] {
            assert_eq!(Name::of_server(text).unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("https://host/", "without scheme"),
            ("10.0.0.0/8", "prefix length"),
            ("host:443", "without a port"),
            ("[::1]", "brackets"),
            ("alice@example.org", "client"),
            ("münchen.de", "xn--"),
            ("host.", "dot at its end"),
            ("a.*.org", "whole first label"),
            ("w*.example.org", "whole first label"),
            ("*.org", "single label"),
            ("*", "whole first label"),
            ("256.1.1.1", "as an IP address"),
            ("", "labels"),
            ("a..b", "labels"),
            ("-a", "labels"),
            ("a b", "labels"),
            ("a\0b", "labels"),
        ] {
            let error = Name::of_server(text).unwrap_err();
            assert!(error.contains(remedy), "{text:?}: {error}");
        }
        assert!(Name::of_server(&format!("{}.org", "a".repeat(64))).is_err());
        assert!(Name::of_server(&"a.".repeat(126)).is_err());
    }

    #[test]
    fn what_rustls_takes_for_a_name_of_a_server_is_one() {
        for text in ["localhost", "my_service", "a-b.example.org", "::1"] {
            let name = Name::of_server(text).is_ok();
            let server = rustls::pki_types::ServerName::try_from(text).is_ok();
            assert_eq!(name, server, "{text}");
        }
    }

    #[test]
    fn a_clients_name_is_what_it_looks_like() {
        for (text, name) in [
            ("alice", Some("dns:alice")),
            ("build.example.org", Some("dns:build.example.org")),
            ("alice@example.org", Some("email:alice@example.org")),
            ("spiffe://yard/alice", Some("uri:spiffe://yard/alice")),
            ("10.0.0.7", Some("ip:10.0.0.7")),
            ("Alice Miller", None),
            ("alice@", None),
            ("://x", None),
        ] {
            let found = Name::of_client(text).map(|name| name.to_string());
            assert_eq!(found.as_deref(), name, "{text}");
        }
    }
}
