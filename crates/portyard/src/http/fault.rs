//! What to tell when a connection does not go on as HTTP says.

use std::io;

use portyard_core::exit::{Exit, Fatal};

use super::tap;
use crate::trust::tls_failure;

/// Whether the network may be at fault, rather than one of the ends.
pub fn is_broken_off(error: &hyper::Error) -> bool {
    let is_odd = error.is_parse() || error.is_user();
    !is_odd && !io_error(error).is_some_and(is_of_protocol)
}

/// Of hyper's decoders, or of TLS.
fn is_of_protocol(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// It says nothing.
pub fn late(name: &str) -> Fatal {
    Fatal::new(
        Exit::TempFail,
        format!("{name} does not answer in time; try again, or with a longer --timeout"),
    )
}

/// hyper gave up.
pub fn broken(name: &str, error: &hyper::Error) -> Fatal {
    let too_large = || {
        let message = format!(
            "{name} answers with a head that is larger than is taken, or has more than \
             {FIELDS_MAX} fields (--max-header)"
        );
        Fatal::new(Exit::Data, message)
    };
    if error.is_parse_too_large() {
        return too_large();
    }
    if error.is_parse_version_h2() {
        let message = format!("{name} speaks HTTP/2 alone; ask for it by --http-version 2");
        return Fatal::new(Exit::Data, message);
    }
    if error.is_incomplete_message() {
        let message = format!("{name} closed the connection before its answer was complete");
        return Fatal::new(Exit::Io, message);
    }
    let of_stream = io_error(error);
    // Certificates are refused after the handshake in TLS 1.3.
    let of_tls = of_stream.and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
    if let Some(error) = of_tls {
        return tls_failure(&name, error);
    }
    match of_stream {
        Some(error) if error.to_string() == tap::TOO_LARGE => too_large(),
        Some(error) if error.to_string().contains("close_notify") => Fatal::new(
            Exit::Io,
            format!(
                "{name} closed without ending the TLS session, so what came may have been cut \
                 short on the way"
            ),
        ),
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let message = format!("{name} closed the connection before its answer was complete");
            Fatal::new(Exit::Io, message)
        }
        Some(error) if is_of_protocol(error) => {
            Fatal::new(Exit::Data, format!("{name} breaks the protocol: {error}"))
        }
        Some(error) => Fatal::new(Exit::Io, format!("{name} broke the connection ({error})")),
        None if error.is_canceled() || error.is_closed() => {
            Fatal::new(Exit::Io, format!("{name} closed the connection"))
        }
        None => {
            let why = std::error::Error::source(error);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Fatal::new(
                Exit::Data,
                format!("{name} does not answer as HTTP says ({error}{why})"),
            )
        }
    }
}

/// Fields of a head, as many as browsers take.
pub const FIELDS_MAX: usize = 500;
