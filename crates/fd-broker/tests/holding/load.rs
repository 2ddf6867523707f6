//! Clients that come without a pause, and what becomes of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portyard_testkit::eventually;

/// Threads that connect, are echoed and close, again and again.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    served: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    pub served: usize,
    pub failed: Vec<String>,
}

impl Load {
    /// So many clients of an echo service.
    pub fn start(clients: usize, address: SocketAddr) -> Self {
        Self::of(clients, move || exchange(address))
    }

    /// So many threads that do this again and again.
    pub fn of<F>(clients: usize, client: F) -> Self
    where
        F: Fn() -> io::Result<()> + Clone + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let run = |_| {
            let (shared, client) = (shared.clone(), client.clone());
            thread::spawn(move || {
                while !shared.stop.load(Ordering::Acquire) {
                    match client() {
                        Ok(()) => {
                            shared.served.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(error) => shared.failed.lock().unwrap().push(error.to_string()),
                    }
                    // Clients that never pause would leave nothing of a small machine to the daemons.
                    thread::sleep(PAUSE);
                }
            })
        };
        let threads = (0..clients).map(run).collect();
        Self { shared, threads }
    }

    /// Waits until so many more have been served, or have failed.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let seen = || {
            let failed = self.shared.failed.lock().unwrap().len();
            self.shared.served.load(Ordering::Acquire) + failed
        };
        let wanted = seen() + more;
        eventually("the clients are served", || seen() >= wanted);
    }

    /// Ends it.
    pub fn stop(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().unwrap();
        }
        Outcome {
            served: self.shared.served.load(Ordering::Acquire),
            failed: std::mem::take(&mut self.shared.failed.lock().unwrap()),
        }
    }
}

impl Outcome {
    /// Fails unless everybody was served.
    #[track_caller]
    pub fn is_perfect(&self) {
        let first: Vec<_> = self.failed.iter().take(5).collect();
        assert_eq!(
            self.failed.len(),
            0,
            "{} were served, and of the others the first are {first:?}",
            self.served
        );
        assert!(self.served > 0);
    }
}

/// One client: it connects, says something, hears it again, and closes.
pub fn exchange(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer == *b"ping" {
        Ok(())
    } else {
        Err(io::Error::other(format!("{answer:?} came back")))
    }
}

/// Longer than any restart takes.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);
