//! `portyard http`: an HTTP client for people and scripts.
//!
//! The words of the command line become a [`session::Plan`] ([`item`], [`compose`], [`content`],
//! [`form`]); a [`session::Session`] carries it out over one [`link`] after another, with the rules of
//! [`redirect`], [`retry`], [`login`] and the cookies of a [`jar`]; [`show`] puts the answer out, or a
//! [`download`] into a file. What decides is pure, and hyper speaks the protocol, through a [`tap`] that
//! sees the heads as they are on the wire.

pub mod answer;
mod compose;
pub mod content;
mod download;
mod fault;
mod form;
mod item;
mod jar;
pub mod link;
pub mod login;
mod netrc;
pub mod pace;
mod pretty;
mod proxy;
mod reach;
mod reader;
mod redirect;
mod retry;
mod session;
mod show;
mod site;
mod socks;
mod talk;
mod tap;
mod timing;
mod trusting;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use portyard_core::config::{Size, Span};
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::{FilePlace, Links};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use url::Url;
use zeroize::Zeroizing;

use self::compose::{Load, Shape, Words};
use self::download::Download;
use self::item::Item;
use self::jar::Jar;
use self::login::Login;
use self::pace::Pace;
use self::proxy::Proxy;
use self::reach::Versions;
use self::retry::Retries;
use self::session::{Plan, Session};
use self::show::{Form, Show};
use self::site::Site;
use self::talk::Talk;
use crate::progress::When;
use crate::stop::{Outcome, Stop};

/// Make HTTP requests.
///
/// The first word is the method, if another follows; without one it is POST where there is a body, else
/// GET. A URL without a scheme is http, and one without a host is on localhost: ':8080/x', '/x'. Each
/// ITEM that follows says by its first sign what it is:
///
///   Name:value     a header field; 'Name:' leaves one of ours out, 'Name;' sends it empty
///   name==value    a query parameter, encoded as it must be
///   name=value     data: a string of a JSON object, or a field of a form with --form
///   name:=json     data: a number, true, null, a list or an object, as it is
///   name@file      a file of a form, sent as multipart; ;type=TYPE and ;filename=NAME may follow
///
/// In place of a value @FILE behind the sign reads it from a file: 'Authorization:@token',
/// 'text=@letter'. A backslash before a sign makes it part of the name.
///
/// The answer's body goes to standard output: as it is into a pipe or a file; on a terminal JSON with a
/// line for each value, and no character that a terminal would obey. Everything else is told on
/// standard error. Redirects are answers, unless --follow is given. No proxy is used without --proxy, and
/// nothing is read from standard input unless '--data @-' or 'name@-' asks for it.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    override_usage = "portyard http [OPTIONS] [METHOD] URL [ITEM]..."
)]
#[command(after_long_help = "\
Examples:
  portyard http :18081/get q=='two words' Accept:application/json
  portyard http :18081/post name=lamp on:=true tags:='[1, 2]'
  portyard http PUT https://api.example/lamps/1 --data @lamp.json Authorization:@token
  portyard http --form :18081/post user=ada photo@ada.png note@-';filename=n.txt' <note
  portyard http -u ada --digest --password-file secret :18081/digest-auth/auth/ada/secret
  portyard http --jar cookies --follow :18081/cookies/set a==1
  portyard http -O --resume --retry 5 https://host.example/large.iso
  portyard http -I https://host.example
  portyard http --timing --follow http://host.example
  portyard http --connect unix:/run/rest-api/yard.sock /api/v1/yard
  portyard http --http-version 2 :18080/hello -v
  portyard http --json :18081/get | jq '.status, .headers'

Across origins (scheme, host and port), as a redirect may lead, go neither credentials nor the client's
certificate nor header fields that were given, save those that cannot be secrets (Accept-*, Content-*,
If-*, User-Agent and a few more). A 303 becomes GET; a POST becomes GET after 301 and 302; 307 and 308
keep method and body.

Tries are repeated (--retry) where it does no harm: when the connection fails before the request was
sent; methods that may be repeated (all but POST and PATCH) when it breaks off, and after 408, 425, 500,
502, 503 and 504; any method after 429, and after 503 with Retry-After.

A file (--output, --remote-name) is written as FILE.part and renamed when it is complete. What broke off
is gone on with by --resume, if the server has given the file a strong tag or a date and sends parts.

Exit codes: 0 there is an answer (with --fail or a file: and it is no failure), 1 a 4xx answer, 64 the
command line is wrong or a file exists, 65 the answer breaks the protocol or a cap, 68 unknown host, 69
nothing listens there, or a 5xx answer, 74 the connection broke or a file cannot be read or written, 75
no answer in time, or 408, 425, 429, 503, 504, 77 a certificate is refused, or 401, 403, 407, 511, 78 a
file of certificates, keys or cookies is wrong. Answers make a failure only with --fail or a file.")]
pub struct Args {
    /// The method, where it is to be asked, and what is to be said (see above).
    #[arg(value_name = "[METHOD] URL [ITEM]", required = true)]
    words: Vec<String>,

    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    credentials: CredentialOptions,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    trusting: trusting::Options,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The request")]
struct RequestOptions {
    /// The method, in place of the first word.
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<String>,
    /// A header field, as curl takes it; the same as an ITEM.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = compose::header)]
    header: Vec<Item>,
    /// The body as it is; @FILE that of a file, @- standard input to its end. Its type is JSON if it
    /// looks so, else text, or what the file's name says; a field Content-Type says otherwise.
    #[arg(short = 'd', long, value_name = "DATA")]
    data: Option<String>,
    /// Data make a form in place of a JSON object.
    #[arg(short = 'f', long)]
    form: bool,
    /// Data make a form of several parts (multipart/form-data) even without a file.
    #[arg(long)]
    multipart: bool,
    /// Ask for the head alone (HEAD), and show it.
    #[arg(short = 'I', long, conflicts_with_all = ["request", "data", "form", "multipart"])]
    head: bool,
    /// Go where redirects lead.
    #[arg(short = 'L', long)]
    follow: bool,
    /// Redirects that are followed at most.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "follow",
          value_parser = clap::value_parser!(u32).range(..=1000))]
    max_redirects: u32,
    /// Further tries where it does no harm: after 1, 2, 4 seconds and so on, or as Retry-After says.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(..=1000))]
    retry: u32,
    /// The longest wait before another try; a server that wants a longer one is not asked again.
    #[arg(long, value_name = "SPAN", default_value = "1min", requires = "retry")]
    retry_max_wait: Span,
    /// Take the answer as it is, rather than compressed; what is compressed nevertheless stays so.
    #[arg(long)]
    no_compress: bool,
    /// The version: 'auto' is HTTP/2 inside TLS if the server likes that, else 1.1. 2 without TLS is
    /// for servers that are known to speak it.
    #[arg(long, value_name = "VERSION", value_enum, default_value = "auto")]
    http_version: Versions,
    /// Connect here rather than to the host of the URL, which is asked for all the same: a Unix
    /// socket, or another HOST:PORT. A redirect to another origin is not affected.
    #[arg(long, value_name = "ENDPOINT")]
    connect: Option<Endpoint>,
    /// Go by this proxy, http://[USER:PASSWORD@]HOST:PORT, and by no other whatever the environment says.
    /// For https it carries what it cannot read. socks5h:// in place of http:// is one of SOCKS, which
    /// looks names up itself; with socks5:// they are looked up here. Other users of this machine can see
    /// a PASSWORD here.
    #[arg(short = 'x', long, value_name = "URL", conflicts_with = "connect")]
    proxy: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Credentials and cookies")]
struct CredentialOptions {
    /// Who we are, to the origin of the URL alone. Other users of this machine can see a PASSWORD that
    /// stands here; without it and without --password-file it is asked for.
    #[arg(short = 'u', long, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// A file with the password, readable by its owner alone; credential:NAME is a file in
    /// $CREDENTIALS_DIRECTORY.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<FilePlace>,
    /// Look the user, or the password of --user, up in ~/.netrc by the host of the URL. The file must be
    /// readable by its owner alone. Who is not in it is nobody.
    #[arg(short = 'n', long, conflicts_with_all = ["password_file", "token"])]
    netrc: bool,
    /// The same in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_file", "token"])]
    netrc_file: Option<FilePlace>,
    /// Prove the password by a digest (MD5, SHA-256, SHA-512-256) rather than send it.
    #[arg(long)]
    digest: bool,
    /// A file with a key that is shown as bearer; the same rules.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "digest"])]
    token: Option<FilePlace>,
    /// Keep cookies in this file from call to call, in the form of curl and of Python's
    /// MozillaCookieJar. It need not be there yet, and nobody else can read it.
    #[arg(long, value_name = "FILE")]
    jar: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is shown")]
struct OutputOptions {
    /// The head before the body.
    #[arg(short = 'i', long, group = "shape")]
    include: bool,
    /// The head alone.
    #[arg(long, group = "shape")]
    headers: bool,
    /// Everything as one line of JSON: url, version, status, reason, headers, body (body_base64 if it
    /// is no text), and each request with its times.
    #[arg(long, group = "shape")]
    json: bool,
    /// Write the body into this file, which must not be there. Implies --fail; nothing is decompressed.
    #[arg(
        short = 'o',
        long,
        value_name = "FILE",
        group = "file",
        conflicts_with = "shape"
    )]
    output: Option<PathBuf>,
    /// The same, and the file is called as the end of the URL's path.
    #[arg(short = 'O', long, group = "file", conflicts_with = "shape")]
    remote_name: bool,
    /// Go on with what an earlier run has left of the file.
    #[arg(short = 'C', long, requires = "file")]
    resume: bool,
    /// Replace a file that is there.
    #[arg(long, requires = "file")]
    force: bool,
    /// Lay JSON out: on a terminal ('auto'), 'always' or 'never'.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pretty: When,
    /// Show a bar for files that are sent and fetched, on standard error.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    progress: When,
    /// End with another exit code than 0 if the status is 400 or more.
    #[arg(long)]
    fail: bool,
    /// Tell on standard error where the time went, for each request.
    #[arg(long)]
    timing: bool,
    /// Tell on standard error what is sent (>) and received (<), without passwords and cookies.
    #[arg(short = 'v', long)]
    verbose: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitOptions {
    /// How long to wait: for the name, the connection, TLS, the server to take a piece of the body, the
    /// answer's head, its next piece.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    timeout: Span,
    /// How long all of it may take; 0s: any time. [default: 5min, any time with files]
    #[arg(long, value_name = "SPAN")]
    max_time: Option<Span>,
    /// The largest head of an answer.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = max_header)]
    max_header: Size,
    /// The largest body, decompressed. [default: 64MiB, any size into a file]
    #[arg(long, value_name = "SIZE")]
    max_body: Option<Size>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let words = Words::read(&args.words)?;
    let mut url = words.url.clone();
    let site = Site::of(&url).ok_or_else(|| Fatal::new(Exit::Usage, "the URL is not of HTTP"))?;
    if let Some(why) = args.trusting.is_in_vain(&site) {
        return Err(Stop::fatal(Exit::Usage, why));
    }
    let items = [&words.items[..], &args.request.header].concat();
    let load = Load::new(&items, args.request.data.as_deref(), args.shape())?;
    let method = args.method(&words, &load)?;
    let login = args.login(&mut url)?;
    let file = match &args.output.output {
        Some(path) => Some(path.clone()),
        None if args.output.remote_name => Some(download::name_of(&url)?),
        None => None,
    };
    let download = file.map(|path| {
        let OutputOptions { force, resume, .. } = args.output;
        Download::begin(&path, &url, force, resume)
    });
    let download = download.transpose()?;
    let show = args.show(&method, download.is_some());
    let has_files = download.is_some() || load.content.is_large();
    let plan = Plan {
        fields: load.compose(&ours(&load, show)),
        content: load.content,
        login,
        connect: args.request.connect.clone(),
        proxy: args.request.proxy.as_deref().map(Proxy::read).transpose()?,
        trusting: args.trusting.clone(),
        versions: args.request.http_version,
        redirects: args.request.follow.then_some(args.request.max_redirects),
        retries: Retries::new(args.request.retry, args.request.retry_max_wait.0.min(YEAR)),
        pace: args.pace(has_files),
        max_header: u32::try_from(args.limits.max_header.0).unwrap_or(u32::MAX),
        progress: args.output.progress,
        method,
        url,
    };
    let jar = Jar::open(args.credentials.jar.as_deref())?;
    let talk = Talk {
        is_verbose: args.output.verbose,
    };
    let mut session = Session::new(plan, jar, talk)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Fatal::new(Exit::OsError, format!("cannot wait for answers: {error}")))?;
    let local = LocalSet::new();
    let outcome = local.block_on(&runtime, args.go(&mut session, download, show));
    // What was learned on the way counts even if the end was no good.
    let saved = session.jar.save();
    if args.output.timing {
        for line in timing::table(&session.hops) {
            complain_plainly(&line);
        }
    }
    let exit = outcome?;
    saved?;
    Ok(exit)
}

impl Args {
    async fn go(&self, session: &mut Session, download: Option<Download>, show: Show) -> Outcome {
        if let Some(download) = download {
            let answer = show::save(session, download, show).await?;
            return Ok(show::fail(&answer, session));
        }
        let mut answer = session.fetch(&[]).await?;
        show::show(session, &mut answer, show).await?;
        if self.output.fail {
            return Ok(show::fail(&answer, session));
        }
        Ok(Exit::Ok)
    }

    fn shape(&self) -> Shape {
        match (self.request.multipart, self.request.form) {
            (true, _) => Shape::Multipart,
            (false, true) => Shape::Form,
            (false, false) => Shape::Json,
        }
    }

    fn method(&self, words: &Words, load: &Load) -> Result<Method, Fatal> {
        let given = self.request.request.as_deref().map(compose::method);
        let given = given.transpose()?;
        let twice = "the method is given twice; leave one of them out";
        let said = match (given, &words.method, self.request.head) {
            (Some(_), Some(_), _) | (_, Some(_), true) => {
                return Err(Fatal::new(Exit::Usage, twice));
            }
            (_, _, true) => Some(Method::HEAD),
            (given, word, _) => given.or_else(|| word.clone()),
        };
        let has_body = load.content.is_some();
        let method = said.unwrap_or(if has_body { Method::POST } else { Method::GET });
        if has_body && [Method::HEAD, Method::TRACE].contains(&method) {
            return Err(Fatal::new(Exit::Usage, format!("{method} has no body")));
        }
        Ok(method)
    }

    /// Takes user and password out of the URL, where they would be shown.
    fn login(&self, url: &mut Url) -> Result<Option<Login>, Fatal> {
        let of_url = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let password = url.password().map(decode).unwrap_or_default();
            (decode(url.username()), Zeroizing::new(password))
        });
        // Both can only fail for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let options = &self.credentials;
        if let Some(place) = &options.token {
            return Ok(Some(Login::bearer(&login::token(place)?)));
        }
        let (user, password) = match (&options.user, of_url) {
            (Some(_), Some(_)) => {
                let message = "a user is given in the URL and by --user; leave one of them out";
                return Err(Fatal::new(Exit::Usage, message));
            }
            (Some(user), None) => match (user.split_once(':'), &options.password_file) {
                (None, Some(place)) => (user.clone(), password_of(place)?),
                (None, None) => match self.look_up(url, Some(user))? {
                    Some(known) => known,
                    None => (user.clone(), login::ask_password(user)?),
                },
                (Some((user, password)), None) => (user.into(), String::from(password).into()),
                (Some(_), Some(_)) => {
                    let message = "the password is given twice; leave one of them out";
                    return Err(Fatal::new(Exit::Usage, message));
                }
            },
            (None, Some(both)) => both,
            (None, None) => match self.look_up(url, None)? {
                Some(known) => known,
                None if options.digest => {
                    let message = "--digest proves the password of a user; say whose with --user";
                    return Err(Fatal::new(Exit::Usage, message));
                }
                None => return Ok(None),
            },
        };
        if options.digest {
            Login::digest(user, password).map(Some)
        } else {
            Login::basic(&user, &password).map(Some)
        }
    }

    /// Who is in the file of users and passwords for the host of a URL, if there is to be one.
    fn look_up(
        &self,
        url: &Url,
        user: Option<&str>,
    ) -> Result<Option<(String, Zeroizing<String>)>, Fatal> {
        let options = &self.credentials;
        let place = match &options.netrc_file {
            Some(place) => place.clone(),
            None if options.netrc => {
                let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
                let home = home.ok_or_else(|| {
                    Fatal::new(
                        Exit::Usage,
                        "--netrc: HOME is not set; say --netrc-file FILE",
                    )
                })?;
                FilePlace::Path(PathBuf::from(home).join(".netrc"))
            }
            None => return Ok(None),
        };
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        netrc::look_up(&place, host, user)
    }

    fn show(&self, method: &Method, is_file: bool) -> Show {
        let output = &self.output;
        let form = match (output.include, output.headers, output.json) {
            (_, _, true) => Form::Json,
            (_, true, _) => Form::Head,
            // An answer to HEAD has nothing else.
            _ if method == Method::HEAD => Form::Head,
            (true, _, _) => Form::Both,
            _ => Form::Body,
        };
        let max_body = self.limits.max_body.map(|size| size.0);
        Show {
            form,
            pretty: output.pretty,
            decodes: !is_file && !self.request.no_compress,
            max_body: max_body.or((!is_file).then_some(BODY_MAX)),
            progress: output.progress,
        }
    }

    fn pace(&self, has_files: bool) -> Pace {
        let total = match self.limits.max_time {
            Some(Span(total)) => Some(total).filter(|total| !total.is_zero()),
            None => (!has_files).then_some(TIME_MAX),
        };
        Pace {
            // The kernel reads a timeout of zero as none.
            step: self.limits.timeout.0.clamp(Duration::from_millis(1), YEAR),
            end: total
                .map(|total| total.min(YEAR))
                .map(|total| (Instant::now() + total, total)),
        }
    }
}

/// The fields that we send of our own.
fn ours(load: &Load, show: Show) -> Vec<(&'static str, String)> {
    let accept = if load.is_json {
        "application/json, */*;q=0.5"
    } else {
        "*/*"
    };
    let codings = if show.decodes {
        "zstd, br, gzip, deflate"
    } else {
        "identity"
    };
    vec![
        (
            "User-Agent",
            concat!("portyard/", env!("CARGO_PKG_VERSION")).into(),
        ),
        ("Accept", accept.into()),
        ("Accept-Encoding", codings.into()),
    ]
}

fn password_of(place: &FilePlace) -> Result<Zeroizing<String>, Fatal> {
    let wrong = |why: String| Fatal::new(Exit::Config, format!("--password-file: {why}"));
    let bytes = place
        .read_secret(Links::Followed, PASSWORD_MAX)
        .map_err(|error| wrong(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(format!("{place} is not text")))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.to_owned().into())
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let (b'%', Some(byte)) = (first, code) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of a table on standard error. If that is gone, nobody looks at it.
fn complain_plainly(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn max_header(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    if (HEADER_LEAST..=HEADER_MOST).contains(&size.0) {
        Ok(size)
    } else {
        Err("a head may have from 1KiB to 16MiB".into())
    }
}

const BODY_MAX: u64 = 64 << 20;
const TIME_MAX: Duration = Duration::from_secs(300);
/// Longer than anybody waits, and short enough to be added to any time.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const HEADER_LEAST: u64 = 1 << 10;
const HEADER_MOST: u64 = 16 << 20;
const PASSWORD_MAX: u64 = 4096;
