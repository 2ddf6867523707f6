//! The service manager's end of `NOTIFY_SOCKET`: collects what a daemon says of itself.

use std::io::{ErrorKind, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt, sockopt,
};

/// A notification socket and what has arrived at it.
pub struct Manager {
    path: PathBuf,
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    messages: Mutex<Vec<String>>,
    /// The sender of the latest message; 0: none yet.
    pid: AtomicU32,
    stop: AtomicBool,
}

impl Manager {
    /// Listens in a directory of the test's own.
    pub fn start(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket =
            UnixDatagram::bind(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The kernel then says who sent a message, whatever stands between us and the daemon.
        setsockopt(&socket, sockopt::PassCred, &true).expect("credentials can be asked for");
        socket
            .set_read_timeout(Some(LOOK))
            .expect("a socket takes a timeout");
        let heard = Arc::new(Heard::default());
        let shared = heard.clone();
        let reader = thread::spawn(move || {
            while !shared.stop.load(Ordering::Acquire) {
                shared.take(&socket);
            }
        });
        Self {
            path,
            heard,
            reader: Some(reader),
        }
    }

    /// What `NOTIFY_SOCKET` is to say.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All messages so far, in order.
    pub fn messages(&self) -> Vec<String> {
        self.heard
            .messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The process that notifies.
    pub fn sender(&self) -> Option<u32> {
        Some(self.heard.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }
}

impl Heard {
    fn take(&self, socket: &UnixDatagram) {
        let mut buffer = vec![0; 65536];
        let mut space = nix::cmsg_space!(UnixCredentials);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let received =
            recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags);
        let (length, pid) = match received {
            Ok(message) => {
                let credentials = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(|control| match control {
                        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
                        _ => None,
                    })
                });
                (message.bytes, credentials)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(errno) => panic!("notifications: {}", std::io::Error::from(errno)),
        };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
        if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
            self.pid.store(pid, Ordering::Release);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.heard.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
}

/// How often the reader looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(50);
