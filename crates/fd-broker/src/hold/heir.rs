//! Workers that come from a predecessor: their sessions go on here.

use std::os::fd::OwnedFd;

use portyard_core::daemon::Helm;
use portyard_core::serve::Bequest;
use portyard_core::wire::hold::{Served, Worker};

use tokio::sync::watch;

use crate::pool::{Handed, Legacy, Place};

/// Counts what comes from a predecessor and is not in its place yet. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Moving(watch::Sender<usize>);

/// Something that is on its way, until this is dropped.
struct Comes(watch::Sender<usize>);

impl Moving {
    /// Something begins to come, until what is returned is dropped.
    pub fn begin(&self) -> impl Send + use<> {
        self.0.send_modify(|count| *count += 1);
        Comes(self.0.clone())
    }

    /// Returns when nothing is on its way.
    pub async fn is_over(&self) {
        // We have a sender, so it cannot be closed.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Comes {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Puts together what comes of a worker in several records.
pub(super) struct Heir {
    helm: Helm,
    moving: Moving,
    /// One of whose connections not all have come.
    begun: Option<Begun>,
}

struct Begun {
    worker: Worker,
    socket: OwnedFd,
    offered: Option<Handed>,
    served: Vec<(Handed, u64, u16)>,
    /// Connections that are still to come.
    left: usize,
}

impl Heir {
    /// Nothing has come.
    pub fn new(helm: Helm, moving: Moving) -> Self {
        Self {
            helm,
            moving,
            begun: None,
        }
    }

    /// A worker comes, with its socket and what it was sent and has not taken.
    pub async fn begin(&mut self, worker: Worker, descriptors: Vec<OwnedFd>) {
        let mut descriptors = descriptors.into_iter();
        // As many have come as the record says.
        let Some(socket) = descriptors.next() else {
            return;
        };
        let offered = match (descriptors.next(), &worker.offered) {
            (Some(copy), Some(listener)) => {
                let place = self.places(listener, 1).await.pop();
                place.map(|place| Handed::bequeathed(Some(copy), place))
            }
            _ => None,
        };
        let left = usize::try_from(worker.served).unwrap_or(usize::MAX);
        self.begun = Some(Begun {
            worker,
            socket,
            offered,
            served: Vec::new(),
            left,
        });
        self.complete();
    }

    /// Connections of the worker that came last.
    pub async fn add(&mut self, served: Served) {
        let places = self
            .places(&served.listener, served.connections.len())
            .await;
        let Some(begun) = &mut self.begun else {
            return;
        };
        begun.left = begun.left.saturating_sub(served.connections.len());
        for ((cookie, port), place) in served.connections.into_iter().zip(places) {
            let handed = Handed::bequeathed(None, place);
            begun.served.push((handed, cookie, port));
        }
        self.complete();
    }

    /// Goes on with the worker once all has come.
    fn complete(&mut self) {
        if self.begun.as_ref().is_none_or(|begun| begun.left > 0) {
            return;
        }
        let Some(begun) = self.begun.take() else {
            return;
        };
        let key = (!begun.worker.key.is_empty()).then(|| begun.worker.key.as_str().into());
        let listener = begun.worker.listener.clone();
        tracing::info!(
            listener,
            pid = begun.worker.process,
            connections = begun.served.len(),
            "a worker of the predecessor goes on here"
        );
        let legacy = Legacy {
            record: begun.worker,
            offered: begun.offered,
            served: begun.served,
            comes: Box::new(self.moving.begin()),
        };
        let bequest = Bequest {
            socket: begun.socket.into(),
            key,
            legacy: Box::new(legacy),
        };
        self.helm.go_on(listener, bequest);
    }

    /// Places for so many connections of a listener.
    async fn places(&self, listener: &str, count: usize) -> Vec<Place> {
        let permits = self.helm.places(listener.into(), count).await;
        let mut places: Vec<Place> = permits.into_iter().map(Place::Taken).collect();
        places.resize_with(count, || Place::None(listener.into()));
        places
    }
}
