//! Sockets that a broker holds for us.

use std::path::Path;

use portyard_wire::hold::Name;

use super::inherit::probe;
use super::{Bound, ListenError};
use crate::endpoint::{Endpoint, Transport};
use crate::holding::{Holder, HoldingError, PATIENCE, Retrieved};

/// Retrieves what the broker holds under the name. A broker that is just being started again is waited
/// for.
pub(super) fn retrieve(
    endpoint: &Endpoint,
    path: &Path,
    name: &Name,
    transport: Transport,
) -> Result<Vec<Bound>, ListenError> {
    let wrong = |error| ListenError::Broker {
        endpoint: endpoint.clone(),
        error,
    };
    let holder = Holder::connect(path, PATIENCE).map_err(wrong)?;
    match holder.retrieve(name).map_err(wrong)? {
        Retrieved::Sockets(sockets) => sockets
            .into_iter()
            .map(|socket| probe(endpoint, socket.into(), transport))
            .collect(),
        Retrieved::Pool(_) => Err(wrong(HoldingError::Pool)),
    }
}
