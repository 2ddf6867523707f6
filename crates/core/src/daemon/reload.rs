//! SIGHUP: the new configuration replaces the old one as a whole, or not at all.

use super::Daemon;
use super::active::{Active, open_planned};
use super::control::{Control, max_connections};
use super::plan::{Plan, Planned};
use crate::endpoint::Endpoint;
use crate::exit::Fatal;
use crate::observe::log::LogControl;

impl<D: Daemon> Control<'_, D> {
    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, log: &LogControl) {
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
            if self
                .active
                .iter()
                .any(|active| active.endpoint == planned.endpoint)
            {
                changes.push(None);
            } else {
                let count = self.state.loops.count();
                changes.push(Some(open_planned(planned, &mut self.inherited, count)?));
            }
        }
        self.warn_of_restart(&plan);
        let mut old = std::mem::take(&mut self.active);
        for (planned, opened) in plan.listeners.iter().zip(changes) {
            if let Some(bound) = opened {
                self.activate(planned, bound)?;
                continue;
            }
            let is_kept = |active: &Active<D>| active.endpoint == planned.endpoint;
            let (kept, rest): (Vec<_>, Vec<_>) = old.into_iter().partition(is_kept);
            old = rest;
            for active in kept {
                let active = self.take_over(planned, active)?;
                self.active.push(active);
            }
        }
        for gone in old {
            tracing::info!(listener = %gone.listener.name, endpoint = %gone.listener.endpoint, "closed");
            gone.listener.close();
            self.give_back(gone);
        }
        self.state
            .total
            .set_ceiling(max_connections::<D>(&plan.config, self.possible));
        log.set_level(plan.log_config(self.arguments).level);
        self.zone.reload();
        self.config = plan.config;
        self.publish();
        Ok(())
    }

    /// Says what a reload does not change.
    fn warn_of_restart(&self, plan: &Plan<D>) {
        if plan.config.loops != self.config.loops
            || plan.config.admin != self.config.admin
            || plan.config.offload != self.config.offload
        {
            tracing::warn!("changes of loops, [admin] and [offload] take effect at the next start");
        }
        let changed = |planned: &&Planned<D>| {
            let same_place = |active: &&Active<D>| active.endpoint == planned.endpoint;
            self.active
                .iter()
                .find(same_place)
                .is_some_and(|a| a.options != planned.socket)
        };
        for planned in plan.listeners.iter().filter(changed) {
            tracing::warn!(
                listener = %planned.label, endpoint = %planned.endpoint,
                "changes of socket options take effect at the next start"
            );
        }
    }

    /// Keeps the passed sockets of a listener that is gone, for a later reload that wants them again:
    /// nobody passes them twice.
    fn give_back(&mut self, gone: Active<D>) {
        if let Endpoint::Systemd(Some(name)) = gone.endpoint {
            for bound in gone.bound {
                self.inherited.give_back(name.clone(), bound.socket);
            }
        }
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
        let new = Active::new(planned, active.bound, &self.state);
        new.hand_to_loops(&self.state)?;
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
}
