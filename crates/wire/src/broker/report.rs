//! What workers report of the connections they were offered.

use super::frame::{Writer, take};
use super::{BrokerError, HEADER_LEN, REPORT, REPORTS_MAX};

/// What became of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The connection, by the number in its offer.
    pub connection: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// What becomes of a connection at a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the worker's now; the broker closes its copy.
    Taken,
    /// The worker has not touched it and closes its copy: it goes to another one.
    Refused(Why),
    /// It is over. Says TAKEN as well, where that was not said before.
    Done,
}

/// Why a worker refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// For a reason that this version does not know, or none.
    Other,
    /// It has as many as it can have.
    Full,
    /// It finishes what it has, and ends.
    Draining,
    /// The peer is over a limit of its own, or barred.
    Denied,
    /// It lacks descriptors or memory.
    Resources,
}

impl Why {
    fn of(code: u8) -> Self {
        match code {
            1 => Self::Full,
            2 => Self::Draining,
            3 => Self::Denied,
            4 => Self::Resources,
            _ => Self::Other,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Full => 1,
            Self::Draining => 2,
            Self::Denied => 3,
            Self::Resources => 4,
        }
    }

    /// One word for metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Denied => "denied",
            Self::Resources => "resources",
        }
    }
}

/// Collects reports into packets, so that many cost one call.
#[derive(Clone, Debug)]
pub struct Reports {
    writer: Writer,
}

impl Reports {
    /// None yet.
    pub fn new() -> Self {
        Self {
            writer: Writer::new(REPORT),
        }
    }

    /// Adds a report; [`Reports::is_full`] must not be true.
    pub fn push(&mut self, report: Report) {
        let (verb, reason) = match report.verdict {
            Verdict::Taken => (TAKEN, 0),
            Verdict::Refused(why) => (REFUSED, why.code()),
            Verdict::Done => (DONE, 0),
        };
        let mut record = [0; RECORD_LEN];
        record[..2].copy_from_slice(&[verb, reason]);
        record[2..].copy_from_slice(&report.connection.to_be_bytes());
        self.writer.bytes(&record);
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// Whether the packet must be sent before another report.
    pub fn is_full(&self) -> bool {
        self.writer.len() >= HEADER_LEN + REPORTS_MAX * RECORD_LEN
    }

    /// The packet, and begins the next.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.writer, Writer::new(REPORT)).finish(0)
    }
}

impl Default for Reports {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn decode(body: &[u8]) -> Result<Vec<Report>, BrokerError> {
    let records = body.chunks(RECORD_LEN);
    if records.len() == 0 || records.len() > REPORTS_MAX {
        return Err(BrokerError::Entries {
            came: records.len(),
            max: REPORTS_MAX,
        });
    }
    records.map(record).collect()
}

fn record(mut record: &[u8]) -> Result<Report, BrokerError> {
    let [verb, reason] = take(&mut record)?;
    let verdict = match verb {
        TAKEN => Verdict::Taken,
        REFUSED => Verdict::Refused(Why::of(reason)),
        DONE => Verdict::Done,
        other => return Err(BrokerError::Value("verb", other.into())),
    };
    Ok(Report {
        connection: u64::from_be_bytes(take(&mut record)?),
        verdict,
    })
}

const RECORD_LEN: usize = 10;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;
const DONE: u8 = 3;
