//! What all listeners share: the routes, and what counts requests.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use portyard_core::daemon::{NoCommands, Shared};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::observe::metrics::Metrics;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::metrics::RequestMetrics;
use crate::routes::Routes;
use crate::settings::Settings;

/// The state. Cheap to clone.
#[derive(Clone, Default)]
pub struct State(Arc<Inner>);

#[derive(Default)]
struct Inner {
    metrics: RequestMetrics,
    routes: ArcSwap<Routes>,
    /// What a reload has read and not yet put in place.
    prepared: Mutex<Option<Routes>>,
}

impl State {
    /// What counts requests.
    pub fn metrics(&self) -> &RequestMetrics {
        &self.0.metrics
    }

    /// The routes of this moment.
    pub fn routes(&self) -> Arc<Routes> {
        self.0.routes.load_full()
    }
}

impl Shared for State {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = &["route"];
    type Commands = NoCommands;

    fn check(settings: &Settings) -> Result<(), String> {
        Routes::new(&settings.routes, &RequestMetrics::default()).map(drop)
    }

    fn start(
        &self,
        settings: &Settings,
        metrics: &Metrics,
        _: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        self.0.metrics.register(metrics);
        let routes = Routes::new(&settings.routes, &self.0.metrics)
            .map_err(|message| Fatal::new(Exit::Config, message))?;
        self.0.routes.store(Arc::new(routes));
        Ok(())
    }

    fn prepare(&self, settings: &Settings) -> Result<(), String> {
        let routes = Routes::new(&settings.routes, &self.0.metrics)?;
        let mut prepared = self
            .0
            .prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *prepared = Some(routes);
        Ok(())
    }

    fn commit(&self) {
        let mut prepared = self
            .0
            .prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(routes) = prepared.take() {
            self.0.routes.store(Arc::new(routes));
        }
    }

    fn status(&self) -> Map<String, Value> {
        let routes: Vec<Value> = self
            .routes()
            .iter()
            .map(|route| json!({ "path": route.pattern().text(), "name": route.name() }))
            .collect();
        Map::from_iter([("routes".into(), Value::Array(routes))])
    }
}
