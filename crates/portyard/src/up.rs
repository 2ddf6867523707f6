//! `portyard up`: the whole yard in one command.
//!
//! In order: find the daemons ([`roster`]), open their sockets ([`sockets`]), start each with its
//! sockets as systemd would ([`child`], [`exec_activated`]) and a configuration in which rest-api is told
//! of all ([`outfit`]), wait until each says READY ([`notify`]), print what listens where ([`banner`]),
//! and keep them running ([`keeper`], with the rules of [`policy`]) until a signal drains them.

mod banner;
mod child;
pub mod exec_activated;
mod keeper;
mod log;
mod notify;
mod outfit;
mod policy;
mod roster;
mod sockets;

use std::path::PathBuf;

use portyard_core::exit::{Exit, Fatal};
use portyard_core::life::raise_descriptor_limit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::banner::Board;
use self::keeper::{Keeper, Phase};
use self::log::Log;
use self::outfit::Outfit;
use crate::stop::{Outcome, Stop};

/// Start every daemon of the yard and keep it running.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_long_help = "\
Examples:
  portyard up
  portyard up --only echo-tcp
  portyard up --only echo-tcp,time-udp 2> yard.log

Exit codes: 0 drained after a signal, 64 the command line is wrong, 69 no daemon was found, or a
port is taken (then nothing was started); else the exit code of the daemon that closed the yard, or
70 where that has no meaning here.")]
pub struct Args {
    /// Start only these daemons.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Look for the daemons here instead of beside this program.
    #[arg(long, value_name = "DIR", hide = true)]
    bin_dir: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::fatal(Exit::OsError, format!("cannot start: {error}")))?
        .block_on(open_yard(args))
}

async fn open_yard(args: &Args) -> Outcome {
    raise_descriptor_limit(DESCRIPTORS)?;
    // From here on a signal drains; before the first child starts there is nothing to drain yet.
    let mut signals = Signals::new()?;
    let plans = tokio::select! {
        plans = roster::plans(args.bin_dir.as_deref(), &args.only) => plans?,
        () = signals.next() => return Ok(Exit::Ok),
    };
    let mut berths = Vec::new();
    for plan in plans {
        berths.push(sockets::open(plan)?);
    }
    let board = Board::of(&berths);
    let directory = notify::directory()?;
    let outfits = Outfit::of_all(&berths, directory.path())?;
    let log = Log::start()?;
    let (phase, watched) = watch::channel(Phase::Open);
    let (ready, readiness) = mpsc::channel(berths.len().max(1));
    let mut keepers = JoinSet::new();
    let count = berths.len();
    for (berth, outfit) in berths.into_iter().zip(outfits) {
        let notices = notify::Inbox::open(directory.path(), berth.daemon)?;
        let keeper = Keeper {
            berth,
            outfit,
            notices,
            log: log.clone(),
            phase: watched.clone(),
            ready: ready.clone(),
        };
        keepers.spawn(keeper.keep());
    }
    let result = keep_open(
        &mut signals,
        keepers,
        &phase,
        readiness,
        count,
        &board,
        &log,
    )
    .await;
    log.close().await;
    result.map(|()| Exit::Ok).map_err(Stop::Fatal)
}

/// Waits for readiness, signals and ends until every daemon is gone.
async fn keep_open(
    signals: &mut Signals,
    mut keepers: JoinSet<Result<(), Fatal>>,
    phase: &watch::Sender<Phase>,
    mut readiness: mpsc::Receiver<&'static str>,
    count: usize,
    board: &Board,
    log: &Log,
) -> Result<(), Fatal> {
    let mut ready: Vec<&str> = Vec::new();
    let mut result = Ok(());
    loop {
        tokio::select! {
            Some(daemon) = readiness.recv() => {
                if ready.contains(&daemon) {
                    log.line(daemon, "ready again");
                } else {
                    ready.push(daemon);
                    if ready.len() == count {
                        board.print();
                    }
                }
            }
            () = signals.next() => {
                phase.send_modify(|phase| *phase = phase.after_signal());
                log.line(OURS, match *phase.borrow() {
                    Phase::Kill => "second signal: killing",
                    _ => "draining; a second signal kills at once",
                });
            }
            ended = keepers.join_next() => match ended {
                None => return result,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(fatal))) => {
                    if result.is_ok() {
                        result = Err(fatal);
                    }
                    phase.send_modify(|phase| *phase = (*phase).max(Phase::Drain));
                }
                Some(Err(panic)) => {
                    result = Err(Fatal::new(Exit::Software, format!("a keeper failed: {panic}")));
                    phase.send_replace(Phase::Kill);
                }
            },
        }
    }
}

/// The signals that end the yard.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Fatal> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Fatal::new(Exit::OsError, format!("cannot listen to signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Enough for the sockets of five daemons, and their output.
const DESCRIPTORS: u64 = 128;
const LONG_ABOUT: &str = "\
Start every daemon of the yard and keep it running.

Looks for echo-tcp, time-udp, kv-rpc, rest-api and fd-broker beside this program, opens the
sockets that each daemon's built-in configuration names, and starts the daemons with these sockets
the way systemd does (LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID, NOTIFY_SOCKET). When all are ready,
standard output shows what listens where and what to type to use it, and the address of the yard's
page, on which rest-api shows all of them; their logs and ours go to standard error, each line with
the daemon's name before it.

Each daemon gets an admin endpoint, a Unix socket that no other user reaches, and rest-api is told of
all: 'portyard yard', /yard, /api/v1/yard and /metrics show them. Actions are off: this is for seeing.

A daemon that ends unexpectedly is started again, after 100 ms, then twice as long each time up
to 10 s, and from 100 ms again once it has been well for 10 s. Meanwhile its sockets stay open:
clients wait instead of being refused. A daemon that refuses its configuration or command line
(78, 64), or that fails five times in a row before it is ready (READY=1 within 10 s), closes the
yard.

^C (SIGINT), SIGTERM and SIGHUP drain: each daemon gets SIGTERM, and 15 s later SIGKILL. A second
signal kills at once.";

/// The name before our own lines in the log.
const OURS: &str = "portyard";
