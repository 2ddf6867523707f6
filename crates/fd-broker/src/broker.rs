//! What all services share.

use std::sync::Arc;

use portyard_core::daemon::{NoCommands, Shared};

use crate::settings::Settings;

/// The broker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Broker(Arc<Inner>);

#[derive(Default)]
struct Inner {}

impl Shared for Broker {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = Settings::TABLES;
    type Commands = NoCommands;
}
