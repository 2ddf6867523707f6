//! What an operator sees: logs, metrics, and the admin endpoint that serves them.

pub mod admin;
pub mod log;
pub mod metrics;
mod syslog;
mod throttle;
mod transfer;

pub use throttle::Throttle;
