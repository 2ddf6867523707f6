//! A way to a server: its address, a connection, TLS, and the version that is agreed on.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portyard_core::endpoint::Transport;
use portyard_core::exit::{Exit, Fatal};
use rustls::ProtocolVersion;
use tokio_rustls::TlsConnector;

use super::link::{Link, dial};
use super::proxy::Proxy;
use super::session::Plan;
use super::site::Site;
use super::talk::Talk;
use crate::connect::Target;
use crate::trust::{Stream, shake_failure};

/// Which versions of HTTP are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Versions {
    /// HTTP/2 inside TLS where the server likes to, else HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    #[value(name = "1.1")]
    Http1,
    /// HTTP/2; without TLS the server has to know it.
    #[value(name = "2")]
    Http2,
}

/// How long the steps to a connection took; `None`: there was none to take.
#[derive(Debug, Default)]
pub struct Opened {
    /// The name.
    pub lookup: Option<Duration>,
    /// The connection.
    pub connect: Option<Duration>,
    /// TLS.
    pub tls: Option<Duration>,
}

/// Connects to a site, as a plan says; `is_first`: it is the origin of its URL.
pub async fn reach(
    plan: &Plan,
    site: &Site,
    is_first: bool,
    talk: Talk,
) -> Result<(Link, Opened), Fatal> {
    let pace = plan.pace;
    let start = Instant::now();
    let given = plan.connect.clone().filter(|_| is_first);
    let proxy = plan.proxy.as_ref();
    let endpoint = proxy.map(Proxy::endpoint).or(given);
    let endpoint = endpoint.unwrap_or_else(|| site.endpoint());
    let mut target = Target::new(endpoint, Transport::Stream, pace.left()?)?;
    if target.transport != Transport::Stream {
        let message = format!(
            "{} takes datagrams; HTTP goes over a stream",
            target.endpoint
        );
        return Err(Fatal::new(Exit::Usage, message));
    }
    let lookup = start.elapsed();
    let start = Instant::now();
    let mut stream = dial(&target, pace.left()?)?;
    let connect = start.elapsed();
    talk.note(&format!("connected to {}", target.endpoint));
    // What a proxy cannot ask for itself.
    let tunnel = proxy
        .filter(|proxy| proxy.only_carries() || site.is_tls || plan.versions == Versions::Http2);
    if let Some(proxy) = tunnel {
        proxy.tunnel(&mut stream, &target, site, &pace).await?;
        talk.note(&format!("{} carries bytes to {site}", target.endpoint));
        target = target.called(site.endpoint());
    }
    let mut is_http2 = plan.versions == Versions::Http2;
    let mut tls = None;
    if site.is_tls {
        let start = Instant::now();
        (stream, is_http2) = secure(plan, site, is_first, talk, &target, stream).await?;
        tls = Some(start.elapsed());
    }
    let late = || target.failure(&ErrorKind::TimedOut.into());
    let opening = Link::open(stream, is_http2, site, plan.max_header);
    let mut link = pace.step(opening, late).await??;
    if let Some(proxy) = proxy.filter(|_| tunnel.is_none()) {
        link.go_by_proxy(proxy.authorization());
    }
    let opened = Opened {
        lookup: Some(lookup),
        connect: Some(connect),
        tls,
    };
    Ok((link, opened))
}

/// TLS over a stream, and whether HTTP/2 is spoken inside it.
async fn secure(
    plan: &Plan,
    site: &Site,
    is_first: bool,
    talk: Talk,
    target: &Target,
    stream: Box<dyn Stream>,
) -> Result<(Box<dyn Stream>, bool), Fatal> {
    let alpn: &[&str] = match plan.versions {
        Versions::Auto => &["h2", "http/1.1"],
        Versions::Http1 => &["http/1.1"],
        Versions::Http2 => &["h2"],
    };
    let (config, name) = plan.trusting.load(site, is_first, alpn)?;
    let connector = TlsConnector::from(Arc::clone(&config));
    let late = || target.failure(&ErrorKind::TimedOut.into());
    let session = plan
        .pace
        .step(connector.connect(name, stream), late)
        .await?;
    let session = session.map_err(|error| shake_failure(target, &error))?;
    let state = session.get_ref().1;
    let is_http2 = state.alpn_protocol() == Some(b"h2");
    if plan.versions == Versions::Http2 && !is_http2 {
        let message = format!("{site} does not speak HTTP/2; leave out --http-version 2");
        return Err(Fatal::new(Exit::Data, message));
    }
    let version = match state.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS 1.2",
    };
    let suite = state.negotiated_cipher_suite().map(|suite| suite.suite());
    let suite = suite.and_then(|suite| suite.as_str()).unwrap_or_default();
    let spoken = if is_http2 { "HTTP/2" } else { "HTTP/1.1" };
    talk.note(&format!("{version}, {suite}, {spoken}"));
    Ok((Box::new(session), is_http2))
}
