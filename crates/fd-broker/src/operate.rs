//! What `portyard broker` asks: the state of everything, and that workers finish or go on.

use nix::unistd::geteuid;
use portyard_core::access::Identity;
use portyard_core::wire::operate::{Reply, Request, parts};

use crate::broker::Broker;
use crate::hold::Asker;

/// The packets that answer a packet of kinds [`Request::KINDS`].
pub fn answer(broker: &Broker, asker: &Asker<'_>, packet: &[u8]) -> Vec<Vec<u8>> {
    let refuse = |text: &str| vec![Reply::Refused(text).encode()];
    let request = match Request::decode(packet, 0) {
        Ok(request) => request,
        Err(error) => return refuse(&error.to_string()),
    };
    if !may_operate(asker) {
        return refuse("only the broker's own user and root may operate it");
    }
    let (name, draining) = match request {
        Request::Status => return parts(broker.state().to_string().as_bytes()).collect(),
        Request::Drain(name) => (name, true),
        Request::Resume(name) => (name, false),
    };
    match broker.set_draining(name, draining) {
        Ok(found) => vec![Reply::Done(u32::try_from(found).unwrap_or(u32::MAX)).encode()],
        Err(why) => refuse(why),
    }
}

/// Whether the process at the other end runs as our user or as root.
fn may_operate(asker: &Asker<'_>) -> bool {
    matches!(asker.user, Identity::User { uid, .. } if uid == 0 || uid == geteuid().as_raw())
}
