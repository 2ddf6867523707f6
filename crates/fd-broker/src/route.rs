//! Which pool a connection goes to, by what its client says first.

use portyard_core::wire::client_hello::{self, ClientHello, HelloError};
use serde::{Deserialize, Serialize};

use crate::peek::Peeked;

/// A `route` table of a hand-off listener's options: all that it says must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// TLS server names, `*.` standing for one label or more in front.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_name: Vec<String>,
    /// Application protocols, one of which the client hello must offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// What the connection must begin with: text, or `hex:` and digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bytes: Option<String>,
    /// The pool.
    pub pool: String,
}

/// A listener's routes, as they are applied.
#[derive(Debug, Clone)]
pub struct Routes {
    rules: Vec<Rule>,
}

/// Where a connection goes, and what was seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routed {
    /// The rule's pool; `None` when none fits.
    pub pool: Option<String>,
    /// What was seen.
    pub peeked: Peeked,
}

#[derive(Debug, Clone)]
struct Rule {
    server_name: Vec<String>,
    alpn: Vec<Vec<u8>>,
    first_bytes: Vec<u8>,
    pool: String,
}

/// What a rule says of the bytes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// More bytes are needed.
    Open,
}

impl Routes {
    /// How many bytes are looked at: a whole client hello.
    pub const LIMIT: usize = client_hello::HELLO_MAX;

    /// Reads the tables, or says what is wrong with one.
    pub fn new(configs: &[RouteConfig]) -> Result<Self, String> {
        let rules = configs.iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Whether every connection goes to the listener's own pool.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Finds the rule for a connection that begins with these bytes; `None` while more are needed.
    pub fn find(&self, bytes: &[u8]) -> Option<Routed> {
        let hello = client_hello::parse(bytes);
        for rule in &self.rules {
            match rule.fit(bytes, &hello) {
                Fit::No => {}
                Fit::Open => return None,
                Fit::Yes => return Some(routed(Some(rule), bytes, hello)),
            }
        }
        Some(routed(None, bytes, hello))
    }
}

fn routed(
    rule: Option<&Rule>,
    bytes: &[u8],
    hello: Result<Option<ClientHello>, HelloError>,
) -> Routed {
    let ClientHello { server_name, alpn } = hello.ok().flatten().unwrap_or_default();
    let shown = rule.map_or(0, |rule| rule.first_bytes.len());
    Routed {
        pool: rule.map(|rule| rule.pool.clone()),
        peeked: Peeked {
            server_name,
            alpn,
            first_bytes: bytes[..shown.min(bytes.len())].to_vec(),
        },
    }
}

impl Rule {
    fn new(config: &RouteConfig) -> Result<Self, String> {
        let wrong = |what: String| Err(format!("options.route for pool {:?}: {what}", config.pool));
        let first_bytes = match config.first_bytes.as_deref() {
            None => Vec::new(),
            Some(text) => match text.strip_prefix("hex:").map(unhex) {
                None => text.as_bytes().to_vec(),
                Some(Some(bytes)) => bytes,
                Some(None) => {
                    return wrong(format!(
                        "first_bytes = {text:?} is not pairs of hexadecimal digits behind hex:"
                    ));
                }
            },
        };
        if config.server_name.is_empty() && config.alpn.is_empty() && first_bytes.is_empty() {
            return wrong("it fits everything; write server_name, alpn or first_bytes".into());
        }
        if first_bytes.len() > FIRST_BYTES_MAX {
            return wrong(format!(
                "first_bytes is longer than {FIRST_BYTES_MAX} bytes"
            ));
        }
        for name in &config.server_name {
            let labels = name.strip_prefix("*.").unwrap_or(name);
            if labels.is_empty() || labels.contains('*') || !labels.is_ascii() {
                return wrong(format!(
                    "server_name = {name:?} is no name; write such as \"www.example.org\" or \
                     \"*.example.org\""
                ));
            }
        }
        Ok(Self {
            server_name: config
                .server_name
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            alpn: config
                .alpn
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect(),
            first_bytes,
            pool: config.pool.clone(),
        })
    }

    fn fit(&self, bytes: &[u8], hello: &Result<Option<ClientHello>, HelloError>) -> Fit {
        let common = bytes.len().min(self.first_bytes.len());
        if bytes[..common] != self.first_bytes[..common] {
            return Fit::No;
        }
        let begun = if common < self.first_bytes.len() {
            Fit::Open
        } else {
            Fit::Yes
        };
        if self.server_name.is_empty() && self.alpn.is_empty() {
            return begun;
        }
        match hello {
            Err(_) => Fit::No,
            Ok(None) => Fit::Open,
            Ok(Some(hello)) if !self.fits_hello(hello) => Fit::No,
            Ok(Some(_)) => begun,
        }
    }

    fn fits_hello(&self, hello: &ClientHello) -> bool {
        let named = |pattern: &String| {
            let Some(name) = &hello.server_name else {
                return false;
            };
            match pattern.strip_prefix('*') {
                Some(end) => name.len() > end.len() && name.ends_with(end),
                None => name == pattern,
            }
        };
        (self.server_name.is_empty() || self.server_name.iter().any(named))
            && (self.alpn.is_empty() || self.alpn.iter().any(|one| hello.alpn.contains(one)))
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.iter().map(byte).collect()
}

/// What an offer repeats.
const FIRST_BYTES_MAX: usize = portyard_core::wire::broker::FIRST_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(configs: &[(&[&str], &str, &str)]) -> Routes {
        let config = |(names, first, pool): &(&[&str], &str, &str)| RouteConfig {
            server_name: names.iter().map(|name| (*name).into()).collect(),
            first_bytes: (!first.is_empty()).then(|| (*first).into()),
            pool: (*pool).into(),
            ..RouteConfig::default()
        };
        Routes::new(&configs.iter().map(config).collect::<Vec<_>>()).unwrap()
    }

    /// The pool's name; `-` for the listener's own, `?` while more bytes are needed.
    fn pool(routes: &Routes, bytes: &[u8]) -> String {
        let routed = routes.find(bytes);
        routed.map_or("?".into(), |routed| routed.pool.unwrap_or("-".into()))
    }

    /// A client hello with this server name and nothing else (RFC 8446, 4.1.2; RFC 6066, 3).
    fn hello(name: &str) -> Vec<u8> {
        let counted = |width: usize, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            [&length[4 - width..], bytes].concat()
        };
        let list = counted(2, &[&[0], &counted(2, name.as_bytes())[..]].concat());
        let extensions = counted(2, &[&[0, 0], &counted(2, &list)[..]].concat());
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0],
            &[0, 2, 0x13, 1],
            &[1, 0],
            &extensions,
        ]
        .concat();
        let message = [&[1], &counted(3, &body)[..]].concat();
        [&[0x16, 3, 1], &counted(2, &message)[..]].concat()
    }

    #[test]
    fn the_first_rule_that_fits_has_the_connection() {
        let routes = routes(&[
            (&[], "GET ", "web"),
            (&["www.example.org", "*.example.net"], "", "tls"),
            (&[], "hex:00ff", "binary"),
        ]);
        assert_eq!(pool(&routes, b"GET / HTTP/1.1"), "web");
        assert_eq!(pool(&routes, b"SSH-2.0-x"), "-");
        assert_eq!(pool(&routes, b"\x00\xff\x01"), "binary");
        for name in ["www.example.org", "a.example.net", "a.b.EXAMPLE.net"] {
            assert_eq!(pool(&routes, &hello(name)), "tls", "{name}");
        }
        for name in [
            "example.org",
            "example.net",
            "xexample.net",
            "x.www.example.org",
        ] {
            assert_eq!(pool(&routes, &hello(name)), "-", "{name}");
        }
    }

    #[test]
    fn more_bytes_are_waited_for_only_while_they_can_matter() {
        let routes = routes(&[(&[], "GET ", "web"), (&["a.example"], "", "tls")]);
        let hello = hello("a.example");
        for end in 1..hello.len() {
            assert_eq!(pool(&routes, &hello[..end]), "?", "{end}");
        }
        assert_eq!(pool(&routes, b""), "?");
        assert_eq!(pool(&routes, b"GE"), "?");
        assert_eq!(pool(&routes, b"GX"), "-");
        assert_eq!(
            routes.find(&hello).unwrap().peeked.server_name.as_deref(),
            Some("a.example")
        );
    }

    #[test]
    fn a_rule_that_says_nothing_or_nonsense_is_refused() {
        let wrong = |config: RouteConfig| Routes::new(&[config]).unwrap_err();
        let base = RouteConfig {
            pool: "p".into(),
            ..RouteConfig::default()
        };
        assert!(wrong(base.clone()).contains("fits everything"));
        let bad = RouteConfig {
            first_bytes: Some("hex:0".into()),
            ..base.clone()
        };
        assert!(wrong(bad).contains("hexadecimal"));
        let bad = RouteConfig {
            server_name: vec!["a.*.org".into()],
            ..base
        };
        assert!(wrong(bad).contains("is no name"));
    }
}
