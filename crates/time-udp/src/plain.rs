//! The services whose answer is a few bytes: ctime, daytime, time, timestamp, echo, discard.

use portyard_core::datagram::{Answer, DatagramService, Guard, Request};
use portyard_core::observe::metrics::Drop;
use portyard_core::wire::{time, timestamp};

/// Any datagram, the empty one too, gets the local time in Python's `time.ctime()` form.
pub struct Ctime;

/// RFC 867 over UDP: the same, as a line.
pub struct Daytime;

/// RFC 868 over UDP: seconds since 1900 as 32 bits, big-endian.
pub struct Time;

/// `[` ctime `] ` and the datagram's own bytes.
pub struct Timestamp;

/// RFC 862 over UDP: the datagram itself.
pub struct Echo;

/// RFC 863 over UDP: nothing.
pub struct Discard;

impl DatagramService for Ctime {
    fn reads(&self) -> usize {
        0
    }

    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer {
        answer.extend_from_slice(request.home.clock.ctime(request.now).as_bytes());
        Answer::Buffer
    }
}

impl DatagramService for Daytime {
    fn reads(&self) -> usize {
        0
    }

    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer {
        answer.extend_from_slice(request.home.clock.ctime(request.now).as_bytes());
        answer.extend_from_slice(b"\r\n");
        Answer::Buffer
    }
}

impl DatagramService for Time {
    fn reads(&self) -> usize {
        0
    }

    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer {
        // Past the range of the format the RFC wants the datagram discarded.
        let Some(time) = time::encode(request.now.seconds) else {
            return Answer::Ignore(Drop::Silent);
        };
        answer.extend_from_slice(&time);
        Answer::Buffer
    }
}

impl DatagramService for Timestamp {
    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer {
        let now = request.home.clock.ctime(request.now);
        timestamp::stamp(&now, request.payload, answer);
        Answer::Buffer
    }
}

impl DatagramService for Echo {
    fn answer(&self, _: Request<'_>, _: &mut Vec<u8>) -> Answer {
        Answer::Echo
    }

    fn guard(&self) -> Guard {
        Guard::MARK
    }
}

impl DatagramService for Discard {
    fn reads(&self) -> usize {
        0
    }

    fn answer(&self, _: Request<'_>, _: &mut Vec<u8>) -> Answer {
        Answer::Ignore(Drop::Silent)
    }

    fn guard(&self) -> Guard {
        Guard::SILENT
    }
}
