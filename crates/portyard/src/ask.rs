//! A datagram and its answer: tries, deadlines, and answers that come late.
//!
//! Every try is a fresh request from a socket of its own, and the sockets of earlier tries stay
//! open until the question is settled. So a late answer is recognised by the socket it arrives on
//! and belongs to the request it answers, and none can be mistaken for the answer to the next
//! question: by then its socket is closed.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use portyard_core::exit::{Exit, Fatal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::connect::Target;
use crate::datagrams::Datagrams;

/// How often to ask, and how long to wait each time.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Requests at most; at least one is sent.
    pub tries: u8,
    /// How long to wait before the next try, and after the last.
    pub timeout: Duration,
}

/// One datagram that came back.
#[derive(Debug)]
pub struct Answer {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// The request it answers, counted from 0.
    pub attempt: usize,
    /// When it came, by the wall clock.
    pub arrived: SystemTime,
}

/// What to do with an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// The question is settled.
    Take(T),
    /// It is not an answer, for this reason; wait for another.
    Ignore(String),
}

/// Asks until `judge` takes an answer: the addresses of the target in turn, one at each try.
///
/// `request` makes the datagram of each try, given its number from 0. Builds a small runtime for
/// the time it takes.
pub fn ask<T>(
    target: &Target,
    patience: Patience,
    request: impl FnMut(usize) -> Vec<u8>,
    judge: impl FnMut(&Answer) -> Verdict<T>,
) -> Result<T, Fatal> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fatal::new(Exit::OsError, format!("cannot wait for answers: {error}")))?
        .block_on(ask_all(target, patience, request, judge))
}

async fn ask_all<T>(
    target: &Target,
    patience: Patience,
    mut request: impl FnMut(usize) -> Vec<u8>,
    mut judge: impl FnMut(&Answer) -> Verdict<T>,
) -> Result<T, Fatal> {
    // Dropped on return, and with it every socket.
    let mut tries = JoinSet::new();
    let (sender, mut arrivals) = mpsc::channel(QUEUE);
    let mut ignored = None;
    let (mut attempt, mut refusals) = (0, 0);
    let mut left = patience.tries.max(1);
    while left > 0 {
        let datagram = request(attempt);
        let socket = match target.datagrams(attempt) {
            Ok(socket) => Datagrams::new(socket).map_err(|e| target.failure(&e))?,
            // This machine cannot reach that address, for instance because it has no IPv6.
            Err(fatal) => {
                refusals += 1;
                attempt += 1;
                if refusals >= target.address_count() {
                    return Err(fatal);
                }
                continue;
            }
        };
        let deadline = (Instant::now() + patience.timeout).into();
        // Late, if the peer of a Unix socket does not read its queue; it may at the next try.
        if let Ok(sent) = timeout_at(deadline, socket.send(&datagram)).await {
            sent.map_err(|e| target.failure(&e))?;
        }
        tries.spawn(receive(socket, attempt, sender.clone()));
        attempt += 1;
        left -= 1;
        // `sender` is alive, so the channel is open.
        while let Ok(Some(arrival)) = timeout_at(deadline, arrivals.recv()).await {
            match arrival.map(|answer| judge(&answer)) {
                Ok(Verdict::Take(taken)) => return Ok(taken),
                Ok(Verdict::Ignore(why)) => ignored = Some(why),
                Err(error) => {
                    refusals += 1;
                    if refusals >= target.address_count() {
                        return Err(target.failure(&error));
                    }
                    // Another address of the host may be the right one; that is no lost try.
                    left += 1;
                    break;
                }
            }
        }
    }
    let Patience { tries, timeout } = patience;
    Err(match ignored {
        Some(why) => Fatal::new(
            Exit::Data,
            format!("no usable answer from {}: {why}", target.endpoint),
        ),
        None => Fatal::new(
            Exit::TempFail,
            format!(
                "no answer from {} in {tries} tries of {timeout:?}; is the server running, and \
                 does it answer this kind of request?",
                target.endpoint
            ),
        ),
    })
}

/// Passes on what arrives on the socket of one try, until nobody wants it or the socket fails.
async fn receive(socket: Datagrams, attempt: usize, sender: mpsc::Sender<io::Result<Answer>>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = socket.receive(&mut buffer).await;
        let arrived = SystemTime::now();
        let failed = received.is_err();
        let arrival = received.map(|length| Answer {
            bytes: buffer[..length].to_vec(),
            attempt,
            arrived,
        });
        if sender.send(arrival).await.is_err() || failed {
            return;
        }
    }
}

/// The longest payload of UDP over IPv4, and more than a Unix datagram socket sends by default for
/// small answers; a longer one is cut.
pub const MAX_DATAGRAM: usize = 65_507;
/// Answers that may wait to be judged; a flood waits in the kernel's buffer, which drops.
const QUEUE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_core::endpoint::Transport;
    use std::net::UdpSocket;
    use std::thread;

    fn server() -> (UdpSocket, Target) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("udp://{}", server.local_addr().unwrap());
        let soon = Duration::from_secs(5);
        let target = Target::new(endpoint.parse().unwrap(), Transport::Datagram, soon).unwrap();
        (server, target)
    }

    fn patience(tries: u8, milliseconds: u64) -> Patience {
        Patience {
            tries,
            timeout: Duration::from_millis(milliseconds),
        }
    }

    fn number(attempt: usize) -> Vec<u8> {
        vec![u8::try_from(attempt).unwrap()]
    }

    #[test]
    fn silence_is_an_error_after_every_try() {
        let (server, target) = server();
        let error = ask(&target, patience(3, 10), number, |_| Verdict::Take(())).unwrap_err();
        assert_eq!(error.exit, Exit::TempFail);
        server.set_nonblocking(true).unwrap();
        let mut buffer = [0; 8];
        for attempt in 0..3 {
            assert_eq!(server.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], attempt);
        }
        assert!(server.recv(&mut buffer).is_err());
    }

    #[test]
    fn a_late_answer_belongs_to_its_own_request() {
        let (server, target) = server();
        let serving = thread::spawn(move || {
            let mut buffer = [0; 8];
            let (_, first) = server.recv_from(&mut buffer).unwrap();
            let (_, second) = server.recv_from(&mut buffer).unwrap();
            assert_ne!(first, second, "each try has its own port");
            server.send_to(b"late", first).unwrap();
        });
        let attempt = ask(&target, patience(2, 5_000 / 50), number, |answer| {
            Verdict::Take(answer.attempt)
        });
        assert_eq!(attempt.unwrap(), 0);
        serving.join().unwrap();
    }

    #[test]
    fn what_is_no_answer_is_passed_over_and_reported() {
        let (server, target) = server();
        let serving = thread::spawn(move || {
            let mut buffer = [0; 8];
            let (_, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(b"bad", from).unwrap();
            server.send_to(b"good", from).unwrap();
        });
        let mut seen = Vec::new();
        let result = ask(&target, patience(1, 5_000), number, |answer| {
            seen.push(answer.bytes.clone());
            match answer.bytes.as_slice() {
                b"good" => Verdict::Take(()),
                _ => Verdict::Ignore("it is bad".into()),
            }
        });
        assert!(result.is_ok());
        assert_eq!(seen, [&b"bad"[..], b"good"]);
        serving.join().unwrap();
    }

    #[test]
    fn the_next_address_is_asked_when_one_refuses() {
        // Where localhost is ::1 first, nobody listens there.
        let (server, _) = server();
        let port = server.local_addr().unwrap().port();
        let endpoint = format!("udp://localhost:{port}").parse().unwrap();
        let soon = Duration::from_secs(5);
        let target = Target::new(endpoint, Transport::Datagram, soon).unwrap();
        let serving = thread::spawn(move || {
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(b"here", from).unwrap();
        });
        let answer = ask(&target, patience(1, 20_000), number, |_| Verdict::Take(()));
        assert!(answer.is_ok(), "{answer:?}");
        serving.join().unwrap();
    }

    #[test]
    fn a_closed_port_is_told_at_once() {
        let (server, target) = server();
        drop(server);
        let started = Instant::now();
        let error = ask(&target, patience(3, 20_000), number, |_| Verdict::Take(())).unwrap_err();
        assert_eq!(error.exit, Exit::Unavailable);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
