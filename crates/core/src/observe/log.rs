//! Where log lines go and what they look like.
//!
//! Peers' bytes never reach a line raw: every field's text is escaped here, once for all.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use nix::sys::stat::fstat;
use portyard_wire::escape::escape;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::syslog::{Syslog, severity};
use crate::config::{self, LogConfig, LogFormat, LogTarget};

/// A handle that can change the level of the running log.
#[derive(Clone)]
pub struct LogControl(reload::Handle<LevelFilter, Registry>);

/// Starts logging for the process. `stderr_is_peer` says that descriptor 2 is, or may be, the
/// peer's socket (inetd), where no log line must ever go.
pub fn start(program: &'static str, config: &LogConfig, stderr_is_peer: bool) -> LogControl {
    let (filter, handle) = reload::Layer::new(level(config.level));
    let target = match config.target {
        LogTarget::Auto if stderr_is_peer => LogTarget::Syslog,
        LogTarget::Auto => LogTarget::Stderr,
        other => other,
    };
    let sink = match target {
        LogTarget::Syslog => Sink::Syslog(Syslog::new(program)),
        LogTarget::None => Sink::None,
        LogTarget::Auto | LogTarget::Stderr => Sink::Stderr,
    };
    let form = match config.format {
        LogFormat::Auto if stderr_is_journal() => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Text,
        other => other,
    };
    // A second start in one process (tests) keeps the first log.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(Lines { sink, form })
        .try_init();
    LogControl(handle)
}

impl LogControl {
    /// Changes the level.
    pub fn set_level(&self, new: config::Level) {
        // Fails only when the subscriber is gone, and then there is no log to change.
        let _ = self.0.modify(|filter| *filter = level(new));
    }
}

fn level(level: config::Level) -> LevelFilter {
    match level {
        config::Level::Error => LevelFilter::ERROR,
        config::Level::Warn => LevelFilter::WARN,
        config::Level::Info => LevelFilter::INFO,
        config::Level::Debug => LevelFilter::DEBUG,
        config::Level::Trace => LevelFilter::TRACE,
    }
}

/// systemd.exec(5): `JOURNAL_STREAM` holds device and inode of the stream that journald reads.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = fstat(io::stderr()) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Whether descriptor 2 is a socket or the same file as descriptor 0, as an inetd leaves it.
pub fn stderr_is_peer() -> bool {
    let (Ok(err), Ok(input)) = (fstat(io::stderr()), fstat(io::stdin())) else {
        return true;
    };
    let is_socket = err.st_mode & libc::S_IFMT == libc::S_IFSOCK;
    is_socket && (err.st_dev, err.st_ino) == (input.st_dev, input.st_ino)
}

enum Sink {
    Stderr,
    Syslog(Syslog),
    None,
}

/// The layer that writes a line per event.
struct Lines {
    sink: Sink,
    form: LogFormat,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // hyper and others log through the same macros; only our own words are for operators.
        let metadata = event.metadata();
        if !OURS.iter().any(|ours| metadata.target().starts_with(ours)) {
            return;
        }
        let level = *metadata.level();
        let mut fields = Fields::default();
        event.record(&mut fields);
        match &self.sink {
            Sink::None => {}
            Sink::Syslog(syslog) => syslog.send(level, &fields.text()),
            Sink::Stderr => {
                let mut line = match self.form {
                    LogFormat::Json => fields.json(level, &now()),
                    LogFormat::Journal => format!("<{}>{}", severity(level), fields.text()),
                    LogFormat::Text | LogFormat::Auto => {
                        format!("{} {level:<5} {}", now(), fields.text())
                    }
                };
                line.push('\n');
                // One write, so that lines of several threads do not mix. A closed stderr loses
                // them: a log must not stop the work.
                let _ = io::stderr().write_all(line.as_bytes());
            }
        }
    }
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// An event's message and fields, escaped.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.others {
            let quote = value.is_empty() || value.contains([' ', '"', '=']);
            let _ = if quote {
                write!(text, " {name}={value:?}")
            } else {
                write!(text, " {name}={value}")
            };
        }
        text
    }

    fn json(&self, level: Level, time: &str) -> String {
        let mut object = serde_json::Map::new();
        object.insert("time".into(), time.into());
        object.insert("level".into(), level.as_str().to_lowercase().into());
        object.insert("message".into(), self.message.as_str().into());
        for (name, value) in &self.others {
            object.insert((*name).into(), value.as_str().into());
        }
        serde_json::Value::Object(object).to_string()
    }

    fn put(&mut self, field: &Field, value: &str) {
        let value = escape(value.as_bytes(), FIELD_MAX);
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// Longer values are cut: a peer may choose their length.
const FIELD_MAX: usize = 1000;
const OURS: [&str; 6] = [
    "portyard",
    "echo_tcp",
    "time_udp",
    "kv_rpc",
    "rest_api",
    "fd_broker",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_quotes_what_could_be_mistaken_for_another_field() {
        let fields = Fields {
            message: "connection ended".into(),
            others: vec![
                ("peer", "127.0.0.1:9".into()),
                ("why", "level=error fake".into()),
            ],
        };
        assert_eq!(
            fields.text(),
            "connection ended peer=127.0.0.1:9 why=\"level=error fake\""
        );
        let json: serde_json::Value = serde_json::from_str(&fields.json(Level::INFO, "t")).unwrap();
        assert_eq!(json["why"], "level=error fake");
        assert_eq!(json["level"], "info");
    }
}
