//! `portyard time`: what time is it elsewhere?

mod sntp;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use portyard_core::config::Span;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::civil::Civil;
use portyard_wire::escape::escape;
use portyard_wire::time as rfc868;
use serde_json::json;

use crate::ask::{Patience, Verdict, ask};
use crate::catalog;
use crate::connect::Target;
use crate::connected::Until;
use crate::out::Out;
use crate::stop::{Outcome, Stop};
use crate::trust::{self, Trust};

/// Ask a server for the time and print it.
///
/// Over UDP a request is repeated when no answer comes; a late answer still counts. Over TCP the
/// server's answer is read until it closes. HOST:PORT without a scheme is UDP.
///
/// The service is told by --service; else by a well-known port (13, 37, 123, or a default port of
/// the yard); else it is ctime over UDP and daytime over TCP. Without ENDPOINT the yard's default
/// UDP port of the service on loopback is asked.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard time
  portyard time udp://127.0.0.1:3738 --service time
  portyard time tcp://127.0.0.1:7013
  portyard time --service sntp
  portyard time udp://pool.ntp.org:123 --timeout 2s
  portyard time 192.0.2.1:3737 --tries 5
  portyard time --tls --ca ca.pem tcp://localhost:7013

Services and what is printed:
  ctime      the text, such as Fri Nov 20 11:41:40 2026 (the server's zone)
  daytime    the text (RFC 867)
  time       2026-11-20T11:41:40Z (RFC 868, in UTC)
  timestamp  the time in the brackets of [Fri Nov 20 11:41:40 2026]
  sntp       time, offset, delay, stratum, leap second, reference (RFC 5905, RFC 4330)

Exit codes: 0 done, 64 the command line is wrong, 65 the answer is none, 68 unknown host,
69 nothing listens there or the server refuses (kiss-o'-death), 75 no answer in time, 77 a
certificate or key is refused.")]
pub struct Args {
    /// Where to ask.
    endpoint: Option<Endpoint>,
    /// The protocol.
    #[arg(long, value_enum)]
    service: Option<Service>,
    /// How long to wait for the answer to each try, or over TCP for the whole answer.
    #[arg(long, value_name = "SPAN", default_value = "1s")]
    timeout: Span,
    /// Requests at most (UDP).
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    tries: u8,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: trust::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Service {
    /// The text of C's ctime.
    Ctime,
    /// RFC 867.
    Daytime,
    /// RFC 868.
    Time,
    /// Whatever is sent, behind the time in brackets.
    Timestamp,
    /// Simple Network Time Protocol.
    Sntp,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    let (service, endpoint) = choose(args.service, args.endpoint)?;
    let timeout = args.timeout.0;
    let target = Target::new(endpoint, Transport::Datagram, timeout.max(RESOLVE))?;
    let trust = args.trust.load(&target)?;
    let patience = Patience {
        tries: args.tries,
        timeout,
    };
    let name = service.name();
    let mut out = Out::new();
    if service == Service::Sntp {
        let report = sntp::query(&target, patience)?;
        if args.json {
            let m = report.measurement;
            out.json(&json!({
                "service": name,
                "endpoint": target.endpoint.to_string(),
                "offset_seconds": m.offset_seconds,
                "delay_seconds": m.delay_seconds,
                "stratum": m.stratum,
                "leap": sntp::leap(m.leap),
                "reference": sntp::reference(m.stratum, m.reference_id),
            }))?;
        } else {
            out.line(report)?;
        }
    } else {
        let text = match target.transport {
            Transport::Datagram => ask(
                &target,
                patience,
                |_| service.datagram().to_vec(),
                |answer| match service.read(&answer.bytes) {
                    Ok(text) => Verdict::Take(text),
                    Err(why) => Verdict::Ignore(why),
                },
            )?,
            Transport::Stream | Transport::SeqPacket => {
                over_stream(&target, &trust, service, timeout)?
            }
        };
        if args.json {
            let endpoint = target.endpoint.to_string();
            out.json(&json!({"service": name, "endpoint": endpoint, "time": text}))?;
        } else {
            out.line(text)?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn choose(
    service: Option<Service>,
    endpoint: Option<Endpoint>,
) -> Result<(Service, Endpoint), Stop> {
    let Some(endpoint) = endpoint else {
        let service = service.unwrap_or(Service::Ctime);
        let row = catalog::find(Transport::Datagram, service.name()).ok_or_else(|| {
            let message = format!("{} has no default port; name an endpoint", service.name());
            Stop::fatal(Exit::Usage, message)
        })?;
        return Ok((service, row.endpoint()));
    };
    let (transport, port) = match &endpoint {
        Endpoint::Tcp(at) => (Transport::Stream, Some(at.port)),
        Endpoint::Udp(at) | Endpoint::Bare(at) => (Transport::Datagram, Some(at.port)),
        _ => (Transport::Datagram, None),
    };
    let by_port = || Service::from_str(catalog::by_port(transport, port?)?, false).ok();
    let service = service.or_else(by_port).unwrap_or(match transport {
        Transport::Stream | Transport::SeqPacket => Service::Daytime,
        Transport::Datagram => Service::Ctime,
    });
    if service == Service::Sntp && transport == Transport::Stream {
        return Err(Stop::fatal(
            Exit::Usage,
            format!("sntp is spoken over UDP only, not at {endpoint}; write udp://HOST:123"),
        ));
    }
    Ok((service, endpoint))
}

/// Sends what the service wants, closes our half, and reads until the server closes.
///
/// Inside TLS the end of our half is bytes, which a server that reads nothing has not read when it
/// closes: that resets the connection, and the reset can overtake its answer.
fn over_stream(
    target: &Target,
    trust: &Trust,
    service: Service,
    timeout: Duration,
) -> Result<String, Fatal> {
    let failed = |error| target.failure(&error);
    let deadline = Instant::now() + timeout;
    let connected = trust.connect(target, timeout)?;
    if service == Service::Timestamp {
        (&connected).write_all(b"\n").map_err(failed)?;
    }
    if service == Service::Timestamp || !trust.is_tls() {
        connected.close_write().map_err(failed)?;
    }
    let mut answer = Vec::new();
    Until {
        connected: &connected,
        deadline,
    }
    .take(MAX_ANSWER)
    .read_to_end(&mut answer)
    .map_err(failed)?;
    service.read(&answer).map_err(|why| {
        let message = format!("no usable answer from {}: {why}", target.endpoint);
        Fatal::new(Exit::Data, message)
    })
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Ctime => "ctime",
            Self::Daytime => "daytime",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Sntp => "sntp",
        }
    }

    /// What to send. One byte, as some networks and servers drop empty datagrams; the timestamp
    /// service would repeat it.
    fn datagram(self) -> &'static [u8] {
        match self {
            Self::Timestamp => b"",
            _ => b"\n",
        }
    }

    /// The text to print for an answer, or why it is none.
    fn read(self, answer: &[u8]) -> Result<String, String> {
        let shown = || escape(answer, 60);
        let text = answer.trim_ascii();
        match self {
            Self::Time => match <[u8; 4]>::try_from(answer) {
                Ok(bytes) => Ok(iso(rfc868::decode(bytes))),
                Err(_) if answer.is_empty() => Err("it closed without telling the time".into()),
                Err(_) => Err(format!(
                    "a time is 4 bytes (RFC 868), not the {} of '{}'",
                    answer.len(),
                    shown()
                )),
            },
            Self::Timestamp => text
                .strip_prefix(b"[")
                .and_then(|text| text.split(|&byte| byte == b']').next())
                .filter(|inner| inner.len() + 1 < text.len())
                .map(|inner| escape(inner, MAX_TEXT))
                .ok_or_else(|| format!("'{}' has no time in brackets", shown())),
            _ if text.is_empty() => Err("it is empty".into()),
            _ if text.len() > MAX_TEXT => {
                Err(format!("{} bytes are no time: '{}'", text.len(), shown()))
            }
            _ => Ok(escape(text, MAX_TEXT)),
        }
    }
}

/// `2026-11-20T11:41:40Z`.
fn iso(unix_seconds: i64) -> String {
    let c = Civil::from_unix(unix_seconds, 0);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// A name server gets this long even where the time server gets less.
const RESOLVE: Duration = Duration::from_secs(5);
/// More than any of these services answers.
const MAX_ANSWER: u64 = 2048;
/// RFC 867 daytimes are one line; those of national institutes have about 50 characters.
const MAX_TEXT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_is_told_why() {
        assert!(Service::Time.read(b"").unwrap_err().contains("closed"));
        assert!(
            Service::Time
                .read(b"12345")
                .unwrap_err()
                .contains("4 bytes")
        );
        assert!(Service::Ctime.read(b"\r\n").is_err());
        assert!(Service::Ctime.read(&[b'x'; 201]).is_err());
        assert!(Service::Timestamp.read(b"[Fri").is_err());
        assert!(Service::Timestamp.read(b"no").is_err());
    }

    #[test]
    fn a_terminal_is_safe_from_the_server() {
        assert_eq!(Service::Ctime.read(b"\x1b[2J").unwrap(), r"\x1b[2J");
    }

    #[test]
    fn times_are_read() {
        // RFC 868: 2,208,988,800 is 1970-01-01, and 2,398,291,200 is 1976-01-01.
        let bytes = 2_398_291_200_u32.to_be_bytes();
        assert_eq!(Service::Time.read(&bytes).unwrap(), "1976-01-01T00:00:00Z");
        let text = "Fri Nov 20 11:41:40 2026";
        assert_eq!(
            Service::Daytime
                .read(format!("{text}\r\n").as_bytes())
                .unwrap(),
            text
        );
        assert_eq!(
            Service::Timestamp
                .read(format!("[{text}] \n").as_bytes())
                .unwrap(),
            text
        );
        assert_eq!(
            Service::Timestamp
                .read(format!("[{text}]").as_bytes())
                .unwrap(),
            text
        );
    }

    #[test]
    fn the_endpoint_tells_the_service() {
        let chosen = |text: &str| choose(None, Some(text.parse().unwrap())).unwrap().0;
        assert_eq!(chosen("udp://127.0.0.1:123"), Service::Sntp);
        assert_eq!(chosen("udp://127.0.0.1:3738"), Service::Time);
        assert_eq!(chosen("tcp://127.0.0.1:7013"), Service::Daytime);
        assert_eq!(chosen("tcp://127.0.0.1:9999"), Service::Daytime);
        assert_eq!(chosen("127.0.0.1:9999"), Service::Ctime);
        let (service, endpoint) = choose(None, None).unwrap();
        assert_eq!(
            (service, endpoint.to_string().as_str()),
            (Service::Ctime, "udp://127.0.0.1:3737")
        );
    }
}
