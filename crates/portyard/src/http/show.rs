//! An answer on standard output, in the form that is asked for, or in a file.

use std::io::{IsTerminal as _, stdout};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use serde_json::{Value, json};

use super::answer::Answer;
use super::download::{Brings, Download};
use super::pretty::{self, Screen};
use super::reader::Reader;
use super::retry::is_safe_twice;
use super::session::Session;
use super::talk::{field_line, status_line};
use super::timing;
use crate::out::{Out, complain};
use crate::progress::{self, When};
use crate::stop::Stop;

/// How an answer is shown.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// Which parts of it.
    pub form: Form,
    /// When JSON is laid out.
    pub pretty: When,
    /// Whether codings that we asked for are undone.
    pub decodes: bool,
    /// The largest body.
    pub max_body: Option<u64>,
    /// When to show a bar.
    pub progress: When,
}

/// The parts of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The body alone.
    Body,
    /// The head alone.
    Head,
    /// Head and body.
    Both,
    /// All of it as one JSON object.
    Json,
}

/// Shows the answer while it comes.
pub async fn show(session: &mut Session, answer: &mut Answer, show: Show) -> Result<(), Stop> {
    let pace = session.pace();
    let mut out = Out::new();
    let is_screen = stdout().is_terminal();
    if matches!(show.form, Form::Head | Form::Both) {
        head(&mut out, answer)?;
    }
    if show.form == Form::Head {
        return out.flush();
    }
    let mut reader = Reader::new(answer, show.decodes, show.max_body)?;
    let lays_out = match show.pretty {
        When::Always => true,
        When::Auto => is_screen,
        When::Never => false,
    };
    if show.form == Form::Json || (lays_out && is_json(answer)) {
        let mut body = Vec::new();
        while let Some(bytes) = reader.next(answer, &pace).await? {
            body.extend_from_slice(&bytes);
        }
        session.finish(answer);
        if show.form == Form::Json {
            out.json(&object(session, answer, &body))?;
        } else if let Some(text) = std::str::from_utf8(&body).ok().and_then(pretty::json) {
            text_of(&mut out, text.as_bytes(), is_screen)?;
        } else {
            text_of(&mut out, &body, is_screen)?;
        }
        return out.flush();
    }
    let mut screen = Screen::default();
    let mut ends_line = true;
    while let Some(bytes) = reader.next(answer, &pace).await? {
        if !is_screen {
            out.bytes(&bytes)?;
        } else if pretty::is_binary(&bytes) {
            out.flush()?;
            return Err(Stop::fatal(
                Exit::Usage,
                "the answer is binary, and standard output is a terminal; write it to a file with \
                 --output, or pipe it on",
            ));
        } else {
            let text = screen.show(&bytes);
            ends_line = text.ends_with('\n');
            out.bytes(text.as_bytes())?;
        }
        // It may be a while until the next piece comes.
        out.flush()?;
    }
    if is_screen {
        out.bytes(screen.finish().as_bytes())?;
        if !ends_line {
            out.line("")?;
        }
    }
    if let (Form::Both, Some(trailers)) = (show.form, &answer.body.trailers) {
        out.line("")?;
        for (name, value) in trailers {
            out.line(field_line(name.as_str().as_bytes(), value.as_bytes()))?;
        }
    }
    session.finish(answer);
    out.flush()
}

/// Fetches into a file; tries again where it broke off, as often as there are retries.
pub async fn save(
    session: &mut Session,
    mut download: Download,
    show: Show,
) -> Result<Answer, Stop> {
    loop {
        let fetched = session.fetch(&download.fields()).await;
        let mut answer = match fetched {
            Ok(answer) => answer,
            Err(fatal) => {
                download.leave();
                return Err(fatal.into());
            }
        };
        let is_wanted = answer.status.is_success()
            || (answer.status == StatusCode::RANGE_NOT_SATISFIABLE && download.have() > 0);
        if !is_wanted {
            // What the server has to say is for a person, not for the file.
            excerpt(session, &mut answer).await;
            download.leave();
            return Ok(answer);
        }
        match receive(session, &mut answer, &mut download, show).await {
            Ok(()) => {
                download.keep()?;
                return Ok(answer);
            }
            Err(broken) => {
                session.finish(&answer);
                let method = session.hops.last().map(|hop| hop.method.clone());
                let may = matches!(broken.exit, Exit::Io | Exit::TempFail)
                    && download.can_go_on()
                    && method.is_some_and(|method| is_safe_twice(&method));
                let Some(wait) = session.retries().take(None).filter(|_| may) else {
                    download.leave();
                    return Err(broken.into());
                };
                session.wait(wait, &broken.message).await?;
            }
        }
    }
}

async fn receive(
    session: &mut Session,
    answer: &mut Answer,
    download: &mut Download,
    show: Show,
) -> Result<(), Fatal> {
    let pace = session.pace();
    let brings = download.accept(answer.status, &answer.headers, answer.body.length())?;
    let Brings::Bytes { total, have } = brings else {
        session.finish(answer);
        return Ok(());
    };
    if !show.decodes && answer.headers.contains_key(CONTENT_ENCODING) {
        let coding = answer.headers.get(CONTENT_ENCODING);
        let coding = coding.map_or(&b""[..], |value| value.as_bytes());
        let coding = escape(coding, 40);
        complain(&format!(
            "the file is compressed ({coding}), though that was not asked for"
        ));
    }
    let total = total.filter(|_| !show.decodes || !answer.headers.contains_key(CONTENT_ENCODING));
    let bar = progress::bar(show.progress, total);
    bar.set_position(have);
    bar.reset_eta();
    let mut reader = Reader::new(answer, show.decodes, show.max_body)?;
    while let Some(bytes) = reader.next(answer, &pace).await? {
        download.write(&bytes)?;
        bar.inc(bytes.len() as u64);
    }
    bar.finish_and_clear();
    session.finish(answer);
    if let Some(total) = total
        && download.have() != total
    {
        let message = format!("{} bytes of {total} came", download.have());
        return Err(Fatal::new(Exit::Io, message));
    }
    Ok(())
}

/// The beginning of an answer that says why there is no file.
async fn excerpt(session: &mut Session, answer: &mut Answer) {
    let pace = session.pace();
    let Ok(mut reader) = Reader::new(answer, true, Some(EXCERPT_MAX)) else {
        return;
    };
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = reader.next(answer, &pace).await {
        body.extend_from_slice(&bytes);
    }
    session.finish(answer);
    let text = String::from_utf8_lossy(&body);
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES_MAX)
    {
        complain(&escape(line.as_bytes(), LINE_MAX));
    }
}

/// How a call ends, by its answer.
pub fn verdict(status: StatusCode) -> Exit {
    match status.as_u16() {
        401 | 403 | 407 | 511 => Exit::NoPermission,
        408 | 425 | 429 | 503 | 504 => Exit::TempFail,
        400..500 => Exit::No,
        500.. => Exit::Unavailable,
        _ => Exit::Ok,
    }
}

/// An exit code for an answer that is a failure, with a line that says so.
pub fn fail(answer: &Answer, session: &Session) -> Exit {
    let exit = verdict(answer.status);
    if exit != Exit::Ok {
        let url = session.hops.last().map(|hop| hop.url.as_str().to_owned());
        let url = escape(url.unwrap_or_default().as_bytes(), LINE_MAX);
        let reason = escape(answer.reason.as_bytes(), LINE_MAX);
        let line = format!("{url} answers {} {reason}", answer.status.as_u16());
        complain(line.trim_end());
    }
    exit
}

fn head(out: &mut Out, answer: &Answer) -> Result<(), Stop> {
    out.line(status_line(answer))?;
    for (name, value) in &answer.fields {
        out.line(field_line(name.as_bytes(), value))?;
    }
    out.line("")
}

fn text_of(out: &mut Out, bytes: &[u8], is_screen: bool) -> Result<(), Stop> {
    if !is_screen {
        return out.bytes(bytes);
    }
    let mut screen = Screen::default();
    let mut text = screen.show(bytes);
    text.push_str(&screen.finish());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    out.bytes(text.as_bytes())
}

fn is_json(answer: &Answer) -> bool {
    let kind = answer.headers.get(CONTENT_TYPE);
    let kind = kind
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

fn object(session: &Session, answer: &Answer, body: &[u8]) -> Value {
    let pairs = |fields: &[(String, Vec<u8>)]| -> Vec<Value> {
        let pair =
            |(name, value): &(String, Vec<u8>)| json!([name, String::from_utf8_lossy(value)]);
        fields.iter().map(pair).collect()
    };
    let mut object = json!({
        "url": session.hops.last().map(|hop| hop.url.as_str()),
        "version": status_line(answer).split(' ').next(),
        "status": answer.status.as_u16(),
        "reason": answer.reason,
        "headers": pairs(&answer.fields),
        "requests": session.hops.iter().map(timing::value).collect::<Vec<_>>(),
    });
    match std::str::from_utf8(body) {
        Ok(text) => object["body"] = json!(text),
        Err(_) => object["body_base64"] = json!(STANDARD.encode(body)),
    }
    if let Some(trailers) = &answer.body.trailers {
        let trailers: Vec<(String, Vec<u8>)> = trailers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        object["trailers"] = json!(pairs(&trailers));
    }
    object
}

/// A problem document, or a short page.
const EXCERPT_MAX: u64 = 16 << 10;
const LINES_MAX: usize = 10;
const LINE_MAX: usize = 500;
