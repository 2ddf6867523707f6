//! Pools: connections come in, workers take them.

mod balance;
mod machine;

pub use balance::{Balance, mix};
pub use machine::{
    Action, ConnectionId, Joining, Machine, REST, Rules, Trace, Unknown, Unserved, Worker, WorkerId,
};
