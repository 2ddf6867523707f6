//! Endpoints that take their time.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, HeaderName};
use tokio::time::sleep;

use super::status::on_the_way;
use super::{go_number, go_status, integer};
use crate::http::{Body, respond};
use crate::httpbin::Dialect;
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::duration::{clamp, go_nanoseconds, go_text, pause, python_seconds};
use crate::httpbin::echo::{self, Content};

/// `/delay/{span}`.
pub async fn delay(mut asked: Asked) -> Given {
    let span = match asked.dialect {
        Dialect::Python => {
            let seconds = python_seconds(asked.parameter(0));
            let seconds =
                seconds.ok_or_else(|| Refusal::bad("the delay must be a number of seconds"))?;
            clamp(seconds, asked.options().longest())
        }
        Dialect::Go => bounded(asked.parameter(0), "duration", 0, asked.options().longest())?,
    };
    sleep(span).await;
    let content = Content::of(&mut asked).await?;
    let w = echo::whole(&asked, &content, asked.dialect == Dialect::Go, false);
    let mut response = answer::json(StatusCode::OK, asked.dialect, w);
    if asked.dialect == Dialect::Go {
        let timing = server_timing(&[("initial_delay", span, "initial delay")]);
        answer::set(&mut response, SERVER_TIMING, &timing)?;
    }
    Ok(response)
}

/// `/drip`: a byte now and then, of a length that is told.
pub async fn drip(asked: Asked) -> Given {
    let plan = match asked.dialect {
        Dialect::Python => Drip::python(&asked)?,
        Dialect::Go => Drip::go(&asked)?,
    };
    let Drip {
        delay,
        span,
        bytes,
        status,
        interim,
    } = plan;
    sleep(delay).await;
    let between = match asked.dialect {
        Dialect::Python => span.div_f64(bytes as f64),
        Dialect::Go => pause(span, bytes),
    };
    // A timer has a millisecond; shorter pauses are taken together.
    let many = Duration::from_millis(1)
        .as_nanos()
        .div_ceil(between.as_nanos().max(1));
    let piece = if between.is_zero() {
        bytes
    } else {
        u64::try_from(many).unwrap_or(bytes)
    };
    let piece = piece.clamp(1, PIECE_MAX);
    let step = between.saturating_mul(u32::try_from(piece).unwrap_or(u32::MAX));
    let body = Body::produce(Some(bytes), move |mut sender| async move {
        let mut left = bytes;
        loop {
            let count = left.min(piece);
            sender
                .send(vec![b'*'; usize::try_from(count).unwrap_or_default()])
                .await;
            left -= count;
            if left == 0 {
                return Ok(());
            }
            sleep(step).await;
        }
    });
    let (media, dialect) = match asked.dialect {
        Dialect::Python => ("application/octet-stream", Dialect::Python),
        Dialect::Go => (answer::TEXT, Dialect::Go),
    };
    let mut response = respond(status, media, body);
    if dialect == Dialect::Go {
        let timing = server_timing(&[
            ("total_duration", delay + span, "total request duration"),
            ("initial_delay", delay, "initial delay"),
            (
                "write_duration",
                span,
                "duration of writes after initial delay",
            ),
            ("pause_per_write", between, "computed pause between writes"),
        ]);
        answer::set(&mut response, SERVER_TIMING, &timing)?;
        answer::set(&mut response, CONTENT_LENGTH, &bytes.to_string())?;
    }
    if status.is_informational() || [204, 304].contains(&status.as_u16()) {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(match interim {
        Some(interim) => on_the_way(interim, response),
        None => response,
    })
}

/// What is to be dripped.
struct Drip {
    delay: Duration,
    span: Duration,
    bytes: u64,
    status: StatusCode,
    /// What is told before that.
    interim: Option<StatusCode>,
}

impl Drip {
    fn python(asked: &Asked) -> Result<Self, Refusal> {
        let span = seconds(asked, "duration", 2.0)?;
        let bytes = integer(asked, "numbytes")?.unwrap_or(10);
        let code = integer(asked, "code")?.unwrap_or(200);
        let Ok(bytes @ 1..) = u64::try_from(bytes) else {
            return Err(Refusal::bad("number of bytes must be positive").in_text());
        };
        Ok(Self {
            delay: seconds(asked, "delay", 0.0)?,
            span,
            bytes: bytes.min(DRIP_MAX),
            status: final_status(code)?,
            interim: None,
        })
    }

    fn go(asked: &Asked) -> Result<Self, Refusal> {
        let longest = asked.options().longest();
        let span = duration(asked, "duration", 2, 0)?;
        let delay = duration(asked, "delay", 2, 0)?;
        let bytes = asked.argument("numbytes");
        let bytes = bytes.map_or(Ok(10), |text| go_number(&text, "numbytes"))?;
        let max = asked.max_body();
        let good = u64::try_from(bytes)
            .ok()
            .filter(|bytes| (1..=max).contains(bytes));
        let Some(bytes) = good else {
            let why = format!("invalid numbytes: {bytes} not in range [1, {max}]");
            return Err(Refusal::bad(why));
        };
        let code = asked.argument("code");
        let code = code.map_or(Ok(200), |text| go_status(&text, 100..=599))?;
        if span + delay > longest {
            let (span, delay, longest) = (shown(span), shown(delay), shown(longest));
            let why = format!("too much time: {span}+{delay} > {longest}");
            return Err(Refusal::bad(why));
        }
        // Such a status is none of an answer, which is then 200.
        let interim = u16::try_from(code).ok().filter(|code| *code < 200);
        Ok(Self {
            delay,
            span,
            bytes,
            status: final_status(interim.map_or(code, |_| 200))?,
            // 101 would end HTTP.
            interim: interim
                .filter(|code| *code != 101)
                .and_then(|code| StatusCode::from_u16(code).ok()),
        })
    }
}

fn final_status(code: i64) -> Result<StatusCode, Refusal> {
    let status = u16::try_from(code).ok().filter(|code| *code >= 200);
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    status.ok_or_else(|| Refusal::bad(format!("{code} is no answer: it must be from 200 to 999")))
}

/// A span of Python's dialect in a query, in seconds; longer than allowed is as long as is allowed.
pub fn seconds(asked: &Asked, name: &str, otherwise: f64) -> Result<Duration, Refusal> {
    let seconds = match asked.argument(name) {
        None => otherwise,
        Some(text) => {
            let seconds = python_seconds(&text);
            seconds.ok_or_else(|| Refusal::bad(format!("{name} must be a number of seconds")))?
        }
    };
    Ok(clamp(seconds, asked.options().longest()))
}

/// A span of Go's dialect in a query, of at least so many nanoseconds; `otherwise` in seconds, and at most
/// half of the longest.
pub fn duration(
    asked: &Asked,
    name: &str,
    otherwise: u64,
    least: i64,
) -> Result<Duration, Refusal> {
    let longest = asked.options().longest();
    match asked.argument(name) {
        // Two of them must fit, so that a request that names none is served.
        None => Ok(Duration::from_secs(otherwise).min(longest / 2)),
        Some(text) => bounded(&text, name, least, longest),
    }
}

fn bounded(text: &str, name: &str, least: i64, longest: Duration) -> Result<Duration, Refusal> {
    let nanos =
        go_nanoseconds(text).map_err(|why| Refusal::bad(format!("invalid {name}: {why}")))?;
    let span = Duration::from_nanos(u64::try_from(nanos).unwrap_or_default());
    let why = if span > longest {
        format!("longer than {}", shown(longest))
    } else if nanos < least {
        format!("shorter than {}", go_text(least))
    } else {
        return Ok(span);
    };
    Err(Refusal::bad(format!(
        "invalid {name}: duration {} {why}",
        go_text(nanos)
    )))
}

fn shown(span: Duration) -> String {
    go_text(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

/// A `Server-Timing` field.
pub fn server_timing(spans: &[(&str, Duration, &str)]) -> String {
    let entries = spans.iter().map(|(name, span, what)| {
        let milliseconds = span.as_secs_f64() * 1000.0;
        format!("{name};dur={milliseconds:.2};desc=\"{what}\"")
    });
    entries.collect::<Vec<_>>().join(", ")
}

/// Its name.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The most bytes that httpbin drips.
const DRIP_MAX: u64 = 10 << 20;
/// The most that go at once.
const PIECE_MAX: u64 = 64 << 10;
