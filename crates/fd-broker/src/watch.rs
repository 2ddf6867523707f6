//! Hearing from the kernel that connections have ended which other processes hold.
//!
//! Workers that do not report cannot say when they are through with a connection. The kernel can: each
//! socket has a cookie, and its end is told to whoever listens. One task on the control thread does, once
//! there is somebody to listen for.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use portyard_core::sockdiag::{self, News};
use socket2::SockRef;
use tokio::sync::Notify;

use crate::pool::{ConnectionId, Pool};

/// The connections whose ends are listened for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Watch(Arc<Inner>);

#[derive(Default)]
struct Inner {
    watched: Mutex<Watched>,
    /// Told when there are new ports to listen for.
    changed: Notify,
    /// The kernel tells nothing.
    deaf: AtomicBool,
}

#[derive(Default)]
struct Watched {
    by_cookie: HashMap<u64, Entry>,
    ports: HashSet<u16>,
}

struct Entry {
    pool: Weak<Pool>,
    connection: ConnectionId,
    port: u16,
}

impl Watch {
    /// Has the pool told when a connection's last copy is closed, and returns its cookie; `None` where
    /// the kernel tells nothing: of Unix sockets, or where it was built without `INET_TCP_DIAG`.
    pub fn add(
        &self,
        socket: impl AsFd,
        pool: &Arc<Pool>,
        connection: ConnectionId,
    ) -> Option<u64> {
        if self.0.deaf.load(Ordering::Relaxed) {
            return None;
        }
        let port = SockRef::from(&socket)
            .local_addr()
            .ok()?
            .as_socket()?
            .port();
        let cookie = sockdiag::cookie(&socket).ok()?;
        let entry = Entry {
            pool: Arc::downgrade(pool),
            connection,
            port,
        };
        let mut watched = self.lock();
        watched.by_cookie.insert(cookie, entry);
        if watched.ports.insert(port) {
            self.0.changed.notify_one();
        }
        Some(cookie)
    }

    /// The same for a connection of which we have no copy. To be followed by [`Watch::look_again`]: it may
    /// have ended already.
    pub fn add_cookie(&self, cookie: u64, port: u16, pool: &Arc<Pool>, connection: ConnectionId) {
        let entry = Entry {
            pool: Arc::downgrade(pool),
            connection,
            port,
        };
        let mut watched = self.lock();
        watched.by_cookie.insert(cookie, entry);
        watched.ports.insert(port);
    }

    /// Has the kernel asked which of the watched connections there still are.
    pub fn look_again(&self) {
        if self.0.deaf.load(Ordering::Relaxed) {
            // Nobody will tell of their ends.
            let cookies: Vec<u64> = self.lock().by_cookie.keys().copied().collect();
            for cookie in cookies {
                self.end(cookie);
            }
        }
        self.0.changed.notify_one();
    }

    /// The local port of a watched connection.
    pub fn port_of(&self, cookie: u64) -> Option<u16> {
        Some(self.lock().by_cookie.get(&cookie)?.port)
    }

    /// A connection went to a worker that reports by itself.
    pub fn remove(&self, cookie: u64) {
        self.lock().by_cookie.remove(&cookie);
    }

    /// Listens for as long as the daemon runs.
    pub async fn run(self) {
        self.0.changed.notified().await;
        let mut watch = match sockdiag::Watch::open(&self.ports()) {
            Ok(watch) => watch,
            Err(error) => return self.go_deaf(&error),
        };
        // Some may have ended before we listened.
        self.look();
        let mut gone = Vec::new();
        loop {
            let news = tokio::select! {
                news = watch.next(&mut gone) => news,
                () = self.0.changed.notified() => {
                    if let Err(error) = watch.set_ports(&self.ports()) {
                        return self.go_deaf(&error);
                    }
                    Ok(News::Lost)
                }
            };
            match news {
                Ok(News::Gone) => {
                    for cookie in gone.drain(..) {
                        self.end(cookie);
                    }
                }
                Ok(News::Lost) => self.look(),
                Err(error) => return self.go_deaf(&error),
            }
        }
    }

    /// Asks the kernel which of the watched connections there still are.
    fn look(&self) {
        let mut by_port: HashMap<u16, Vec<u64>> = HashMap::new();
        for (cookie, entry) in &self.lock().by_cookie {
            by_port.entry(entry.port).or_default().push(*cookie);
        }
        for (port, cookies) in by_port {
            match sockdiag::living(port) {
                Ok(living) => {
                    let gone = cookies
                        .into_iter()
                        .filter(|cookie| !living.contains(cookie));
                    gone.for_each(|cookie| self.end(cookie));
                }
                Err(error) => tracing::warn!(port, %error, "cannot ask which connections are left"),
            }
        }
    }

    fn end(&self, cookie: u64) {
        let entry = self.lock().by_cookie.remove(&cookie);
        if let Some(Entry {
            pool, connection, ..
        }) = entry
            && let Some(pool) = pool.upgrade()
        {
            pool.ended(connection);
        }
    }

    /// Gives up: from here on a connection counts as ended once it is taken.
    fn go_deaf(&self, error: &std::io::Error) {
        tracing::warn!(
            %error,
            "the kernel does not tell when connections end, so that workers which do not report count as \
             free once they have taken one; allow AF_NETLINK, and load tcp_diag"
        );
        self.0.deaf.store(true, Ordering::Relaxed);
        let cookies: Vec<u64> = self.lock().by_cookie.keys().copied().collect();
        for cookie in cookies {
            self.end(cookie);
        }
    }

    fn ports(&self) -> Vec<u16> {
        self.lock().ports.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Each change is one step of a map; a panic leaves it whole.
        self.0
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
