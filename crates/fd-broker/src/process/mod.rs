//! Programs: how one is started, what it is given, and how it is kept running.
//!
//! A [`ProcessConfig`] and a command become a [`Program`] once, when the configuration is read:
//! users are looked up, texts are made into what the kernel takes. [`Program::start`] then makes a
//! [`Child`], with descriptors and variables of its own. A [`Keeper`] starts it again whenever it
//! ends. Nothing goes through a shell, and nothing of ours reaches a program but what is named.

mod child;
mod config;
mod keeper;
mod output;
mod program;

pub use child::{Child, describe};
pub use config::{ProcessConfig, Stderr};
pub use keeper::{Backoff, Event, Keeper, RestartConfig};
pub use output::{Said, follow};
pub use program::{Program, Start};
