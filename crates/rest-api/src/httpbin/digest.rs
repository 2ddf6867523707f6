//! Digest authentication (RFC 7616), the server's side as far as clients are tested against it.

use md5::{Digest as _, Md5};
use portyard_wire::http::challenge::split_list;
use sha2::{Sha256, Sha512};

use super::text::hex;

/// A hash that digests are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 1321.
    Md5,
    /// FIPS 180-4.
    Sha256,
    /// FIPS 180-4.
    Sha512,
}

impl Algorithm {
    /// Its name in fields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        }
    }

    /// By its name in fields; case counts, as it does for httpbin.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Md5, Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// The hash, in hexadecimal.
    pub fn hash(self, bytes: &[u8]) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(bytes)),
            Self::Sha256 => hex(&Sha256::digest(bytes)),
            Self::Sha512 => hex(&Sha512::digest(bytes)),
        }
    }
}

/// What a client answers to a challenge.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Credentials(Vec<(String, String)>);

impl Credentials {
    /// Of an `Authorization` field. `None`: another scheme, or no parameters.
    pub fn parse(field: &str) -> Option<Self> {
        let (scheme, rest) = field.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("digest") || !rest.contains('=') {
            return None;
        }
        let items = split_list(rest);
        let pairs = items.iter().filter_map(|item| {
            let (name, value) = item.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), unquote(value.trim())))
        });
        Some(Self(pairs.collect()))
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether they prove the password, for a request with this method, target and body. The hash is
    /// that which they name.
    pub fn prove(
        &self,
        user: &str,
        password: &str,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> bool {
        let text = |name: &str| self.get(name).unwrap_or_default();
        let algorithm = match text("algorithm") {
            name if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            name if name.eq_ignore_ascii_case("SHA-512") => Algorithm::Sha512,
            _ => Algorithm::Md5,
        };
        let hash = |text: &str| algorithm.hash(text.as_bytes());
        let secret = hash(&format!(
            "{}:{}:{password}",
            text("username"),
            text("realm")
        ));
        let request = match self.get("qop") {
            Some("auth-int") => format!("{method}:{target}:{}", algorithm.hash(body)),
            Some("auth") | None => format!("{method}:{target}"),
            Some(_) => return false,
        };
        let request = hash(&request);
        let expected = match self.get("qop") {
            None => hash(&format!("{secret}:{}:{request}", text("nonce"))),
            Some(qop) => {
                if ["nonce", "nc", "cnonce"]
                    .iter()
                    .any(|name| self.get(name).is_none())
                {
                    return false;
                }
                let (nonce, nc, cnonce) = (text("nonce"), text("nc"), text("cnonce"));
                hash(&format!("{secret}:{nonce}:{nc}:{cnonce}:{qop}:{request}"))
            }
        };
        text("username") == user && text("response") == expected
    }
}

fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.into();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.extend(chars.next()),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7616, 3.9.1.
    fn example(algorithm: &str, response: &str) -> String {
        format!(
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
             algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
             nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
             response=\"{response}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        )
    }

    #[test]
    fn the_rfcs_examples_are_proved() {
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let credentials = Credentials::parse(&example(algorithm, response)).unwrap();
            let prove =
                |user, password| credentials.prove(user, password, "GET", "/dir/index.html", b"");
            assert!(prove("Mufasa", "Circle of Life"));
            assert!(!prove("Mufasa", "circle of life"));
            assert!(!prove("Scar", "Circle of Life"));
            assert!(!credentials.prove("Mufasa", "Circle of Life", "GET", "/dir", b""));
        }
    }

    #[test]
    fn what_is_no_digest_proves_nothing() {
        for field in ["", "Digest", "Digest x", "Basic a=b", "digest"] {
            assert_eq!(Credentials::parse(field), None, "{field}");
        }
        for field in [
            "Digest username=u, qop=other, response=x",
            "Digest username=u, qop=auth, response=x",
            "Digest response=\"\"",
            "Digest username=u",
        ] {
            let credentials = Credentials::parse(field).unwrap();
            assert!(!credentials.prove("u", "p", "GET", "/", b""), "{field}");
        }
    }

    #[test]
    fn quotes_hide_commas_and_backslashes_hide_quotes() {
        let credentials = Credentials::parse(r#"digest a="x, \"y\"", B = c ,d"#).unwrap();
        assert_eq!(credentials.get("a"), Some("x, \"y\""));
        assert_eq!(credentials.get("b"), Some("c"));
        assert_eq!(credentials.get("d"), None);
    }
}
