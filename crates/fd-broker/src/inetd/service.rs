//! The service of a listener that a `[[service]]` table made.

use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use portyard_core::auth::Dialect;
use portyard_core::config::{AtLimit, ListenerConfig, StreamLimits};
use portyard_core::event_loop::EventLoop;
use portyard_core::observe::metrics::Refusal as Refused;
use portyard_core::serve::{Accepted, Connection, Ended, Peer, Serving, StreamService};
use socket2::SockRef;
use tokio_util::sync::CancellationToken;

use super::config::Style;
use super::entry::{Action, Entry};
use super::environment::Facts;
use super::launcher::{Job, Order, Relay, Running, say};
use super::metrics::{Refusal, ServiceMetrics};
use super::warm::Handed;
use super::{Inetd, relay};
use crate::settings::Options;

/// Starts a program for each connection, or passes it on.
pub struct Service {
    inetd: Inetd,
    entry: Arc<Entry>,
    metrics: ServiceMetrics,
    /// Whether a program gets the connection itself.
    direct: bool,
}

impl Service {
    /// The service of a listener that was made for it.
    pub fn new(
        inetd: Inetd,
        listener: &ListenerConfig<StreamLimits, Options>,
    ) -> Result<Arc<Self>, String> {
        let Some(entry) = listener.options.service() else {
            return Err(
                "it belongs into a [[service]] table, which has a command or a redirect".into(),
            );
        };
        let proves =
            listener.auth != Dialect::None || listener.tls.is_some() || !listener.proxy.is_empty();
        Ok(Arc::new(Self {
            metrics: inetd.0.metrics.service(&entry.name),
            direct: matches!(entry.action, Action::Program(_)) && !proves,
            inetd,
            entry,
        }))
    }

    /// Starts the program at the far end of a pair of sockets, and relays.
    async fn relay_to_program(
        inetd: Inetd,
        entry: Arc<Entry>,
        mut connection: Connection,
    ) -> Ended {
        let pair = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((tokio::net::UnixStream::from_std(ours)?, theirs))
        });
        let (ours, theirs) = match pair {
            Ok(pair) => pair,
            Err(error) => return error.into(),
        };
        let over = CancellationToken::new();
        // Whatever ends this future tells the launcher.
        let _over = over.clone().drop_guard();
        let relay = Relay {
            over,
            counts: Arc::default(),
        };
        if let Err(error) = connection.write_all(&entry.banner).await {
            return error.into();
        }
        let facts = Facts {
            peer: connection.peer(),
            local: None,
            user: connection.user().ok().as_ref().and_then(Facts::user_of),
        };
        let running = Running::new(&inetd.0.running);
        if let Some(pool) = entry.warm.get().cloned() {
            pool.hand(Handed {
                entry,
                socket: theirs.into(),
                facts,
                arrived: Instant::now(),
                _held: (None, running),
            });
            return relay::relay(&mut connection, ours, relay.counts).await;
        }
        inetd.order(Order::Start(Box::new(Job {
            entry,
            socket: theirs.into(),
            facts,
            permit: None,
            arrived: Instant::now(),
            relay: Some(relay.clone()),
            running,
        })));
        relay::relay(&mut connection, ours, relay.counts).await
    }
}

impl StreamService for Service {
    fn serve(&self, mut connection: Connection) -> Serving {
        let (inetd, entry) = (self.inetd.clone(), self.entry.clone());
        let metrics = self.metrics.clone();
        Box::pin(async move {
            if !inetd.is_time(&entry) {
                metrics.refuse(Refusal::Time);
                if let Some(text) = &entry.refusal {
                    let _ = connection.write_all(text).await;
                    connection.finish().await;
                }
                return Ended::Done;
            }
            match &entry.action {
                Action::Program(_) => Self::relay_to_program(inetd, entry, connection).await,
                Action::Redirect(target) => {
                    let target = target.clone();
                    relay::redirect(connection, entry, target, metrics).await
                }
            }
        })
    }

    fn takes_sockets(&self) -> bool {
        self.direct
    }

    fn take(&self, home: &Rc<EventLoop>, accepted: Accepted) {
        if !self.inetd.is_time(&self.entry) {
            self.metrics.refuse(Refusal::Time);
            let how = match self.entry.refusal {
                Some(_) => AtLimit::Banner,
                None => AtLimit::Refuse,
            };
            return accepted.turn_away(home, Refused::Access, how);
        }
        let local = (self.entry.style == Style::Ucspi)
            .then(|| {
                SockRef::from(&accepted.socket)
                    .local_addr()
                    .ok()?
                    .as_socket()
            })
            .flatten();
        let user = match accepted.peer {
            Peer::Local => accepted.user().ok().as_ref().and_then(Facts::user_of),
            Peer::Internet(_) => None,
        };
        let facts = Facts {
            peer: accepted.peer,
            local,
            user,
        };
        let running = Running::new(&self.inetd.0.running);
        if let Some(pool) = self.entry.warm.get() {
            if !self.entry.banner.is_empty() {
                say(&accepted.socket, &self.entry.banner);
            }
            return pool.hand(Handed {
                entry: self.entry.clone(),
                socket: accepted.socket,
                facts,
                arrived: Instant::now(),
                _held: (Some(accepted.permit), running),
            });
        }
        self.inetd.order(Order::Start(Box::new(Job {
            entry: self.entry.clone(),
            socket: accepted.socket,
            facts,
            permit: Some(accepted.permit),
            arrived: Instant::now(),
            relay: None,
            running,
        })));
    }
}
