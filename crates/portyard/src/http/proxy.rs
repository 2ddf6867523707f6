//! A proxy on the way (RFC 9110, 7.6 and 9.3.6): it is asked whole for what is http, and for what it must not
//! understand, TLS and HTTP/2, it only carries bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;
use zeroize::Zeroizing;

use super::pace::Pace;
use super::site::{Site, typed};
use crate::connect::Target;
use crate::trust::Stream;

/// A proxy, and who we are to it.
pub struct Proxy {
    site: Site,
    /// What `Proxy-Authorization` says.
    authorization: Option<Zeroizing<String>>,
}

impl Proxy {
    /// Reads `http://[USER:PASSWORD@]HOST:PORT`.
    pub fn read(text: &str) -> Result<Self, Fatal> {
        let wrong = |why: &str| Fatal::new(Exit::Usage, format!("--proxy: {why}"));
        let url = typed(text).map_err(|error| wrong(&error.to_string()))?;
        let site = Site::of(&url).filter(|site| !site.is_tls);
        let site = site.ok_or_else(|| wrong("a proxy is spoken to by http://HOST:PORT"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(wrong("write http://HOST:PORT and nothing behind it"));
        }
        Ok(Self {
            site,
            authorization: authorization(&url),
        })
    }

    /// Where it is.
    pub fn endpoint(&self) -> Endpoint {
        self.site.endpoint()
    }

    /// What is shown to it with each request.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|text| text.as_str())
    }

    /// Has it carry bytes to a site from here on; `target` is the proxy, which `stream` leads to.
    pub async fn tunnel(
        &self,
        stream: &mut Box<dyn Stream>,
        target: &Target,
        site: &Site,
        pace: &Pace,
    ) -> Result<(), Fatal> {
        let to = &site.at;
        let mut request = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"));
        if let Some(authorization) = &self.authorization {
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
