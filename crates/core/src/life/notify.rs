//! Telling systemd (or whoever set `NOTIFY_SOCKET`) how we are: sd_notify(3), without a library.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::pipe2;

use crate::sys;

/// The way to the service manager; without one, every message is dropped. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
    store: u32,
}

impl Notifier {
    /// Takes `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID` and `FDSTORE` and removes them from the
    /// environment. To be called before any thread is started.
    pub fn from_environment() -> Self {
        let read = |name| std::env::var(name).ok();
        let socket = read("NOTIFY_SOCKET").and_then(|name| connect(&name));
        let ours = read("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = read("WATCHDOG_USEC")
            .and_then(|usec| usec.parse().ok())
            .filter(|_| ours);
        let store = read("FDSTORE").and_then(|count| count.parse().ok());
        sys::forget_variables(&["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"]);
        Self {
            store: store.filter(|_| socket.is_some()).unwrap_or(0),
            socket: socket.map(Arc::new),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// How many descriptors the manager keeps for the next start (`FileDescriptorStoreMax=`); 0: none.
    pub fn store_size(&self) -> u32 {
        self.store
    }

    /// How often to call [`Notifier::watchdog`]: half the time the manager allows
    /// (sd_watchdog_enabled(3)). `None`: nobody watches.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Ready, with a status line; `listeners` are told too, for starters that asked for port 0.
    pub fn ready(&self, status: &str, listeners: &[(String, String)]) {
        let mut message = format!("READY=1\nSTATUS={status}\n");
        for (name, endpoint) in listeners {
            // sd_notify(3): fields that start with X_ are free for private use.
            let _ = writeln!(message, "X_PORTYARD_LISTENER={name}={endpoint}");
        }
        self.send(&message);
    }

    /// A reload has begun. `MONOTONIC_USEC` belongs to it since systemd 253.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
            i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_nsec()) / 1_000
        });
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"));
    }

    /// The drain has begun; it may take up to `grace` longer than the manager would wait.
    pub fn stopping(&self, grace: Duration) {
        let extend = (grace + Duration::from_secs(1)).as_micros();
        self.send(&format!(
            "STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC={extend}\n"
        ));
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}\n"));
    }

    /// Everything works at this moment.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1\n");
    }

    /// Has the manager keep descriptors under a name for the next start, which gets them as
    /// `LISTEN_FDS`. At most 253; the name is 1 to 255 printable ASCII characters without a colon.
    ///
    /// Nobody says whether it does: [`Notifier::barrier`] proves that it has read the message.
    /// `FDPOLL=0` keeps it from dropping a socket that has hung up without a word.
    pub fn store(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(
            &format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"),
            descriptors,
        )
    }

    /// Has the manager close what it keeps under a name.
    pub fn unstore(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
    }

    /// Waits until the manager has read everything that was sent before, at most `patience`; false when
    /// it has not. Blocks.
    pub fn barrier(&self, patience: Duration) -> bool {
        if self.socket.is_none() {
            return true;
        }
        let result: io::Result<bool> = (|| {
            let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
            self.send_with("BARRIER=1", &[theirs.as_fd()])?;
            drop(theirs);
            hung_up(&ours, patience)
        })();
        result.unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager does not take a barrier");
            false
        })
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.send_with(message, &[]) {
            tracing::warn!(%error, "the service manager does not take notifications");
        }
    }

    fn send_with(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(message.as_bytes())];
        sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }
}

/// Waits until nobody has the other end of a pipe any more.
fn hung_up(pipe: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
        match poll(&mut polled, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn connect(name: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    let connected = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)
            .and_then(|address| socket.connect_addr(&address)),
        None => socket.connect(name),
    };
    // A manager that reads nothing must not stop us for good.
    let connected = connected.and_then(|()| socket.set_write_timeout(Some(SEND_WAIT)));
    match connected {
        Ok(()) => Some(socket),
        Err(error) => {
            tracing::warn!(%name, %error, "NOTIFY_SOCKET cannot be reached");
            None
        }
    }
}

/// Far longer than a manager that lives needs to read a message.
const SEND_WAIT: Duration = Duration::from_secs(5);
