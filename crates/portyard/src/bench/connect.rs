//! Load of an accept loop: connect, begin what comes before the service, one byte there and back,
//! close.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::load::{CONNECT, Load, MAX_COUNT};
use super::tally::Tally;
use crate::connect::Target;
use crate::stop::Outcome;
use crate::trust::{self, Stream, Trust};

/// Connect, send one byte, wait for it to come back, close; again and again.
///
/// The latency is that of the whole round. Towards an IPv4 loopback address the connections come
/// from 127.0.0.1 to 127.0.0.32 in turn, so that closed connections do not use up the ports.
///
/// With --tls each round has a whole handshake, with certificates and signatures, unless --resume
/// lets it go on with the session of an earlier one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard bench connect
  portyard bench connect tcp://127.0.0.1:7007 --connections 64 --seconds 10 --json
  portyard bench connect --tls --ca ca.pem tcp://localhost:7007")]
pub struct Args {
    /// The echo server.
    #[arg(default_value = "tcp://127.0.0.1:7007")]
    endpoint: Endpoint,
    /// Rounds at the same time, 1 to 20000.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    connections: u32,
    /// Go on with the TLS session of an earlier round, where the server allows it.
    #[arg(long, requires = "tls")]
    resume: bool,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    trust: trust::Options,
}

/// Runs the load and prints the result.
pub fn run(args: Args) -> Outcome {
    let target = args.load.target(args.endpoint, Transport::Stream)?;
    let Some(address) = target.internet_addresses().next() else {
        let message = format!("{} is not TCP", target.endpoint);
        return Err(Fatal::new(Exit::Usage, message).into());
    };
    // One connection up front tells at once when nobody listens.
    let trust = args.trust.load_for(&target, args.resume)?;
    drop(trust.connect(&target, CONNECT)?);
    let server = Arc::new(Server {
        target,
        address,
        trust,
    });
    let tally = args
        .load
        .run(args.connections, |share| drive(&server, share, &args.load))?;
    let mut shape = vec![("connections", args.connections.into())];
    if server.trust.is_tls() {
        shape.extend([("tls", 1), ("resume", args.resume.into())]);
    }
    tally.report(&args.load, "connect", &server.target, &shape)
}

/// What every round is with.
struct Server {
    target: Target,
    address: SocketAddr,
    trust: Trust,
}

async fn drive(server: &Arc<Server>, share: u32, load: &Load) -> Result<Tally, Fatal> {
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let mut rounds = JoinSet::new();
    let started = Instant::now();
    let deadline = load.deadline();
    for number in 0..share {
        let tally = Rc::clone(&tally);
        let server = Arc::clone(server);
        rounds.spawn_local(async move {
            let mut turn = number;
            loop {
                let begun = Instant::now();
                let result = round(&server, turn).await;
                turn = turn.wrapping_add(1);
                let mut tally = tally.borrow_mut();
                match result {
                    Ok(()) => {
                        tally.bytes += 1;
                        tally.answered(1, begun.elapsed());
                    }
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => return,
                    Err(error) => {
                        tally.failed(error.to_string());
                        if tally.errors >= MAX_ERRORS {
                            return;
                        }
                    }
                }
            }
        });
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => break,
            ended = rounds.join_next() => match ended {
                None => break,
                Some(Ok(())) if tally.borrow().errors < MAX_ERRORS => {
                    let message = format!("{} sent another byte back", server.target.endpoint);
                    return Err(Fatal::new(Exit::Data, message));
                }
                Some(Ok(())) => {}
                Some(Err(panic)) => return Err(Fatal::new(Exit::Software, panic.to_string())),
            },
        }
    }
    rounds.shutdown().await;
    let mut tally = tally.replace(Tally::new()?);
    tally.finish(started.elapsed());
    Ok(tally)
}

/// One round; "invalid data" when another byte comes back.
async fn round(server: &Server, turn: u32) -> io::Result<()> {
    let socket = TcpSocket::from_std_stream(prepare(server.address, turn)?.into());
    let work = async {
        let mut stream = socket.connect(server.address).await?;
        if server.trust.is_plain() {
            return exchange(&mut stream).await;
        }
        // The byte follows the end of the handshake, and must not wait for its acknowledgement.
        stream.set_nodelay(true)?;
        let begun = server.trust.begin(&server.target, Box::new(stream)).await;
        let mut stream = begun.map_err(io::Error::other)?;
        exchange(&mut stream).await?;
        stream.shutdown().await
    };
    timeout(CONNECT, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(stream: &mut impl Stream) -> io::Result<()> {
    stream.write_all(BYTE).await?;
    stream.flush().await?;
    let mut back = [0];
    stream.read_exact(&mut back).await?;
    if back == *BYTE {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn prepare(address: SocketAddr, turn: u32) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    if let SocketAddr::V4(v4) = address
        && v4.ip().is_loopback()
    {
        // The port is chosen at connect, when both ends are known (ip(7)).
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + turn % SOURCES);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    Ok(socket)
}

const BYTE: &[u8; 1] = b"x";
/// 28,000 ports each, held for a minute: 15,000 rounds a second for as long as one likes.
const SOURCES: u32 = 32;
/// A server that refuses so often is not measured any longer.
const MAX_ERRORS: u64 = 10_000;
