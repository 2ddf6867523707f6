//! The subscriptions of one connection on which the server may speak unasked.
//!
//! Nothing is kept here of events: each is taken from the store's history when the connection can send
//! it. A client that does not read holds up its own connection, and once the history has moved on it is
//! told at which revision it has missed something.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use portyard_wire::value::Value;
use tokio::time::{Instant, Sleep, sleep};

use super::{Call, OwnMethods};
use crate::error::MethodError;
use crate::methods::{Reply, Signature, Watched, event, int, map, take, wrong_kind};
use crate::state::State;
use crate::store::{Event, Store, WatchEnd, Watcher};

/// The subscriptions, and whose turn it is.
pub struct Subscriptions {
    limit: usize,
    list: Vec<Subscription>,
    /// How many there ever were: their names.
    made: u64,
    /// Who is looked at next. A round goes over all from the first on, who alone waits for changes: what
    /// happens after its look wakes it, so nothing escapes the others either.
    turn: usize,
    /// Somebody has seen only a part of what there is.
    more: bool,
    /// Nobody is to wait any more.
    ended: Option<WatchEnd>,
    /// When those are looked for who have heard nothing for long.
    beat: Option<Pin<Box<Sleep>>>,
}

struct Subscription {
    name: u64,
    watcher: Watcher,
    /// From where its client could go on elsewhere.
    next: u64,
    told: Instant,
}

/// A connection that cannot push.
pub struct OverHttp;

/// What a subscriber is told.
pub enum Word {
    /// Events, or that there were none for long.
    Events {
        subscription: u64,
        events: Vec<Event>,
        next: u64,
    },
    /// The last one.
    End {
        subscription: u64,
        why: WatchEnd,
        next: u64,
    },
}

impl Subscriptions {
    /// None so far, and never more than `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            list: Vec::new(),
            made: 0,
            turn: 0,
            more: false,
            ended: None,
            beat: None,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Subscribes, and tells the name of the subscription and its first revision.
    fn subscribe(&mut self, store: &Store, arguments: Vec<Value>) -> Result<Reply, MethodError> {
        let [prefix, from] = take(arguments);
        if self.list.len() >= self.limit {
            return Err(MethodError::TooLarge(format!(
                "a connection may have {} subscriptions here (max_subscriptions)",
                self.limit
            )));
        }
        let Watched { watcher, from } = Watched::begin(store, prefix, &from)?;
        self.made += 1;
        self.list.push(Subscription {
            name: self.made,
            watcher,
            next: from,
            told: Instant::now(),
        });
        self.turn = 0;
        self.beat.get_or_insert_with(|| Box::pin(sleep(BEAT)));
        let made = [("subscription", int(self.made)), ("next", int(from))];
        Ok(Reply::Owned(map(made)))
    }

    /// Ends a subscription, if there is one of that name. Nothing more is told of it.
    fn unsubscribe(&mut self, arguments: Vec<Value>) -> Result<Reply, MethodError> {
        let [name] = take(arguments);
        let Value::Int(name) = name else {
            return Err(wrong_kind("subscription", "an integer", &name));
        };
        let before = self.list.len();
        self.list
            .retain(|subscription| i64::try_from(subscription.name) != Ok(name));
        self.turn = 0;
        Ok(Reply::Owned(Value::Bool(self.list.len() < before)))
    }

    /// Waits for the next word to a subscriber, for ever where there is none. Nothing is lost when the
    /// future is dropped.
    pub async fn next(&mut self) -> Word {
        loop {
            if let Some(word) = self.look() {
                return word;
            }
            if self.more {
                (self.more, self.turn) = (false, 0);
                tokio::task::yield_now().await;
                continue;
            }
            let (Some(first), Some(beat)) = (self.list.first_mut(), &mut self.beat) else {
                return pending().await;
            };
            tokio::select! {
                changed = first.watcher.changed() => self.ended = changed.err(),
                () = &mut *beat => beat.set(sleep(BEAT)),
            }
            self.turn = 0;
        }
    }

    /// Goes on with the round; `None` at its end.
    fn look(&mut self) -> Option<Word> {
        while let Some(subscription) = self.list.get_mut(self.turn) {
            let page = match subscription.watcher.page(EVENTS, EVENT_BYTES) {
                Ok(page) => page,
                Err(why) => return Some(self.end(why)),
            };
            subscription.next = page.next;
            self.more |= page.more;
            if !page.events.is_empty() || subscription.told.elapsed() >= SILENCE {
                subscription.told = Instant::now();
                self.turn += 1;
                return Some(Word::Events {
                    subscription: subscription.name,
                    events: page.events,
                    next: page.next,
                });
            }
            match self.ended {
                Some(why) if !page.more => return Some(self.end(why)),
                _ => self.turn += 1,
            }
        }
        None
    }

    /// Ends the one whose turn it is.
    fn end(&mut self, why: WatchEnd) -> Word {
        let Subscription { name, next, .. } = self.list.remove(self.turn);
        // The first one is who waits.
        self.turn = 0;
        let next = match why {
            WatchEnd::Lagged { resume } => resume,
            WatchEnd::Closed | WatchEnd::Dismissed => next,
        };
        Word::End {
            subscription: name,
            why,
            next,
        }
    }
}

impl OwnMethods for Subscriptions {
    fn signatures(&self) -> &'static [Signature] {
        SIGNATURES
    }

    fn call(&mut self, state: &State, call: &mut Call) -> Option<Result<Reply, MethodError>> {
        let signature = SIGNATURES.iter().find(|own| own.name == call.method)?;
        let arguments = std::mem::take(&mut call.arguments);
        let arguments = signature.arrange(arguments);
        Some(arguments.and_then(|arguments| {
            if signature.name == SUBSCRIBE {
                self.subscribe(state.opened()?, arguments)
            } else {
                self.unsubscribe(arguments)
            }
        }))
    }
}

impl OwnMethods for OverHttp {
    fn signatures(&self) -> &'static [Signature] {
        &[]
    }

    fn call(&mut self, _: &State, call: &mut Call) -> Option<Result<Reply, MethodError>> {
        let signature = SIGNATURES.iter().find(|own| own.name == call.method)?;
        Some(Err(MethodError::NotOverHttp(signature.name.into())))
    }
}

impl Word {
    /// The method of the notification, and its parameters.
    pub fn notification(self, now: u64) -> (&'static str, Vec<(String, Value)>) {
        let named = |members: Vec<(&str, Value)>| {
            let members = members.into_iter();
            members.map(|(name, value)| (name.into(), value)).collect()
        };
        match self {
            Self::Events {
                subscription,
                events,
                next,
            } => {
                let events = events.into_iter().map(|told| event(told, now)).collect();
                let members = vec![
                    ("subscription", int(subscription)),
                    ("events", Value::List(events)),
                    ("next", int(next)),
                ];
                ("watch.events", named(members))
            }
            Self::End {
                subscription,
                why,
                next,
            } => {
                let reason = match why {
                    WatchEnd::Lagged { .. } => "lagged",
                    WatchEnd::Closed => "closed",
                    WatchEnd::Dismissed => "draining",
                };
                let members = vec![
                    ("subscription", int(subscription)),
                    ("reason", reason.into()),
                    ("message", Value::String(why.to_string())),
                    ("next", int(next)),
                ];
                ("watch.end", named(members))
            }
        }
    }
}

/// Whether there is a method of that name for connections that can push.
pub fn have(method: &str) -> bool {
    SIGNATURES.iter().any(|own| own.name == method)
}

/// The methods of a connection that can push.
const SIGNATURES: &[Signature] = &[
    Signature {
        name: SUBSCRIBE,
        parameters: &["prefix", "from_revision"],
        required: 0,
        help: "tells what happens to keys that begin so, from a revision on: {subscription, next}, then watch.events",
    },
    Signature {
        name: UNSUBSCRIBE,
        parameters: &["subscription"],
        required: 1,
        help: "ends a subscription; whether there was one",
    },
];
const SUBSCRIBE: &str = "watch.subscribe";
const UNSUBSCRIBE: &str = "watch.unsubscribe";
/// How much one notification holds, about.
const EVENTS: usize = 256;
const EVENT_BYTES: u64 = 256 << 10;
/// A subscriber to whom nothing happens is told so after as long: it sees that we are there and from
/// where it could go on, and we see whether it is.
const SILENCE: Duration = Duration::from_secs(30);
/// How often that is looked after.
const BEAT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, Operation, SystemClock};
    use std::sync::Arc;

    fn subscribed(store: &Store, prefixes: &[&str]) -> Subscriptions {
        let mut subscriptions = Subscriptions::new(2);
        for prefix in prefixes {
            let arguments = vec![(*prefix).into(), Value::Nil];
            subscriptions.subscribe(store, arguments).unwrap();
        }
        subscriptions
    }

    fn store() -> Store {
        Store::memory(Limits::default(), Arc::new(SystemClock)).unwrap()
    }

    async fn set(store: &Store, key: &str) {
        let operation = Operation::set(key, "value");
        store.apply(operation.into()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_for_long_is_told_from_where_to_go_on() {
        let store = store();
        let mut subscriptions = subscribed(&store, &["a"]);
        set(&store, "b").await;
        let begin = Instant::now();
        let Word::Events { events, next, .. } = subscriptions.next().await else {
            panic!("it has ended");
        };
        assert!(events.is_empty());
        assert_eq!(next, 2);
        assert!((SILENCE..=SILENCE + BEAT).contains(&begin.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_passed_over_and_the_last_word_comes_after_the_last_event() {
        let store = store();
        let mut subscriptions = subscribed(&store, &["a", "b"]);
        set(&store, "b").await;
        set(&store, "a").await;
        store.dismiss_watchers();
        let mut heard = Vec::new();
        while !subscriptions.is_empty() {
            heard.push(match subscriptions.next().await {
                Word::Events { subscription, .. } => (subscription, None),
                Word::End {
                    subscription, why, ..
                } => (subscription, Some(why)),
            });
        }
        let end = Some(WatchEnd::Dismissed);
        assert_eq!(heard, [(1, None), (2, None), (1, end), (2, end)]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_than_the_limit_and_one_that_ends_makes_room() {
        let store = store();
        let mut subscriptions = subscribed(&store, &["a", "b"]);
        let more = || vec!["c".into(), Value::Nil];
        assert!(subscriptions.subscribe(&store, more()).is_err());
        let gone = subscriptions.unsubscribe(vec![Value::Int(1)]).unwrap();
        assert_eq!(gone, Reply::Owned(Value::Bool(true)));
        for name in [1, 3, -1] {
            let gone = subscriptions.unsubscribe(vec![Value::Int(name)]).unwrap();
            assert_eq!(gone, Reply::Owned(Value::Bool(false)));
        }
        assert!(subscriptions.subscribe(&store, more()).is_ok());
    }
}
