//! How much one peer, and all of them together, may have at a time.
//!
//! A limit slows or refuses what is above it and never switches a service off: a [`Gate`] counts
//! what exists in all, [`Sources`] what exists per source, and [`Buckets`] how fast a source may
//! come back. A source is a [`Prefix`]: one IPv4 address, or one IPv6 /64, which is what a single
//! host commands.

mod buckets;
mod gate;
mod penalties;
mod prefix;
mod sources;

pub use buckets::{Buckets, Token};
pub use gate::Gate;
pub use penalties::{Penalties, Tariff};
pub use prefix::Prefix;
pub use sources::Sources;
