//! The rules of a pool, and that no connection is lost or had twice whatever happens in which order.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::super::balance::mix;
use super::*;

/// A pool whose connections are numbers, and a clock that is turned by hand.
struct Bench {
    machine: Machine<u32>,
    now: Instant,
    actions: Vec<Action<u32>>,
    /// Offers that nobody has answered, in order.
    offers: Vec<(WorkerId, ConnectionId, u32)>,
    next: u32,
}

fn rules() -> Rules {
    Rules {
        balance: Balance::Least,
        queue: 4,
        queue_timeout: Duration::from_secs(10),
        offer_timeout: Duration::from_secs(5),
        redeliveries: 2,
        offers: 100,
    }
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self {
            machine: Machine::new(rules),
            now: Instant::now(),
            actions: Vec::new(),
            offers: Vec::new(),
            next: 0,
        }
    }

    fn join(&mut self, name: &str, weight: u32, capacity: u32, window: u32) -> WorkerId {
        let joining = Joining {
            name: name.into(),
            weight,
            capacity,
            window,
        };
        let id = self.machine.join(joining, self.now, &mut self.actions);
        self.collect();
        id
    }

    fn arrive(&mut self) -> u32 {
        self.arrive_from(0)
    }

    fn arrive_from(&mut self, source: u64) -> u32 {
        self.next += 1;
        let payload = self.next;
        self.machine
            .arrive(payload, source, self.now, &mut self.actions);
        self.collect();
        payload
    }

    fn leave(&mut self, worker: WorkerId, trace: Trace) {
        self.offers.retain(|offer| offer.0 != worker);
        self.machine
            .leave(worker, self.now, |_| trace, &mut self.actions);
        self.collect();
    }

    fn refuse(&mut self, offer: (WorkerId, ConnectionId, u32)) {
        let result = self
            .machine
            .refused(offer.0, offer.1, self.now, &mut self.actions);
        assert_eq!(result, Ok(()));
        self.collect();
    }

    fn done(&mut self, by: Option<WorkerId>, id: ConnectionId) -> Option<u32> {
        let payload = self.machine.done(by, id, self.now, &mut self.actions);
        self.collect();
        payload
    }

    fn after(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.machine.tick(self.now, &mut self.actions);
        self.collect();
    }

    /// Moves offers from the actions to the unanswered ones.
    fn collect(&mut self) {
        let machine = &self.machine;
        let offers = &mut self.offers;
        self.actions.retain(|action| match action {
            Action::Offer(worker, id) => {
                offers.push((*worker, *id, *machine.connection(*id).unwrap()));
                false
            }
            _ => true,
        });
    }

    /// The oldest unanswered offer.
    fn offer(&mut self) -> (WorkerId, ConnectionId, u32) {
        self.offers.remove(0)
    }

    /// Takes whatever is offered, and says to whom it went.
    fn take_all(&mut self) -> Vec<WorkerId> {
        let mut takers = Vec::new();
        while !self.offers.is_empty() {
            let (worker, id, _) = self.offer();
            self.machine.taken(worker, id).unwrap();
            takers.push(worker);
        }
        takers
    }
}

#[test]
fn who_waits_longest_is_offered_first() {
    let mut bench = Bench::new(rules());
    let (first, second) = (bench.arrive(), bench.arrive());
    let worker = bench.join("w", 1, 10, 1);
    assert_eq!(bench.offers.len(), 1, "the window is one");
    let offer = bench.offer();
    assert_eq!(offer.2, first);
    assert_eq!(bench.machine.taken(worker, offer.1), Ok(&mut { first }));
    bench.after(0);
    assert_eq!(bench.offer().2, second);
}

#[test]
fn a_full_worker_gets_nothing_until_one_is_done() {
    let mut bench = Bench::new(rules());
    let worker = bench.join("w", 1, 2, 10);
    for _ in 0..3 {
        bench.arrive();
    }
    let (one, two) = (bench.offer(), bench.offer());
    assert!(bench.offers.is_empty());
    bench.machine.taken(worker, one.1).unwrap();
    assert!(bench.offers.is_empty());
    assert_eq!(bench.done(Some(worker), one.1), Some(one.2));
    assert_eq!(bench.offers.len(), 1);
    // By word of the kernel, and without having said that it was taken.
    assert_eq!(
        bench.done(None, two.1),
        None,
        "the kernel does not say taken"
    );
    assert_eq!(bench.done(Some(worker), two.1), Some(two.2));
    assert_eq!(bench.done(Some(worker), two.1), None);
}

#[test]
fn a_refused_connection_goes_to_another_worker_and_at_last_to_nobody() {
    let mut bench = Bench::new(rules());
    let (a, b) = (bench.join("a", 1, 9, 9), bench.join("b", 1, 9, 9));
    let payload = bench.arrive();
    let first = bench.offer();
    bench.refuse(first);
    let second = bench.offer();
    assert_eq!((first.0, second.0, second.2), (a, b, payload));
    bench.refuse(second);
    assert!(bench.offers.is_empty(), "both rest");
    bench.after(50);
    let third = bench.offer();
    assert_eq!(third.0, a);
    bench.refuse(third);
    assert_eq!(
        bench.actions,
        [Action::Answer(payload, Unserved::Redeliveries)]
    );
    assert_eq!(bench.machine.worker(a).unwrap().refused, 2);
}

#[test]
fn a_worker_that_is_alone_is_asked_again() {
    let mut bench = Bench::new(rules());
    let a = bench.join("a", 1, 9, 9);
    let payload = bench.arrive();
    let offer = bench.offer();
    bench.refuse(offer);
    bench.after(49);
    assert!(bench.offers.is_empty());
    bench.after(1);
    let again = bench.offer();
    assert_eq!((again.0, again.2), (a, payload));
    assert_ne!(bench.machine.taken(a, offer.1), Err(Unknown(0)));
}

#[test]
fn what_a_dead_worker_had_not_touched_goes_first_to_another() {
    let mut bench = Bench::new(rules());
    let dead = bench.join("a", 1, 3, 3);
    let offered: Vec<u32> = (0..3).map(|_| bench.arrive()).collect();
    let waiting = bench.arrive();
    let (_, taken, _) = bench.offer();
    bench.machine.taken(dead, taken).unwrap();
    bench.leave(dead, Trace::Untouched);
    assert_eq!(bench.actions, [Action::Released(offered[0])]);
    bench.join("b", 1, 9, 9);
    let order: Vec<u32> = bench.offers.iter().map(|offer| offer.2).collect();
    assert_eq!(order, [offered[1], offered[2], waiting]);
}

#[test]
fn what_a_dead_worker_may_have_touched_is_lost() {
    let mut bench = Bench::new(rules());
    let dead = bench.join("a", 1, 9, 9);
    let payload = bench.arrive();
    bench.leave(dead, Trace::Touched);
    assert_eq!(bench.actions, [Action::Lost(payload)]);
    assert_eq!((bench.machine.len(), bench.machine.offered()), (0, 0));
}

#[test]
fn the_queue_has_a_length_and_a_deadline() {
    let mut bench = Bench::new(rules());
    let payloads: Vec<u32> = (0..5).map(|_| bench.arrive()).collect();
    assert_eq!(bench.actions, [Action::Answer(payloads[4], Unserved::Full)]);
    assert!(bench.machine.is_full());
    bench.after(9_999);
    assert_eq!(bench.actions.len(), 1);
    bench.after(1);
    let timed_out = payloads[..4]
        .iter()
        .map(|payload| Action::Answer(*payload, Unserved::Timeout));
    assert!(bench.actions.drain(1..).eq(timed_out));
    assert!(bench.machine.is_idle());
}

#[test]
fn without_a_queue_nobody_waits() {
    let mut bench = Bench::new(Rules {
        queue: 0,
        ..rules()
    });
    let payload = bench.arrive();
    assert_eq!(bench.actions, [Action::Answer(payload, Unserved::Full)]);
    bench.join("a", 1, 1, 1);
    bench.arrive();
    assert_eq!(bench.offers.len(), 1);
}

#[test]
fn a_silent_worker_is_cut_once_its_time_is_over() {
    let mut bench = Bench::new(rules());
    let silent = bench.join("a", 1, 9, 9);
    let first = bench.arrive();
    bench.after(4_999);
    bench.arrive();
    assert!(bench.actions.is_empty());
    bench.after(1);
    assert_eq!(bench.actions, [Action::Cut(silent)]);
    let other = bench.join("b", 1, 9, 9);
    bench.leave(silent, Trace::Untouched);
    assert_eq!((bench.offer().0, bench.offers.len()), (other, 1));
    let _ = first;
}

#[test]
fn a_draining_worker_gets_nothing_and_keeps_what_it_has() {
    let mut bench = Bench::new(rules());
    let a = bench.join("a", 1, 9, 9);
    bench.arrive();
    bench.take_all();
    bench
        .machine
        .set_draining(a, true, bench.now, &mut bench.actions);
    bench.arrive();
    assert!(bench.offers.is_empty());
    assert_eq!(bench.machine.worker(a).unwrap().present, 1);
    bench
        .machine
        .set_draining(a, false, bench.now, &mut bench.actions);
    bench.collect();
    assert_eq!(bench.offers.len(), 1);
}

#[test]
fn descriptors_in_flight_have_a_bound_of_their_own() {
    let mut bench = Bench::new(Rules {
        offers: 2,
        ..rules()
    });
    bench.join("a", 1, 99, 99);
    for _ in 0..3 {
        bench.arrive();
    }
    assert_eq!(bench.offers.len(), 2);
    bench.take_all();
    bench.after(0);
    assert_eq!(bench.offers.len(), 1);
}

#[test]
fn an_offer_that_could_not_be_sent_costs_nothing() {
    let mut bench = Bench::new(Rules {
        redeliveries: 0,
        ..rules()
    });
    let a = bench.join("a", 1, 9, 9);
    let payload = bench.arrive();
    for _ in 0..5 {
        let offer = bench.offer();
        assert_eq!((offer.0, offer.2), (a, payload));
        bench.machine.unsent(a, offer.1, bench.now);
        bench.after(50);
    }
    assert!(bench.actions.is_empty());
}

#[test]
fn numbers_do_not_come_again() {
    let mut bench = Bench::new(rules());
    let a = bench.join("a", 1, 9, 9);
    bench.arrive();
    let first = bench.offer();
    bench.done(Some(a), first.1);
    bench.arrive();
    let second = bench.offer();
    assert_ne!(first.1, second.1);
    assert_eq!(bench.machine.taken(a, first.1), Err(Unknown(first.1.0)));
    let b = bench.join("b", 1, 9, 9);
    assert_eq!(
        bench.machine.taken(b, second.1),
        Err(Unknown(second.1.0)),
        "another's"
    );
}

#[test]
fn least_goes_by_load_and_weight_and_takes_turns_among_equals() {
    let mut bench = Bench::new(rules());
    let (a, b) = (bench.join("a", 1, 99, 99), bench.join("b", 3, 99, 99));
    for _ in 0..8 {
        bench.arrive();
    }
    let takers = bench.take_all();
    assert_eq!(takers.iter().filter(|taker| **taker == b).count(), 6);
    assert_eq!(takers.iter().filter(|taker| **taker == a).count(), 2);
}

#[test]
fn weighted_turns_are_evenly_spread() {
    let mut bench = Bench::new(Rules {
        balance: Balance::Weighted,
        ..rules()
    });
    let (a, b) = (bench.join("a", 3, 99, 99), bench.join("b", 1, 99, 99));
    for _ in 0..8 {
        bench.arrive();
    }
    assert_eq!(bench.take_all(), [a, a, b, a, a, a, b, a]);
}

#[test]
fn round_robin_does_not_look_at_the_load() {
    let mut bench = Bench::new(Rules {
        balance: Balance::RoundRobin,
        ..rules()
    });
    let (a, b) = (bench.join("a", 9, 99, 99), bench.join("b", 1, 99, 99));
    for _ in 0..4 {
        bench.arrive();
    }
    assert_eq!(bench.take_all(), [a, b, a, b]);
}

#[test]
fn a_source_stays_with_its_worker_while_others_come_and_go() {
    let mut bench = Bench::new(Rules {
        balance: Balance::SourceHash,
        ..rules()
    });
    let workers = [bench.join("a", 1, 9999, 999), bench.join("b", 1, 9999, 999)];
    let owners = |bench: &mut Bench| -> Vec<WorkerId> {
        (0..400)
            .map(|source| {
                bench.arrive_from(mix(source));
                bench.take_all()[0]
            })
            .collect()
    };
    let before = owners(&mut bench);
    let share = before.iter().filter(|owner| **owner == workers[0]).count();
    assert!((120..280).contains(&share), "{share}");
    let c = bench.join("c", 2, 9999, 999);
    let after = owners(&mut bench);
    let moved: Vec<_> = (0..400).filter(|&n| before[n] != after[n]).collect();
    assert!(moved.iter().all(|&n| after[n] == c));
    assert!((130..270).contains(&moved.len()), "{}", moved.len());
    // The same name has the same sources after a restart.
    bench.leave(c, Trace::Untouched);
    let again = bench.join("c", 2, 9999, 999);
    let restarted = owners(&mut bench);
    assert!((0..400).all(|n| (restarted[n] == again) == (after[n] == c)));
}

#[derive(Debug, Clone)]
enum Step {
    Join(u32, u32, u32),
    Arrive(u64),
    Take(usize),
    Refuse(usize),
    Unsent(usize),
    Done(usize, bool),
    Leave(usize, bool),
    Drain(usize, bool),
    Capacity(usize, u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1u32..4, 1u32..5, 1u32..5).prop_map(|(w, c, n)| Step::Join(w, c, n)),
        8 => any::<u64>().prop_map(Step::Arrive),
        6 => any::<usize>().prop_map(Step::Take),
        2 => any::<usize>().prop_map(Step::Refuse),
        1 => any::<usize>().prop_map(Step::Unsent),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(n, k)| Step::Done(n, k)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(n, t)| Step::Leave(n, t)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(n, d)| Step::Drain(n, d)),
        1 => (any::<usize>(), 0u32..6).prop_map(|(n, c)| Step::Capacity(n, c)),
        2 => (0u64..3000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens in which order: each connection that came is in one place, or left once; no
    /// worker has more than it wants; and nobody waits while somebody has room.
    #[test]
    fn no_connection_is_lost_or_had_twice(
        steps in prop::collection::vec(step(), 1..200),
        balance in prop_oneof![
            Just(Balance::Least),
            Just(Balance::RoundRobin),
            Just(Balance::Weighted),
            Just(Balance::SourceHash),
        ],
    ) {
        let mut bench = Bench::new(Rules { balance, offers: 6, ..rules() });
        let mut workers: Vec<WorkerId> = Vec::new();
        let mut served: Vec<(WorkerId, ConnectionId, u32)> = Vec::new();
        let mut left: HashMap<u32, u32> = HashMap::new();
        for step in steps {
            match step {
                Step::Join(weight, capacity, window) => {
                    let id = bench.join(&format!("w{}", workers.len()), weight, capacity, window);
                    workers.push(id);
                }
                Step::Arrive(source) => { bench.arrive_from(source); }
                Step::Take(n) if !bench.offers.is_empty() => {
                    let at = n % bench.offers.len();
                    let offer = bench.offers.remove(at);
                    prop_assert_eq!(bench.machine.taken(offer.0, offer.1), Ok(&mut { offer.2 }));
                    served.push(offer);
                }
                Step::Refuse(n) if !bench.offers.is_empty() => {
                    let at = n % bench.offers.len();
                    let offer = bench.offers.remove(at);
                    bench.refuse(offer);
                }
                Step::Unsent(n) if !bench.offers.is_empty() => {
                    let at = n % bench.offers.len();
                    let offer = bench.offers.remove(at);
                    bench.machine.unsent(offer.0, offer.1, bench.now);
                }
                Step::Done(n, by_kernel) if !served.is_empty() => {
                    let at = n % served.len();
                    let (worker, id, payload) = served.remove(at);
                    let by = (!by_kernel).then_some(worker);
                    prop_assert_eq!(bench.done(by, id), Some(payload));
                    *left.entry(payload).or_default() += 1;
                }
                Step::Leave(n, touched) if !workers.is_empty() => {
                    let at = n % workers.len();
                    let worker = workers.remove(at);
                    served.retain(|one| one.0 != worker);
                    bench.leave(worker, if touched { Trace::Touched } else { Trace::Untouched });
                }
                Step::Drain(n, draining) if !workers.is_empty() => {
                    let worker = workers[n % workers.len()];
                    bench.machine.set_draining(worker, draining, bench.now, &mut bench.actions);
                    bench.collect();
                }
                Step::Capacity(n, capacity) if !workers.is_empty() => {
                    let worker = workers[n % workers.len()];
                    bench.machine.set_capacity(worker, capacity, bench.now, &mut bench.actions);
                    bench.collect();
                }
                Step::Pass(milliseconds) => bench.after(milliseconds),
                _ => {}
            }
            for action in bench.actions.drain(..) {
                match action {
                    Action::Answer(payload, _) | Action::Lost(payload)
                    | Action::Released(payload) => *left.entry(payload).or_default() += 1,
                    Action::Cut(worker) => prop_assert!(workers.contains(&worker)),
                    Action::Offer(..) => unreachable!("collected"),
                }
            }
            prop_assert!(left.values().all(|times| *times == 1), "{:?}", left);
            let waiting: Vec<u32> = bench.machine.queue().map(|(payload, _)| *payload).collect();
            let mut places: Vec<u32> = waiting.clone();
            places.extend(bench.offers.iter().chain(&served).map(|one| one.2));
            places.extend(left.keys());
            places.sort_unstable();
            prop_assert_eq!(places, (1..=bench.next).collect::<Vec<_>>());
            prop_assert_eq!(bench.machine.offered(), bench.offers.len());
            prop_assert!(bench.machine.offered() <= 6);
            let mut counts: BTreeMap<WorkerId, (u32, u32)> = BTreeMap::new();
            for offer in &bench.offers { counts.entry(offer.0).or_default().0 += 1; }
            for one in &served { counts.entry(one.0).or_default().1 += 1; }
            for (id, worker) in bench.machine.workers() {
                let counted = counts.get(&id).copied().unwrap_or_default();
                prop_assert_eq!((worker.offered, worker.present), counted);
                prop_assert!(worker.offered <= worker.joining.window);
            }
        }
        // Once all workers are willing, whoever waits is placed.
        bench.now += Duration::from_millis(60);
        bench.join("last", 1, 1000, 1000);
        if bench.machine.offered() < 6 {
            prop_assert_eq!(bench.machine.queue().len(), 0);
        }
    }
}
