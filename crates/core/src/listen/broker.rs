//! Sockets that a broker holds for us, and pools that it has.

use std::path::Path;

use portyard_wire::hold::Name;
use socket2::{Domain, Socket, Type};

use super::inherit::probe;
use super::{Bound, ListenError, Shape, kernel_error};
use crate::auth::Prover;
use crate::endpoint::{Endpoint, Transport};
use crate::holding::{Holder, HoldingError, PATIENCE, Retrieved};

/// Retrieves what the broker holds under the name, or finds that it is a pool, for which stream daemons
/// can work. A broker that is just being started again is waited for.
pub(super) fn retrieve(
    endpoint: &Endpoint,
    path: &Path,
    name: &Name,
    transport: Transport,
    prover: Option<&Prover>,
) -> Result<Vec<Bound>, ListenError> {
    let wrong = |error| ListenError::Broker {
        endpoint: endpoint.clone(),
        error,
    };
    let holder = Holder::connect(path, PATIENCE).map_err(wrong)?;
    if let Some(prover) = prover {
        let proved = holder.prove(prover);
        proved.map_err(|error| wrong(HoldingError::Key(error)))?;
    }
    match holder.retrieve(name).map_err(wrong)? {
        Retrieved::Sockets(sockets) => sockets
            .into_iter()
            .map(|socket| probe(endpoint, socket.into(), transport))
            .collect(),
        Retrieved::Pool(_) if transport == Transport::Stream => Ok(vec![Bound {
            endpoint: endpoint.clone(),
            socket: Socket::new(Domain::UNIX, Type::SEQPACKET, None)
                .map_err(|error| kernel_error(endpoint, error))?,
            shape: Shape::Pool,
            inherited: true,
            file: None,
        }]),
        Retrieved::Pool(_) => Err(wrong(HoldingError::Pool)),
    }
}
