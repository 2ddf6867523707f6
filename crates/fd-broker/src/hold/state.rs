//! What is held, by whom it was put there, and what of it is kept beyond us.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use portyard_core::daemon::Listening;
use portyard_core::wire::hold::{self as wire, Name, Reason, Record};

use super::config::HoldingConfig;
use super::configured::{Configured, Opened};
use super::form::record;
use super::keeper::Keeper;
use super::rules::{Asker, Operation, Rules};
use super::socket::{HeldSocket, identity};
use super::table::{Caps, Refusal, Table};

/// The state behind the lock.
#[derive(Debug)]
pub(super) struct State {
    /// Names and sockets.
    pub table: Table<HeldSocket>,
    /// Who may do what.
    pub rules: Rules,
    /// What the configuration holds, and the files of its Unix sockets.
    pub configured: HashMap<Name, Configured>,
    /// What a reload is about to hold.
    pub opened: Vec<Opened>,
    /// The service manager's store, where there is one.
    pub keeper: Option<Keeper>,
    /// The numbers in the store of what peers have stored.
    pub kept_names: HashMap<Name, u64>,
    /// The numbers in the store of what we listen on, by identity.
    pub kept_bound: HashMap<u64, u64>,
    /// Whether all that we listen on is in the store.
    pub all_kept: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            table: Table::new(caps(&HoldingConfig::default())),
            rules: Rules::default(),
            configured: HashMap::new(),
            opened: Vec::new(),
            keeper: None,
            kept_names: HashMap::new(),
            kept_bound: HashMap::new(),
            all_kept: false,
        }
    }
}

impl State {
    /// Whether a peer may do something with a name; else what to tell it.
    pub fn permit(
        &self,
        asker: &Asker<'_>,
        operation: Operation,
        name: &Name,
    ) -> Result<(), Refusal> {
        if self.rules.allow(asker, operation, name) {
            return Ok(());
        }
        let operation = operation.label();
        let text = format!(
            "no rule lets {asker} {operation} {name}; add \"allow {operation} {name} {asker}\" to \
             holding.rules"
        );
        Err((Reason::NotAllowed, text))
    }

    /// Has what a peer has stored under a name kept, where there is a store.
    pub fn keep(&mut self, name: &Name) -> Result<(), String> {
        let (Some(keeper), Some(held)) = (&mut self.keeper, self.table.get(name)) else {
            return Ok(());
        };
        let record = Record::Held(record(name, held, Instant::now()));
        let sockets: Vec<_> = held
            .sockets
            .iter()
            .map(|(_, socket)| socket.as_fd())
            .collect();
        let number = keeper
            .keep(record, &sockets)
            .map_err(|error| error.to_string())?;
        self.kept_names.insert(name.clone(), number);
        Ok(())
    }

    /// Has it kept no longer.
    pub fn forget(&mut self, name: &Name) {
        if let (Some(keeper), Some(number)) = (&mut self.keeper, self.kept_names.remove(name)) {
            keeper.forget(number);
        }
    }

    /// Has all that we listen on and hold by configuration kept, and nothing else of the kind.
    pub fn keep_listening(
        &mut self,
        sockets: &[Listening<'_>],
        more: Vec<(wire::Bound, OwnedFd)>,
    ) -> bool {
        if self.keeper.is_none() {
            return false;
        }
        let mut wanted: Vec<(wire::Bound, HeldOr<'_>)> = Vec::new();
        for (bound, socket) in more {
            wanted.push((bound, HeldOr::Other(socket)));
        }
        for one in sockets.iter().filter(|one| !one.inherited) {
            let bound = wire::Bound {
                endpoint: one.endpoint.into(),
                listener: one.label.into(),
                opening: one.opening,
            };
            wanted.push((bound, HeldOr::Listening(one.socket)));
        }
        for (name, configured) in &self.configured {
            let Some(held) = self.table.get(name) else {
                continue;
            };
            for (bound, socket) in configured.bound(name, held) {
                wanted.push((bound, HeldOr::Held(socket)));
            }
        }
        let Some(keeper) = &mut self.keeper else {
            return false;
        };
        let mut before = std::mem::take(&mut self.kept_bound);
        let mut all = true;
        for (bound, socket) in wanted {
            let Ok(identity) = identity(socket.as_fd()) else {
                all = false;
                continue;
            };
            let number = match before.remove(&identity) {
                Some(number) => Ok(number),
                None => keeper.keep(Record::Bound(bound.clone()), &[socket.as_fd()]),
            };
            match number {
                Ok(number) => {
                    self.kept_bound.insert(identity, number);
                }
                Err(error) => {
                    all = false;
                    tracing::warn!(
                        endpoint = bound.endpoint, %error, "a restart may refuse connections"
                    );
                }
            }
        }
        for number in before.into_values() {
            keeper.forget(number);
        }
        all
    }
}

/// A socket that is to be kept, whoever has it.
enum HeldOr<'a> {
    Listening(&'a socket2::Socket),
    Held(HeldSocket),
    Other(OwnedFd),
}

impl AsFd for HeldOr<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listening(socket) => socket.as_fd(),
            Self::Held(socket) => socket.as_fd(),
            Self::Other(socket) => socket.as_fd(),
        }
    }
}

/// How much peers may store.
pub(super) fn caps(holding: &HoldingConfig) -> Caps {
    Caps {
        names: holding.names.get().into(),
        sockets: usize::try_from(holding.sockets.get()).unwrap_or(usize::MAX),
        expiry: (!holding.expiry.0.is_zero()).then_some(holding.expiry.0),
    }
}
