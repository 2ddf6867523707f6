//! What every kind of load has in common: duration, loops, and whom it may be pointed at.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::listen::is_loopback;
use tokio::runtime::LocalOptions;

use super::tally::Tally;
use crate::connect::Target;

/// Options of every kind of load.
#[derive(Debug, Clone, clap::Args)]
pub struct Load {
    /// How long to measure, 1 to 3600.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Event loops, each on a thread of its own, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub loops: u16,
    /// Load a server that is not on this machine. Only your own, please.
    #[arg(long)]
    pub remote_ok: bool,
    /// One line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl Load {
    /// The server to be loaded, if it may be.
    pub fn target(&self, endpoint: Endpoint, transport: Transport) -> Result<Target, Fatal> {
        let target = Target::new(endpoint, transport, CONNECT)?;
        if target.transport != transport {
            let message = format!("{} is of the wrong kind for this load", target.endpoint);
            return Err(Fatal::new(Exit::Usage, message));
        }
        let elsewhere = target
            .internet_addresses()
            .any(|address| !is_loopback(address.ip()));
        if elsewhere && !self.remote_ok {
            return Err(Fatal::new(
                Exit::Usage,
                format!(
                    "{} is not a loopback address; --remote-ok loads it nevertheless, if it is yours",
                    target.endpoint
                ),
            ));
        }
        Ok(target)
    }

    /// Runs `work` with its share of `total` on each loop and adds up what they counted.
    pub fn run<F, W>(&self, total: u32, work: F) -> Result<Tally, Fatal>
    where
        F: Fn(u32) -> W + Sync,
        W: Future<Output = Result<Tally, Fatal>>,
    {
        allow_descriptors(total)?;
        let loops = u32::from(self.loops).min(total.max(1));
        let shares = (0..loops).map(|number| total / loops + u32::from(number < total % loops));
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = shares
                .map(|share| scope.spawn(move || run_loop(share, work)))
                .collect();
            let mut sum = Tally::new()?;
            for thread in threads {
                let failed = |_| Fatal::new(Exit::Software, "a loop of the load failed");
                sum.add(thread.join().map_err(failed)??);
            }
            Ok(sum)
        })
    }

    /// When to stop, from now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.seconds.into())
    }
}

fn run_loop<F, W>(share: u32, work: &F) -> Result<Tally, Fatal>
where
    F: Fn(u32) -> W,
    W: Future<Output = Result<Tally, Fatal>>,
{
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Fatal::new(Exit::OsError, format!("cannot start a loop: {error}")))?
        .block_on(work(share))
}

/// Raises the soft limit on descriptors as far as needed and allowed.
fn allow_descriptors(sockets: u32) -> Result<(), Fatal> {
    let wanted = u64::from(sockets) + SPARE_DESCRIPTORS;
    let refused = |error| Fatal::new(Exit::OsError, format!("cannot read limits: {error}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    if soft >= wanted {
        return Ok(());
    }
    if hard < wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        return Err(Fatal::new(
            Exit::OsError,
            format!("{wanted} descriptors are needed, {hard} are allowed; raise 'ulimit -Hn'"),
        ));
    }
    Ok(())
}

/// For each connection.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Connections or sockets.
pub const MAX_COUNT: i64 = 20_000;
/// Messages under way on one of them.
pub const MAX_DEPTH: i64 = 1024;
const SPARE_DESCRIPTORS: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            seconds: 1,
            loops: 3,
            remote_ok: false,
            json: false,
        }
    }

    #[test]
    fn others_are_not_loaded_by_accident() {
        let remote: Endpoint = "tcp://192.0.2.1:7".parse().unwrap();
        let error = load()
            .target(remote.clone(), Transport::Stream)
            .unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("--remote-ok"), "{error}");
        let willing = Load {
            remote_ok: true,
            ..load()
        };
        assert!(willing.target(remote, Transport::Stream).is_ok());
        let local = "tcp://[::1]:7".parse().unwrap();
        assert!(load().target(local, Transport::Stream).is_ok());
    }

    #[test]
    fn every_connection_is_in_exactly_one_loop() {
        for total in [1, 2, 3, 10] {
            let tally = load()
                .run(total, async |share| {
                    let mut tally = Tally::new()?;
                    tally.errors = share.into();
                    Ok(tally)
                })
                .unwrap();
            assert_eq!(tally.errors, u64::from(total));
        }
    }
}
