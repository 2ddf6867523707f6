//! A proxy on the way. One of HTTP (RFC 9110, 7.6 and 9.3.6) is asked whole for what is http, and for what it must
//! not understand, TLS and HTTP/2, it only carries bytes; one of [`socks`] does nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portyard_core::endpoint::{Endpoint, Host, HostPort, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;
use zeroize::Zeroizing;

use super::link::dial;
use super::pace::Pace;
use super::site::{Site, typed};
use super::socks::{self, User};
use crate::connect::Target;
use crate::trust::Stream;

/// A proxy, and who we are to it.
pub struct Proxy {
    at: HostPort,
    kind: Kind,
}

enum Kind {
    Http {
        /// What `Proxy-Authorization` says.
        authorization: Option<Zeroizing<String>>,
    },
    Socks {
        user: Option<User>,
        /// It looks names up, not we.
        looks_up: bool,
    },
}

impl Proxy {
    /// Reads `http://[USER:PASSWORD@]HOST:PORT`, or the same with `socks5` or `socks5h`.
    pub fn read(text: &str) -> Result<Self, Fatal> {
        let wrong = |why: &str| Fatal::new(Exit::Usage, format!("--proxy: {why}"));
        let scheme = text.trim().split_once("://").map(|(scheme, _)| scheme);
        let scheme = scheme.map(str::to_ascii_lowercase);
        if let Some(scheme @ ("socks5" | "socks5h")) = scheme.as_deref() {
            return Self::socks(text.trim(), scheme == "socks5h").map_err(wrong);
        }
        let url = typed(text).map_err(|error| wrong(&error.to_string()))?;
        let site = Site::of(&url).filter(|site| !site.is_tls);
        let site = site.ok_or_else(|| {
            wrong("a proxy is http://HOST:PORT, socks5h://HOST:PORT or socks5://HOST:PORT")
        })?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(wrong("write http://HOST:PORT and nothing behind it"));
        }
        Ok(Self {
            at: site.at,
            kind: Kind::Http {
                authorization: authorization(&url),
            },
        })
    }

    fn socks(text: &str, looks_up: bool) -> Result<Self, &'static str> {
        const WRITE: &str = "write socks5h://HOST:PORT and nothing behind it";
        let url = Url::parse(text).map_err(|_| WRITE)?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = url::Host::parse(host.ok_or(WRITE)?).map_err(|_| WRITE)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(WRITE);
        }
        let user = match (url.username(), url.password()) {
            ("", None) => None,
            (name, password) => {
                let password = super::decode(password.unwrap_or_default()).into();
                let user = User::new(super::decode(name), password);
                Some(user.ok_or("USER has from 1 to 255 bytes, and PASSWORD at most 255")?)
            }
        };
        Ok(Self {
            at: HostPort {
                host: match host {
                    url::Host::Domain(name) => Host::Name(name),
                    url::Host::Ipv4(ip) => Host::Ip(ip.into()),
                    url::Host::Ipv6(ip) => Host::Ip(ip.into()),
                },
                port: url.port().unwrap_or(SOCKS_PORT),
            },
            kind: Kind::Socks { user, looks_up },
        })
    }

    /// Whether it carries bytes and does nothing else.
    pub fn only_carries(&self) -> bool {
        matches!(self.kind, Kind::Socks { .. })
    }

    /// Where it is.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.at.clone())
    }

    /// What is shown to it with each request.
    pub fn authorization(&self) -> Option<&str> {
        match &self.kind {
            Kind::Http { authorization } => authorization.as_ref().map(|text| text.as_str()),
            Kind::Socks { .. } => None,
        }
    }

    /// Has it carry bytes to a site from here on; `target` is the proxy, which `stream` leads to.
    pub async fn tunnel(
        &self,
        stream: &mut Box<dyn Stream>,
        target: &Target,
        site: &Site,
        pace: &Pace,
    ) -> Result<(), Fatal> {
        if let Kind::Socks { user, looks_up } = &self.kind {
            return carry(stream, target, site, pace, user.as_ref(), *looks_up).await;
        }
        let to = &site.at;
        let mut request = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"));
        if let Some(authorization) = self.authorization() {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let late = || target.failure(&std::io::ErrorKind::TimedOut.into());
        let asking = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            let mut head = Vec::new();
            // Byte by byte: what stands behind the head is the site's.
            while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    // It has said what it has to say.
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(head)
        };
        let head: std::io::Result<Vec<u8>> = pace.step(asking, late).await?;
        let head = head.map_err(|error| target.failure(&error))?;
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let shown = escape(line, SHOWN);
        let status = line
            .strip_prefix(b"HTTP/1.")
            .and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok())
            .and_then(|digits| digits.parse::<u16>().ok());
        let Some(status) = status.filter(|_| head.ends_with(b"\r\n\r\n")) else {
            let message = format!(
                "{} does not answer as a proxy does, with a whole head of HTTP of at most {HEAD_MAX} bytes: \
                 '{shown}'; is it one?",
                target.endpoint
            );
            return Err(Fatal::new(Exit::Data, message));
        };
        let exit = match status {
            200..300 => return Ok(()),
            407 => {
                let message = format!(
                    "the proxy {} answers '{shown}'; say who you are: --proxy \
                     http://USER:PASSWORD@HOST:PORT",
                    target.endpoint
                );
                return Err(Fatal::new(Exit::NoPermission, message));
            }
            403 => Exit::NoPermission,
            500..600 => Exit::Unavailable,
            _ => Exit::Data,
        };
        let message = format!(
            "the proxy {} does not carry bytes to {to}: '{shown}'",
            target.endpoint
        );
        Err(Fatal::new(exit, message))
    }
}

/// The same by SOCKS. Where names are looked up here, each address of the site is tried.
async fn carry(
    stream: &mut Box<dyn Stream>,
    target: &Target,
    site: &Site,
    pace: &Pace,
    user: Option<&User>,
    looks_up: bool,
) -> Result<(), Fatal> {
    let port = site.at.port;
    let places: Vec<HostPort> = match site.at.host {
        Host::Name(_) if !looks_up => {
            let found = Target::new(site.endpoint(), Transport::Stream, pace.left()?)?;
            let ips = found.internet_addresses().map(|address| address.ip());
            ips.map(|ip| HostPort {
                host: Host::Ip(ip),
                port,
            })
            .collect()
        }
        _ => vec![site.at.clone()],
    };
    let late = || target.failure(&std::io::ErrorKind::TimedOut.into());
    let mut refusal = None;
    for place in places {
        socks::check(&place.host)?;
        if refusal.is_some() {
            *stream = dial(target, pace.left()?)?;
        }
        match pace.step(socks::ask(stream, &place, user), late).await? {
            Ok(()) => return Ok(()),
            Err(why) => {
                let may_go_on = why.is_of_address();
                refusal = Some((why, place));
                if !may_go_on {
                    break;
                }
            }
        }
    }
    let Some((why, place)) = refusal else {
        return Err(target.failure(&std::io::ErrorKind::AddrNotAvailable.into()));
    };
    let message = format!(
        "the proxy {} does not carry bytes to {place}: {why}",
        target.endpoint
    );
    Err(Fatal::new(why.exit(), message))
}

fn authorization(url: &Url) -> Option<Zeroizing<String>> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let password = Zeroizing::new(super::decode(url.password().unwrap_or_default()));
    let both = Zeroizing::new(format!("{}:{}", super::decode(url.username()), *password));
    Some(format!("Basic {}", STANDARD.encode(both.as_bytes())).into())
}

/// The head of an answer to CONNECT; those of real proxies have a tenth of it.
const HEAD_MAX: usize = 16 << 10;
const SHOWN: usize = 200;
/// RFC 1928, 3.
const SOCKS_PORT: u16 = 1080;
