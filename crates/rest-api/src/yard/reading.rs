//! From a daemon's `/status` to what is told of it. Pure: a daemon of another version, or another
//! program, may say less, more or something else; what is not understood counts as nothing.

use serde_json::{Map, Value};

use super::view::{
    Certificate, Connections, Daemon, Limit, Listener, Pool, Rates, State, Totals, Worker,
};

/// What is known of the answer before.
#[derive(Debug, Clone, Default)]
pub struct Before {
    totals: Totals,
    limits: Vec<(String, String, u64)>,
    pid: u64,
}

/// Reads a status into `daemon`, whose name and the like stay. `seconds` have passed since `before`.
pub fn read(daemon: &mut Daemon, status: Value, healthy: bool, before: &mut Before, seconds: f64) {
    let Value::Object(mut status) = status else {
        return;
    };
    let mut take = |name: &str| status.remove(name).unwrap_or(Value::Null);
    daemon.program = text(&take("daemon"), WORD);
    daemon.version = text(&take("version"), WORD);
    let pid = take("pid").as_u64().unwrap_or(0);
    daemon.pid = u32::try_from(pid).ok().filter(|pid| *pid > 0);
    daemon.state = match take("state").as_str() {
        Some("draining") => State::Draining,
        Some("starting") => State::Starting,
        _ if healthy => State::Ready,
        _ => State::Unhealthy,
    };
    daemon.uptime_seconds = number(&take("uptime_seconds"));
    daemon.loops = u32::try_from(number(&take("loops"))).unwrap_or(u32::MAX);
    daemon.connections = connections(&take("connections"));
    daemon.offload_waiting = number(&take("offload_waiting"));
    let actions = take("actions");
    daemon.actions = items(&actions)
        .map(|action| text(action, WORD))
        .filter(|action| ACTIONS.contains(&action.as_str()))
        .collect();
    let listeners = take("listeners");
    daemon.pools = items(status.get("pools").unwrap_or(&Value::Null))
        .take(POOLS)
        .map(pool)
        .collect();
    daemon.details = details(status);

    (daemon.listeners, daemon.limits) = (Vec::new(), Vec::new());
    daemon.certificates = Vec::new();
    let mut totals = Totals::default();
    let mut limits = Vec::new();
    if is_full(daemon.connections) {
        daemon.limits.push(Limit {
            listener: String::new(),
            reason: "connections".into(),
            count: daemon.connections.present,
            now: true,
        });
    }
    for value in items(&listeners).take(LISTENERS) {
        let listener = listener(value);
        add(&mut totals, &listener.totals);
        if listener.connections.is_some_and(is_full) {
            daemon.limits.push(Limit {
                listener: listener.name.clone(),
                reason: "connections".into(),
                count: listener.connections.map_or(0, |all| all.present),
                now: true,
            });
        }
        for (reason, count) in met(value) {
            let earlier = before
                .limits
                .iter()
                .find(|(name, other, _)| *name == listener.name && *other == reason);
            let now = pid == before.pid && count > earlier.map_or(0, |(_, _, count)| *count);
            limits.push((listener.name.clone(), reason.clone(), count));
            daemon.limits.push(Limit {
                listener: listener.name.clone(),
                reason,
                count,
                now,
            });
        }
        daemon
            .certificates
            .extend(certificates(&listener.name, value));
        daemon.listeners.push(listener);
    }
    daemon.limits.truncate(LIMITS);
    daemon.certificates.sort_by_key(|one| one.not_after);
    // A new process begins to count anew.
    daemon.rates = if pid == before.pid && seconds > 0.0 {
        rates(&before.totals, &totals, seconds)
    } else {
        Rates::default()
    };
    daemon.totals = totals;
    *before = Before {
        totals,
        limits,
        pid,
    };
}

fn listener(value: &Value) -> Listener {
    let counts = &value["connections"];
    let datagrams = &value["datagrams"];
    Listener {
        name: text(&value["name"], WORD),
        service: text(&value["service"], WORD),
        endpoint: text(&value["endpoint"], SENTENCE),
        connections: counts.is_object().then(|| connections(counts)),
        totals: Totals {
            accepted: number(&counts["accepted"]),
            refused: sum(&counts["refused"]),
            datagrams: number(&datagrams["received"]),
            answered: number(&datagrams["answered"]),
            dropped: sum(&datagrams["dropped"]),
            bad_input: number(&value["bad_input"]),
            received_bytes: number(&value["received_bytes"]),
            sent_bytes: number(&value["sent_bytes"]),
        },
    }
}

fn pool(value: &Value) -> Pool {
    let worker = |value: &Value| Worker {
        name: text(&value["name"], NAME),
        protocol: text(&value["protocol"], WORD),
        pid: number(&value["pid"]),
        state: text(&value["state"], WORD),
        connections: number(&value["connections"]),
        capacity: number(&value["capacity"]),
        taken: number(&value["taken"]),
        refused: number(&value["refused"]),
    };
    Pool {
        name: text(&value["name"], NAME),
        waiting: number(&value["waiting"]),
        waiting_limit: number(&value["waiting_limit"]),
        connections: number(&value["connections"]),
        workers: items(&value["workers"]).take(WORKERS).map(worker).collect(),
    }
}

/// The reasons that are limits, with their counts.
fn met(listener: &Value) -> Vec<(String, u64)> {
    let connections = &listener["connections"];
    let groups = [
        &connections["refused"],
        &connections["ended"],
        &listener["datagrams"]["dropped"],
    ];
    let all = groups.into_iter().filter_map(Value::as_object).flatten();
    all.filter(|(reason, _)| LIMITING.contains(&reason.as_str()))
        .map(|(reason, count)| (reason.clone(), number(count)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn certificates(listener: &str, value: &Value) -> Vec<Certificate> {
    let expiries = items(&value["trust"]["expiries"]).take(CERTIFICATES);
    let read = |one: &Value| Certificate {
        listener: listener.into(),
        kind: text(&one["kind"], WORD),
        name: text(&one["name"], SENTENCE),
        file: text(&one["file"], SENTENCE),
        not_after: number(&one["not_after"]),
        days_left: one["days_left"].as_i64().unwrap_or(0),
    };
    expiries.map(read).collect()
}

fn connections(value: &Value) -> Connections {
    Connections {
        present: number(&value["present"]),
        limit: value["limit"].as_u64(),
    }
}

fn is_full(connections: Connections) -> bool {
    connections
        .limit
        .is_some_and(|limit| limit > 0 && connections.present >= limit)
}

/// What is left, as long as it is no more than a page can show.
fn details(rest: Map<String, Value>) -> Map<String, Value> {
    let fits = |value: &Value| value.to_string().len() <= DETAILS;
    rest.into_iter()
        .filter(|(_, value)| fits(value))
        .take(MORE)
        .collect()
}

fn add(sum: &mut Totals, more: &Totals) {
    let pairs = [
        (&mut sum.accepted, more.accepted),
        (&mut sum.refused, more.refused),
        (&mut sum.datagrams, more.datagrams),
        (&mut sum.answered, more.answered),
        (&mut sum.dropped, more.dropped),
        (&mut sum.bad_input, more.bad_input),
        (&mut sum.received_bytes, more.received_bytes),
        (&mut sum.sent_bytes, more.sent_bytes),
    ];
    for (sum, more) in pairs {
        *sum = sum.saturating_add(more);
    }
}

fn rates(old: &Totals, new: &Totals, seconds: f64) -> Rates {
    // A listener that a reload has closed takes its counts along.
    let each = |old: u64, new: u64| {
        let rate = new.saturating_sub(old) as f64 / seconds;
        (rate * 100.0).round() / 100.0
    };
    Rates {
        accepted: each(old.accepted, new.accepted),
        refused: each(old.refused, new.refused),
        datagrams: each(old.datagrams, new.datagrams),
        answered: each(old.answered, new.answered),
        dropped: each(old.dropped, new.dropped),
        bad_input: each(old.bad_input, new.bad_input),
        received_bytes: each(old.received_bytes, new.received_bytes),
        sent_bytes: each(old.sent_bytes, new.sent_bytes),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn sum(value: &Value) -> u64 {
    let counts = value.as_object().into_iter().flat_map(Map::values);
    counts.map(number).fold(0, u64::saturating_add)
}

fn text(value: &Value, max: usize) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(max)
        .collect()
}

/// Reasons for which a limit is to blame, not a peer's protocol.
const LIMITING: &[&str] = &[
    "connections",
    "per_source",
    "rate",
    "descriptors",
    "handshakes",
    "penalty",
    "idle",
    "write_stall",
    "total",
    "handshake",
    "amplification",
    "busy",
];
/// What can be asked for here; a daemon may take more.
const ACTIONS: &[&str] = &["reload", "drain", "workers/drain", "workers/resume"];
const WORD: usize = 64;
/// Of a worker or a pool: as long as one can be.
const NAME: usize = 255;
const POOLS: usize = 64;
const WORKERS: usize = 256;
const SENTENCE: usize = 512;
const LISTENERS: usize = 256;
const LIMITS: usize = 256;
const CERTIFICATES: usize = 64;
const MORE: usize = 16;
const DETAILS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(pid: u64, accepted: u64, rate: u64) -> Value {
        json!({
            "daemon": "echo-tcp", "version": "1.2.3", "pid": pid, "state": "ready",
            "uptime_seconds": 5, "loops": 2, "connections": {"present": 3, "limit": 3},
            "actions": ["reload", "drain", "format the disk"],
            "listeners": [{
                "name": "echo", "service": "echo", "endpoint": "tcp://127.0.0.1:7",
                "received_bytes": accepted * 10, "sent_bytes": 7, "bad_input": 1,
                "connections": {
                    "present": 3, "limit": null, "accepted": accepted,
                    "refused": {"rate": rate, "access": 9}, "ended": {"done": 5, "idle": 1},
                },
                "trust": {"expiries": [
                    {"kind": "authority", "name": "ca", "file": "ca.pem", "not_after": 200, "days_left": 9},
                    {"kind": "certificate", "name": "a", "file": "a.pem", "not_after": 100, "days_left": -1},
                ]},
            }],
            "store": {"keys": 12},
            "pools": [{"name": "web", "waiting": 2, "waiting_limit": 9, "connections": 3, "workers": [
                {"name": "w1", "protocol": "native", "pid": 7, "state": "draining", "connections": 3,
                 "capacity": 8, "taken": 11, "refused": 1, "age_seconds": 1.5},
                "odd",
            ]}],
        })
    }

    #[test]
    fn a_status_becomes_sums_rates_limits_and_what_runs_out() {
        let (mut daemon, mut before) = (Daemon::default(), Before::default());
        read(&mut daemon, status(7, 100, 4), true, &mut before, 0.0);
        assert_eq!(daemon.state, State::Ready);
        assert_eq!((daemon.totals.accepted, daemon.totals.refused), (100, 13));
        assert!(daemon.rates.accepted.abs() < f64::EPSILON);
        assert_eq!(daemon.actions, ["reload", "drain"]);
        assert_eq!(daemon.certificates[0].days_left, -1);
        assert_eq!(daemon.details["store"]["keys"], 12);
        let worker = &daemon.pools[0].workers[0];
        assert_eq!((daemon.pools[0].waiting, worker.taken), (2, 11));
        assert_eq!((&*worker.name, &*worker.state), ("w1", "draining"));
        let limits: Vec<_> = daemon
            .limits
            .iter()
            .map(|limit| (&*limit.reason, limit.now))
            .collect();
        assert_eq!(
            limits,
            [("connections", true), ("rate", false), ("idle", false)]
        );

        read(&mut daemon, status(7, 150, 5), false, &mut before, 2.0);
        assert_eq!(daemon.state, State::Unhealthy);
        assert!((daemon.rates.accepted - 25.0).abs() < f64::EPSILON);
        assert!((daemon.rates.received_bytes - 250.0).abs() < f64::EPSILON);
        assert!(
            daemon
                .limits
                .iter()
                .any(|limit| limit.reason == "rate" && limit.now)
        );
    }

    #[test]
    fn a_new_process_counts_anew() {
        let (mut daemon, mut before) = (Daemon::default(), Before::default());
        read(&mut daemon, status(7, 100, 4), true, &mut before, 0.0);
        read(&mut daemon, status(8, 400, 9), true, &mut before, 2.0);
        assert!(daemon.rates.accepted.abs() < f64::EPSILON);
        assert!(
            !daemon
                .limits
                .iter()
                .any(|limit| limit.reason == "rate" && limit.now)
        );
    }

    #[test]
    fn whatever_else_it_says_does_no_harm() {
        let (mut daemon, mut before) = (Daemon::default(), Before::default());
        for odd in [
            json!(null),
            json!([]),
            json!({"listeners": 5, "connections": "many", "pid": -1, "state": 7}),
            json!({"listeners": [{"connections": [], "datagrams": 7, "trust": "no"}, 5, null]}),
            json!({"pid": u64::MAX, "uptime_seconds": 1.5, "daemon": {}, "loops": u64::MAX}),
        ] {
            read(&mut daemon, odd, true, &mut before, 1.0);
        }
        assert_eq!(daemon.loops, u32::MAX);
        let long = json!({"version": "x".repeat(10_000), "big": "y".repeat(100_000)});
        read(&mut daemon, long, true, &mut before, 1.0);
        assert_eq!(daemon.version.len(), WORD);
        assert!(daemon.details.is_empty());
    }
}
