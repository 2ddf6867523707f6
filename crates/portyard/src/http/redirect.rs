//! Where an answer sends us, and what goes along (RFC 9110, 15.4).

use hyper::{Method, StatusCode};
use url::Url;

use super::site::Site;

/// The next request of a chain of redirects.
#[derive(Debug, PartialEq, Eq)]
pub struct Onward {
    /// Its URL, without a user or password, whatever `Location` says.
    pub url: Url,
    /// Its method.
    pub method: Method,
    /// Whether the body, and the fields that describe it, go along.
    pub keeps_body: bool,
    /// Whether it is the same origin, so that secrets go along too.
    pub is_same_site: bool,
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stray {
    /// `Location` is no URL.
    #[error("it redirects to what is no URL")]
    NoUrl,
    /// Something else than http and https.
    #[error("it redirects to a URL of scheme {0}, which is not followed")]
    Scheme(String),
    /// A body would leave TLS.
    #[error("it redirects a request with a body from https to http, where everybody could read it")]
    Downgrade,
}

/// Whether a status sends us elsewhere, if there is a `Location`.
pub fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Follows `location` of an answer with `status` to a request with `method` for `url`.
pub fn onward(
    status: StatusCode,
    location: &str,
    url: &Url,
    method: &Method,
    has_body: bool,
) -> Result<Onward, Stray> {
    let mut next = url.join(location).map_err(|_| Stray::NoUrl)?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(Stray::Scheme(next.scheme().chars().take(20).collect()));
    }
    // Both can only fail for URLs without a host, which http has not.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    // RFC 9110, 10.2.2.
    if next.fragment().is_none() {
        next.set_fragment(url.fragment());
    }
    let (method, keeps_body) = match (status.as_u16(), method) {
        (303, &Method::HEAD) => (Method::HEAD, false),
        (301 | 302, &Method::POST) | (303, _) => (Method::GET, false),
        (_, method) => (method.clone(), true),
    };
    if keeps_body && has_body && url.scheme() == "https" && next.scheme() == "http" {
        return Err(Stray::Downgrade);
    }
    Ok(Onward {
        is_same_site: Site::of(url) == Site::of(&next),
        url: next,
        method,
        keeps_body,
    })
}

/// Whether a field that was given by hand may be sent to another origin than the one it was meant
/// for. Any other may be a secret, as `X-Api-Key` is.
pub fn may_cross(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(
        name.as_str(),
        "user-agent" | "range" | "cache-control" | "pragma" | "dnt" | "prefer" | "expect" | "date"
    ) || ["accept", "content-", "if-"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn follow(status: u16, location: &str, method: &Method) -> Result<Onward, Stray> {
        let status = StatusCode::from_u16(status).unwrap();
        let url = url("https://a.example/x/y?q#f");
        onward(status, location, &url, method, method == Method::POST)
    }

    #[test]
    fn the_method_changes_as_the_rfc_says() {
        for (status, before, after, keeps) in [
            (301, Method::POST, Method::GET, false),
            (302, Method::POST, Method::GET, false),
            (302, Method::PUT, Method::PUT, true),
            (301, Method::HEAD, Method::HEAD, true),
            (303, Method::POST, Method::GET, false),
            (303, Method::DELETE, Method::GET, false),
            (303, Method::HEAD, Method::HEAD, false),
            (307, Method::POST, Method::POST, true),
            (308, Method::PATCH, Method::PATCH, true),
        ] {
            let next = follow(status, "/z", &before).unwrap();
            assert_eq!(
                (next.method, next.keeps_body),
                (after, keeps),
                "{status} {before}"
            );
        }
        for status in [200, 300, 304, 305, 306, 400] {
            assert!(
                !is_redirect(StatusCode::from_u16(status).unwrap()),
                "{status}"
            );
        }
    }

    #[test]
    fn relative_locations_are_resolved_and_users_in_them_dropped() {
        let get = |location| follow(302, location, &Method::GET).unwrap();
        let next = get("z");
        assert_eq!(next.url.as_str(), "https://a.example/x/z#f");
        assert!(next.is_same_site);
        let next = get("//u:p@b.example/#g");
        assert_eq!(next.url.as_str(), "https://b.example/#g");
        assert!(!next.is_same_site);
        assert!(!get("http://a.example/").is_same_site);
        assert!(!get("https://a.example:444/").is_same_site);
    }

    #[test]
    fn what_leads_out_of_http_or_lets_a_body_leave_tls_is_not_followed() {
        let error = |location| follow(307, location, &Method::POST).unwrap_err();
        assert_eq!(error("file:///etc/passwd"), Stray::Scheme("file".into()));
        assert_eq!(error("http://"), Stray::NoUrl);
        assert_eq!(error("http://a.example/"), Stray::Downgrade);
        assert!(follow(303, "http://a.example/", &Method::POST).is_ok());
    }

    #[test]
    fn only_fields_that_cannot_be_secrets_cross_to_another_origin() {
        for name in [
            "Accept",
            "Accept-Language",
            "User-Agent",
            "Content-Type",
            "If-None-Match",
        ] {
            assert!(may_cross(name), "{name}");
        }
        for name in [
            "Authorization",
            "Cookie",
            "Proxy-Authorization",
            "X-Api-Key",
            "Host",
            "Origin",
        ] {
            assert!(!may_cross(name), "{name}");
        }
    }
}
