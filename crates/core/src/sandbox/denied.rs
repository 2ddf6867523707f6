//! What was denied: counted by the thread that tried, told by the control thread.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{fmt, io};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::net::UnixStream;

use super::calls::{DANGEROUS, DEPENDING, Number};
use crate::sys;

/// How often each call was denied, in the order of [`names`].
static COUNTS: [AtomicU64; DANGEROUS.len() + DEPENDING.len()] =
    [const { AtomicU64::new(0) }; DANGEROUS.len() + DEPENDING.len()];

/// Gets a byte for each denial. Never closed, so that its number stays its own.
static BELL: OnceLock<StdUnixStream> = OnceLock::new();

/// The other end, until somebody hears.
static HEARING: Mutex<Option<StdUnixStream>> = Mutex::new(None);

/// Hears of denials.
#[derive(Debug)]
pub struct Denials {
    bell: UnixStream,
    told: Vec<u64>,
}

/// Makes denied calls return `EPERM` and counts them, from here on and for all threads.
pub fn catch() -> io::Result<()> {
    if BELL.get().is_none() {
        let (rings, hears) = StdUnixStream::pair()?;
        rings.set_nonblocking(true)?;
        hears.set_nonblocking(true)?;
        *HEARING.lock().unwrap_or_else(PoisonError::into_inner) = Some(hears);
        let _ = BELL.set(rings);
    }
    sys::answer_denied_calls(deny)
}

/// Each call that was denied, with its count.
pub fn counts() -> impl Iterator<Item = (&'static str, u64)> {
    let counts = COUNTS.iter().map(|count| count.load(Ordering::Relaxed));
    names().zip(counts).filter(|(_, count)| *count > 0)
}

/// All denials so far.
pub fn total() -> u64 {
    counts().map(|(_, count)| count).sum()
}

/// Runs in a signal handler: no lock, no allocation.
fn deny(number: Number) -> i32 {
    let all = DANGEROUS.iter().chain(DEPENDING);
    let mut counted = all.zip(&COUNTS).filter(|((_, of), _)| *of == number);
    if let Some((_, count)) = counted.next() {
        count.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(rings) = BELL.get() {
        // Where there is no room for another byte, enough of them wait.
        let _ = nix::unistd::write(rings, &[1]);
    }
    libc::EPERM
}

fn names() -> impl Iterator<Item = &'static str> {
    DANGEROUS.iter().chain(DEPENDING).map(|(name, _)| *name)
}

impl Denials {
    /// To be made on the runtime that hears; `None` when nothing is caught.
    pub fn new() -> io::Result<Option<Self>> {
        let hearing = HEARING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let told = vec![0; COUNTS.len()];
        let hear = |hears| UnixStream::from_std(hears).map(|bell| Self { bell, told });
        hearing.map(hear).transpose()
    }

    /// Waits for a denial, and says which call it is the first of: more of the same are counted alone.
    pub async fn hear(&mut self) {
        // Neither end is ever closed; were it, nothing more would be heard.
        if self.bell.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
        let mut rung = [0; 64];
        while self.bell.try_read(&mut rung).is_ok_and(|length| length > 0) {}
        for ((name, count), told) in names().zip(&COUNTS).zip(&mut self.told) {
            let now = count.load(Ordering::Relaxed);
            if *told == 0 && now > 0 {
                tracing::warn!(
                    call = name,
                    "the sandbox has denied a system call; if the daemon should be able to do what it \
                     was for, see sandbox in its configuration, else look for an intruder"
                );
            }
            *told = now;
        }
    }
}

/// Shows the counts.
#[derive(Debug)]
pub struct DenialCollector;

impl Collector for DenialCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "System calls that the sandbox has denied";
        let mut family =
            encoder.encode_descriptor("sandbox_denied", help, None, MetricType::Counter)?;
        for (call, count) in counts() {
            let labels = [("call", call)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    use crate::sandbox::filter::Filters;
    use crate::sandbox::{Needs, install};

    #[test]
    fn a_denied_call_fails_with_eperm_and_is_counted_while_its_thread_goes_on() {
        catch().unwrap();
        let confined = std::thread::spawn(|| {
            let filters = Filters::new(&Needs::default(), std::process::id()).unwrap();
            install(&filters).unwrap();
            let denied = nix::unistd::chown("/nonexistent", None, None).unwrap_err();
            let absent = nix::unistd::chdir("/").unwrap_err();
            // By posix_spawn and by fork, in which libc blocks all signals.
            let mut program = std::process::Command::new("/bin/true");
            let spawned = program.spawn().unwrap_err();
            let forked = program
                .uid(nix::unistd::getuid().as_raw())
                .spawn()
                .unwrap_err();
            for error in [spawned, forked] {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            }
            let memory = vec![1_u8; 1 << 20];
            (
                denied,
                absent,
                memory.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
            )
        });
        let (denied, absent, sum) = confined.join().unwrap();
        assert_eq!(denied, nix::errno::Errno::EPERM);
        // What nobody has a use for is not there, and does not count.
        assert_eq!(absent, nix::errno::Errno::ENOSYS);
        assert_eq!(sum, 1 << 20);
        let (_, count) = counts().find(|(call, _)| call.contains("chown")).unwrap();
        assert!(count >= 1 && total() >= count);
    }
}
