//! The life of a process: signals in, notifications out.

mod directory;
mod notify;
mod resources;
mod signals;

pub use directory::runtime_directory;
pub use notify::Notifier;
pub use resources::{Descriptors, NEEDED, connection_limit, raise_descriptor_limit};
pub use signals::{Signal, Signals};
