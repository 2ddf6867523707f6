//! Holding sockets: listeners stay open under a name while everything behind them restarts.
//!
//! ```text
//!  [[hold]] ──► Table ◄── store, retrieve, delete, list ◄── control ◄── peers, by Rules
//!                 │
//!                 ├──► Keeper    the service manager's descriptor store: back at the next start
//!                 └──► handover  a successor that takes over over the control socket
//! ```
//!
//! [`Table`] and [`Rules`] decide and touch no socket; [`Holding`] is both behind a lock, with the
//! sockets.
mod answer;
mod batch;
mod config;
mod configured;
mod control;
mod form;
mod heir;
mod holding;
mod keeper;
mod metrics;
mod predecessor;
mod rules;
mod socket;
mod state;
mod succession;
mod successor;
mod table;

pub use config::{HoldConfig, HoldingConfig, check};
pub use control::Control;
pub use holding::Holding;
pub use metrics::HoldingCollector;
pub use rules::Asker;
pub use succession::{CONTROL, Succession, control_path};
