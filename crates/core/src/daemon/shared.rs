//! What all services of a daemon share, such as a store behind several protocols.

use std::path::Path;

use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::helm::{Helm, Listening};
use crate::endpoint::Endpoint;
use crate::exit::Fatal;
use crate::life::Notifier;
use crate::listen::Inherited;
use crate::observe::admin::Download;
use crate::observe::metrics::Metrics;

/// State of the process, handed to every service. It is made empty before the configuration is read,
/// because services are built for a mere check too, and started before the first listener.
pub trait Shared: Clone + Default + Send + Sync + 'static {
    /// Tables of the configuration beside those that all daemons have: a struct with a field for each.
    type Settings: Clone + Default + PartialEq + DeserializeOwned + Serialize;
    /// The tables' names.
    const TABLES: &'static [&'static str];
    /// Arguments of the command line beside those that all daemons have: what can be done with the
    /// state instead of serving.
    type Commands: Args;
    /// Paths of files on the admin endpoint, for the daemon's user and root alone.
    const DOWNLOADS: &'static [&'static str] = &[];
    /// Actions on the admin endpoint beside `reload` and `drain`, each done with something that has a name:
    /// paths without the first slash.
    const ACTIONS: &'static [&'static str] = &[];

    /// Checks what types cannot say; the message names the table.
    fn check(settings: &Self::Settings) -> Result<(), String> {
        let _ = settings;
        Ok(())
    }

    /// Whether the tables ask for something to be served that needs no listener.
    fn serves(settings: &Self::Settings) -> bool {
        let _ = settings;
        false
    }

    /// Takes over what the tables ask for beside listeners: opens sockets that are not open yet. Of a
    /// reload it is the last step that can fail.
    fn open(&self, settings: &Self::Settings, inherited: &mut Inherited) -> Result<(), Fatal> {
        let _ = (settings, inherited);
        Ok(())
    }

    /// Where it serves by itself: names and endpoints, as far as they are known.
    fn endpoints(&self) -> Vec<(String, String)> {
        Vec::new()
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

    /// Takes over what a predecessor left: from the service manager, or from a running daemon. To be
    /// run before the first socket is opened; whatever goes into `boot.inherited` is used instead of a
    /// socket of our own. May block.
    fn inherit(&self, boot: Boot<'_, Self>) -> Result<(), Fatal> {
        let _ = boot;
        Ok(())
    }

    /// Takes the helm, for what the state does with the daemon as a whole.
    fn steer(&self, helm: Helm) {
        let _ = helm;
    }

    /// Hears of all listening sockets, at the start and after each reload. True when somebody keeps
    /// them open beyond our end: what waits in them is then left to the next process.
    fn listening(&self, sockets: &[Listening<'_>]) -> bool {
        let _ = sockets;
        false
    }

    /// Hears that the loops accept. Runs on the control thread, which may be given local tasks.
    fn serving(&self) {}

    /// Reads what the settings name (files, keys) for a reload, whether they have changed or not, and
    /// keeps it for [`Shared::commit`]; or says why the reload must be refused.
    fn prepare(&self, settings: &Self::Settings) -> Result<(), String> {
        let _ = settings;
        Ok(())
    }

    /// Takes over what [`Shared::prepare`] has read, once nothing can refuse the reload any more.
    fn commit(&self) {}

    /// Takes new settings over, or says what needs a restart.
    fn reload(&self, settings: &Self::Settings) -> Option<&'static str> {
        let _ = settings;
        None
    }

    /// Takes nothing new from now on. What waits for something that may never happen is to end.
    fn drain(&self) {}

    /// Returns when nothing runs any more that a drain waits for, connections aside.
    fn empty(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Ends in order, after the last connection.
    fn stop(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// What `/status` shows of it, each under a name of its own.
    fn status(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Does one of [`Shared::ACTIONS`] with what has that name, and says what it has done, or why not and
    /// what to do. Runs on the control thread, which must not wait.
    fn act(&self, action: &str, name: &str) -> Result<String, String> {
        Err(format!("there is no {action} of {name}"))
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
    /// The tables.
    pub settings: &'a S::Settings,
    /// Where the admin endpoint of a running daemon is.
    pub admin: Option<&'a Endpoint>,
    /// The file of the configuration.
    pub config: Option<&'a Path>,
}

/// What a daemon that starts knows of itself, and where it may put what it inherits.
#[derive(Debug)]
pub struct Boot<'a, S: Shared> {
    /// Its own arguments.
    pub commands: &'a S::Commands,
    /// Its own tables.
    pub settings: &'a S::Settings,
    /// Where each service is to be offered: the service's name, and where.
    pub listeners: &'a [(&'static str, &'a Endpoint)],
    /// The way to the service manager.
    pub notifier: &'a Notifier,
    /// What came with the process.
    pub inherited: &'a mut Inherited,
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
    const TABLES: &'static [&'static str] = &[];
    type Commands = NoCommands;
}
