//! The life of a process: signals in, notifications out.

mod notify;
mod resources;
mod signals;

pub use notify::Notifier;
pub use resources::{connection_limit, raise_descriptor_limit};
pub use signals::{Signal, Signals};
