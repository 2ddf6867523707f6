//! The services that workers connect to, each a protocol.

mod installed;
mod native;
mod plain;

use portyard_core::access::Identity;
use portyard_core::serve::Connection;

pub use native::{Hello, Native, pool_reply, serve_hello};
pub use plain::Plain;

use crate::pool::{About, Protocol};

/// What is known of a worker from its socket. One without a name is called by protocol and process.
fn about(connection: &Connection, protocol: Protocol, name: &str, pid: Option<i32>) -> About {
    let (mut uid, mut process) = (0, 0);
    if let Ok(Identity::User {
        uid: user,
        pid: its_pid,
        ..
    }) = connection.user()
    {
        (uid, process) = (user, its_pid);
    }
    // In another namespace the kernel says 0; then its own word is better than none.
    let pid = if process > 0 {
        process
    } else {
        pid.unwrap_or(0)
    };
    About {
        name: if name.is_empty() {
            format!("{}-{pid}", protocol.name())
        } else {
            name.into()
        },
        protocol,
        pid,
        uid,
    }
}
