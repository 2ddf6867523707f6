//! What peers ask for, and what they are told.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use portyard_core::wire::hold::{Name, Origin, Reason, Reply, Request};
use tokio::time::sleep_until;

use super::form::entry;
use super::holding::Holding;
use super::rules::{Asker, Operation};
use super::socket::HeldSocket;
use super::table::{Held, Refusal, no_such_name};

/// A reply, and the sockets that go with it.
pub type Answer = (Reply, Vec<HeldSocket>);

impl Holding {
    /// Does what a peer asks for.
    pub fn answer(&self, asker: &Asker<'_>, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        let (operation, answer) = match request {
            Request::List { behind } => (Operation::List, Ok(self.list(asker, behind.as_ref()))),
            Request::Store {
                name,
                expiry,
                replace,
                ..
            } => (
                Operation::Store,
                self.store(asker, &name, expiry, replace, descriptors),
            ),
            Request::Retrieve { name } => (Operation::Retrieve, self.retrieve(asker, &name)),
            Request::Delete { name } => (Operation::Delete, self.delete(asker, &name)),
            Request::TakeOver | Request::Received { .. } | Request::Serving => {
                let text = "this message belongs to a hand-over, and none is under way".into();
                return refused((Reason::Malformed, text));
            }
        };
        self.counts().count(operation, answer.is_ok());
        match answer {
            Ok(answer) => answer,
            Err((reason, text)) => {
                tracing::info!(
                    peer = %asker, operation = operation.label(), %reason, text, "request refused"
                );
                refused((reason, text))
            }
        }
    }

    /// Whether a peer may do something with a name; else what to tell it.
    pub fn permit(
        &self,
        asker: &Asker<'_>,
        operation: Operation,
        name: &Name,
    ) -> Result<(), Refusal> {
        self.lock().permit(asker, operation, name)
    }

    fn list(&self, asker: &Asker<'_>, behind: Option<&Name>) -> Answer {
        let state = self.lock();
        let now = Instant::now();
        let visible = state
            .table
            .behind(behind)
            .filter(|(name, _)| state.rules.allow(asker, Operation::List, name));
        let entries = visible.map(|(name, held)| entry(name, held, now));
        (Reply::listed(entries), Vec::new())
    }

    fn store(
        &self,
        asker: &Asker<'_>,
        name: &Name,
        expiry: Option<Duration>,
        replace: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, Refusal> {
        let state = &mut *self.lock();
        state.permit(asker, Operation::Store, name)?;
        if replace && state.table.get(name).is_some() {
            state.permit(asker, Operation::Delete, name)?;
        }
        state.table.may_store(name, descriptors.len(), replace)?;
        let mut sockets = Vec::new();
        for descriptor in descriptors {
            let socket = HeldSocket::new(descriptor).map_err(|why| (Reason::WrongSocket, why))?;
            sockets.push(socket);
        }
        let now = Instant::now();
        let until = state.table.until(expiry, now);
        let held = Held {
            sockets,
            origin: Origin::User(asker.uid().unwrap_or(NOBODY)),
            since: now,
            until,
            retrieved: 0,
        };
        if state.table.put(name.clone(), held).is_some() {
            state.forget(name);
        }
        if let Err(text) = state.keep(name) {
            state.table.take(name);
            return Err((Reason::Full, text));
        }
        tracing::info!(%name, by = %asker, "held");
        self.sooner().notify_one();
        Ok((Reply::Done, Vec::new()))
    }

    fn retrieve(&self, asker: &Asker<'_>, name: &Name) -> Result<Answer, Refusal> {
        let state = &mut *self.lock();
        state.permit(asker, Operation::Retrieve, name)?;
        let held = state.table.retrieve(name, Instant::now());
        let held = held.ok_or_else(|| no_such_name(name))?;
        let (kinds, sockets) = held.sockets.iter().cloned().unzip();
        tracing::info!(%name, by = %asker, "retrieved");
        Ok((Reply::Sockets { kinds }, sockets))
    }

    fn delete(&self, asker: &Asker<'_>, name: &Name) -> Result<Answer, Refusal> {
        let state = &mut *self.lock();
        state.permit(asker, Operation::Delete, name)?;
        state.table.delete(name)?;
        state.forget(name);
        tracing::info!(%name, by = %asker, "deleted");
        Ok((Reply::Done, Vec::new()))
    }

    /// Closes what has been held long enough, whenever something has. Never returns.
    pub async fn expire(&self) {
        loop {
            let sooner = self.sooner().notified();
            let next = {
                let state = &mut *self.lock();
                for (name, _) in state.table.expire(Instant::now()) {
                    tracing::info!(%name, "expired");
                    state.forget(&name);
                }
                state.table.next_expiry()
            };
            match next {
                Some(next) => tokio::select! {
                    () = sooner => {}
                    () = sleep_until(next.into()) => {}
                },
                None => sooner.await,
            }
        }
    }
}

fn refused((reason, text): Refusal) -> Answer {
    (Reply::Refused { reason, text }, Vec::new())
}

/// The overflow user, for whoever the kernel does not name.
const NOBODY: u32 = 65534;
