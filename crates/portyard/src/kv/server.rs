//! Calls and their replies over one connection, which is made when it is needed.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::value::Value;

use super::door::{Call, Door, Nonsense, Replies};
use super::raised::Raised;
use crate::connect::Target;
use crate::connected::{Connected, Sent};
use crate::stop::Stop;
use crate::trust::Trust;

/// A server of the store.
///
/// Calls may be begun before those ahead of them are answered; they are sent when the first answer is
/// asked for. What was sent is never sent again, unless the server has said that it did nothing with
/// it: nobody knows whether a change was made when a connection breaks.
pub struct Server {
    target: Target,
    trust: Trust,
    door: Door,
    timeout: Duration,
    max_answer: usize,
    link: Option<Link>,
    /// Calls that are begun and not sent, with their numbers.
    waiting: VecDeque<(u64, Vec<u8>)>,
    /// Calls that are sent and not answered.
    sent: VecDeque<(u64, Vec<u8>)>,
    /// The server closes after each reply, so that nothing is sent behind a call.
    one_by_one: bool,
    calls: u64,
    buffer: Vec<u8>,
}

/// Why there is no answer. The connection is gone, and every call that was begun with it.
#[derive(Debug)]
pub enum Broken {
    /// The answer is longer than we take.
    TooLong(Fatal),
    /// Anything else.
    Failed(Fatal),
}

/// A connection and what arrives on it.
struct Link {
    connected: Connected,
    replies: Replies,
    /// Nothing has been answered on it yet.
    is_new: bool,
}

impl Server {
    /// Takes answers of at most `max_answer` bytes, and waits `timeout` for each piece of one.
    pub fn new(
        target: Target,
        trust: Trust,
        door: Door,
        timeout: Duration,
        max_answer: usize,
    ) -> Self {
        Self {
            target,
            trust,
            door,
            timeout,
            max_answer,
            link: None,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            one_by_one: false,
            calls: 0,
            buffer: vec![0; BUFFER],
        }
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How long it waits for each piece of an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes one call and waits for its answer.
    pub fn call(
        &mut self,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Result<Value, Raised>, Broken> {
        self.begin(method, params)?;
        self.answer()
    }

    /// Begins a call. Its answer is the next behind those of the calls before it.
    pub fn begin(&mut self, method: &'static str, params: Vec<Value>) -> Result<(), Fatal> {
        self.calls += 1;
        let call = Call { method, params };
        let encoded = self
            .door
            .encode(&call, self.calls, &self.target.endpoint)
            .map_err(|why| {
                let message = format!(
                    "this cannot be said over --door {}: {why}",
                    self.door.name()
                );
                Fatal::new(Exit::Usage, message)
            })?;
        self.waiting.push_back((self.calls, encoded));
        Ok(())
    }

    /// Forgets the connection and every call without an answer. What was sent may be done or not.
    pub fn give_up(&mut self) {
        self.link = None;
        self.waiting.clear();
        self.sent.clear();
    }

    /// The answer to the oldest call that has none.
    pub fn answer(&mut self) -> Result<Result<Value, Raised>, Broken> {
        let answered = self.try_answer();
        if answered.is_err() {
            self.give_up();
        }
        answered
    }

    fn try_answer(&mut self) -> Result<Result<Value, Raised>, Broken> {
        if self.sent.is_empty() {
            self.send()?;
        }
        let Some(&(number, _)) = self.sent.front() else {
            let message = "an answer is awaited and nothing was asked";
            return Err(Fatal::new(Exit::Software, message).into());
        };
        let endpoint = &self.target.endpoint;
        let Some(link) = &mut self.link else {
            let message = format!("{endpoint} closed without an answer");
            return Err(Fatal::new(Exit::Io, message).into());
        };
        let reply = loop {
            match link.replies.next(number) {
                Ok(Some(reply)) => break reply,
                Ok(None) => {}
                Err(nonsense) => return Err(Broken::by(&nonsense, &self.target)),
            }
            match (&link.connected).read(&mut self.buffer) {
                Ok(0) => {
                    let when = if link.replies.at_boundary() {
                        "without an answer"
                    } else {
                        "in the middle of an answer"
                    };
                    let message = format!("{endpoint} closed {when}; is --door right?");
                    return Err(Fatal::new(Exit::Io, message).into());
                }
                Ok(read) => link.replies.feed(&self.buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.target.failure(&error).into()),
            }
        };
        link.is_new = false;
        self.sent.pop_front();
        if reply.is_last {
            self.link = None;
            self.one_by_one = true;
            while let Some(unheard) = self.sent.pop_back() {
                self.waiting.push_front(unheard);
            }
        }
        Ok(reply.outcome)
    }

    /// Sends what waits.
    fn send(&mut self) -> Result<(), Fatal> {
        let count = if self.one_by_one {
            1
        } else {
            self.waiting.len()
        };
        self.sent
            .extend(self.waiting.drain(..count.min(self.waiting.len())));
        let bytes: Vec<u8> = self
            .sent
            .iter()
            .flat_map(|(_, call)| call)
            .copied()
            .collect();
        let failed = |error| self.target.failure(&error);
        let mut left = &bytes[..];
        // A server may close what is idle for long, and says so before we say anything.
        if let Some(link) = &self.link
            && !link.is_new
        {
            match link.connected.send_watching(left, self.timeout) {
                Ok(Sent::Taken(length)) => left = &left[length..],
                // Nothing has been sent.
                Ok(Sent::Answered) => self.link = None,
                Err(error) => return Err(failed(error)),
            }
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => Link {
                connected: self.trust.connect(&self.target, self.timeout)?,
                replies: self.door.replies(self.max_answer),
                is_new: true,
            },
        };
        let mut stream = &link.connected;
        let written = stream.write_all(left).and_then(|()| stream.flush());
        self.link = Some(link);
        match written {
            // It may have said why.
            Err(error) if is_gone(error.kind()) => Ok(()),
            other => other.map_err(failed),
        }
    }
}

impl Broken {
    fn by(nonsense: &Nonsense, target: &Target) -> Self {
        let message = format!("{}: {nonsense}", target.endpoint);
        match nonsense {
            Nonsense::TooLong { .. } => Self::TooLong(Fatal::new(Exit::Data, message)),
            Nonsense::WantsKey => Self::Failed(Fatal::new(Exit::NoPermission, message)),
            Nonsense::TooLarge(_) => Self::Failed(Fatal::new(Exit::Usage, message)),
            Nonsense::Busy(_) => Self::Failed(Fatal::new(Exit::TempFail, message)),
            Nonsense::Other(_) => Self::Failed(Fatal::new(Exit::Data, message)),
        }
    }

    /// What to tell.
    pub fn into_fatal(self) -> Fatal {
        match self {
            Self::TooLong(fatal) | Self::Failed(fatal) => fatal,
        }
    }
}

impl From<Fatal> for Broken {
    fn from(fatal: Fatal) -> Self {
        Self::Failed(fatal)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Fatal(broken.into_fatal())
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

const BUFFER: usize = 64 << 10;
