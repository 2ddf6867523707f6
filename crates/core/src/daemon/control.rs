//! The control thread: opens, serves, reloads and drains; the loops do the work.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{Instant as Deadline, sleep, sleep_until, timeout};

use super::plan::{Plan, Planned};
use super::report::{Phase, State};
use super::{ConfigOf, Daemon};
use crate::cli::Arguments;
use crate::clock::Zone;
use crate::config::SocketOptions;
use crate::datagram::Own;
use crate::endpoint::Endpoint;
use crate::event_loop::{Loops, Order, Parts, Threads};
use crate::exit::{Exit, Fatal};
use crate::life::{Notifier, Signal, Signals, connection_limit};
use crate::limits::Gate;
use crate::listen::{Bound, Inherited, Shape, open, ucspi_peer};
use crate::listener::{Flavour, Listener};
use crate::observe::admin::Admin;
use crate::observe::log::LogControl;
use crate::observe::metrics::Metrics;
use crate::offload::Offload;
use crate::serve::Peer;

/// Serves by `plan` until a signal, the inetd idle time or a fault ends it.
pub fn run<D: Daemon>(
    arguments: &Arguments,
    plan: Plan<D>,
    inherited: Inherited,
    notifier: Notifier,
    log: &LogControl,
) -> Result<(), Fatal> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| os_error("the control loop cannot start", &error))?;
    runtime.block_on(async {
        let mut signals =
            Signals::new().map_err(|error| os_error("signals cannot be watched", &error))?;
        let mut control = Control::start(arguments, plan, inherited, notifier)?;
        let result = control.serve(&mut signals, log).await;
        control.stop();
        result
    })
}

struct Control<'a, D: Daemon> {
    arguments: &'a Arguments,
    config: ConfigOf<D>,
    inherited: Inherited,
    notifier: Notifier,
    admin: Option<Admin>,
    zone: Zone,
    own: Arc<Own>,
    faults: mpsc::UnboundedReceiver<Fatal>,
    state: Rc<State<D>>,
    threads: Threads,
    active: Vec<Active<D>>,
}

/// A listener and the sockets behind it. The loops work on duplicates, so that a listener can be
/// replaced without closing a socket.
struct Active<D: Daemon> {
    /// What it was opened by; a reload that says the same keeps the sockets.
    endpoint: Endpoint,
    options: SocketOptions,
    listener: Arc<Listener<D::Flavour>>,
    bound: Vec<Bound>,
}

impl<'a, D: Daemon> Control<'a, D> {
    /// Opens everything, starts the loops and hands them their sockets.
    fn start(
        arguments: &'a Arguments,
        plan: Plan<D>,
        mut inherited: Inherited,
        notifier: Notifier,
    ) -> Result<Self, Fatal> {
        let count = loop_count(&plan);
        let mut opened = Vec::new();
        for planned in &plan.listeners {
            opened.push(open_planned(planned, &mut inherited, count)?);
        }
        let admin = match &plan.config.admin.listen {
            Some(endpoint) => Some(Admin::open(endpoint, &mut inherited)?),
            None => None,
        };
        for name in inherited.names() {
            tracing::warn!(name, "a socket was passed that no listener uses");
        }
        let offload = Offload::new(plan.config.offload.threads, plan.config.offload.queue)
            .map_err(|error| os_error("the offload pool cannot start", &error))?;
        let (report_fault, faults) = mpsc::unbounded_channel();
        let (zone, own) = (Zone::system(), Arc::new(Own::default()));
        let parts = Parts {
            zone: zone.clone(),
            offload: offload.clone(),
            own: own.clone(),
            faults: report_fault,
        };
        let (loops, threads) = Loops::start(count, &parts)
            .map_err(|error| os_error("the event loops cannot start", &error))?;
        let total = Arc::new(Gate::new(max_connections::<D>(&plan.config)));
        let metrics = Arc::new(Metrics::new(D::NAME, D::VERSION));
        let state = Rc::new(State {
            loops,
            metrics,
            total,
            offload,
            started: Instant::now(),
            phase: Phase::Starting.into(),
            listeners: Vec::new().into(),
        });
        let mut control = Self {
            arguments,
            config: plan.config,
            inherited,
            notifier,
            admin,
            zone,
            own,
            faults,
            state,
            threads,
            active: Vec::new(),
        };
        for (planned, bound) in plan.listeners.iter().zip(opened) {
            control.activate(planned, bound)?;
        }
        control.publish();
        Ok(control)
    }

    /// Serves until the end, whatever it is.
    async fn serve(&mut self, signals: &mut Signals, log: &LogControl) -> Result<(), Fatal> {
        // READY means that the loops have taken their sockets.
        if !self.state.loops.probe().await {
            return Err(self.fault());
        }
        self.announce();
        let admin = self.admin.take();
        let report = self.state.clone();
        let admin = async move {
            match &admin {
                Some(admin) => admin.serve(report).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(admin);
        let one_connection = self.serves_connections_only();
        let loops = self.state.loops.clone();
        let finished = async move {
            if one_connection {
                loops.empty().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(finished);
        let mut watchdog = Heartbeat::new(self.notifier.watchdog_interval());
        let mut idle = IdleWatch::new(&self.active, self.config.inetd_idle.0, one_connection);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return self.drain(signals).await,
                    Signal::Reload => self.reload(log),
                },
                fatal = self.faults.recv() => {
                    return Err(fatal.unwrap_or_else(|| self.fault()));
                }
                result = &mut admin => {
                    return Err(match result {
                        Ok(()) => self.fault(),
                        Err(error) => os_error("the admin endpoint cannot be served", &error),
                    });
                }
                () = &mut finished => return Ok(()),
                () = watchdog.beat() => self.feed_watchdog(watchdog.interval).await,
                () = idle.look() => {
                    if idle.is_over(&self.active) {
                        tracing::info!("nothing has come for inetd_idle, leaving");
                        return self.drain(signals).await;
                    }
                }
            }
        }
    }

    /// Makes a listener of each group of sockets and hands them to the loops.
    fn activate(&mut self, planned: &Planned<D>, bound: Vec<Bound>) -> Result<(), Fatal> {
        for group in group_by_endpoint(bound) {
            let active = self.new_active(planned, group);
            self.hand_to_loops(&active)?;
            self.active.push(active);
        }
        Ok(())
    }

    fn new_active(&self, planned: &Planned<D>, bound: Vec<Bound>) -> Active<D> {
        let (endpoint, inherited) = match bound.first() {
            Some(first) => (first.endpoint.clone(), first.inherited),
            None => (planned.endpoint.clone(), false),
        };
        let listener = Arc::new(Listener::new(
            (&planned.label, planned.service_name),
            endpoint,
            inherited,
            self.state
                .metrics
                .listener(&planned.label, planned.service_name),
            self.state.total.clone(),
            planned.settings(),
        ));
        Active {
            endpoint: planned.endpoint.clone(),
            options: planned.socket.clone(),
            listener,
            bound,
        }
    }

    fn hand_to_loops(&self, active: &Active<D>) -> Result<(), Fatal> {
        let loops = &self.state.loops;
        let share = |bound: &Bound| {
            bound
                .share()
                .map_err(|error| os_error("a socket cannot be shared", &error))
        };
        let listener = &active.listener;
        match active.bound.as_slice() {
            [bound] if bound.shape == Shape::Connected => {
                let peer = ucspi_peer().map(|peer| Peer::Internet(peer.address));
                let peer = peer.filter(|_| bound.address().is_none());
                loops.send(0, Order::Connected(listener.clone(), share(bound)?, peer));
            }
            // One socket for all: loops wake together, and none of its backlog is ever lost.
            [bound] => {
                for number in 0..loops.count() {
                    loops.send(number, Order::Serve(listener.clone(), share(bound)?));
                }
            }
            several => {
                for (number, bound) in several.iter().enumerate() {
                    loops.send(number, Order::Serve(listener.clone(), share(bound)?));
                }
            }
        }
        Ok(())
    }

    /// Lets the rest of the process know which listeners there are.
    fn publish(&self) {
        let listeners: Vec<_> = self
            .active
            .iter()
            .map(|active| active.listener.clone())
            .collect();
        let addresses: Vec<_> = self
            .active
            .iter()
            .flat_map(|active| &active.bound)
            .filter_map(Bound::address)
            .collect();
        self.own.refresh(&addresses);
        *self.state.listeners.borrow_mut() = listeners;
    }

    fn announce(&self) {
        self.state.phase.set(Phase::Ready);
        let mut listeners = Vec::new();
        for active in &self.active {
            let listener = &active.listener;
            tracing::info!(
                listener = %listener.name, service = %listener.service,
                endpoint = %listener.endpoint, "listening"
            );
            listeners.push((listener.name.clone(), listener.endpoint.to_string()));
        }
        for endpoint in self.admin.iter().flat_map(Admin::endpoints) {
            tracing::info!(%endpoint, "admin endpoint");
            listeners.push(("admin".into(), endpoint.to_string()));
        }
        self.notifier.ready(&self.status_line(), &listeners);
    }

    fn status_line(&self) -> String {
        format!(
            "{} listeners on {} loops",
            self.active.len(),
            self.state.loops.count()
        )
    }

    /// Reads the configuration again. A bad one changes nothing.
    fn reload(&mut self, log: &LogControl) {
        self.notifier.reloading();
        let result = self.try_reload(log);
        self.state.metrics.reloaded(result.is_ok());
        let status = match &result {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                self.status_line()
            }
            Err(fatal) => {
                tracing::error!(error = %fatal, "reload refused, the old configuration stays");
                format!("Reload refused: {fatal}")
            }
        };
        self.notifier.ready(&status, &[]);
    }

    fn try_reload(&mut self, log: &LogControl) -> Result<(), Fatal> {
        let plan = Plan::<D>::load(self.arguments, &self.passed_names())?;
        // Whatever can fail comes first.
        let mut changes = Vec::new();
        for planned in &plan.listeners {
            let kept = |active: &Active<D>| {
                active.endpoint == planned.endpoint && active.options == planned.socket
            };
            if self.active.iter().any(kept) {
                changes.push(None);
            } else {
                let count = self.state.loops.count();
                changes.push(Some(open_planned(planned, &mut self.inherited, count)?));
            }
        }
        let mut old = std::mem::take(&mut self.active);
        for (planned, opened) in plan.listeners.iter().zip(changes) {
            if let Some(bound) = opened {
                self.activate(planned, bound)?;
                continue;
            }
            let (kept, rest): (Vec<_>, Vec<_>) = old.into_iter().partition(|active| {
                active.endpoint == planned.endpoint && active.options == planned.socket
            });
            old = rest;
            for active in kept {
                let active = self.take_over(planned, active)?;
                self.active.push(active);
            }
        }
        for gone in old {
            tracing::info!(listener = %gone.listener.name, endpoint = %gone.listener.endpoint, "closed");
            gone.listener.close();
        }
        if plan.config.loops != self.config.loops
            || plan.config.admin != self.config.admin
            || plan.config.offload != self.config.offload
        {
            tracing::warn!("changes of loops, [admin] and [offload] take effect at the next start");
        }
        self.state
            .total
            .set_ceiling(max_connections::<D>(&plan.config));
        log.set_level(plan.log_config(self.arguments).level);
        self.zone.reload();
        self.config = plan.config;
        self.publish();
        Ok(())
    }

    /// Gives a running listener new settings; one that changes its name or service becomes a new
    /// listener on the same sockets.
    fn take_over(&self, planned: &Planned<D>, active: Active<D>) -> Result<Active<D>, Fatal> {
        let listener = &active.listener;
        if listener.name == planned.label && listener.service == planned.service_name {
            listener.reload(planned.settings());
            return Ok(active);
        }
        let old = listener.clone();
        let new = self.new_active(planned, active.bound);
        self.hand_to_loops(&new)?;
        old.hand_over();
        Ok(new)
    }

    /// The names of the sockets that came with the process, used or not.
    fn passed_names(&self) -> Vec<String> {
        let used = self
            .active
            .iter()
            .filter_map(|active| match &active.endpoint {
                Endpoint::Systemd(Some(name)) => Some(name.clone()),
                _ => None,
            });
        used.chain(self.inherited.names()).collect()
    }

    /// Takes nothing new, lets what runs finish within the grace period, cuts the rest.
    async fn drain(&mut self, signals: &mut Signals) -> Result<(), Fatal> {
        let grace = self.config.grace.0;
        self.state.phase.set(Phase::Draining);
        self.notifier.stopping(grace);
        tracing::info!(connections = self.state.total.present(), ?grace, "draining");
        for active in &self.active {
            active.listener.close();
        }
        let loops = &self.state.loops;
        loops.send_all(|| Order::Drain);
        let over = tokio::select! {
            () = loops.empty() => return Ok(()),
            () = sleep(grace) => "the grace period is over",
            () = stop_signal(signals) => "a second signal came",
        };
        tracing::warn!(
            connections = self.state.total.present(),
            "{over}, cutting the rest"
        );
        loops.send_all(|| Order::Cut);
        // Cutting is immediate; this only lets the resets go out.
        let _ = timeout(CUT_WAIT, loops.empty()).await;
        Ok(())
    }

    async fn feed_watchdog(&self, interval: Duration) {
        if timeout(interval, self.state.loops.probe()).await == Ok(true) {
            self.notifier.watchdog();
        } else {
            tracing::error!("a loop does not answer, the watchdog is not fed");
        }
    }

    /// The fault that a loop has reported, when something else noticed it first.
    fn fault(&mut self) -> Fatal {
        self.faults
            .try_recv()
            .unwrap_or_else(|_| Fatal::new(Exit::Software, "an event loop has ended by itself"))
    }

    /// Whether all we have are connections that we were started with.
    fn serves_connections_only(&self) -> bool {
        self.active
            .iter()
            .flat_map(|active| &active.bound)
            .all(|b| b.shape == Shape::Connected)
    }

    fn stop(self) {
        self.state.loops.send_all(|| Order::Stop);
        self.threads.join();
    }
}

async fn stop_signal(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

fn open_planned<D: Daemon>(
    planned: &Planned<D>,
    inherited: &mut Inherited,
    count: usize,
) -> Result<Vec<Bound>, Fatal> {
    let transport = <D::Flavour as Flavour>::TRANSPORT;
    Ok(open(
        &planned.endpoint,
        transport,
        &planned.socket,
        inherited,
        count,
    )?)
}

/// Copies of one address belong to one listener; inherited sockets are one each.
fn group_by_endpoint(bound: Vec<Bound>) -> Vec<Vec<Bound>> {
    let mut groups: Vec<Vec<Bound>> = Vec::new();
    for bound in bound {
        match groups.last_mut() {
            Some(group) if !bound.inherited && group[0].endpoint == bound.endpoint => {
                group.push(bound);
            }
            _ => groups.push(vec![bound]),
        }
    }
    groups
}

fn loop_count<D: Daemon>(plan: &Plan<D>) -> usize {
    if plan.is_inetd() {
        // An inetd's process serves one connection, or few peers for a while.
        return 1;
    }
    plan.config.loops.map_or_else(
        || available_parallelism().map_or(1, usize::from),
        |loops| loops.get().into(),
    )
}

/// What the configuration says, but never more than there are descriptors for.
fn max_connections<D: Daemon>(config: &ConfigOf<D>) -> u32 {
    let possible = connection_limit();
    match config.max_connections {
        Some(wanted) if wanted > possible => {
            tracing::warn!(
                wanted,
                possible,
                "max_connections is lowered: raise LimitNOFILE"
            );
            possible
        }
        Some(wanted) => wanted,
        None => possible,
    }
}

fn os_error(what: &str, error: &io::Error) -> Fatal {
    Fatal::new(Exit::OsError, format!("{what}: {error}"))
}

/// When to show the service manager that we live; never, if nobody watches.
struct Heartbeat {
    interval: Duration,
    next: Option<Deadline>,
}

impl Heartbeat {
    fn new(interval: Option<Duration>) -> Self {
        let next = interval.map(|interval| Deadline::now() + interval);
        Self {
            interval: interval.unwrap_or(Duration::MAX),
            next,
        }
    }

    async fn beat(&mut self) {
        match self.next {
            Some(next) => {
                sleep_until(next).await;
                self.next = Some(Deadline::now() + self.interval);
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether an inetd's `wait` server has had nothing to do for long enough to leave.
struct IdleWatch {
    limit: Option<Duration>,
    seen: u64,
    since: Deadline,
}

impl IdleWatch {
    fn new<D: Daemon>(active: &[Active<D>], limit: Duration, one_connection: bool) -> Self {
        let from_inetd = active
            .iter()
            .all(|active| active.endpoint == Endpoint::Inetd);
        let limit = (from_inetd && !one_connection && !limit.is_zero()).then_some(limit);
        Self {
            limit,
            seen: 0,
            since: Deadline::now(),
        }
    }

    /// Returns when it is time to look again.
    async fn look(&self) {
        match self.limit {
            Some(limit) => sleep((limit / 8).clamp(LOOK_MIN, LOOK_MAX)).await,
            None => std::future::pending().await,
        }
    }

    fn is_over<D: Daemon>(&mut self, active: &[Active<D>]) -> bool {
        let work = |active: &Active<D>| {
            let metrics = &active.listener.metrics;
            (
                metrics.accepted.get() + metrics.datagrams.get(),
                active.listener.gate.present(),
            )
        };
        let (count, present) = active
            .iter()
            .map(work)
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if count != self.seen || present > 0 {
            (self.seen, self.since) = (count, Deadline::now());
        }
        self.limit
            .is_some_and(|limit| self.since.elapsed() >= limit)
    }
}

const CUT_WAIT: Duration = Duration::from_secs(2);
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(1);
