//! One broker hands everything over to the next, over the control socket, without a connection that
//! anybody sees refused.
//!
//! The predecessor gives its listening sockets away while it accepts, so both can, and stops only when
//! its successor says that it accepts. Then it gives away what waits for a worker. Until its successor
//! has confirmed that, it can go back to what it was, and does when the successor fails.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::unistd::geteuid;
use portyard_core::access::Identity;
use portyard_core::daemon::Helm;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::holding::{Holder, PATIENCE, PacketError, Packets};
use portyard_core::listen::Inherited;
use portyard_core::serve::{Connection, Ended};
use portyard_core::wire::hold::{Bound, Reason, Record, Reply, Request};
use tokio::time::timeout;

use super::batch::{Item, items_of, items_of_workers};
use super::control::send;
use super::heir::Moving;
use super::predecessor;
use super::socket::HeldSocket;
use super::successor::{Failure, Successor, expect, give_rest, send_batches, tell};
use super::{Asker, Holding};
use crate::broker::{Broker, Waiter};
use crate::inetd::Gate;

/// The broker's part in successions: it may have a predecessor, and get a successor. Cheap to clone.
#[derive(Clone, Default)]
pub struct Succession(Arc<Inner>);

#[derive(Default)]
struct Inner {
    helm: OnceLock<Helm>,
    state: Mutex<State>,
    /// What comes from a predecessor and is not in its place yet.
    moving: Moving,
}

#[derive(Default)]
struct State {
    /// Somebody is being handed everything.
    busy: bool,
    /// Who has everything but what still comes in.
    successor: Option<Successor>,
    /// Who has given us all its listeners and not yet what waits in it.
    predecessor: Option<Holder>,
    /// Connections that waited in a predecessor, with the names of their listeners.
    waiting: Vec<(String, OwnedFd)>,
}

impl Succession {
    /// Takes the helm.
    pub fn steer(&self, helm: Helm) {
        // There is one control thread, which calls this once.
        let _ = self.0.helm.set(helm);
    }

    /// Connections that a service manager has kept for us.
    pub fn inherit_waiting(&self, waiting: Vec<(String, OwnedFd)>) {
        self.lock().waiting.extend(waiting);
    }

    /// Takes over from a broker that runs, if one does: its listening sockets go to `inherited` and what
    /// it holds to `holding`. Blocks. Whether there is one.
    pub fn take_over(
        &self,
        path: &Path,
        holding: &Holding,
        inherited: &mut Inherited,
    ) -> Result<bool, Fatal> {
        let predecessor = predecessor::take_over(path, holding, inherited)?;
        let taken = predecessor.is_some();
        self.lock().predecessor = predecessor;
        Ok(taken)
    }

    /// Hears that we accept: the predecessor may stop. What waits in it, and what it still accepts
    /// until it has stopped, is served here. `gate` is opened once it is known which of its programs go on.
    /// To be called on the control thread.
    pub fn serving(&self, gate: &Gate) {
        let Some(helm) = self.0.helm.get().cloned() else {
            return;
        };
        let (predecessor, waiting) = {
            let mut state = self.lock();
            (state.predecessor.take(), std::mem::take(&mut state.waiting))
        };
        for (listener, connection) in waiting {
            helm.accept(listener, connection.into());
        }
        if let Some(predecessor) = predecessor {
            let (moving, gate) = (self.0.moving.clone(), gate.clone());
            tokio::task::spawn_local(async move {
                let taken = predecessor::take_rest(predecessor, &helm, &gate, moving).await;
                gate.open();
                match taken {
                    Ok(connections) => tracing::info!(connections, "the predecessor has left"),
                    Err(error) => {
                        tracing::warn!(%error, "the predecessor has left without a last word");
                    }
                }
            });
        }
    }

    /// Hands everything over to a peer that asks for it, and leaves. A peer that fails changes nothing.
    pub async fn hand_over(
        &self,
        broker: &Broker,
        mut connection: Connection,
        asker: &Asker<'_>,
    ) -> Ended {
        if let Err((reason, text)) = self.begin(asker) {
            tracing::warn!(peer = %asker, %reason, text, "a hand-over is refused");
            let reply = Reply::Refused { reason, text }.encode();
            let sent = send(&mut connection, &reply, &[]).await;
            return sent.map_or_else(Ended::from, |()| Ended::Done);
        }
        // Nothing may be on its way to us when we leave.
        if timeout(SETTLE_WAIT, self.0.moving.is_over()).await.is_err() {
            self.lock().busy = false;
            let text = "this broker's own predecessor has not left yet; try again".into();
            tracing::warn!(peer = %asker, text, "a hand-over is refused");
            let reply = Reply::Refused {
                reason: Reason::Busy,
                text,
            };
            let sent = send(&mut connection, &reply.encode(), &[]).await;
            return sent.map_or_else(Ended::from, |()| Ended::Done);
        }
        tracing::info!(peer = %asker, "handing over to a successor");
        let result = self.give(broker, &mut connection).await;
        self.lock().busy = false;
        match result {
            Ok(()) => Ended::Done,
            Err(failure) => {
                let why = match &failure {
                    Failure::Gone(why) => (*why).to_owned(),
                    Failure::Protocol => "it broke the protocol".into(),
                    Failure::Io(error) => error.to_string(),
                };
                tracing::error!(why, "the successor has failed; this broker serves on");
                match failure {
                    Failure::Protocol => Ended::Protocol,
                    Failure::Gone(_) | Failure::Io(_) => Ended::Broken,
                }
            }
        }
    }

    /// Whether the peer may be our successor, at this moment.
    fn begin(&self, asker: &Asker<'_>) -> Result<(), (Reason, String)> {
        let ours = geteuid().as_raw();
        match asker.user {
            Identity::User { uid, .. } if uid == ours || uid == 0 => {}
            _ => {
                let text = format!("only user {ours} and root take over from this broker");
                return Err((Reason::NotAllowed, text));
            }
        }
        let mut state = self.lock();
        if state.successor.is_some() {
            return Err((Reason::Leaving, "a successor has everything already".into()));
        }
        if state.busy || state.predecessor.is_some() {
            return Err((Reason::Busy, "another hand-over is under way".into()));
        }
        state.busy = true;
        Ok(())
    }

    async fn give(&self, broker: &Broker, connection: &mut Connection) -> Result<(), Failure> {
        // Without a helm nothing is served, and so nobody can ask.
        let helm = self.0.helm.get().ok_or(Failure::Protocol)?.clone();
        connection.busy();
        let mut items: Vec<Item> = Vec::new();
        for handed in helm.sockets().await {
            items.push(Item {
                record: Record::Bound(Bound {
                    endpoint: handed.endpoint,
                    listener: handed.label,
                    opening: handed.opening,
                }),
                descriptors: vec![handed.socket.into()],
            });
        }
        for (bound, socket) in broker.watched() {
            items.push(Item {
                record: Record::Bound(bound),
                descriptors: vec![socket],
            });
        }
        for (record, sockets) in broker.holding().hand_over() {
            let duplicates = sockets.iter().map(HeldSocket::duplicate);
            items.push(Item {
                record,
                descriptors: duplicates.collect::<io::Result<_>>().map_err(Failure::Io)?,
            });
        }
        let mut batches = 0;
        send_batches(connection, &items, &mut batches).await?;
        drop(items);
        tell(connection, &Reply::Complete { batches }).await?;
        expect(connection, &Request::Serving, START_WAIT).await?;

        helm.pause().await;
        broker.inetd().gate().close();
        // From here on a failure must undo the pause, and have the workers go on.
        let programs = broker.inetd().alone().await;
        let workers = broker.park_workers().await;
        let waiting = broker.take_waiting();
        let (workers, items) = items_of_workers(workers);
        let result = match items_of(&waiting) {
            Ok(waiting) => {
                let items: Vec<Item> = items.into_iter().chain(waiting).collect();
                give_rest(connection, programs, &items, &mut batches).await
            }
            Err(error) => Err(Failure::Io(error)),
        };
        let channel = match result.and_then(|()| connection.channel().map_err(Failure::Io)) {
            Ok(channel) => channel,
            Err(failure) => {
                drop(workers);
                broker.put_back(waiting);
                broker.inetd().gate().open();
                helm.resume();
                return Err(failure);
            }
        };
        tracing::info!(
            connections = waiting.len(),
            workers = workers.len(),
            "the successor has everything"
        );
        for moved in workers {
            // A session that has been cut meanwhile leaves its worker alone by itself.
            let _ = moved.send(true);
        }
        drop(waiting);
        let packets = Packets::new(channel, PATIENCE);
        self.lock().successor = Some(Successor::new(packets, batches));
        broker.leave_files();
        helm.leave();
        Ok(())
    }
}

impl Succession {
    /// Gives a successor what has come in after it had everything. To be called now and then, until the
    /// end; blocks for as long as the successor takes to confirm.
    pub fn pass_on(&self, waiting: Vec<Waiter>) -> Result<(), Vec<Waiter>> {
        if waiting.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let Some(successor) = &mut state.successor else {
            return Err(waiting);
        };
        let result = items_of(&waiting).map_err(PacketError::Io);
        match result.and_then(|items| successor.give(&items)) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the successor takes nothing more");
                state.successor = None;
                Err(waiting)
            }
        }
    }

    /// Whether there is a successor, which has everything but what still comes in.
    pub fn has_successor(&self) -> bool {
        self.lock().successor.is_some()
    }

    /// The last word to a successor.
    pub fn end(&self) {
        if let Some(successor) = self.lock().successor.take()
            && let Err(error) = successor.end()
        {
            tracing::warn!(%error, "the successor does not take the last word");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the control socket of the running broker is: that of the first listener with the service
/// `control`, at a path.
pub fn control_path<'a>(listeners: &[(&'static str, &'a Endpoint)]) -> Result<&'a Path, Fatal> {
    let path = |(service, endpoint): &(&'static str, &'a Endpoint)| match endpoint {
        Endpoint::Unix(path) if *service == CONTROL => Some(path.as_path()),
        _ => None,
    };
    listeners.iter().find_map(path).ok_or_else(|| {
        Fatal::new(
            Exit::Config,
            "--take-over finds the running broker by its control socket; add a [[listener]] with \
             service = \"control\" and listen = [\"unix:/…\"], the same for both",
        )
    })
}

/// How long a peer that takes over waits for what still comes to us: less than it is patient.
const SETTLE_WAIT: Duration = Duration::from_secs(3);
/// The name of the service.
pub const CONTROL: &str = "control";
/// How long a successor has for opening what it has not got from us, and for starting.
const START_WAIT: Duration = Duration::from_secs(30);
