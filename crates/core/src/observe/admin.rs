//! The admin endpoint: `/healthz`, `/readyz`, `/metrics` and `/status` over HTTP, for probes,
//! scrapers and people on this machine; and for its owner alone the daemon's downloads, and where the
//! configuration allows it `POST /reload`, `POST /drain` and actions of the daemon's own.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::transfer::{Body, Patience, Transfer};
use crate::access::{Identity, Matcher};
use crate::config::{AdminConfig, SocketOptions};
use crate::endpoint::{Endpoint, Transport};
use crate::exit::{Exit, Fatal};
use crate::listen::{Bound, Inherited, Shape, UnixFile, is_loopback, open};
use crate::serve::Stream;

/// What the endpoint tells; the control thread implements it.
pub trait Report {
    /// Whether the loops run and their sockets accept.
    fn healthy(&self) -> Pin<Box<dyn Future<Output = bool>>>;
    /// Whether new work is welcome: started, and not draining.
    fn ready(&self) -> bool;
    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// The state of everything, as JSON.
    fn status(&self) -> serde_json::Value;
    /// The paths of files that its owner may fetch.
    fn downloads(&self) -> &'static [&'static str];
    /// Makes the file behind one of [`Report::downloads`], or says why not.
    fn download(&self, path: &str) -> Download;
    /// What else it can be asked to do, as paths without the first slash.
    fn own_actions(&self) -> &'static [&'static str];
    /// Does one of [`Report::own_actions`] with what has that name, and says what it has done, or why not.
    fn act_on(&self, action: &str, name: &str) -> Result<String, String>;
    /// Does what is asked for, or says why not. Whether draining can begin is known before it does.
    fn act(&self, action: Action) -> Acting;
}

/// What the daemon may be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read the configuration again.
    Reload,
    /// Take nothing new, finish what runs, and leave.
    Drain,
}

/// Something that is being done.
pub type Acting = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// A file that is being made.
pub type Download = Pin<Box<dyn Future<Output = Result<File, String>>>>;

/// The bound endpoint.
pub struct Admin {
    bound: Vec<Bound>,
    /// Who may act beside our user and root; `None`: nobody at all.
    actors: Option<Rc<[Matcher]>>,
}

impl Admin {
    /// Opens the endpoint. Anything that other machines can reach is refused: the endpoint has no
    /// authentication of its own.
    pub fn open(
        endpoint: &Endpoint,
        config: &AdminConfig,
        inherited: &mut Inherited,
    ) -> Result<Self, Fatal> {
        let actors = config
            .actors()
            .map_err(|message| Fatal::new(Exit::Config, message))?;
        let endpoint = endpoint.clone().with_transport(Transport::Stream);
        let mut bound = inherited.take_bound(&endpoint, "admin", Transport::Stream)?;
        if bound.is_empty() {
            let mut options = SocketOptions::default();
            options.mode = config.mode.unwrap_or(options.mode);
            bound = open(&endpoint, Transport::Stream, &options, inherited, 1, None)?;
        }
        for bound in &bound {
            if bound
                .address()
                .is_some_and(|address| !is_loopback(address.ip()))
            {
                return Err(Fatal::new(
                    Exit::Config,
                    format!(
                        "admin.listen = \"{}\" can be reached by other machines; use a loopback \
                         address or a Unix socket",
                        bound.endpoint
                    ),
                ));
            }
            if bound.shape != Shape::Listening {
                let message = format!("admin.listen = \"{endpoint}\" is not a listening socket");
                return Err(Fatal::new(Exit::Config, message));
            }
        }
        Ok(Self {
            bound,
            actors: config.actions.then(|| actors.into()),
        })
    }

    /// Takes the files of its Unix sockets, which are removed with whoever has them.
    pub fn take_files(&mut self) -> Vec<UnixFile> {
        let files = self.bound.iter_mut().map(|bound| bound.file.take());
        files.flatten().collect()
    }

    /// Its sockets, for another process.
    pub fn share(&self) -> std::io::Result<Vec<socket2::Socket>> {
        self.bound.iter().map(Bound::share).collect()
    }

    /// Where it is.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.bound.iter().map(|bound| &bound.endpoint)
    }

    /// Serves until dropped. To be run on the control thread.
    pub async fn serve(&self, report: Rc<dyn Report>) -> std::io::Result<()> {
        let mut listeners = Vec::new();
        for bound in &self.bound {
            let socket = bound.share()?;
            listeners.push(match bound.address() {
                Some(_) => Socket::Tcp(TcpListener::from_std(socket.into())?),
                None => Socket::Unix(UnixListener::from_std(socket.into())?),
            });
        }
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            tasks.spawn_local(accept(listener, report.clone(), self.actors.clone()));
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    async fn accept(&self) -> std::io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                Stream::new(listener.accept().await?.0.into_std()?.into(), false)
            }
            Self::Unix(listener) => {
                Stream::new(listener.accept().await?.0.into_std()?.into(), true)
            }
        })
    }
}

async fn accept(listener: Socket, report: Rc<dyn Report>, actors: Option<Rc<[Matcher]>>) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // Never closed, so acquiring cannot fail.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let Ok(stream) = listener.accept().await else {
            // Out of descriptors, most likely: the services come first.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let by = user_of(&stream);
        let asked = Asked {
            report: report.clone(),
            by_owner: by.is_some_and(is_owner),
            by,
            actors: actors.clone(),
            drains: Rc::default(),
            patience: Patience::new(CONNECTION_WAIT),
        };
        connections.spawn_local(async move {
            let service = service_fn(|request| answer(request, asked.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_WAIT)
                .max_buf_size(HEADER_MAX)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = asked.patience.over() => {}
            }
            // Only now: the process may be gone before another answer could be read.
            if asked.drains.get() {
                let _ = asked.report.act(Action::Drain).await;
            }
            drop(place);
        });
    }
}

/// What a connection's requests are answered with.
#[derive(Clone)]
struct Asked {
    report: Rc<dyn Report>,
    /// Who is at the other end, where the kernel tells.
    by: Option<Identity<'static>>,
    /// Whether the peer may have what only the daemon's user may read.
    by_owner: bool,
    actors: Option<Rc<[Matcher]>>,
    /// The daemon is to drain when this connection is over.
    drains: Rc<Cell<bool>>,
    patience: Patience,
}

/// Who a peer runs as, which the kernel tells of Unix sockets.
fn user_of(stream: &Stream) -> Option<Identity<'static>> {
    stream.is_unix().then(|| stream.user().ok()).flatten()
}

/// Whether a peer runs as this process's user or as root.
fn is_owner(identity: Identity<'static>) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    matches!(identity, Identity::User { uid, .. } if may_have_all(uid, ours))
}

/// Whether a user may have whatever one of ours has.
fn may_have_all(user: u32, ours: u32) -> bool {
    user == ours || user == 0
}

async fn answer(request: Request<Incoming>, asked: Asked) -> Result<Response<Body>, hyper::Error> {
    let report = &asked.report;
    if let Some(action) = action_at(request.uri().path()) {
        let answer = match actor(request.method(), &asked) {
            Ok(by) => act(action, by, &asked).await,
            Err(refused) => *refused,
        };
        return Ok(answer);
    }
    if let Some(action) = own_action_at(request.uri().path(), &**report) {
        let answer = match actor(request.method(), &asked) {
            Ok(by) => act_on(action, by, request, &asked).await,
            Err(refused) => *refused,
        };
        return Ok(answer);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into());
        refused
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/healthz" => {
            let healthy = tokio::time::timeout(PROBE_WAIT, report.healthy()).await == Ok(true);
            verdict(healthy, "ok\n", "a loop does not accept\n")
        }
        "/readyz" => verdict(report.ready(), "ready\n", "starting or draining\n"),
        "/metrics" => typed(StatusCode::OK, METRICS_TYPE, report.metrics()),
        "/status" => typed(
            StatusCode::OK,
            "application/json",
            format!("{:#}\n", report.status()),
        ),
        "/" => text(StatusCode::OK, format!("{}\n", pages(&**report))),
        path if report.downloads().contains(&path) => download(&request, &asked).await,
        _ => text(StatusCode::NOT_FOUND, format!("try {}\n", pages(&**report))),
    })
}

fn action_at(path: &str) -> Option<Action> {
    match path {
        "/reload" => Some(Action::Reload),
        "/drain" => Some(Action::Drain),
        _ => None,
    }
}

fn own_action_at(path: &str, report: &dyn Report) -> Option<&'static str> {
    let path = path.strip_prefix('/')?;
    let mut known = report.own_actions().iter();
    known.find(|action| **action == path).copied()
}

/// Who asks for an action, if he may.
fn actor(method: &Method, asked: &Asked) -> Result<Identity<'static>, Box<Response<Body>>> {
    let Some(actors) = &asked.actors else {
        let why = "actions are off; write actions = true into the table [admin]\n";
        return Err(Box::new(text(StatusCode::FORBIDDEN, why.into())));
    };
    if method != Method::POST {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n".into());
        let allow = hyper::header::HeaderValue::from_static("POST");
        refused.headers_mut().insert(ALLOW, allow);
        return Err(Box::new(refused));
    }
    let is_actor = |by| actors.iter().any(|actor| actor.matches(by));
    asked
        .by
        .filter(|by| asked.by_owner || is_actor(*by))
        .ok_or_else(|| {
            let why = "this is for the daemon's user, root and admin.actors, over a Unix socket\n";
            Box::new(text(StatusCode::FORBIDDEN, why.into()))
        })
}

/// The name of what something is done with is the body: names have bytes in them that URLs have not. Or the
/// answer to a body that is none.
async fn name_in(body: Incoming) -> Result<String, Box<Response<Body>>> {
    let refuse = |status, why: String| Err(Box::new(text(status, why)));
    let wanted = format!("write a name of at most {NAME_MAX} bytes into the body\n");
    // What is announced as too long is not waited for.
    if body.size_hint().lower() > NAME_MAX as u64 {
        return refuse(StatusCode::BAD_REQUEST, wanted);
    }
    let reading = Limited::new(body, NAME_MAX).collect();
    let Ok(read) = tokio::time::timeout(NAME_WAIT, reading).await else {
        let why = "the name in the body did not come in time\n";
        return refuse(StatusCode::REQUEST_TIMEOUT, why.into());
    };
    let bytes = read.map(Collected::to_bytes).unwrap_or_default();
    match std::str::from_utf8(&bytes).map(str::trim) {
        Ok(name) if !name.is_empty() => Ok(name.into()),
        _ => refuse(StatusCode::BAD_REQUEST, wanted),
    }
}

async fn act_on(
    action: &str,
    by: Identity<'static>,
    request: Request<Incoming>,
    asked: &Asked,
) -> Response<Body> {
    let name = match name_in(request.into_body()).await {
        Ok(name) => name,
        Err(refused) => return *refused,
    };
    tracing::info!(action, name, ?by, "asked for through the admin endpoint");
    match asked.report.act_on(action, &name) {
        Ok(said) => text(StatusCode::OK, said + "\n"),
        Err(why) => text(StatusCode::CONFLICT, why + "\n"),
    }
}

async fn act(action: Action, by: Identity<'static>, asked: &Asked) -> Response<Body> {
    tracing::info!(?action, ?by, "asked for through the admin endpoint");
    let (status, said) = match action {
        Action::Drain if asked.report.ready() => {
            asked.drains.set(true);
            (StatusCode::ACCEPTED, "draining\n".into())
        }
        Action::Drain => (StatusCode::CONFLICT, "it is draining already\n".into()),
        Action::Reload => match tokio::time::timeout(ACT_WAIT, asked.report.act(action)).await {
            Ok(Ok(())) => (StatusCode::OK, "reloaded\n".into()),
            Ok(Err(why)) => (StatusCode::CONFLICT, why + "\n"),
            Err(_) => (StatusCode::CONFLICT, "it takes too long\n".into()),
        },
    };
    let mut response = text(status, said);
    if action == Action::Drain {
        let close = hyper::header::HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

fn pages(report: &dyn Report) -> String {
    let mut pages = vec!["/healthz", "/readyz", "/metrics", "/status"];
    pages.extend(report.downloads());
    pages.join(" ")
}

async fn download(request: &Request<Incoming>, asked: &Asked) -> Response<Body> {
    if !asked.by_owner {
        let why = "this is for the daemon's user and for root, over a Unix socket\n";
        return text(StatusCode::FORBIDDEN, why.into());
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into());
    }
    // Making it is the daemon's own work, and begins as soon as it is asked for.
    let making = asked.report.download(request.uri().path());
    tokio::pin!(making);
    let made = loop {
        tokio::select! {
            made = &mut making => break made,
            () = tokio::time::sleep(CONNECTION_WAIT / 2) => asked.patience.renew(),
        }
    };
    asked.patience.renew();
    let transfer = made.and_then(|file| {
        Transfer::start(file, asked.patience.clone()).map_err(|error| error.to_string())
    });
    match transfer {
        Ok(transfer) => {
            let mut response = text(StatusCode::OK, String::new());
            response.headers_mut().insert(
                CONTENT_TYPE,
                hyper::header::HeaderValue::from_static("application/octet-stream"),
            );
            *response.body_mut() = Body::File(transfer);
            response
        }
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

fn verdict(good: bool, yes: &str, no: &str) -> Response<Body> {
    if good {
        text(StatusCode::OK, yes.into())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, no.into())
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::Text(Full::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(
        CACHE_CONTROL,
        hyper::header::HeaderValue::from_static("no-store"),
    );
    response
}

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A scraper, a probe and a person, several times over.
const CONNECTIONS: usize = 16;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HEADER_WAIT: Duration = Duration::from_secs(5);
const HEADER_MAX: usize = 16 * 1024;
/// One connection, keep-alive included; or a piece of a file.
const CONNECTION_WAIT: Duration = Duration::from_secs(60);
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Of what an action is done with.
const NAME_MAX: usize = 255;
const NAME_WAIT: Duration = Duration::from_secs(5);
/// Reading a configuration and its files, from a slow disk.
const ACT_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_for_our_user_and_for_root() {
        assert!(may_have_all(1000, 1000) && may_have_all(0, 1000) && may_have_all(0, 0));
        // Whoever cannot be told counts as 65534 or as -1.
        for other in [1001, 65_534, u32::MAX] {
            assert!(!may_have_all(other, 1000) && !may_have_all(other, 0));
        }
    }
}
