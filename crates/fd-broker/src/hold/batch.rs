//! What a successor is given, and the batches in which it goes over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use portyard_core::wire::hold::{Record, Reply, Waiting};
use tokio::sync::oneshot;

use crate::broker::Waiter;
use crate::pool::Parked;

/// Something that is handed over.
pub struct Item {
    /// What it is.
    pub record: Record,
    /// What comes with it.
    pub descriptors: Vec<OwnedFd>,
}

/// What a successor gets of workers, and whom to tell that it has them.
pub fn items_of_workers(workers: Vec<Parked>) -> (Vec<oneshot::Sender<bool>>, Vec<Item>) {
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
pub fn items_of(waiting: &[Waiter]) -> io::Result<Vec<Item>> {
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
pub fn next_batch(items: &[Item]) -> Option<(&[Item], &[Item])> {
    if items.is_empty() {
        return None;
    }
    let length = Reply::batch_length(items.iter().map(|item| &item.record));
    // Every record fits a message by itself.
    items.split_at_checked(length.max(1))
}

/// The message with this number, and the descriptors that go with it.
pub fn batch(number: u32, items: &[Item]) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
    let reply = Reply::Batch {
        number,
        records: items.iter().map(|item| item.record.clone()).collect(),
    };
    let descriptors = items.iter().flat_map(|item| &item.descriptors);
    (reply.encode(), descriptors.map(AsFd::as_fd).collect())
}
