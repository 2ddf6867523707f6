//! What is held, under which names, since when and for how long. No socket is touched here: `S` is one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use portyard_core::wire::hold::{Kind, Name, Origin, Reason};

/// All that is held.
#[derive(Debug)]
pub struct Table<S> {
    held: BTreeMap<Name, Held<S>>,
    caps: Caps,
}

/// What is held under one name.
#[derive(Debug)]
pub struct Held<S> {
    /// The sockets, one at least, and what each is.
    pub sockets: Vec<(Kind, S)>,
    /// Who put them there.
    pub origin: Origin,
    /// Since when.
    pub since: Instant,
    /// Until when; `None`: until they are deleted.
    pub until: Option<Instant>,
    /// How often they have been retrieved.
    pub retrieved: u64,
}

/// How much peers may store. What the configuration holds does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Names.
    pub names: usize,
    /// Sockets, of all names together.
    pub sockets: usize,
    /// How long, at most; `None`: for good.
    pub expiry: Option<Duration>,
}

/// Why a request is refused.
pub type Refusal = (Reason, String);

impl<S> Table<S> {
    /// Nothing is held.
    pub fn new(caps: Caps) -> Self {
        Self {
            held: BTreeMap::new(),
            caps,
        }
    }

    /// Changes how much may be stored; what is held already stays.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// Whether a peer could store so many sockets under a name at this moment.
    pub fn may_store(&self, name: &Name, sockets: usize, replace: bool) -> Result<(), Refusal> {
        let before = self.held.get(name);
        match before {
            Some(held) if held.origin == Origin::Configured => {
                let text = format!("{name} is held by the configuration; change it there");
                return Err((Reason::Exists, text));
            }
            Some(_) if !replace => {
                let text = format!("{name} is held already; delete it first, or replace it");
                return Err((Reason::Exists, text));
            }
            _ => {}
        }
        let stored = self
            .held
            .values()
            .filter(|held| held.origin != Origin::Configured);
        let (names, present) = stored.fold((0, 0), |(names, sockets), held| {
            (names + 1, sockets + held.sockets.len())
        });
        let (gone_names, gone) = before.map_or((0, 0), |held| (1, held.sockets.len()));
        if names - gone_names + 1 > self.caps.names {
            let text = format!(
                "{names} names are stored, which is all that holding.names allows; delete one"
            );
            return Err((Reason::Full, text));
        }
        if present - gone + sockets > self.caps.sockets {
            let text = format!(
                "{present} sockets are stored, and holding.sockets allows {}; delete some",
                self.caps.sockets
            );
            return Err((Reason::Full, text));
        }
        Ok(())
    }

    /// Until when a peer's sockets are held that asks for `expiry`.
    pub fn until(&self, expiry: Option<Duration>, now: Instant) -> Option<Instant> {
        let longest = self.caps.expiry;
        let span = match (expiry, longest) {
            (Some(asked), Some(longest)) => asked.min(longest),
            (Some(span), None) | (None, Some(span)) => span,
            (None, None) => return None,
        };
        now.checked_add(span)
    }

    /// Holds sockets under a name; what was held there before is returned.
    pub fn put(&mut self, name: Name, held: Held<S>) -> Option<Held<S>> {
        self.held.insert(name, held)
    }

    /// What is held under a name, counted as retrieved.
    pub fn retrieve(&mut self, name: &Name, now: Instant) -> Option<&Held<S>> {
        let held = self.held.get_mut(name)?;
        if held.is_over(now) {
            return None;
        }
        held.retrieved += 1;
        Some(held)
    }

    /// What is held under a name.
    pub fn get(&self, name: &Name) -> Option<&Held<S>> {
        self.held.get(name)
    }

    /// Takes out what a peer had stored under a name, to be closed.
    pub fn delete(&mut self, name: &Name) -> Result<Held<S>, Refusal> {
        match self.held.get(name) {
            Some(held) if held.origin == Origin::Configured => {
                let text = format!("{name} is held by the configuration; take it out there");
                Err((Reason::NotAllowed, text))
            }
            _ => self.take(name).ok_or_else(|| no_such_name(name)),
        }
    }

    /// Takes out what is held under a name.
    pub fn take(&mut self, name: &Name) -> Option<Held<S>> {
        self.held.remove(name)
    }

    /// Everything behind a name, in the order of names.
    pub fn behind(&self, name: Option<&Name>) -> impl Iterator<Item = (&Name, &Held<S>)> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.held.range::<Name, _>((from, Bound::Unbounded))
    }

    /// Takes out whatever has been held long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<(Name, Held<S>)> {
        let over = self.held.iter().filter(|(_, held)| held.is_over(now));
        let names: Vec<Name> = over.map(|(name, _)| name.clone()).collect();
        let take = |name: Name| {
            let held = self.held.remove(&name)?;
            Some((name, held))
        };
        names.into_iter().filter_map(take).collect()
    }

    /// When the next one has been.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.held.values().filter_map(|held| held.until).min()
    }

    /// Names and sockets that are held.
    pub fn len(&self) -> (usize, usize) {
        let sockets = self.held.values().map(|held| held.sockets.len()).sum();
        (self.held.len(), sockets)
    }
}

impl<S> Held<S> {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The refusal of what is not held.
pub fn no_such_name(name: &Name) -> Refusal {
    let text = format!("nothing is held under the name {name}");
    (Reason::NoSuchName, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        names: 2,
        sockets: 3,
        expiry: None,
    };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn held(origin: Origin, sockets: usize, since: Instant) -> Held<()> {
        Held {
            sockets: vec![(Kind::Stream, ()); sockets],
            origin,
            since,
            until: None,
            retrieved: 0,
        }
    }

    const PEER: Origin = Origin::User(7);

    #[test]
    fn names_and_sockets_of_peers_are_capped_and_those_of_the_configuration_are_not_counted() {
        let now = Instant::now();
        let mut table = Table::new(CAPS);
        for text in ["x", "y", "z"] {
            table.put(name(text), held(Origin::Configured, 2, now));
        }
        assert_eq!(table.may_store(&name("a"), 2, false), Ok(()));
        table.put(name("a"), held(PEER, 2, now));
        let too_many = table.may_store(&name("b"), 2, false).unwrap_err();
        assert_eq!(too_many.0, Reason::Full);
        assert!(too_many.1.contains("holding.sockets"), "{}", too_many.1);
        table.put(name("b"), held(PEER, 1, now));
        let full = table.may_store(&name("c"), 1, false).unwrap_err();
        assert_eq!(full.0, Reason::Full);
        assert!(full.1.contains("holding.names"), "{}", full.1);
        // What is replaced makes room for itself.
        assert_eq!(table.may_store(&name("a"), 2, true), Ok(()));
        assert!(table.may_store(&name("a"), 3, true).is_err());
        assert_eq!(table.len(), (5, 9));
    }

    #[test]
    fn a_name_is_not_taken_over_unasked_and_the_configurations_never() {
        let now = Instant::now();
        let mut table = Table::new(CAPS);
        table.put(name("web"), held(Origin::Configured, 1, now));
        table.put(name("app"), held(PEER, 1, now));
        let refused = |name: &Name, replace| table.may_store(name, 1, replace).map_err(|r| r.0);
        assert_eq!(refused(&name("app"), false), Err(Reason::Exists));
        assert_eq!(refused(&name("app"), true), Ok(()));
        assert_eq!(refused(&name("web"), true), Err(Reason::Exists));
        assert_eq!(
            table.delete(&name("web")).unwrap_err().0,
            Reason::NotAllowed
        );
        assert!(table.delete(&name("app")).is_ok());
        assert_eq!(
            table.delete(&name("app")).unwrap_err().0,
            Reason::NoSuchName
        );
    }

    #[test]
    fn what_has_expired_is_gone_before_anybody_has_looked() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut table = Table::new(CAPS);
        for (text, seconds) in [("a", Some(5)), ("b", Some(3)), ("c", None)] {
            let until = seconds.map(|seconds| now + second * seconds);
            let held = held(PEER, 1, now);
            table.put(name(text), Held { until, ..held });
        }
        assert_eq!(table.next_expiry(), Some(now + second * 3));
        assert!(table.retrieve(&name("b"), now + second * 2).is_some());
        assert!(table.retrieve(&name("b"), now + second * 3).is_none());
        let gone = table.expire(now + second * 4);
        assert_eq!(gone.len(), 1);
        assert_eq!((&gone[0].0, gone[0].1.retrieved), (&name("b"), 1));
        assert_eq!(table.next_expiry(), Some(now + second * 5));
        assert!(
            table
                .retrieve(&name("c"), now + second * 1_000_000)
                .is_some()
        );
    }

    #[test]
    fn nobody_is_held_longer_than_the_configuration_allows() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut table = Table::<()>::new(CAPS);
        assert_eq!(table.until(None, now), None);
        assert_eq!(table.until(Some(minute), now), Some(now + minute));
        table.set_caps(Caps {
            expiry: Some(minute),
            ..CAPS
        });
        assert_eq!(table.until(None, now), Some(now + minute));
        assert_eq!(table.until(Some(minute * 9), now), Some(now + minute));
        assert_eq!(table.until(Some(minute / 2), now), Some(now + minute / 2));
    }

    #[test]
    fn a_list_goes_on_behind_any_name() {
        let now = Instant::now();
        let mut table = Table::new(CAPS);
        for text in ["b", "a", "d"] {
            table.put(name(text), held(PEER, 1, now));
        }
        let behind = |from: Option<&str>| -> Vec<String> {
            let from = from.map(name);
            let names = table.behind(from.as_ref());
            names.map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(behind(None), ["a", "b", "d"]);
        assert_eq!(behind(Some("a")), ["b", "d"]);
        assert_eq!(behind(Some("c")), ["d"]);
        assert_eq!(behind(Some("d")), [""; 0]);
    }
}
