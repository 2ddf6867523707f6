//! Who may look, who may act, and which pages may ask.

use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};

use crate::http::{CorsConfig, Problem, Request};
use crate::routes::{Allowed, KeyCheck};
use crate::settings::Options;

/// Checks requests before anything is answered.
pub struct Watchman {
    /// Whether the listener's own list of hosts has been asked already.
    knows_hosts: bool,
    actions: bool,
    private: bool,
    key: Option<KeyCheck>,
    allow: Option<Allowed>,
}

impl Watchman {
    /// Reads what the options say and name, or says what is wrong.
    pub fn new(options: &Options) -> Result<Self, String> {
        let yard = &options.yard;
        if options.cors != CorsConfig::default() {
            return Err(
                "no other origin may read what a listener of service yard tells; leave the table cors \
                 out"
                    .into(),
            );
        }
        if (yard.actions || yard.private) && yard.key.is_none() && yard.allow.is_empty() {
            return Err(
                "yard.actions and yard.private need yard.key, such as { scheme = \"bearer\", file = \
                 \"/etc/portyard/keys\" }, or yard.allow for certificates"
                    .into(),
            );
        }
        let allow = match &yard.allow[..] {
            [] => None,
            rules => Some(Allowed::new(rules).map_err(|why| format!("yard.{why}"))?),
        };
        if allow.as_ref().is_some_and(Allowed::looks_at_addresses) {
            return Err(
                "yard.allow takes names of certificates, such as \"cn:ada\"; an address proves nothing"
                    .into(),
            );
        }
        let key = yard.key.as_ref().map(KeyCheck::new).transpose();
        Ok(Self {
            knows_hosts: !options.hosts.is_empty(),
            actions: yard.actions,
            private: yard.private,
            key: key.map_err(|why| format!("yard.{why}"))?,
            allow,
        })
    }

    /// Refuses what a page of another origin makes a browser send: under a name of its own that its
    /// DNS points here, or by a form or script of its own.
    pub fn check_origin(&self, request: &Request) -> Result<(), Problem> {
        if !self.knows_hosts && request.headers.contains_key(HOST) && !is_own(request.host()) {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "this answers to localhost and to addresses; write other names into the listener's \
                 options: hosts = [\"yard.example.org\"]",
            ));
        }
        if matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let elsewhere = || {
            Problem::new(
                StatusCode::FORBIDDEN,
                "pages from elsewhere may not ask this",
            )
        };
        if let Some(origin) = request.headers.get(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            if host.is_empty() || !host.eq_ignore_ascii_case(request.host()) {
                return Err(elsewhere());
            }
        }
        match request.header(FETCH_SITE) {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(elsewhere()),
        }
    }

    /// Whether who asks may look; who it is, where that is known.
    pub async fn check_look(&self, request: &mut Request) -> Result<Option<String>, Problem> {
        if self.private {
            self.check(request).await
        } else {
            Ok(None)
        }
    }

    /// Whether who asks may act.
    pub async fn check_act(&self, request: &mut Request) -> Result<Option<String>, Problem> {
        if !self.actions {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "actions are off here; write yard = { actions = true, key = … } into the listener's \
                 options",
            ));
        }
        self.check(request).await
    }

    async fn check(&self, request: &mut Request) -> Result<Option<String>, Problem> {
        if let Some(allow) = &self.allow
            && allow.allows(request)
        {
            let facts = request.client.certificate.as_ref();
            return Ok(facts.map(|facts| format!("certificate {}", facts.subject)));
        }
        match &self.key {
            Some(key) => {
                let name = key.check(request).await?;
                Ok(Some(format!("key {name}")))
            }
            None => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this is for the holders of certain certificates",
            )),
        }
    }
}

/// Whether a host can only be this machine as its user sees it: no name that a stranger's DNS answers for.
fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

/// What browsers say of where a request comes from (Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_and_addresses_are_own_hosts() {
        for own in [
            "localhost",
            "LOCALHOST:18082",
            "127.0.0.1:1",
            "[::1]:80",
            "192.0.2.7",
        ] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "example.org",
            "localhost.example.org",
            "127.0.0.1.nip.io",
            "",
            "a:1",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }
}
