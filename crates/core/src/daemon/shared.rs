//! What all services of a daemon share, such as a store behind several protocols.

use std::path::Path;

use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::endpoint::Endpoint;
use crate::exit::Fatal;
use crate::observe::admin::Download;
use crate::observe::metrics::Metrics;

/// State of the process, handed to every service. It is made empty before the configuration is read,
/// because services are built for a mere check too, and started before the first listener.
pub trait Shared: Clone + Default + Send + Sync + 'static {
    /// A table of the configuration beside those that all daemons have.
    type Settings: Clone + Default + PartialEq + DeserializeOwned + Serialize;
    /// The table's name; empty when there is none.
    const TABLE: &'static str;
    /// Arguments of the command line beside those that all daemons have: what can be done with the
    /// state instead of serving.
    type Commands: Args;
    /// Paths of files on the admin endpoint, for the daemon's user and root alone.
    const DOWNLOADS: &'static [&'static str] = &[];

    /// Checks what types cannot say.
    fn check(settings: &Self::Settings) -> Result<(), String> {
        let _ = settings;
        Ok(())
    }

    /// Opens what it needs, or says why the daemon cannot serve. Its metrics go to `metrics`; what
    /// later makes going on impossible goes to `faults` and ends the daemon.
    fn start(
        &self,
        settings: &Self::Settings,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        let _ = (settings, metrics, faults);
        Ok(())
    }

    /// Takes new settings over, or says what needs a restart.
    fn reload(&self, settings: &Self::Settings) -> Option<&'static str> {
        let _ = settings;
        None
    }

    /// The daemon is about to stop: what waits for something that may never happen is to end now.
    fn drain(&self) {}

    /// Ends in order, after the last connection.
    fn stop(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// What `/status` shows of it, under the table's name.
    fn status(&self) -> Option<Value> {
        None
    }

    /// Makes the file behind one of [`Shared::DOWNLOADS`], or says why not. To be run on the control
    /// thread, which must not wait for a disk. The file has no name by then, or one that may stay.
    fn download(&self, path: &str) -> Download {
        let why = format!("there is no {path}");
        Box::pin(std::future::ready(Err(why)))
    }

    /// Does what the command line asks for and returns what to print; `None` when it asks for nothing
    /// of the kind. Of the configuration nothing but this is read by then: no listener is checked.
    fn command(
        commands: &Self::Commands,
        asked: &Asked<'_, Self>,
    ) -> Option<Result<String, Fatal>> {
        let _ = (commands, asked);
        None
    }
}

/// What a command knows of the configuration.
#[derive(Debug)]
pub struct Asked<'a, S: Shared> {
    /// The table.
    pub settings: &'a S::Settings,
    /// Where the admin endpoint of a running daemon is.
    pub admin: Option<&'a Endpoint>,
    /// The file of the configuration.
    pub config: Option<&'a Path>,
}

/// No table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// No arguments.
#[derive(Debug, Clone, Args)]
pub struct NoCommands {}

impl Shared for () {
    type Settings = NoSettings;
    const TABLE: &'static str = "";
    type Commands = NoCommands;
}
