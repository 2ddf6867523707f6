//! One broker hands everything over to the next, over the control socket, without a connection that
//! anybody sees refused.
//!
//! The predecessor gives its listening sockets away while it accepts, so both can, and stops only when
//! its successor says that it accepts. Then it gives away what waits for a worker. Until its successor
//! has confirmed that, it can go back to what it was, and does when the successor fails.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::unistd::geteuid;
use portyard_core::access::Identity;
use portyard_core::daemon::Helm;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::fdpass::{Channel, ReceiveError};
use portyard_core::holding::{Holder, HoldingError, PATIENCE, PacketError, Packets};
use portyard_core::listen::Inherited;
use portyard_core::serve::{Connection, Ended};
use portyard_core::sys::register;
use portyard_core::wire::hold::{
    Bound, MESSAGE_MAX, Reason, Record, Reply, Request, Running, Waiting, Worker,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::control::{Received, receive, send};
use super::form::handed;
use super::heir::{Heir, Moving};
use super::socket::HeldSocket;
use super::{Asker, Holding};
use crate::broker::{Broker, Waiter};
use crate::inetd::{Alone, Gate};
use crate::pool::Parked;

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

/// The way to a successor.
struct Successor {
    packets: Packets<OwnedFd>,
    /// How many batches it has had.
    batches: u32,
}

/// Something that is handed over.
pub struct Item {
    record: Record,
    descriptors: Vec<OwnedFd>,
}

/// A successor is not handed everything.
enum Failure {
    /// It is gone, or does not answer in time.
    Gone(&'static str),
    /// It broke the protocol.
    Protocol,
    /// The kernel refused.
    Io(io::Error),
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
        let wrong = |error: HoldingError| {
            let message = format!("cannot take over: {error}");
            Fatal::new(error.exit(), message)
        };
        let holder = match Holder::connect_now(path, PATIENCE) {
            Ok(holder) => holder,
            Err(HoldingError::Absent { .. }) => {
                tracing::info!(path = %path.display(), "no broker runs, so there is nothing to take over");
                return Ok(false);
            }
            Err(error) => return Err(wrong(error)),
        };
        holder.send(&Request::TakeOver, &[]).map_err(wrong)?;
        let (mut batches, mut sockets) = (0, 0);
        loop {
            let (reply, descriptors) = holder.receive().map_err(wrong)?;
            match reply {
                Reply::Batch { number, records } if number == batches + 1 => {
                    batches = number;
                    sockets += descriptors.len();
                    take_in(records, descriptors, holding, inherited);
                    holder
                        .send(&Request::Received { batch: number }, &[])
                        .map_err(wrong)?;
                }
                Reply::Complete { batches: all } if all == batches => break,
                _ => return Err(wrong(HoldingError::Unfit)),
            }
        }
        tracing::info!(
            sockets,
            "took over what the running broker listens on and holds"
        );
        self.lock().predecessor = Some(holder);
        Ok(true)
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
                let taken = take_rest(predecessor, &helm, &gate, moving).await;
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
        self.lock().successor = Some(Successor { packets, batches });
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
        if let Some(successor) = self.lock().successor.take() {
            let over = Reply::Over {
                batches: successor.batches,
            };
            if let Err(error) = successor.packets.send(&over.encode(), &[]) {
                tracing::warn!(%error, "the successor does not take the last word");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Successor {
    fn give(&mut self, items: &[Item]) -> Result<(), PacketError> {
        let mut rest = items;
        while let Some((now, later)) = next_batch(rest) {
            rest = later;
            self.batches += 1;
            let (bytes, descriptors) = batch(self.batches, now);
            self.packets.send(&bytes, &descriptors)?;
            let mut buffer = vec![0; MESSAGE_MAX];
            let message = self.packets.receive(&mut buffer)?;
            let answer = Request::decode(&buffer[..message.length], message.descriptors.len());
            let batch = self.batches;
            if answer != Ok(Request::Received { batch }) {
                return Err(PacketError::Closed);
            }
        }
        Ok(())
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

/// Sorts a batch: sockets to listen on, what is held, and nothing else before the predecessor has
/// stopped.
fn take_in(
    records: Vec<Record>,
    descriptors: Vec<OwnedFd>,
    holding: &Holding,
    inherited: &mut Inherited,
) {
    let mut descriptors = descriptors.into_iter();
    for record in records {
        let ours: Vec<OwnedFd> = descriptors.by_ref().take(record.descriptors()).collect();
        match record {
            Record::Bound(bound) => {
                for descriptor in ours {
                    inherited.hand(handed(&bound, descriptor));
                }
            }
            Record::Held(held) => holding.take_over(&held, ours),
            Record::Waiting(Waiting { listener }) | Record::Worker(Worker { listener, .. }) => {
                tracing::warn!(listener, "a connection came before its time and is closed");
            }
            Record::Served(_) | Record::Running(_) => {}
        }
    }
}

/// Says that we accept, and serves what still comes from the predecessor until its last word.
async fn take_rest(
    predecessor: Holder,
    helm: &Helm,
    gate: &Gate,
    moving: Moving,
) -> Result<usize, HoldingError> {
    let _comes = moving.begin();
    predecessor.send(&Request::Serving, &[])?;
    let socket = Rc::new(predecessor.into_channel().into_socket());
    let registered = register(socket.clone()).map_err(HoldingError::Io)?;
    let channel = Channel::new(socket).map_err(HoldingError::Io)?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let mut connections = 0;
    let mut heir = Heir::new(helm.clone(), moving);
    loop {
        let mut ready = registered.readable().await.map_err(HoldingError::Io)?;
        let message = match channel.receive(&mut buffer) {
            Ok(message) => message,
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            Err(ReceiveError::Io(error)) => return Err(HoldingError::Io(error)),
            Err(error) => return Err(HoldingError::Lost(error)),
        };
        if message.length == 0 {
            return Err(HoldingError::Unfit);
        }
        let reply = Reply::decode(&buffer[..message.length], message.descriptors.len())?;
        let (number, records) = match reply {
            Reply::Batch { number, records } => (number, records),
            Reply::Over { .. } => return Ok(connections),
            _ => return Err(HoldingError::Unfit),
        };
        // Confirmed first: what is served twice is worse than what is lost with us.
        let received = Request::Received { batch: number }.encode();
        channel.send(&received, &[]).map_err(HoldingError::Io)?;
        let mut descriptors = message.descriptors.into_iter();
        let is_program = |record: &Record| matches!(record, Record::Running(_));
        let programs_are_over = !records.iter().any(is_program);
        for record in records {
            let mut ours: Vec<OwnedFd> = descriptors.by_ref().take(record.descriptors()).collect();
            match record {
                Record::Running(Running { socket, process }) => {
                    let pid = i32::try_from(process).unwrap_or(0);
                    if let Some(process) = ours.pop() {
                        gate.expect(socket, pid, process);
                    }
                }
                Record::Waiting(Waiting { listener }) => {
                    for descriptor in ours {
                        connections += 1;
                        helm.accept(listener.clone(), descriptor.into());
                    }
                }
                Record::Worker(worker) => heir.begin(worker, ours).await,
                Record::Served(served) => heir.add(served).await,
                Record::Bound(_) | Record::Held(_) => {}
            }
        }
        if programs_are_over {
            gate.open();
        }
    }
}

/// What a successor gets of workers, and whom to tell that it has them.
fn items_of_workers(workers: Vec<Parked>) -> (Vec<oneshot::Sender<bool>>, Vec<Item>) {
    let (mut tell, mut items) = (Vec::new(), Vec::new());
    for Parked {
        record,
        descriptors,
        served,
        moved,
    } in workers
    {
        tell.push(moved);
        items.push(Item {
            record: Record::Worker(record),
            descriptors,
        });
        items.extend(served.into_iter().map(|served| Item {
            record: Record::Served(served),
            descriptors: Vec::new(),
        }));
    }
    (tell, items)
}

/// What a successor gets of connections that wait: it gets copies, until it has confirmed them.
fn items_of(waiting: &[Waiter]) -> io::Result<Vec<Item>> {
    let item = |waiter: &Waiter| {
        let copy = waiter.socket()?.try_clone();
        Some(copy.map(|copy| Item {
            record: Record::Waiting(Waiting {
                listener: waiter.listener().into(),
            }),
            descriptors: vec![copy],
        }))
    };
    waiting.iter().filter_map(item).collect()
}

/// Splits off what one message takes; `None` when nothing is left.
fn next_batch(items: &[Item]) -> Option<(&[Item], &[Item])> {
    if items.is_empty() {
        return None;
    }
    let length = Reply::batch_length(items.iter().map(|item| &item.record));
    // Every record fits a message by itself.
    items.split_at_checked(length.max(1))
}

fn batch(number: u32, items: &[Item]) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
    let reply = Reply::Batch {
        number,
        records: items.iter().map(|item| item.record.clone()).collect(),
    };
    let descriptors = items.iter().flat_map(|item| &item.descriptors);
    (reply.encode(), descriptors.map(AsFd::as_fd).collect())
}

/// Sends everything in batches, each of which is confirmed before the next.
async fn send_batches(
    connection: &mut Connection,
    items: &[Item],
    batches: &mut u32,
) -> Result<(), Failure> {
    let mut rest = items;
    while let Some((now, later)) = next_batch(rest) {
        rest = later;
        send_batch(connection, now, batches).await?;
    }
    Ok(())
}

async fn send_batch(
    connection: &mut Connection,
    items: &[Item],
    batches: &mut u32,
) -> Result<(), Failure> {
    *batches += 1;
    let (bytes, descriptors) = batch(*batches, items);
    send_packet(connection, &bytes, &descriptors).await?;
    let received = Request::Received { batch: *batches };
    expect(connection, &received, PATIENCE).await
}

/// Sends what goes over once we have stopped: programs that have a socket for themselves, and when those
/// are all, by a batch without any, the rest.
async fn give_rest(
    connection: &mut Connection,
    programs: Vec<Alone>,
    rest: &[Item],
    batches: &mut u32,
) -> Result<(), Failure> {
    let item = |alone: Alone| Item {
        record: Record::Running(Running {
            socket: alone.socket,
            process: alone.pid.unsigned_abs(),
        }),
        descriptors: vec![alone.process],
    };
    let programs: Vec<Item> = programs.into_iter().map(item).collect();
    send_batches(connection, &programs, batches).await?;
    if rest.is_empty() {
        return send_batch(connection, &[], batches).await;
    }
    send_batches(connection, rest, batches).await
}

async fn tell(connection: &mut Connection, reply: &Reply) -> Result<(), Failure> {
    send_packet(connection, &reply.encode(), &[]).await
}

async fn send_packet(
    connection: &mut Connection,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let sent = timeout(PATIENCE, send(connection, bytes, descriptors)).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Io(error)),
        Err(_) => Err(Failure::Gone("it takes nothing")),
    }
}

/// The next message must be this one, in time.
async fn expect(
    connection: &mut Connection,
    wanted: &Request,
    patience: Duration,
) -> Result<(), Failure> {
    match timeout(patience, receive(connection)).await {
        Ok(Ok(Some(Received::Request(request, _)))) if request == *wanted => Ok(()),
        Ok(Ok(Some(_)) | Err(_)) => Err(Failure::Protocol),
        Ok(Ok(None)) => Err(Failure::Gone("it has closed the connection")),
        Err(_) => Err(Failure::Gone("it has not answered in time")),
    }
}

/// How long a peer that takes over waits for what still comes to us: less than it is patient.
const SETTLE_WAIT: Duration = Duration::from_secs(3);
/// The name of the service.
pub const CONTROL: &str = "control";
/// How long a successor has for opening what it has not got from us, and for starting.
const START_WAIT: Duration = Duration::from_secs(30);
