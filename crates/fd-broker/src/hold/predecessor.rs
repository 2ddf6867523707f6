//! The broker that everything comes from.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use portyard_core::daemon::Helm;
use portyard_core::exit::Fatal;
use portyard_core::fdpass::{Channel, ReceiveError};
use portyard_core::holding::{Holder, HoldingError, PATIENCE};
use portyard_core::listen::Inherited;
use portyard_core::sys::register;
use portyard_core::wire::hold::{MESSAGE_MAX, Record, Reply, Request, Running, Waiting, Worker};

use super::Holding;
use super::form::handed;
use super::heir::{Heir, Moving};
use crate::inetd::Gate;

/// Takes over from a broker that runs, if one does: its listening sockets go to `inherited` and what
/// it holds to `holding`. Blocks. Gives the way to it, for [`take_rest`].
pub fn take_over(
    path: &Path,
    holding: &Holding,
    inherited: &mut Inherited,
) -> Result<Option<Holder>, Fatal> {
    let wrong = |error: HoldingError| {
        let message = format!("cannot take over: {error}");
        Fatal::new(error.exit(), message)
    };
    let holder = match Holder::connect_now(path, PATIENCE) {
        Ok(holder) => holder,
        Err(HoldingError::Absent { .. }) => {
            tracing::info!(path = %path.display(), "no broker runs, so there is nothing to take over");
            return Ok(None);
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
    Ok(Some(holder))
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
pub async fn take_rest(
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
