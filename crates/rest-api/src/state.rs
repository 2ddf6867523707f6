//! What all listeners share.

use portyard_core::daemon::{NoCommands, Shared};

use crate::settings::Settings;

/// The state. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct State {}

impl Shared for State {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = &[];
    type Commands = NoCommands;
}
