//! URLs, and the origins that they belong to.

use std::fmt;

use portyard_core::endpoint::{Endpoint, Host, HostPort};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use url::{Position, Url};

/// Scheme, host and port (RFC 6454): whose secrets are whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Whether it is spoken to inside TLS.
    pub is_tls: bool,
    /// Host and port.
    pub at: HostPort,
}

impl Site {
    /// Of a URL with http or https.
    pub fn of(url: &Url) -> Option<Self> {
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = match url.host()? {
            url::Host::Domain(name) => Host::Name(name.into()),
            url::Host::Ipv4(ip) => Host::Ip(ip.into()),
            url::Host::Ipv6(ip) => Host::Ip(ip.into()),
        };
        let port = url.port_or_known_default()?;
        Some(Self {
            is_tls,
            at: HostPort { host, port },
        })
    }

    /// Where it is, if nothing else is said.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.at.clone())
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.at)
    }
}

/// The URL that somebody typed: without a scheme it is http, and `:8080/x` and `/x` are on localhost.
pub fn typed(text: &str) -> Result<Url, Fatal> {
    let text = text.trim();
    let shown = escape(text.as_bytes(), SHOWN);
    let whole = match text {
        _ if text.contains("://") => text.to_owned(),
        _ if text.starts_with('/') => format!("http://localhost{text}"),
        // An IPv6 address without brackets looks alike, and is refused below.
        _ if text.starts_with(':') && !text.starts_with("::") => format!("http://localhost{text}"),
        _ => format!("http://{text}"),
    };
    let url = Url::parse(&whole)
        .map_err(|error| Fatal::new(Exit::Usage, format!("'{shown}' is not a URL: {error}")))?;
    if Site::of(&url).is_none() {
        let message = format!("'{shown}' is neither http:// nor https://");
        return Err(Fatal::new(Exit::Usage, message));
    }
    Ok(url)
}

/// What stands behind the method: path and query.
pub fn target(url: &Url) -> &str {
    &url[Position::BeforePath..Position::AfterQuery]
}

/// Host, and the port unless it is the scheme's own, as in `Host`.
pub fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

/// Characters of a URL in a message.
pub const SHOWN: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_in_short_is_meant_in_full() {
        for (short, full) in [
            ("localhost", "http://localhost/"),
            ("localhost:8080/get", "http://localhost:8080/get"),
            (":8080/get?a=b", "http://localhost:8080/get?a=b"),
            ("/get", "http://localhost/get"),
            ("127.0.0.1:1", "http://127.0.0.1:1/"),
            ("[::1]:1/x", "http://[::1]:1/x"),
            (
                "https://b\u{fc}cher.example/\u{e4} b",
                "https://xn--bcher-kva.example/%C3%A4%20b",
            ),
        ] {
            assert_eq!(typed(short).unwrap().as_str(), full, "{short}");
        }
    }

    #[test]
    fn what_is_no_url_of_http_is_refused() {
        for text in [
            "",
            "ftp://x/",
            "file:///etc/passwd",
            "http://",
            "::1",
            "a b",
            "http://x:99999",
        ] {
            assert_eq!(typed(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }

    #[test]
    fn a_site_is_scheme_host_and_port() {
        let site = |text| Site::of(&typed(text).unwrap()).unwrap();
        assert_eq!(site("https://a/x"), site("https://A:443/y"));
        assert_ne!(site("https://a"), site("http://a"));
        assert_ne!(site("http://a"), site("http://a:81"));
        assert_ne!(site("http://a"), site("http://b"));
        let url = typed("http://u:p@a:80/x?y#z").unwrap();
        assert_eq!(target(&url), "/x?y");
        assert_eq!(authority(&url), "a");
    }
}
