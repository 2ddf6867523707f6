//! `portyard kv watch`: what happens to keys, as it happens.
//!
//! Each call waits at the server until something has happened, and tells from which revision to go on.
//! So a broken connection loses nothing: the next one asks from there, as long as the server remembers.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::value::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::command::refused;
use super::pages::not_a;
use super::raised::Kind;
use super::server::{Broken, Server};
use super::{Style, show, word};
use crate::out::{Out, complain};
use crate::stop::{Outcome, Stop};

/// Follow what happens to keys: a line for each key that is set, deleted, or ends.
///
/// Goes on until ^C or SIGTERM, which leave between two lines, with exit code 0. When the connection breaks, it connects again and goes on with the
/// next revision: no event is missed or told twice, as long as the server remembers that far (it says so
/// when it does not, and a restarted server remembers nothing from before).
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Only keys that begin so.
    prefix: Option<String>,
    /// Begin with this revision, which may be in the past. [default: what happens from now on]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<i64>,
    /// Leave after so many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Watch {
    /// Follows, until it is interrupted, has seen enough or cannot go on.
    pub fn run(self, server: &mut Server, style: Style, out: &mut Out) -> Outcome {
        let prefix = match &self.prefix {
            Some(prefix) => word::key(prefix, style)?,
            None => Value::Nil,
        };
        // A server that says nothing for longer than we wait would be taken for dead.
        let wait = Value::Double((server.timeout() / 2).min(WAIT_MAX).as_secs_f64());
        let mut from = self.from;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut page_limit = PAGE;
        let mut trouble = Trouble::default();
        let telling = leave_on_signals()?;
        while left > 0 {
            let most = i64::try_from(page_limit.min(left)).unwrap_or(i64::MAX);
            let from_value = from.map_or(Value::Nil, Value::Int);
            let params = vec![prefix.clone(), from_value, wait.clone(), Value::Int(most)];
            let called = match server.call("watch", params) {
                // The values are large: fewer at once.
                Err(Broken::TooLong(_)) if page_limit > 1 => {
                    page_limit = (page_limit / 8).max(1);
                    continue;
                }
                // Before the first answer nobody knows from where to go on.
                Err(broken @ Broken::Failed(_)) if from.is_some() && trouble.seen_it_work => {
                    trouble.wait(broken)?;
                    continue;
                }
                other => other?,
            };
            let page = match called {
                Ok(value) => Page::read(value).ok_or_else(|| not_a("page of a watch"))?,
                // It is about to stop, or full; another one may be there in a moment.
                Err(raised)
                    if matches!(raised.kind, Kind::Busy | Kind::Unavailable)
                        && trouble.seen_it_work =>
                {
                    trouble.pause(&raised.words(None))?;
                    continue;
                }
                Err(raised) => return Ok(refused(&raised, None)),
            };
            trouble.over();
            from = Some(page.next);
            // Whoever interrupts gets whole lines.
            let _telling = telling.0.lock().unwrap_or_else(PoisonError::into_inner);
            // All events of a revision come at once, so there may be more than was asked for.
            for event in page.events {
                left = left.saturating_sub(1);
                tell(&event, style, out)?;
            }
            out.flush()?;
        }
        Ok(Exit::Ok)
    }
}

/// A watch that signals end in peace, but not while it is locked.
struct Telling(Arc<Mutex<IsOver>>);

/// Signals end what comes after a watch, at a prompt or in a script, as if there had been none.
type IsOver = bool;

impl Drop for Telling {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Has ^C and SIGTERM end the process.
fn leave_on_signals() -> Result<Telling, Stop> {
    let cannot = |error| {
        let message = format!("cannot listen to signals: {error}");
        Fatal::new(Exit::OsError, message)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(cannot)?;
    let listening = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt()).and_then(|interrupt| {
            let terminate = signal(SignalKind::terminate())?;
            Ok((interrupt, terminate))
        })
    };
    let (mut interrupt, mut terminate) = listening.map_err(cannot)?;
    let telling = Arc::new(Mutex::new(false));
    let told = telling.clone();
    let leave = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let is_over = told.lock().unwrap_or_else(PoisonError::into_inner);
        process::exit(if *is_over {
            INTERRUPTED
        } else {
            Exit::Ok as i32
        });
    };
    let spawned = thread::Builder::new().name("signals".into()).spawn(leave);
    spawned.map_err(cannot)?;
    Ok(Telling(telling))
}

/// What one call tells.
struct Page {
    events: Vec<Value>,
    /// The first revision that it did not look at.
    next: i64,
}

impl Page {
    fn read(value: Value) -> Option<Self> {
        let Value::Map(members) = value else {
            return None;
        };
        let (mut events, mut next) = (None, None);
        for (name, value) in members {
            match (name, value) {
                (Value::String(name), Value::List(list)) if name == "events" => events = Some(list),
                (Value::String(name), Value::Int(number)) if name == "next" => next = Some(number),
                _ => {}
            }
        }
        Some(Self {
            events: events?,
            next: next?,
        })
    }
}

/// Prints an event: with --json as it came, else revision, what happened, key and value.
fn tell(event: &Value, style: Style, out: &mut Out) -> Result<(), Stop> {
    if style.json {
        return out.line(show::exact(event)?);
    }
    let Value::Map(members) = event else {
        return out.line(show::json(event));
    };
    let member = |wanted: &str| {
        members
            .iter()
            .find(|(name, _)| matches!(name, Value::String(name) if name == wanted))
            .map(|(_, value)| value)
    };
    let revision = member("revision").map_or_else(String::new, show::json);
    let what = member("type").map_or_else(String::new, show::key);
    let key = member("key").map_or_else(String::new, show::key);
    match (member("value"), member("unsaid")) {
        (Some(value), _) => out.line(format_args!(
            "{revision}  {what:<6}  {key}  {}",
            show::cell(value)
        )),
        (None, Some(why)) => out.line(format_args!(
            "{revision}  {what:<6}  {key}  ({})",
            show::key(why)
        )),
        (None, None) => out.line(format_args!("{revision}  {what:<6}  {key}")),
    }
}

/// A server that is gone for a while.
#[derive(Default)]
struct Trouble {
    /// The server has answered a watch before, so it is worth waiting for.
    seen_it_work: bool,
    since: Option<Instant>,
    pause: Duration,
}

impl Trouble {
    /// Waits before the next try, or gives up.
    fn wait(&mut self, broken: Broken) -> Result<(), Stop> {
        let fatal = broken.into_fatal();
        // A key or a certificate that is refused stays refused.
        if matches!(fatal.exit, Exit::NoPermission | Exit::Usage | Exit::Data) {
            return Err(fatal.into());
        }
        self.pause(&fatal.message)
    }

    fn pause(&mut self, why: &str) -> Result<(), Stop> {
        let since = *self.since.get_or_insert_with(|| {
            complain(&format!("{why}; trying again"));
            Instant::now()
        });
        if since.elapsed() >= GIVE_UP {
            return Err(Stop::fatal(Exit::Unavailable, why));
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        thread::sleep(self.pause);
        Ok(())
    }

    fn over(&mut self) {
        if self.since.take().is_some() {
            complain("connected again; nothing was missed");
        }
        (self.pause, self.seen_it_work) = (Duration::ZERO, true);
    }
}

/// Less than what proxies cut, and than what the server takes.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Events in one answer.
const PAGE: u64 = 256;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A restart takes seconds, a repair minutes.
const GIVE_UP: Duration = Duration::from_secs(600);
/// What a shell says of a program that ^C has ended.
const INTERRUPTED: i32 = 130;
