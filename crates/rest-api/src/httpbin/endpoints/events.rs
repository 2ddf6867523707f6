//! Endpoints that stream: lines of JSON, events, trailers.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};
use tokio::time::{Instant, sleep};

use super::slow::{SERVER_TIMING, duration, server_timing};
use super::{count, go_count, random_fraction};
use crate::http::{Body, respond};
use crate::httpbin::Dialect;
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::duration::pause;
use crate::httpbin::echo::{self, Content};

/// `/stream/{n}`: lines of JSON.
pub fn stream(asked: &Asked) -> Given {
    let lines = match asked.dialect {
        Dialect::Python => count(asked, 0).min(LINES_MAX),
        Dialect::Go => {
            let lines = go_count(asked.parameter(0), "count")?;
            u64::try_from(lines).unwrap_or(1).clamp(1, LINES_MAX)
        }
    };
    let line = echo::lines(asked);
    let body = Body::produce(None, move |mut sender| async move {
        for number in 0..lines {
            sender.send(line(number)).await;
        }
        Ok(())
    });
    Ok(match asked.dialect {
        Dialect::Python => respond(StatusCode::OK, "application/json", body),
        Dialect::Go => answer::plain(StatusCode::OK, body),
    })
}

/// How a stream is paced.
struct Pace {
    count: u64,
    delay: Duration,
    span: Duration,
    between: Duration,
    /// The part of a pause by which it may be shorter or longer.
    jitter: f64,
}

impl Pace {
    fn of(
        asked: &Asked,
        span: u64,
        too_many: impl Fn(i64) -> Result<u64, Refusal>,
    ) -> Result<Self, Refusal> {
        let count = match asked.argument("count") {
            None => 10,
            Some(text) => too_many(go_count(&text, "count")?)?,
        };
        let span = duration(asked, "duration", span, 1)?;
        let delay = duration(asked, "delay", 0, 0)?;
        let jitter = match asked.argument("jitter") {
            None => 0.0,
            Some(text) => {
                let jitter = text
                    .parse()
                    .ok()
                    .filter(|jitter| (0.0..=1.0).contains(jitter));
                jitter.ok_or_else(|| Refusal::bad("invalid jitter: must be a float in [0, 1]"))?
            }
        };
        if span + delay > asked.options().longest() {
            return Err(Refusal::bad("Too much time\n").in_text());
        }
        Ok(Self {
            count,
            delay,
            span,
            between: pause(span, count),
            jitter,
        })
    }

    /// The next pause.
    fn next(&self) -> Duration {
        if self.jitter == 0.0 {
            return self.between;
        }
        let scale = 1.0 + self.jitter * (2.0 * random_fraction() - 1.0);
        self.between.mul_f64(scale.max(0.0))
    }
}

/// `/jsonl`: lines of JSON at a pace.
pub async fn jsonl(asked: Asked) -> Given {
    let line = echo::lines(&asked);
    // In Python's dialect so many as fit; in Go's so many lines of the original's sample as fit.
    let size = match asked.dialect {
        Dialect::Python => line(999).len(),
        Dialect::Go => GO_LINE.len(),
    };
    let max = (asked.max_body() / size as u64).max(1);
    let pace = Pace::of(&asked, 0, |count| {
        Ok(u64::try_from(count).unwrap_or(1).clamp(1, max))
    })?;
    sleep(pace.delay).await;
    let body = Body::produce(None, move |mut sender| async move {
        for number in 0..pace.count {
            if number > 0 {
                sleep(pace.next()).await;
            }
            sender.send(line(number)).await;
        }
        Ok(())
    });
    Ok(respond(
        StatusCode::OK,
        "application/x-ndjson; charset=utf-8",
        body,
    ))
}

/// `/sse`: server-sent events at a pace, and a trailer that tells the times.
pub async fn sse(asked: Asked) -> Given {
    let started = Instant::now();
    let max = asked.max_body() / event(999).len() as u64;
    let pace = Pace::of(&asked, 5, |count| {
        let good = u64::try_from(count)
            .ok()
            .filter(|count| (1..=max).contains(count));
        good.ok_or_else(|| Refusal::bad(format!("invalid count: must in range [1, {max}]")))
    })?;
    sleep(pace.delay).await;
    let body = Body::produce(None, move |mut sender| async move {
        for number in 0..pace.count {
            if number > 0 {
                sleep(pace.next()).await;
            }
            sender.send(event(number)).await;
        }
        let timing = server_timing(&[
            (
                "total_duration",
                started.elapsed(),
                "total request duration",
            ),
            ("initial_delay", pace.delay, "initial delay"),
            (
                "write_duration",
                pace.span,
                "duration of writes after initial delay",
            ),
            (
                "pause_per_write",
                pace.between,
                "computed pause between writes",
            ),
        ]);
        let mut trailers = HeaderMap::new();
        if let Ok(timing) = HeaderValue::try_from(timing) {
            trailers.insert(SERVER_TIMING, timing);
        }
        sender.trailers(trailers).await;
        Ok(())
    });
    let mut response = respond(StatusCode::OK, "text/event-stream; charset=utf-8", body);
    let trailer = HeaderValue::from_static("Server-Timing");
    response.headers_mut().insert(TRAILER, trailer);
    Ok(response)
}

fn event(number: u64) -> Vec<u8> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let milliseconds = since.unwrap_or_default().as_millis();
    format!("event: ping\ndata: {{\"id\":{number},\"timestamp\":{milliseconds}}}\n\n").into_bytes()
}

/// `/trailers`: the parameters of the query, behind the body.
pub async fn trailers(mut asked: Asked) -> Given {
    let (mut trailers, mut names) = (HeaderMap::new(), Vec::new());
    for (name, value) in asked.arguments() {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| Refusal::bad(format!("{name:?} is no name of a field")))?;
        if FORBIDDEN.contains(&parsed.as_str()) {
            return Err(Refusal::bad(format!("forbidden trailer: {name}")));
        }
        let value = HeaderValue::from_bytes(value.as_bytes());
        let value = value
            .map_err(|_| Refusal::bad(format!("the value of {name} has a control character")))?;
        if !trailers.contains_key(&parsed) {
            names.push(name);
        }
        trailers.insert(parsed, value);
    }
    let content = Content::of(&mut asked).await?;
    let bytes = echo::whole(&asked, &content, true, true).finish();
    let body = Body::produce(None, move |mut sender| async move {
        sender.send(bytes).await;
        sender.trailers(trailers).await;
        Ok(())
    });
    let media = match asked.dialect {
        Dialect::Python => "application/json",
        Dialect::Go => "application/json; charset=utf-8",
    };
    let mut response = respond(StatusCode::OK, media, body);
    for name in names {
        let name = HeaderValue::try_from(name).map_err(|_| Refusal::bad("no name of a field"))?;
        response.headers_mut().append(TRAILER, name);
    }
    Ok(response)
}

/// What must not come behind a body: what frames it, leads it, or says what it is.
const FORBIDDEN: &[&str] = &[
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "host",
    "max-forwards",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
];
/// What go-httpbin takes for a line of usual length.
const GO_LINE: &str = concat!(
    r#"{"id":999,"args":{"sample":["value"]},"headers":{"Host":["example.com"],"#,
    r#""User-Agent":["sample-agent/1.0"]},"origin":"127.0.0.1","#,
    r#""url":"http://example.com/jsonl?count=100"}"#,
    "\n"
);
/// The most lines of `/stream`.
const LINES_MAX: u64 = 100;
