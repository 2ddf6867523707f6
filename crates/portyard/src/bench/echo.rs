//! Load of an echo server: messages over connections that stay.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use socket2::{Domain, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::load::{CONNECT, Load, MAX_COUNT, MAX_DEPTH};
use super::pattern::{CHUNK, Pattern};
use super::tally::Tally;
use crate::connect::Target;
use crate::stop::{Outcome, Stop};
use crate::trust::{self, Stream, Trust};

/// Send messages over connections that stay open, and check that each comes back.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard bench echo
  portyard bench echo --connections 512 --size 1024
  portyard bench echo tcp://127.0.0.1:7007 --depth 16 --seconds 10 --json
  portyard bench echo unix:/run/echo.sock --size 65536
  portyard bench echo --tls --ca ca.pem tcp://localhost:7007 --size 65536 --depth 4")]
pub struct Args {
    /// The echo server.
    #[arg(default_value = "tcp://127.0.0.1:7007")]
    endpoint: Endpoint,
    /// Connections, 1 to 20000.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    connections: u32,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Messages under way on each connection, 1 to 1024.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_DEPTH))]
    depth: u32,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    trust: trust::Options,
}

/// Runs the load and prints the result.
pub fn run(args: Args) -> Outcome {
    let in_flight = u64::from(args.connections) * u64::from(args.size) * u64::from(args.depth);
    if in_flight > MAX_IN_FLIGHT {
        return Err(Stop::fatal(
            Exit::Usage,
            format!("{in_flight} bytes in flight are more than 256 MiB; lower one of the numbers"),
        ));
    }
    let target = args.load.target(args.endpoint, Transport::Stream)?;
    let trust = args.trust.load(&target)?;
    let shape = (args.size.into(), args.depth.into());
    let tally = args.load.run(args.connections, |share| {
        drive(&target, &trust, share, shape, &args.load)
    })?;
    let mut shape = vec![
        ("connections", args.connections.into()),
        ("size", args.size.into()),
        ("depth", args.depth.into()),
    ];
    if trust.is_tls() {
        shape.push(("tls", 1));
    }
    tally.report(&args.load, "echo", &target, &shape)
}

/// One loop: its connections until the time is over or all are broken.
async fn drive(
    target: &Target,
    trust: &Trust,
    share: u32,
    (size, depth): (u64, u64),
    load: &Load,
) -> Result<Tally, Fatal> {
    let mut streams = Vec::new();
    for _ in 0..share {
        let socket = target.stream(CONNECT)?;
        let stream = adopt(socket).map_err(|error| target.failure(&error))?;
        let stream = timeout(CONNECT, trust.begin(target, stream))
            .await
            .unwrap_or_else(|_| Err(target.failure(&io::ErrorKind::TimedOut.into())))?;
        streams.push(stream);
    }
    let shared = Rc::new(Shared {
        pattern: Pattern::new(),
        buffer: RefCell::new(vec![0; CHUNK]),
        tally: RefCell::new(Tally::new()?),
    });
    let started = Instant::now();
    let deadline = load.deadline();
    let mut connections = JoinSet::new();
    for stream in streams {
        let mut connection = Connection::new(stream, size, depth);
        let shared = Rc::clone(&shared);
        connections.spawn_local(async move { poll_fn(|cx| connection.poll(cx, &shared)).await });
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => break,
            broken = connections.join_next() => match broken {
                None => break,
                Some(Ok(Broken::Wrong(position))) => return Err(Fatal::new(
                    Exit::Data,
                    format!("{}: byte {position} of a connection is not the one sent", target.endpoint),
                )),
                Some(Ok(Broken::Lost(error))) => {
                    shared.tally.borrow_mut().failed(target.failure(&error).to_string());
                }
                Some(Err(panic)) => return Err(Fatal::new(Exit::Software, panic.to_string())),
            },
        }
    }
    connections.shutdown().await;
    let mut tally = shared.tally.replace(Tally::new()?);
    tally.finish(started.elapsed());
    Ok(tally)
}

/// What the connections of one loop share.
struct Shared {
    pattern: Pattern,
    buffer: RefCell<Vec<u8>>,
    tally: RefCell<Tally>,
}

/// Why a connection is over before the time is.
enum Broken {
    /// The byte at this position is another than was sent.
    Wrong(u64),
    Lost(io::Error),
}

/// One connection. Positions count the bytes of its stream, the same in both directions.
struct Connection {
    stream: Box<dyn Stream>,
    size: u64,
    /// Up to here messages are to be sent.
    allowed: u64,
    sent: u64,
    /// Whether the stream may hold some of that back.
    unflushed: bool,
    received: u64,
    /// How many messages were begun when, the oldest first.
    begun: VecDeque<(u64, Instant)>,
}

impl Connection {
    fn new(stream: Box<dyn Stream>, size: u64, depth: u64) -> Self {
        Self {
            stream,
            size,
            allowed: size * depth,
            sent: 0,
            unflushed: false,
            received: 0,
            begun: VecDeque::from([(depth, Instant::now())]),
        }
    }

    /// Writes and reads as far as the socket goes; ready only when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Broken> {
        loop {
            while self.sent < self.allowed {
                let left = usize::try_from(self.allowed - self.sent).unwrap_or(CHUNK);
                let chunk = shared.pattern.at(self.sent, left.min(CHUNK));
                match Pin::new(&mut self.stream).poll_write(cx, chunk) {
                    Poll::Ready(Ok(length)) => {
                        self.sent += length as u64;
                        self.unflushed = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Broken::Lost(error)),
                    Poll::Pending => break,
                }
            }
            if self.unflushed {
                match Pin::new(&mut self.stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(error)) => return Poll::Ready(Broken::Lost(error)),
                    Poll::Pending => {}
                }
            }
            let mut buffer = shared.buffer.borrow_mut();
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Broken::Lost(error)),
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    return Poll::Ready(Broken::Lost(io::ErrorKind::BrokenPipe.into()));
                }
                Poll::Ready(Ok(())) => {
                    if let Err(broken) = self.take(read.filled(), shared) {
                        return Poll::Ready(broken);
                    }
                }
            }
        }
    }

    /// Checks what came back, and allows a new message for each that is complete.
    fn take(&mut self, bytes: &[u8], shared: &Shared) -> Result<(), Broken> {
        let expected = shared.pattern.at(self.received, bytes.len());
        if bytes != expected {
            let same = bytes
                .iter()
                .zip(expected)
                .take_while(|(a, b)| a == b)
                .count();
            return Err(Broken::Wrong(self.received + same as u64));
        }
        let before = self.received / self.size;
        self.received += bytes.len() as u64;
        let mut complete = self.received / self.size - before;
        let now = Instant::now();
        let mut tally = shared.tally.borrow_mut();
        tally.bytes += bytes.len() as u64;
        if complete > 0 {
            self.allowed += complete * self.size;
            self.begun.push_back((complete, now));
        }
        while complete > 0 {
            // What was received was sent, so as many messages were begun.
            let Some((begun, at)) = self.begun.front_mut() else {
                break;
            };
            let count = complete.min(*begun);
            tally.answered(count, now - *at);
            *begun -= count;
            complete -= count;
            if *begun == 0 {
                self.begun.pop_front();
            }
        }
        if self.received > self.sent {
            return Err(Broken::Wrong(self.sent));
        }
        Ok(())
    }
}

fn adopt(socket: Socket) -> io::Result<Box<dyn Stream>> {
    socket.set_nonblocking(true)?;
    Ok(if socket.domain()? == Domain::UNIX {
        Box::new(UnixStream::from_std(socket.into())?)
    } else {
        Box::new(TcpStream::from_std(socket.into())?)
    })
}

const MAX_IN_FLIGHT: u64 = 256 << 20;
