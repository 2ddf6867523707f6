//! The body of a request, as a handler reads it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use portyard_wire::http::coding::{Coding, DecodeError, Decoder};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::Problem;
use crate::settings::Options;

/// When something of a body came last.
pub type Progress = Rc<Cell<Instant>>;

/// The body of a request: it comes within a deadline and a cap, and nothing is read before somebody
/// asks for it.
///
/// What is compressed comes out decompressed, unless [`RequestBody::keep_coded`] is asked for.
pub struct RequestBody {
    incoming: Option<Incoming>,
    /// How many bytes it may have, and how many may still come, coded and decoded alike.
    most: u64,
    left: u64,
    decoded_left: u64,
    coding: Coded,
    /// All of it, where it had to be read before.
    collected: Option<Bytes>,
    deadline: Deadline,
    /// Who gets what is not read.
    left_to: Option<Rc<dyn LeftTo>>,
    /// When something of it has come last.
    progress: Option<Progress>,
}

/// Who gets what nobody has read of a body.
pub trait LeftTo {
    /// Takes it.
    fn take_over(&self, incoming: Incoming);
}

impl LeftTo for Cell<Option<Incoming>> {
    fn take_over(&self, incoming: Incoming) {
        self.set(Some(incoming));
    }
}

/// What nobody has read of a body once it is dropped.
pub struct Unread(Rc<Cell<Option<Incoming>>>);

/// The coding of a body.
enum Coded {
    Plain,
    /// Not one of ours.
    Unknown,
    Known(Coding),
    Begun(Box<Decoder>),
}

/// When a body must have come.
struct Deadline {
    rate: u64,
    /// Set when the first piece is waited for.
    at: Option<Instant>,
    span: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// A body as hyper has it, held to a listener's limits.
    pub fn new(incoming: Incoming, headers: &HeaderMap, options: &Options) -> Self {
        Self {
            incoming: (!incoming.is_end_stream()).then_some(incoming),
            most: options.max_body.0,
            left: options.max_body.0,
            decoded_left: options.max_body.0,
            coding: Coded::of(headers),
            collected: None,
            deadline: Deadline {
                rate: options.body_rate.0.max(1),
                at: None,
                span: options.body.0,
                timer: None,
            },
            left_to: None,
            progress: None,
        }
    }

    /// None.
    pub fn none() -> Self {
        Self {
            incoming: None,
            most: 0,
            left: 0,
            decoded_left: 0,
            coding: Coded::Plain,
            collected: None,
            deadline: Deadline {
                rate: 1,
                at: None,
                span: Duration::ZERO,
                timer: None,
            },
            left_to: None,
            progress: None,
        }
    }

    /// Keeps what is not read of it; `None` if there is none.
    pub fn unread(&mut self) -> Option<Unread> {
        let place: Option<Rc<Cell<_>>> = self.incoming.is_some().then(Rc::default);
        let place = place.filter(|_| self.left_to.is_none())?;
        self.left_to = Some(place.clone());
        Some(Unread(place))
    }

    /// Says who gets what is not read of it.
    pub fn leave_to(&mut self, heir: Rc<dyn LeftTo>) {
        self.left_to = Some(heir);
    }

    /// Tells from now on when something of it has come; `None` if there is none.
    pub fn progress(&mut self) -> Option<Progress> {
        let now = || Rc::new(Cell::new(Instant::now()));
        let is_there = self.incoming.is_some();
        is_there.then(|| self.progress.get_or_insert_with(now).clone())
    }

    /// Puts a body that has been read back as it came.
    pub fn replace(&mut self, body: Bytes, headers: &HeaderMap) {
        self.collected = Some(body).filter(|body| !body.is_empty());
        self.coding = Coded::of(headers);
    }

    /// Puts a body that has been read back decompressed.
    pub fn replace_plain(&mut self, body: Bytes) {
        self.collected = Some(body).filter(|body| !body.is_empty());
        self.coding = Coded::Plain;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_none() && self.collected.is_none()
    }

    /// How long it is, where the client says so.
    pub fn length(&self) -> Option<u64> {
        match (&self.incoming, &self.collected) {
            (_, Some(body)) => Some(body.len() as u64),
            (Some(incoming), None) => incoming.size_hint().exact(),
            (None, None) => Some(0),
        }
    }

    /// Lets it have at most so many bytes, and refuses at once a body that says it has more.
    pub fn limit(&mut self, bytes: u64) -> Result<(), Problem> {
        (self.most, self.left, self.decoded_left) = (bytes, bytes, bytes);
        self.check()
    }

    /// Refuses a body that says it has more bytes than it may have.
    pub fn check(&self) -> Result<(), Problem> {
        if self.length().is_some_and(|length| length > self.left) {
            return Err(too_large(self.left));
        }
        Ok(())
    }

    /// Leaves it in the coding in which it comes.
    pub fn keep_coded(&mut self) {
        self.coding = Coded::Plain;
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.is_empty() && !matches!(self.coding, Coded::Begun(_)) {
            return Ok(None);
        }
        match &self.coding {
            Coded::Plain => return self.next_coded().await,
            Coded::Unknown => {
                let accepted = HeaderValue::from_static("gzip, deflate, br, zstd");
                let detail = "the body's Content-Encoding is not known here";
                let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
                return Err(problem.with(ACCEPT_ENCODING, accepted).closing());
            }
            Coded::Known(coding) => {
                let decoder = Decoder::new(*coding);
                let decoder = decoder.map_err(|error| Problem::internal(error.to_string()))?;
                self.coding = Coded::Begun(Box::new(decoder));
            }
            Coded::Begun(_) => {}
        }
        loop {
            let piece = self.next_coded().await?;
            let Coded::Begun(decoder) = &mut self.coding else {
                return Ok(None);
            };
            let is_last = piece.is_none();
            let decoded = match piece {
                Some(piece) => decoder.write(&piece, self.decoded_left),
                None => match std::mem::replace(&mut self.coding, Coded::Plain) {
                    Coded::Begun(decoder) => decoder.finish(self.decoded_left),
                    _ => Ok(Vec::new()),
                },
            };
            let decoded = decoded.map_err(|error| {
                let status = match error {
                    DecodeError::Malformed => StatusCode::BAD_REQUEST,
                    DecodeError::TooLarge | DecodeError::Ratio => StatusCode::PAYLOAD_TOO_LARGE,
                };
                Problem::new(status, error.to_string()).closing()
            })?;
            self.decoded_left = self.decoded_left.saturating_sub(decoded.len() as u64);
            if !decoded.is_empty() {
                return Ok(Some(decoded.into()));
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// The next piece as it comes; `None` at the end.
    async fn next_coded(&mut self) -> Result<Option<Bytes>, Problem> {
        if let Some(body) = self.collected.take() {
            return Ok(Some(body));
        }
        let Some(incoming) = &mut self.incoming else {
            return Ok(None);
        };
        loop {
            let deadline = &mut self.deadline;
            let frame = poll_fn(|cx| {
                let frame = Pin::new(&mut *incoming).poll_frame(cx);
                if frame.is_pending() && deadline.is_over(cx) {
                    return std::task::Poll::Ready(Err(()));
                }
                frame.map(Ok)
            });
            let frame = frame.await;
            if let Some(progress) = &self.progress {
                progress.set(Instant::now());
            }
            match frame {
                Err(()) => {
                    return Err(Problem::new(
                        StatusCode::REQUEST_TIMEOUT,
                        "the body came too slowly",
                    )
                    .closing());
                }
                Ok(None) => {
                    self.incoming = None;
                    return Ok(None);
                }
                Ok(Some(Err(_))) => {
                    self.incoming = None;
                    return Err(Problem::new(
                        StatusCode::BAD_REQUEST,
                        "the body broke off, or its chunks are malformed",
                    )
                    .closing());
                }
                Ok(Some(Ok(frame))) => {
                    // Trailers are nobody's business here.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    self.left = (self.left.checked_sub(data.len() as u64))
                        .ok_or_else(|| too_large(self.most).closing())?;
                    self.deadline.earn(data.len());
                    return Ok(Some(data));
                }
            }
        }
    }

    /// All of it, at most as much as is allowed.
    pub async fn collect(&mut self) -> Result<Bytes, Problem> {
        self.check()?;
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return Ok(first);
        };
        let mut all = [first, second].concat();
        while let Some(more) = self.next().await? {
            all.extend_from_slice(&more);
        }
        Ok(all.into())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(left_to), Some(incoming)) = (self.left_to.take(), self.incoming.take()) {
            left_to.take_over(incoming);
        }
    }
}

impl Unread {
    /// Reads it, if it is little and comes soon, so that another request may come behind it. Whether that is
    /// so; `waits`: the client sends it only when told to.
    pub async fn finish(self, waits: bool) -> bool {
        let Some(mut incoming) = self.0.take() else {
            return true;
        };
        if incoming.is_end_stream() {
            return true;
        }
        if waits || incoming.size_hint().lower() > UNREAD_MAX {
            return false;
        }
        let reading = async {
            let mut size = 0;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                let Ok(frame) = frame else {
                    return false;
                };
                size += frame.data_ref().map_or(0, |data| data.len() as u64);
                if size > UNREAD_MAX {
                    return false;
                }
            }
            true
        };
        timeout(UNREAD_SPAN, reading).await.unwrap_or(false)
    }
}

impl Coded {
    /// What the fields say.
    fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(coding), None) = (codings.next(), codings.next()) else {
            let has_several = headers.contains_key(CONTENT_ENCODING);
            return if has_several {
                Self::Unknown
            } else {
                Self::Plain
            };
        };
        match coding.to_str() {
            Ok(name) if name.is_empty() || name.eq_ignore_ascii_case("identity") => Self::Plain,
            name => {
                let known = name.ok().and_then(Coding::named);
                known.map_or(Self::Unknown, Self::Known)
            }
        }
    }
}

impl Deadline {
    /// A piece has come, which gives the rest more time.
    fn earn(&mut self, bytes: usize) {
        if let Some(at) = &mut self.at {
            let milliseconds = (bytes as u64).saturating_mul(1000) / self.rate;
            // A client may be early, but time is not saved up for hours.
            let more = Duration::from_millis(milliseconds.min(SAVED_MAX));
            *at = (*at + more).min(Instant::now() + self.span + Duration::from_millis(SAVED_MAX));
        }
    }

    fn is_over(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        if self.span.is_zero() {
            return false;
        }
        let at = *self.at.get_or_insert_with(|| Instant::now() + self.span);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body may have {limit} bytes at the most"),
    )
    .closing()
}

/// Ten minutes.
const SAVED_MAX: u64 = 600_000;
/// What is read of a body that nobody wants: what a client may have sent before it sees an answer.
pub const UNREAD_MAX: u64 = 256 << 10;
/// For so long: an answer waits meanwhile.
pub const UNREAD_SPAN: Duration = Duration::from_secs(1);
