//! What a connection's parts know of each other while hyper has the connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hyper::StatusCode;
use portyard_core::serve::Place;
use portyard_wire::http::HttpError;

use super::body::Upgrade;

/// Shared by the task of a connection, what hyper reads and writes through, and the requests under way.
pub struct Watch {
    /// The connection's place in its loop.
    pub place: Place,
    /// How long a head may take.
    pub header: Duration,
    /// Requests whose answers are not made in full yet.
    under_way: Cell<u32>,
    /// Requests that have begun.
    begun: Cell<u64>,
    /// A head has begun, and its alarm is set.
    pub in_head: Cell<bool>,
    /// Nothing goes on, and the alarm for letting go of memory is set.
    pub resting: Cell<bool>,
    /// The peer takes nothing at the moment.
    pub blocked: Cell<bool>,
    /// What is wrong with the request that comes next.
    pub refusal: Cell<Option<HttpError>>,
    /// What takes the connection over after an answer with status 101.
    pub upgrade: RefCell<Option<Upgrade>>,
    /// Of HTTP/1.1: hyper has nothing left that it has not written.
    pub flushed: Cell<bool>,
    /// What goes out before all that hyper writes next.
    pub interim: Cell<Option<Vec<u8>>>,
}

/// A request that is being answered. Dropped when its answer has been made, or nobody wants it.
pub struct UnderWay(Rc<Watch>);

impl Watch {
    /// Of a connection on which nothing has happened.
    pub fn new(place: Place, header: Duration) -> Rc<Self> {
        Rc::new(Self {
            place,
            header,
            under_way: Cell::new(0),
            begun: Cell::new(0),
            in_head: Cell::new(false),
            resting: Cell::new(false),
            blocked: Cell::new(false),
            refusal: Cell::new(None),
            upgrade: RefCell::new(None),
            flushed: Cell::new(true),
            interim: Cell::new(None),
        })
    }

    /// A request begins.
    pub fn begin(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.begun.set(self.begun.get() + 1);
        self.resting.set(false);
        UnderWay(self.clone())
    }

    /// Whether no request is being answered.
    pub fn is_idle(&self) -> bool {
        self.under_way.get() == 0
    }

    /// How many requests have begun.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Tells the client of HTTP/1.1 a status from 100 to 199 before the answer that is made next (RFC 9110,
    /// 15.2). Left out where it would come in the midst of an earlier answer: nobody may rely on it.
    pub fn tell_interim(&self, status: StatusCode) {
        if self.flushed.get() {
            let reason = status.canonical_reason().unwrap_or_default();
            let line = format!("HTTP/1.1 {} {reason}\r\n\r\n", status.as_u16());
            self.interim.set(Some(line.into_bytes()));
        }
    }

    /// Tells the loop whether we work or wait for the peer, after a turn of the connection's task.
    pub fn settle(&self) {
        if !self.is_idle() {
            self.place.busy();
        } else if !self.resting.get() && !self.in_head.get() {
            self.resting.set(true);
            self.place.rested();
            self.place.wake_in(REST);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// A connection that has been silent for so long lets go of its memory: longer than clients wait
/// between the requests for one page.
const REST: Duration = Duration::from_secs(2);
