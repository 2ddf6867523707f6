//! SIGHUP: the new configuration replaces the old one as a whole, or not at all.
//!
//! Everything that can fail (reading, opening, duplicating sockets) is done first, into [`Step`]s;
//! taking the steps cannot fail.

use super::active::{Active, Orders, SharedListener, open_planned};
use super::control::{Control, max_connections};
use super::plan::{Plan, Planned, Read};
use super::{Daemon, Shared};
use crate::endpoint::Endpoint;
use crate::exit::{Exit, Fatal};
use crate::listener::Settings;
use crate::observe::log::LogControl;

/// What happens to one listener. `usize` is its place among the active ones.
enum Step<D: Daemon> {
    /// It stays, with new settings.
    Keep(usize, Settings<D::Flavour>),
    /// Another listener takes its sockets over.
    Replace(usize, SharedListener<D>, Orders<D>),
    /// It is new.
    Open(Active<D>, Orders<D>),
}

impl<D: Daemon> Control<'_, D> {
    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, log: &LogControl) -> Result<(), Fatal> {
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
        result
    }

    fn try_reload(&mut self, log: &LogControl) -> Result<(), Fatal> {
        let read = Read::from_file(self.arguments)?;
        let allowed = self.state.sandbox.allows(&read.needs(self.arguments));
        allowed.map_err(|message| Fatal::new(Exit::Config, message))?;
        let passed = self.passed_names();
        let plan = Plan::<D>::new(read, self.arguments, &passed, &self.state.shared)?;
        let prepared = self.state.shared.prepare(&plan.settings);
        prepared.map_err(|message| Fatal::new(Exit::Config, message))?;
        let kept = self.match_openings(&plan);
        let mut steps = Vec::new();
        for (planned, kept) in plan.listeners.iter().zip(kept) {
            let more = match kept {
                Some(opening) => self.keep(planned, opening),
                None => self.open(planned),
            };
            match more {
                Ok(more) => steps.extend(more),
                Err(fatal) => {
                    self.take_back(steps);
                    return Err(fatal);
                }
            }
        }
        if let Err(fatal) = self.state.shared.open(&plan.settings, &mut self.inherited) {
            self.take_back(steps);
            return Err(fatal);
        }
        self.warn_of_restart(&plan);
        self.take(steps);
        self.state.shared.commit();
        self.state
            .total
            .set_ceiling(max_connections::<D>(&plan.config, self.possible));
        log.set_level(plan.log_config(self.arguments).level);
        self.zone.reload();
        if plan.settings != self.settings
            && let Some(warning) = self.state.shared.reload(&plan.settings)
        {
            tracing::warn!("{warning}");
        }
        self.config = plan.config;
        self.settings = plan.settings;
        self.publish();
        Ok(())
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

    /// Which of the present openings each planned listener keeps: the one with its endpoint, name
    /// and service, else one with its endpoint that nobody else keeps.
    fn match_openings(&self, plan: &Plan<D>) -> Vec<Option<u64>> {
        let mut kept: Vec<Option<u64>> = vec![None; plan.listeners.len()];
        for exactly in [true, false] {
            for (number, planned) in plan.listeners.iter().enumerate() {
                if kept[number].is_some() {
                    continue;
                }
                let fits = |active: &&Active<D>| {
                    active.endpoint == planned.endpoint
                        && active.transport == planned.transport
                        && !kept.contains(&Some(active.opening))
                        && (!exactly || active.is_named_as(planned))
                };
                kept[number] = self.active.iter().find(fits).map(|active| active.opening);
            }
        }
        kept
    }

    /// The steps that give the listeners of an opening their new settings.
    fn keep(&self, planned: &Planned<D>, opening: u64) -> Result<Vec<Step<D>>, Fatal> {
        let mut steps = Vec::new();
        for (place, active) in self.active.iter().enumerate() {
            if active.opening != opening {
                continue;
            }
            steps.push(if active.is_named_as(planned) {
                Step::Keep(place, planned.settings())
            } else {
                let (listener, orders) = active.successor(planned, &self.state)?;
                Step::Replace(place, listener, orders)
            });
        }
        Ok(steps)
    }

    /// The steps that open a new listener. Whatever is opened when one fails is closed again.
    fn open(&mut self, planned: &Planned<D>) -> Result<Vec<Step<D>>, Fatal> {
        let bound = open_planned(planned, &mut self.inherited, self.state.loops.count())?;
        self.openings += 1;
        let opened = Active::open(planned, bound, self.openings, &self.state)?;
        Ok(opened
            .into_iter()
            .map(|(active, orders)| Step::Open(active, orders))
            .collect())
    }

    /// Undoes what the steps have opened.
    fn take_back(&mut self, steps: Vec<Step<D>>) {
        for step in steps {
            if let Step::Open(active, _) = step {
                self.give_back(active);
            }
        }
    }

    fn take(&mut self, steps: Vec<Step<D>>) {
        let mut old: Vec<Option<Active<D>>> = std::mem::take(&mut self.active)
            .into_iter()
            .map(Some)
            .collect();
        for step in steps {
            match step {
                Step::Keep(place, settings) => {
                    if let Some(active) = old[place].take() {
                        active.listener.reload(settings);
                        self.active.push(active);
                    }
                }
                Step::Replace(place, listener, orders) => {
                    if let Some(mut active) = old[place].take() {
                        self.send(orders);
                        active.listener.hand_over();
                        active.listener = listener;
                        active.announce();
                        self.active.push(active);
                    }
                }
                Step::Open(active, orders) => {
                    self.send(orders);
                    active.announce();
                    self.active.push(active);
                }
            }
        }
        for gone in old.into_iter().flatten() {
            tracing::info!(
                listener = %gone.listener.name, endpoint = %gone.listener.endpoint, "closed"
            );
            gone.listener.close();
            self.give_back(gone);
        }
    }

    /// Keeps the passed sockets of a listener that is gone, for a later reload that wants them
    /// again: nobody passes them twice.
    fn give_back(&mut self, gone: Active<D>) {
        if let Endpoint::Systemd(Some(name)) = gone.endpoint {
            for bound in gone.bound {
                self.inherited.give_back(name.clone(), bound.socket);
            }
        }
    }

    /// Says what a reload does not change.
    fn warn_of_restart(&self, plan: &Plan<D>) {
        if plan.config.loops != self.config.loops
            || plan.config.admin != self.config.admin
            || plan.config.offload != self.config.offload
            || plan.config.sandbox != self.config.sandbox
        {
            tracing::warn!(
                "changes of loops, sandbox, [admin] and [offload] take effect at the next start"
            );
        }
        let changed = |planned: &&Planned<D>| {
            let same_place = |active: &&Active<D>| active.endpoint == planned.endpoint;
            let same = |active: &Active<D>| active.options == planned.socket;
            self.active.iter().any(|a| same_place(&a))
                && !self.active.iter().filter(same_place).any(same)
        };
        for planned in plan.listeners.iter().filter(changed) {
            tracing::warn!(
                listener = %planned.label, endpoint = %planned.endpoint,
                "changes of socket options take effect at the next start"
            );
        }
    }
}
