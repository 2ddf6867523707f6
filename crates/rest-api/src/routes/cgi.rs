//! Runs a program for each request (RFC 3875).

mod head;
mod running;

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::task::Poll;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, COOKIE};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Version};
use portyard_core::endpoint::Endpoint;
use portyard_core::sandbox::outside;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use head::Head;
use running::Running;

use super::config::CgiConfig;
use super::pattern::{Captures, Pattern};
use crate::http::{Answer, Body, Problem, Request, Response};

/// The handler.
pub struct Cgi {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
    run: Duration,
    max_output: u64,
    /// The path up to its first parameter.
    script: String,
    /// Whether the last parameter is what follows the program's own path.
    has_rest: bool,
}

/// A path here that is to answer instead (RFC 3875, 6.2.2), in an answer's extensions.
#[derive(Clone)]
pub struct Elsewhere(pub String);

impl Cgi {
    /// Reads what is run.
    pub fn new(config: &CgiConfig, pattern: &Pattern) -> Result<Self, String> {
        let program = &config.program;
        let wrong = |why: &str| format!("cgi.program = \"{}\" {why}", program.display());
        if !program.is_absolute() {
            return Err(wrong(
                "must be an absolute path: no shell and no PATH is looked at",
            ));
        }
        if !program.is_file() {
            return Err(wrong("is not there"));
        }
        let may_run = program
            .metadata()
            .is_ok_and(|about| about.permissions().mode() & 0o111 != 0);
        if !may_run {
            return Err(wrong("is no program; chmod +x makes one of a script"));
        }
        if let Some(directory) = config.directory.as_deref().filter(|at| !at.is_dir()) {
            return Err(format!(
                "cgi.directory = \"{}\" is not a directory",
                directory.display()
            ));
        }
        if config.run.0.is_zero() {
            return Err("cgi.run must be longer than \"0s\"".into());
        }
        for name in config.environment.keys() {
            if name.is_empty() || name.contains(['=', '\0']) || name.starts_with("HTTP_") {
                return Err(format!(
                    "cgi.environment: '{name}' cannot be set; HTTP_ is for the client's fields"
                ));
            }
        }
        let above = program.parent().unwrap_or(Path::new("/")).to_owned();
        let text = pattern.text();
        let script = text.split_once("/{").map_or(text, |(script, _)| script);
        Ok(Self {
            program: program.clone(),
            arguments: config.arguments.clone(),
            environment: config.environment.clone(),
            directory: config.directory.clone().unwrap_or(above),
            run: config.run.0,
            max_output: config.max_output.0,
            script: script.into(),
            has_rest: text.ends_with("..}"),
        })
    }

    /// Answers.
    pub async fn answer(&self, mut request: Request, captures: &Captures) -> Answer {
        // It is told the coding as well.
        request.body.keep_coded();
        // The program is told a length, as RFC 3875 wants, so what comes in chunks is put together.
        let length = if let Some(length) = request.body.length() {
            length
        } else {
            let body = request.body.collect().await?;
            let length = body.len() as u64;
            request.body.replace_plain(body);
            length
        };
        let mut running = self.start(&request, captures, length)?;
        let deadline = Instant::now() + self.run;
        let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
        let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else {
            return Err(Problem::internal("the program has no pipes"));
        };
        let mut body = request.body;
        // A program may answer before it has read everything, which goes on then, or read nothing at all.
        let feeding = async move {
            while let Some(piece) = body.next().await? {
                if stdin.write_all(&piece).await.is_err() {
                    break;
                }
            }
            drop(stdin);
            Ok::<(), Problem>(())
        };
        let mut feeding = Box::pin(feeding);
        let mut pending = Vec::new();
        let reading = read_head(&mut stdout, &mut pending);
        let mut is_fed = false;
        let head = async {
            tokio::pin!(reading);
            loop {
                tokio::select! {
                    head = &mut reading => return head,
                    fed = &mut feeding, if !is_fed => {
                        is_fed = true;
                        fed?;
                    }
                }
            }
        };
        let head = match timeout_at(deadline, head).await {
            Ok(head) => head?,
            Err(_) => return Err(too_long()),
        };
        if let Some(to) = head.elsewhere() {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(Elsewhere(to.to_owned()));
            return Ok(response);
        }
        let left = self.max_output;
        let program = self.program.clone();
        let says_length = head.length.is_some();
        let stream = Body::produce(head.length, |mut sender| async move {
            // The program lives as long as this does.
            let running = running;
            let mut left = left;
            let mut piece = pending;
            let mut writing = pin!(async {
                loop {
                    left = left
                        .checked_sub(piece.len() as u64)
                        .ok_or(io::ErrorKind::FileTooLarge)?;
                    sender.send(std::mem::take(&mut piece)).await;
                    piece = Vec::with_capacity(PIECE);
                    let read = timeout_at(deadline, stdout.read_buf(&mut piece)).await;
                    if read.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
                        break;
                    }
                }
                // What a length would show: the answer breaks off.
                if !says_length && let Some(signal) = running.killed_by().await {
                    tracing::warn!(program = %program.display(), %signal, "a CGI program was killed while it answered");
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(())
            });
            // A sender may be polled once for each piece, so this is no loop.
            poll_fn(|cx| {
                if !is_fed && let Poll::Ready(fed) = feeding.as_mut().poll(cx) {
                    is_fed = true;
                    if fed.is_err() {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                }
                writing.as_mut().poll(cx)
            })
            .await
        });
        let mut response = Response::new(stream);
        *response.status_mut() = head.status;
        for (name, value) in head.fields {
            response.headers_mut().append(name, value);
        }
        if let Some(reason) = head.reason {
            response.extensions_mut().insert(reason);
        }
        Ok(response)
    }

    fn start(
        &self,
        request: &Request,
        captures: &Captures,
        length: u64,
    ) -> Result<Running, Problem> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables(request, captures, length))
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it complains of goes where our own log goes, or nowhere under an inetd.
            .stderr(if portyard_core::observe::log::stderr_is_peer() {
                Stdio::null()
            } else {
                Stdio::inherit()
            })
            .process_group(0)
            .kill_on_drop(true);
        let loop_of_ours = Handle::current();
        let child = outside::run(move || {
            // What waits for its end is this loop.
            let _entered = loop_of_ours.enter();
            command.spawn()
        });
        let child = child.map_err(|error| {
            tracing::error!(program = %self.program.display(), %error, "a CGI program cannot be started");
            Problem::internal("the program behind this path cannot be started")
        })?;
        Ok(Running::new(child))
    }

    /// RFC 3875, 4.1.
    fn variables(
        &self,
        request: &Request,
        captures: &Captures,
        length: u64,
    ) -> BTreeMap<String, std::ffi::OsString> {
        let mut all: BTreeMap<String, std::ffi::OsString> = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            // Nobody can put a byte into the environment that ends a variable.
            if !value.contains('\0') {
                all.insert(name.into(), value.into());
            }
        };
        set("GATEWAY_INTERFACE", "CGI/1.1");
        set(
            "SERVER_SOFTWARE",
            concat!("rest-api/", env!("CARGO_PKG_VERSION")),
        );
        set(
            "SERVER_PROTOCOL",
            match request.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
        );
        let authority: Option<Authority> = request.host().parse().ok();
        let name = authority.as_ref().map_or("localhost", Authority::host);
        set("SERVER_NAME", name);
        let port = match &request.client.listener.endpoint {
            Endpoint::Tcp(at) => at.port,
            _ => authority
                .as_ref()
                .and_then(Authority::port_u16)
                .unwrap_or(0),
        };
        set("SERVER_PORT", &port.to_string());
        set("REQUEST_METHOD", request.method.as_str());
        set("SCRIPT_NAME", &self.script);
        if self.has_rest {
            let rest = captures.last().map_or("", |(_, rest)| rest.as_str());
            set("PATH_INFO", &format!("/{rest}"));
        }
        set("QUERY_STRING", request.uri.query().unwrap_or_default());
        set(
            "REQUEST_URI",
            request
                .uri
                .path_and_query()
                .map_or("/", |target| target.as_str()),
        );
        let peer = request
            .client
            .peer
            .ip()
            .map(|ip| ip.to_canonical().to_string());
        set("REMOTE_ADDR", peer.as_deref().unwrap_or_default());
        if request.client.is_encrypted {
            set("HTTPS", "on");
        }
        if let Some(facts) = &request.client.certificate {
            set("SSL_CLIENT_S_DN", &facts.subject);
        }
        if let Some(user) = request.user.get() {
            set("AUTH_TYPE", user.scheme);
            set("REMOTE_USER", &user.name);
        }
        if length > 0 {
            set("CONTENT_LENGTH", &length.to_string());
        }
        if let Some(content_type) = request.header(CONTENT_TYPE) {
            set("CONTENT_TYPE", content_type);
        }
        for key in request.headers.keys() {
            // RFC 3875, 4.1.18, and httpoxy: a client's Proxy would become a program's proxy.
            let name = key.as_str();
            if ["content-type", "content-length", "authorization", "proxy"].contains(&name)
                || name.contains('_')
            {
                continue;
            }
            let values: Vec<_> = request
                .headers
                .get_all(key)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            let variable = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
            let between = if *key == COOKIE { "; " } else { ", " };
            set(&variable, &values.join(between));
        }
        set("PATH", "/usr/local/bin:/usr/bin:/bin");
        for (name, value) in &self.environment {
            set(name, value);
        }
        all
    }
}

/// Reads up to the empty line; what follows it is left in `pending`.
async fn read_head(stdout: &mut ChildStdout, pending: &mut Vec<u8>) -> Result<Head, Problem> {
    loop {
        if let Some((head, length)) = head::parse(pending).map_err(Problem::bad_program)? {
            pending.drain(..length);
            return Ok(head);
        }
        if pending.len() > HEAD_MAX {
            return Err(Problem::bad_program("its head is too long"));
        }
        if read_more(stdout, pending)
            .await
            .map_err(|_| Problem::bad_program("it broke off"))?
            == 0
        {
            return Err(Problem::bad_program("it ended without an answer"));
        }
    }
}

async fn read_more(
    stdout: &mut (impl AsyncRead + Unpin),
    pending: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    let length = stdout.read(&mut buffer).await?;
    pending.extend_from_slice(&buffer[..length]);
    Ok(length)
}

impl Problem {
    /// A program that does not keep to its protocol.
    fn bad_program(why: &str) -> Self {
        tracing::warn!(why, "a CGI program has no answer");
        Self::new(
            StatusCode::BAD_GATEWAY,
            "the program behind this path gave no answer",
        )
    }
}

fn too_long() -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        "the program behind this path took too long",
    )
}

const HEAD_MAX: usize = 32 << 10;
const PIECE: usize = 16 << 10;
