//! From what is asked for to its answer: redirects, credentials, cookies, retries.

use std::time::{Duration, Instant, SystemTime};

use hyper::header::{LOCATION, RETRY_AFTER, SET_COOKIE};
use hyper::{Method, StatusCode, Uri};
use indicatif::ProgressBar;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use tokio::time::sleep;
use url::Url;

use super::answer::Answer;
use super::content::Content;
use super::jar::Jar;
use super::link::{Asked, Failure, Link};
use super::login::Login;
use super::pace::Pace;
use super::proxy::Proxy;
use super::reach::{Opened, Versions, reach};
use super::redirect::{is_redirect, may_cross, onward};
use super::retry::{Retries, is_safe_twice, may_change, retry_after};
use super::site::{SHOWN, Site, authority, target};
use super::talk::Talk;
use super::trusting;
use crate::out::complain;
use crate::progress::{self, When};

/// What is asked for, and how.
pub struct Plan {
    /// The method.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// The fields, of which `given` came from the person at the terminal, with their names as they
    /// are to be spelled.
    pub fields: Vec<Field>,
    /// The body.
    pub content: Content,
    /// Who we are to the origin of the URL.
    pub login: Option<Login>,
    /// Where the origin of the URL is, if not where it says.
    pub connect: Option<Endpoint>,
    /// What all requests go by.
    pub proxy: Option<Proxy>,
    /// Whom to believe.
    pub trusting: trusting::Options,
    /// Which versions to speak.
    pub versions: Versions,
    /// Redirects that are followed at most; `None`: they are answers.
    pub redirects: Option<u32>,
    /// Further tries.
    pub retries: Retries,
    /// The deadlines.
    pub pace: Pace,
    /// The largest head of an answer.
    pub max_header: u32,
    /// When to show a bar.
    pub progress: When,
}

/// A header field.
#[derive(Debug, Clone)]
pub struct Field {
    /// As it is to be spelled.
    pub name: String,
    /// What it says.
    pub value: Vec<u8>,
    /// Whether it was given on the command line, and may be a secret.
    pub is_given: bool,
}

/// A request with its answer, as far as it went.
#[derive(Debug, Clone)]
pub struct Hop {
    /// The method.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// What came back.
    pub status: StatusCode,
    /// How long the name took; `None`, as for the two that follow: the connection was there already.
    pub lookup: Option<Duration>,
    /// How long the connection took.
    pub connect: Option<Duration>,
    /// How long TLS took; `None` without TLS too.
    pub tls: Option<Duration>,
    /// From the start to the first byte of the answer.
    pub first: Duration,
    /// From the start to the end.
    pub total: Duration,
    /// Bytes on the connection, inside TLS.
    pub sent: u64,
    /// See there.
    pub received: u64,
    start: Instant,
}

/// A call with all its requests.
pub struct Session {
    plan: Plan,
    /// The cookies.
    pub jar: Jar,
    /// What was done so far.
    pub hops: Vec<Hop>,
    talk: Talk,
    first: Site,
    link: Option<(Site, Link)>,
}

/// The request that comes next.
struct Next {
    method: Method,
    url: Url,
    fields: Vec<Field>,
    content: Content,
    redirects: u32,
}

impl Session {
    /// Of a plan, for whose URL a [`Site`] exists.
    pub fn new(plan: Plan, jar: Jar, talk: Talk) -> Result<Self, Fatal> {
        let first = Site::of(&plan.url)
            .ok_or_else(|| Fatal::new(Exit::Usage, "the URL is not one of HTTP"))?;
        Ok(Self {
            plan,
            jar,
            hops: Vec::new(),
            talk,
            first,
            link: None,
        })
    }

    /// The deadlines.
    pub fn pace(&self) -> Pace {
        self.plan.pace
    }

    /// How often it may be tried again.
    pub fn retries(&mut self) -> &mut Retries {
        &mut self.plan.retries
    }

    /// What is asked, with `more` fields, and the answer that is the last of all. Redirects,
    /// challenges and retries on the way are in [`hops`](Self::hops).
    pub async fn fetch(&mut self, more: &[Field]) -> Result<Answer, Fatal> {
        let mut fields = self.plan.fields.clone();
        fields.retain(|field| {
            let mut more = more.iter();
            !more.any(|other| other.name.eq_ignore_ascii_case(&field.name))
        });
        fields.extend_from_slice(more);
        let mut next = Next {
            method: self.plan.method.clone(),
            url: self.plan.url.clone(),
            fields,
            content: self.plan.content.clone(),
            redirects: 0,
        };
        loop {
            let answer = match self.exchange(&next).await {
                Ok(answer) => answer,
                Err(failure) => {
                    self.recover(&next, failure).await?;
                    continue;
                }
            };
            self.take_cookies(&answer, &next.url);
            if self.is_challenged(&next, &answer)? || self.is_led_on(&mut next, &answer)? {
                self.drain(answer).await;
                continue;
            }
            if let Some(wait) = self.is_put_off(&next, &answer) {
                let why = format!("the answer is {}", answer.status.as_u16());
                self.drain(answer).await;
                self.wait(wait, &why).await?;
                continue;
            }
            return Ok(answer);
        }
    }

    /// Waits for another try after none came to an answer, if there is one.
    async fn recover(&mut self, next: &Next, failure: Failure) -> Result<(), Fatal> {
        self.link = None;
        let may = failure.is_passing
            && (failure.is_unsent || is_safe_twice(&next.method))
            && next.content.is_repeatable();
        match self.plan.retries.take(None).filter(|_| may) {
            Some(wait) => self.wait(wait, &failure.fatal.to_string()).await,
            None => Err(failure.fatal),
        }
    }

    /// Whether the same request is to be made with credentials.
    fn is_challenged(&mut self, next: &Next, answer: &Answer) -> Result<bool, Fatal> {
        let is_first = Site::of(&next.url).as_ref() == Some(&self.first);
        let Some(login) = self.plan.login.as_mut().filter(|_| is_first) else {
            return Ok(false);
        };
        if answer.status != StatusCode::UNAUTHORIZED {
            login.accepted(&answer.headers);
            return Ok(false);
        }
        match login.challenged(&answer.headers) {
            Ok(true) if next.content.is_repeatable() => {
                self.talk
                    .note("the server asks who we are; asking again with a digest");
                Ok(true)
            }
            Ok(true) => Err(Fatal::new(
                Exit::Usage,
                "the server asks for a digest first, and this body can be sent only once; send a \
                 file",
            )),
            Ok(false) => Ok(false),
            Err(error) => {
                complain(&error.to_string());
                Ok(false)
            }
        }
    }

    /// Whether the answer leads elsewhere, where `next` is then.
    fn is_led_on(&mut self, next: &mut Next, answer: &Answer) -> Result<bool, Fatal> {
        let (Some(most), Some(location)) = (self.plan.redirects, answer.headers.get(LOCATION))
        else {
            return Ok(false);
        };
        if !is_redirect(answer.status) {
            return Ok(false);
        }
        let location = String::from_utf8_lossy(location.as_bytes());
        let host = next.url.host_str().unwrap_or_default().to_owned();
        let wrong = |why: &dyn std::fmt::Display| {
            let shown = escape(location.as_bytes(), SHOWN);
            Fatal::new(Exit::Data, format!("{host}: {why}: {shown}"))
        };
        let has_body = next.content.is_some();
        let onward = onward(answer.status, &location, &next.url, &next.method, has_body);
        let onward = onward.map_err(|stray| wrong(&stray))?;
        next.redirects += 1;
        if next.redirects > most {
            let why = format!("it redirects more than {most} times (--max-redirects)");
            return Err(wrong(&why));
        }
        if onward.keeps_body && !next.content.is_repeatable() {
            let why = "it redirects a body that can be sent only once; send a file";
            return Err(wrong(&why));
        }
        if !onward.is_same_site {
            self.leave_behind(&mut next.fields);
        }
        if !onward.keeps_body {
            next.content = Content::default();
            let is_about_body = |name: &str| name.to_ascii_lowercase().starts_with("content-");
            next.fields.retain(|field| !is_about_body(&field.name));
        }
        (next.url, next.method) = (onward.url, onward.method);
        Ok(true)
    }

    /// How long to wait before the same request may have another answer; `None`: this is the answer.
    fn is_put_off(&mut self, next: &Next, answer: &Answer) -> Option<Duration> {
        let asked = answer.headers.get(RETRY_AFTER);
        if !may_change(answer.status, &next.method, asked.is_some())
            || !next.content.is_repeatable()
        {
            return None;
        }
        let asked = asked
            .and_then(|value| value.to_str().ok())
            .and_then(|field| retry_after(field, SystemTime::now()));
        self.plan.retries.take(asked)
    }

    /// Writes down how long the last answer took, when its body is over.
    pub fn finish(&mut self, answer: &Answer) {
        let (sent, received) = answer.body.bytes();
        if let Some(hop) = self.hops.last_mut() {
            hop.total = hop.start.elapsed();
            (hop.sent, hop.received) = (sent, received);
        }
    }

    /// One request and its answer.
    async fn exchange(&mut self, next: &Next) -> Result<Answer, Failure> {
        let Next {
            method,
            url,
            content,
            ..
        } = next;
        let start = Instant::now();
        let wrong = |text: &str| Failure::lasting(Fatal::new(Exit::Usage, text));
        let site = Site::of(url).ok_or_else(|| wrong("the URL is not one of HTTP"))?;
        let is_first = site == self.first;
        let mut again = false;
        loop {
            let opened = self
                .connect(&site, is_first)
                .await
                .map_err(Failure::unsent)?;
            let Some((_, link)) = &mut self.link else {
                return Err(wrong("there is no connection"));
            };
            let login = self.plan.login.as_mut().filter(|_| is_first);
            let mut body = String::new();
            if let Some(mut hash) = login.as_ref().and_then(|login| login.body_hash()) {
                let read = content.read(|bytes| hash.update(bytes)).await;
                read.map_err(Failure::lasting)?;
                body = hash.finish();
            }
            let authorization =
                login.and_then(|login| login.authorization(method.as_str(), target(url), &body));
            let fields = compose(url, &next.fields, &self.jar, authorization);
            // What a person types may be anything; of a URL little is left to be wrong.
            let uri: Uri = url[..url::Position::AfterQuery]
                .parse()
                .map_err(|_| wrong("the URL holds characters that HTTP has no place for"))?;
            let bar = self.plan.upload_bar(content);
            let body = content.open(bar.clone()).map_err(Failure::lasting)?;
            let asked = Asked {
                method,
                uri: &uri,
                fields: &fields,
                body,
            };
            let answered = link.send(asked, &self.plan.pace).await;
            bar.finish_and_clear();
            match answered {
                Ok(answer) => {
                    self.talk.exchange(method, url, &fields, &answer);
                    let (sent, received) = answer.body.bytes();
                    self.hops.push(Hop {
                        method: method.clone(),
                        url: url.clone(),
                        status: answer.status,
                        lookup: opened.lookup,
                        connect: opened.connect,
                        tls: opened.tls,
                        first: answer.first.saturating_duration_since(start),
                        total: start.elapsed(),
                        sent,
                        received,
                        start,
                    });
                    return Ok(answer);
                }
                // A connection that rested was closed just now.
                Err(failure)
                    if failure.is_unsent
                        && failure.is_passing
                        && opened.connect.is_none()
                        && content.is_repeatable()
                        && !again =>
                {
                    self.link = None;
                    again = true;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Makes sure that there is a connection to a site.
    async fn connect(&mut self, site: &Site, is_first: bool) -> Result<Opened, Fatal> {
        let pace = self.plan.pace;
        if let Some((to, link)) = &mut self.link
            && to == site
        {
            let is_ready = pace.step(link.is_ready(), || Fatal::new(Exit::TempFail, ""));
            if matches!(is_ready.await, Ok(true)) {
                self.talk
                    .note(&format!("going on with the connection to {site}"));
                return Ok(Opened::default());
            }
        }
        self.link = None;
        let (link, opened) = reach(&self.plan, site, is_first, self.talk).await?;
        self.link = Some((site.clone(), link));
        Ok(opened)
    }

    fn take_cookies(&mut self, answer: &Answer, url: &Url) {
        for value in answer.headers.get_all(SET_COOKIE) {
            let set = match std::str::from_utf8(value.as_bytes()) {
                Ok(field) => self.jar.set(field, url),
                Err(_) => Err("it is no text"),
            };
            if let Err(why) = set {
                self.talk.note(&format!("a cookie is not taken: {why}"));
            }
        }
    }

    /// What was meant for the first origin alone.
    fn leave_behind(&mut self, fields: &mut Vec<Field>) {
        let before: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
        fields.retain(|field| !field.is_given || may_cross(&field.name));
        for name in before {
            if !fields.iter().any(|field| field.name == name) {
                let name = escape(name.as_bytes(), SHOWN);
                self.talk
                    .note(&format!("{name} is not sent to another origin"));
            }
        }
    }

    /// Reads what is left of an answer, so that its connection can go on; a long one costs more than
    /// a new connection.
    async fn drain(&mut self, mut answer: Answer) {
        let mut left = DRAIN_MAX;
        let pace = self.plan.pace;
        let is_over = loop {
            match answer.body.next(&pace).await {
                Ok(Some(bytes)) if bytes.len() <= left => left -= bytes.len(),
                Ok(None) => break true,
                _ => break false,
            }
        };
        self.finish(&answer);
        if !is_over {
            self.link = None;
        }
    }

    /// Waits before another try.
    pub async fn wait(&mut self, wait: Duration, why: &str) -> Result<(), Fatal> {
        let pace = self.plan.pace;
        if let Some((end, total)) = pace.end
            && Instant::now() + wait >= end
        {
            let message =
                format!("{why}; another try in {wait:?} would be over {total:?} (--max-time)");
            return Err(Fatal::new(Exit::TempFail, message));
        }
        // Told in any case, as nothing is to be seen for a while.
        complain(&format!("{why}; trying again in {} s", wait.as_secs()));
        sleep(wait).await;
        Ok(())
    }
}

impl Plan {
    fn upload_bar(&self, content: &Content) -> ProgressBar {
        if content.is_large() {
            progress::bar(self.progress, content.length())
        } else {
            ProgressBar::hidden()
        }
    }
}

/// All fields of a request, Host first.
fn compose(
    url: &Url,
    fields: &[Field],
    jar: &Jar,
    authorization: Option<String>,
) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let has = |name: &str| {
        fields
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case(name))
    };
    if !has("host") {
        all.push(("Host".into(), authority(url).into()));
    }
    if let Some(value) = authorization.filter(|_| !has("authorization")) {
        all.push(("Authorization".into(), value.into()));
    }
    let mut cookies = jar.cookies(url);
    for field in fields {
        let mut value = field.value.clone();
        if field.name.eq_ignore_ascii_case("cookie")
            && let Some(cookies) = cookies.take()
        {
            value.extend_from_slice(b"; ");
            value.extend_from_slice(cookies.as_bytes());
        }
        all.push((field.name.clone(), value));
    }
    if let Some(cookies) = cookies {
        all.push(("Cookie".into(), cookies.into()));
    }
    all
}

/// Bytes of an answer that nobody wants.
const DRAIN_MAX: usize = 64 << 10;
