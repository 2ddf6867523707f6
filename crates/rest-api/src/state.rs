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
use crate::yard::{Fleet, YardConfig};

/// The state. Cheap to clone.
#[derive(Clone, Default)]
pub struct State(Arc<Inner>);

#[derive(Default)]
struct Inner {
    metrics: RequestMetrics,
    routes: ArcSwap<Routes>,
    /// What a reload has read and not yet put in place.
    prepared: Mutex<Option<Prepared>>,
    fleet: Fleet,
}

/// What a reload puts in place.
struct Prepared {
    routes: Routes,
    yard: Vec<YardConfig>,
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

    /// What looks after the daemons of the yard.
    pub fn fleet(&self) -> &Fleet {
        &self.0.fleet
    }
}

impl Shared for State {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = &["route", "yard"];
    type Commands = NoCommands;

    fn check(settings: &Settings) -> Result<(), String> {
        YardConfig::check(&settings.yard)?;
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
        self.0.fleet.watch(&settings.yard);
        Ok(())
    }

    fn prepare(&self, settings: &Settings) -> Result<(), String> {
        let routes = Routes::new(&settings.routes, &self.0.metrics)?;
        let mut prepared = self
            .0
            .prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *prepared = Some(Prepared {
            routes,
            yard: settings.yard.clone(),
        });
        Ok(())
    }

    fn commit(&self) {
        let mut prepared = self
            .0
            .prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Prepared { routes, yard }) = prepared.take() {
            self.0.routes.store(Arc::new(routes));
            self.0.fleet.watch(&yard);
        }
    }

    async fn stop(&self) {
        self.0.fleet.stop().await;
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
