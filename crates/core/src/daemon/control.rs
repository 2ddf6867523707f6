//! The control thread: opens, serves, reloads and drains; the loops do the work.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use socket2::Socket;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::active::{Active, Orders, open_planned, orders};
use super::helm::{AdminSockets, Ask, Helm};
use super::plan::{Plan, Planned};
use super::report::{self, Phase, State};
use super::timers::{ExpiryWatch, Heartbeat, IdleWatch};
use super::{ConfigOf, Daemon, SettingsOf, Shared, os_error};
use crate::cli::Arguments;
use crate::clock::Zone;
use crate::config::AdminConfig;
use crate::datagram::Own;
use crate::endpoint::{Endpoint, Transport};
use crate::event_loop::{Loops, Order, Parts, Threads};
use crate::exit::{Exit, Fatal};
use crate::life::{Descriptors, Notifier, Signal, Signals, connection_limit};
use crate::limits::Gate;
use crate::listen::{Bound, Handed, Inherited, Shape, UnixFile};
use crate::listener::Flavour;
use crate::observe::admin::{Action, Admin};
use crate::observe::log::LogControl;
use crate::observe::metrics::Metrics;
use crate::offload::Offload;
use crate::sandbox::{Denials, Sandbox};
use crate::serve::{Bequest, Reserve, Trust};

/// Serves by `plan` until a signal, the inetd idle time or a fault ends it.
pub fn run<D: Daemon>(
    arguments: &Arguments,
    plan: Plan<D>,
    shared: D::Shared,
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
        let mut control = Control::start(arguments, plan, shared, inherited, notifier)?;
        let result = control.serve(&mut signals, log).await;
        control.stop().await;
        result
    })
}

pub(super) struct Control<'a, D: Daemon> {
    pub(super) arguments: &'a Arguments,
    pub(super) config: ConfigOf<D>,
    pub(super) settings: SettingsOf<D>,
    pub(super) inherited: Inherited,
    pub(super) notifier: Notifier,
    pub(super) admin: Option<Admin>,
    pub(super) zone: Zone,
    pub(super) own: Arc<Own>,
    pub(super) faults: mpsc::UnboundedReceiver<Fatal>,
    asked: mpsc::UnboundedReceiver<Ask>,
    pub(super) admin_sockets: AdminSockets,
    /// Somebody keeps our sockets open beyond our end.
    kept: bool,
    /// The loop for the next connection that comes from elsewhere.
    next_loop: Cell<usize>,
    /// What the admin endpoint is asked to do.
    actions: mpsc::Receiver<report::Ask>,
    /// What the sandbox denies, if it is closed.
    denials: Option<Denials>,
    pub(super) state: Rc<State<D>>,
    pub(super) threads: Threads,
    pub(super) active: Vec<Active<D>>,
    /// How many times sockets have been opened.
    pub(super) openings: u64,
    /// Connections that the descriptor limit allows, as counted before the first one came.
    pub(super) possible: u32,
}

impl<'a, D: Daemon> Control<'a, D> {
    /// Opens everything, starts the loops and hands them their sockets.
    fn start(
        arguments: &'a Arguments,
        plan: Plan<D>,
        shared: D::Shared,
        mut inherited: Inherited,
        notifier: Notifier,
    ) -> Result<Self, Fatal> {
        let count = loop_count(&plan);
        let mut opened = Vec::new();
        for planned in &plan.listeners {
            opened.push(open_planned(planned, &mut inherited, count)?);
        }
        shared.open(&plan.settings, &mut inherited)?;
        let (admin, admin_sockets) = match &plan.config.admin.listen {
            Some(endpoint) => open_admin(endpoint, &plan.config.admin, &mut inherited)?,
            None => (None, AdminSockets::default()),
        };
        for handed in inherited.take_handed() {
            let Handed {
                label, endpoint, ..
            } = handed;
            tracing::warn!(
                listener = label,
                endpoint,
                "a socket of the predecessor that no listener uses is closed"
            );
        }
        for name in inherited.names() {
            tracing::warn!(name, "a socket was passed that no listener uses");
        }
        let descriptors = Descriptors::open();
        // Everything below starts threads, which inherit it.
        let sandbox = Sandbox::close(plan.config.sandbox, plan.needs)
            .map_err(|error| os_error("the sandbox cannot be closed", &error))?;
        let denials =
            Denials::new().map_err(|error| os_error("the sandbox cannot be watched", &error))?;
        let offload = Offload::new(plan.config.offload.threads, plan.config.offload.queue)
            .map_err(|error| os_error("the offload pool cannot start", &error))?;
        let (report_fault, faults) = mpsc::unbounded_channel();
        let (zone, own) = (Zone::system(), Arc::new(Own::default()));
        let parts = Parts {
            start: Instant::now(),
            zone: zone.clone(),
            offload: offload.clone(),
            own: own.clone(),
            reserve: Arc::new(Reserve::new()),
            faults: report_fault.clone(),
        };
        let (loops, threads) = Loops::start(count, &parts)
            .map_err(|error| os_error("the event loops cannot start", &error))?;
        let possible = connection_limit(descriptors);
        let total = Arc::new(Gate::new(max_connections::<D>(&plan.config, possible)));
        let metrics = Arc::new(Metrics::new(
            D::NAME,
            D::VERSION,
            <D::Flavour as Flavour>::TRANSPORT,
        ));
        metrics.set_sandbox(&sandbox);
        shared.start(&plan.settings, &metrics, &report_fault)?;
        let (helm, asked) = Helm::new();
        shared.steer(helm);
        let (asks, actions) = mpsc::channel(ASKS);
        let state = Rc::new(State {
            loops,
            metrics,
            shared,
            sandbox,
            total,
            offload,
            started: Instant::now(),
            phase: Phase::Starting.into(),
            listeners: Vec::new().into(),
            actions: plan.config.admin.actions && admin.is_some(),
            asks,
        });
        let mut control = Self {
            arguments,
            config: plan.config,
            settings: plan.settings,
            inherited,
            notifier,
            admin,
            zone,
            own,
            faults,
            asked,
            admin_sockets,
            kept: false,
            next_loop: Cell::new(0),
            actions,
            denials,
            state,
            threads,
            active: Vec::new(),
            openings: 0,
            possible,
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
            return Err(self.fault().await);
        }
        self.announce();
        self.inherited.take_charge();
        self.state.shared.serving();
        let admin = self.admin.take();
        let report = self.state.clone();
        let mut admin: Pin<Box<dyn Future<Output = io::Result<()>>>> = match admin {
            Some(admin) => Box::pin(async move { admin.serve(report).await }),
            None => Box::pin(std::future::pending()),
        };
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
        let mut expiry = ExpiryWatch::new();
        let mut watchdog = Heartbeat::new(self.notifier.watchdog_interval());
        let mut idle = IdleWatch::new(&self.active, self.config.inetd_idle.0, one_connection);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return self.drain(signals).await,
                    // What is wrong is in the log.
                    Signal::Reload => drop(self.reload(log)),
                },
                // Never closed: the state, which we have too, holds the sending end. Who asked may be
                // gone by the time of the answer.
                Some(report::Ask { action, reply }) = self.actions.recv() => match action {
                    Action::Reload => {
                        let _ = reply.send(self.reload(log).map_err(|fatal| fatal.to_string()));
                    }
                    Action::Drain => {
                        let _ = reply.send(Ok(()));
                        return self.drain(signals).await;
                    }
                },
                Some(ask) = self.asked.recv() => match ask {
                    Ask::Leave => {
                        tracing::info!("a successor serves from here on");
                        // Its connections are the successor's from now on.
                        drop(admin);
                        self.kept = true;
                        return self.drain(signals).await;
                    }
                    ask => self.obey(ask),
                },
                fatal = self.faults.recv() => {
                    return Err(match fatal { Some(fatal) => fatal, None => self.fault().await });
                }
                result = &mut admin => {
                    return Err(match result {
                        Ok(()) => self.fault().await,
                        Err(error) => os_error("the admin endpoint cannot be served", &error),
                    });
                }
                () = &mut finished => return Ok(()),
                () = watchdog.beat() => self.feed_watchdog(watchdog.interval).await,
                () = expiry.look() => self.warn_of_trust(),
                () = hear(&mut self.denials) => {}
                () = idle.look() => {
                    if idle.is_over(&self.active) {
                        tracing::info!("nothing has come for inetd_idle, leaving");
                        return self.drain(signals).await;
                    }
                }
            }
        }
    }

    /// Makes listeners of opened sockets and hands them to the loops.
    fn activate(&mut self, planned: &Planned<D>, bound: Vec<Bound>) -> Result<(), Fatal> {
        self.openings += 1;
        for (active, orders) in Active::open(planned, bound, self.openings, &self.state)? {
            self.send(orders);
            active.announce();
            self.active.push(active);
        }
        Ok(())
    }

    pub(super) fn send(&self, orders: Orders<D>) {
        for (number, order) in orders {
            self.state.loops.send(number, order);
        }
    }

    /// Lets the rest of the process know which listeners there are.
    pub(super) fn publish(&mut self) {
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
        // Only answers of ours to datagrams can come back to us.
        if <D::Flavour as Flavour>::TRANSPORT == Transport::Datagram {
            self.own.refresh(&addresses);
        }
        *self.state.listeners.borrow_mut() = listeners;
        let shared = self.state.shared.clone();
        self.kept = self.with_listening(|sockets| shared.listening(sockets));
        let trusts = self.trusts();
        let expiries = trusts
            .iter()
            .flat_map(|(name, trust)| trust.expiries().map(|expiry| (name.as_str(), expiry)));
        self.state.metrics.set_expiries(expiries);
        self.warn_of_trust();
    }

    /// What each listener demands, by its name.
    fn trusts(&self) -> Vec<(String, Arc<Trust>)> {
        let trust = |active: &Active<D>| {
            let listener = &active.listener;
            Some((listener.name.clone(), listener.settings().trust.clone()?))
        };
        self.active.iter().filter_map(trust).collect()
    }

    /// Says what somebody should mend while it still works.
    fn warn_of_trust(&self) {
        for active in &self.active {
            let listener = &active.listener;
            let Some(trust) = listener.settings().trust.clone() else {
                continue;
            };
            for warning in trust.warnings(&listener.endpoint, SystemTime::now()) {
                tracing::warn!(listener = %listener.name, endpoint = %listener.endpoint, "{warning}");
            }
        }
    }

    fn announce(&self) {
        self.state.phase.set(Phase::Ready);
        let mut listeners = Vec::new();
        for active in &self.active {
            let listener = &active.listener;
            listeners.push((listener.name.clone(), listener.endpoint.to_string()));
        }
        listeners.extend(self.state.shared.endpoints());
        for endpoint in self.admin.iter().flat_map(Admin::endpoints) {
            tracing::info!(%endpoint, "admin endpoint");
            listeners.push(("admin".into(), endpoint.to_string()));
        }
        self.notifier.ready(&self.status_line(), &listeners);
    }

    pub(super) fn status_line(&self) -> String {
        format!(
            "{} listeners on {} loops",
            self.active.len(),
            self.state.loops.count()
        )
    }

    /// Takes nothing new, lets what runs finish within the grace period, cuts the rest.
    async fn drain(&mut self, signals: &mut Signals) -> Result<(), Fatal> {
        // What a predecessor has left to us is ours, though the signal was faster: a connection goes the way of
        // those that were here before.
        while let Ok(ask) = self.asked.try_recv() {
            match ask {
                Ask::Leave => self.kept = true,
                ask => self.obey(ask),
            }
        }
        let grace = self.config.grace.0;
        self.state.phase.set(Phase::Draining);
        self.notifier.stopping(grace);
        tracing::info!(connections = self.state.total.present(), ?grace, "draining");
        for active in &mut self.active {
            if self.kept {
                active.listener.hand_over();
                let files = active
                    .bound
                    .iter_mut()
                    .filter_map(|bound| bound.file.take());
                files.for_each(UnixFile::leave);
            } else {
                active.listener.close();
            }
            // The loops' duplicates close when the backlog is empty; then nobody can connect.
            active.bound.clear();
        }
        if self.kept {
            let files = std::mem::take(&mut self.admin_sockets.files);
            files.into_iter().for_each(UnixFile::leave);
        }
        let (loops, shared) = (&self.state.loops, &self.state.shared);
        shared.drain();
        // Half the grace at most, so that a short one still leaves time to finish.
        let quiet = DRAIN_QUIET.min(grace / 2);
        loops.send_all(|| Order::Drain(quiet));
        let over = tokio::select! {
            () = async { loops.empty().await; shared.empty().await } => {
                tracing::info!("drained");
                return Ok(());
            }
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

    /// Accepts again on all listeners, after a hand-over that came to nothing.
    pub(super) fn accept_again(&self) {
        for active in &self.active {
            active.listener.take_back();
            match orders(&active.listener, &active.bound, &self.state) {
                Ok(orders) => self.send(orders),
                Err(fatal) => tracing::error!(
                    listener = %active.listener.name, error = %fatal, "cannot accept again"
                ),
            }
        }
    }

    /// Hands a connection that a predecessor had accepted to a loop.
    pub(super) fn accept(&self, name: &str, connection: Socket) {
        let named = |active: &&Active<D>| active.listener.name == name;
        let Some(active) = self.active.iter().find(named) else {
            tracing::warn!(
                listener = name,
                "a connection of the predecessor has no listener here"
            );
            // An error means that the peer has gone by itself.
            let _ = connection.set_linger(Some(Duration::ZERO));
            return;
        };
        if let Err(error) = connection.set_nonblocking(true) {
            tracing::warn!(listener = name, %error, "a connection of the predecessor is lost");
            return;
        }
        let number = self.next_loop.get();
        self.next_loop.set(number.wrapping_add(1));
        let order = Order::Connected(active.listener.clone(), connection, None);
        self.state.loops.send(number, order);
    }

    /// Hands a connection that a predecessor had served to a loop.
    pub(super) fn go_on(&self, name: &str, bequest: Bequest) {
        let named = |active: &&Active<D>| active.listener.name == name;
        let Some(active) = self.active.iter().find(named) else {
            tracing::warn!(
                listener = name,
                "a connection that the predecessor served has no listener here, and is closed"
            );
            return;
        };
        let number = self.next_loop.get();
        self.next_loop.set(number.wrapping_add(1));
        let order = Order::GoOn(active.listener.clone(), bequest);
        self.state.loops.send(number, order);
    }

    async fn feed_watchdog(&self, interval: Duration) {
        if timeout(interval, self.state.loops.probe()).await == Ok(true) {
            self.notifier.watchdog();
        } else {
            tracing::error!("a loop does not answer, the watchdog is not fed");
        }
    }

    /// The fault that a loop reports, when something else noticed it first.
    async fn fault(&mut self) -> Fatal {
        match timeout(FAULT_WAIT, self.faults.recv()).await {
            Ok(Some(fatal)) => fatal,
            _ => Fatal::new(Exit::Software, "an event loop has ended by itself"),
        }
    }

    /// Whether all we have are connections that we were started with.
    fn serves_connections_only(&self) -> bool {
        let connected = |bound: &Bound| bound.shape == Shape::Connected;
        let mut bound = self.active.iter().flat_map(|active| &active.bound);
        !self.active.is_empty() && bound.all(connected)
    }

    async fn stop(self) {
        self.state.loops.send_all(|| Order::Stop);
        self.threads.join();
        self.state.shared.stop().await;
    }
}

fn open_admin(
    endpoint: &Endpoint,
    config: &AdminConfig,
    inherited: &mut Inherited,
) -> Result<(Option<Admin>, AdminSockets), Fatal> {
    let mut admin = Admin::open(endpoint, config, inherited)?;
    let sockets = admin
        .share()
        .map_err(|error| os_error("the admin endpoint cannot be shared", &error))?;
    let sockets = AdminSockets {
        endpoint: endpoint
            .clone()
            .with_transport(Transport::Stream)
            .to_string(),
        sockets: if endpoint.is_inherited() {
            Vec::new()
        } else {
            sockets
        },
        files: admin.take_files(),
    };
    Ok((Some(admin), sockets))
}

/// Tells what the sandbox denies.
async fn hear(denials: &mut Option<Denials>) {
    match denials {
        Some(denials) => denials.hear().await,
        None => std::future::pending().await,
    }
}

async fn stop_signal(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
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
pub(super) fn max_connections<D: Daemon>(config: &ConfigOf<D>, possible: u32) -> u32 {
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

/// How long a peer may be silent before a drain takes it to have said all: a round trip and more.
const DRAIN_QUIET: Duration = Duration::from_millis(250);
/// How long a loop that does not answer has for telling why.
const FAULT_WAIT: Duration = Duration::from_secs(1);
/// Actions that wait for the one before them.
const ASKS: usize = 4;
const CUT_WAIT: Duration = Duration::from_secs(2);
