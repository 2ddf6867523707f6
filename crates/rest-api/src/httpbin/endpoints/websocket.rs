//! `/websocket/echo` (RFC 6455, 7692): what comes goes back.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use hyper::Version;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use portyard_core::serve::{Connection, Ended};
use portyard_wire::websocket::deflate::{Agreed, Deflater};
use portyard_wire::websocket::{self, Code, Event, Limits, Machine, Opcode};

use super::go_number;
use crate::http::{Body, Upgraded};
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;

/// The opening handshake.
pub fn echo(asked: &Asked) -> Given {
    let max = asked.max_body();
    let size = |name: &str, otherwise: u64| match asked.argument(name) {
        None => Ok(otherwise),
        Some(text) => {
            let size = go_number(&text, name)?;
            let good = u64::try_from(size)
                .ok()
                .filter(|size| (1..=max).contains(size));
            good.ok_or_else(|| {
                Refusal::bad(format!("invalid {name}: {size} not in range [1, {max}]"))
            })
        }
    };
    let message = size("max_message_size", max)?;
    let fragment = size("max_fragment_size", (max / 2).max(1))?;
    if fragment > message {
        return Err(Refusal::bad(format!(
            "max_fragment_size {fragment} must be less than or equal to max_message_size {message}"
        )));
    }
    if asked.version != Version::HTTP_11 {
        return Err(Refusal::bad(
            "a WebSocket begins with a request of HTTP/1.1",
        ));
    }
    let has = |name: &hyper::header::HeaderName, wanted: &str| {
        let field = asked.field(name).unwrap_or_default();
        field
            .split(',')
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(&UPGRADE, "websocket") {
        return Err(Refusal::bad("missing required `Upgrade: websocket` header"));
    }
    if !has(&CONNECTION, "upgrade") {
        return Err(Refusal::bad(
            "missing required `Connection: Upgrade` header",
        ));
    }
    let version = asked.field(&SEC_WEBSOCKET_VERSION).unwrap_or_default();
    if version != "13" {
        let why = format!("only websocket version \"13\" is supported, got {version:?}");
        let known = HeaderValue::from_static("13");
        return Err(Refusal::bad(why).with(SEC_WEBSOCKET_VERSION, known));
    }
    let key = asked.field(&SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| Refusal::bad("missing required `Sec-Websocket-Key` header"))?;
    let accept = websocket::accept(&key);
    let accept =
        accept.ok_or_else(|| Refusal::bad("`Sec-Websocket-Key` is not 16 bytes in base64"))?;
    let longest = asked.options().longest();
    let limits = Limits { fragment, message };
    let offers = asked.field(&SEC_WEBSOCKET_EXTENSIONS).unwrap_or_default();
    let agreed = Agreed::to(&offers);
    let body = Body::upgrade(move |upgraded| serve(upgraded, limits, agreed, longest));
    let mut response = answer::bare(StatusCode::SWITCHING_PROTOCOLS).map(|_| body);
    let upgrade = HeaderValue::from_static("Upgrade");
    response.headers_mut().insert(CONNECTION, upgrade);
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer::set(&mut response, SEC_WEBSOCKET_ACCEPT, &accept)?;
    if let Some(agreed) = agreed {
        answer::set(&mut response, SEC_WEBSOCKET_EXTENSIONS, &agreed.to_string())?;
    }
    Ok(response)
}

/// Serves the connection for as long as a request may last.
async fn serve(
    upgraded: Upgraded,
    limits: Limits,
    agreed: Option<Agreed>,
    longest: Duration,
) -> Ended {
    let Upgraded {
        mut connection,
        pending,
    } = upgraded;
    let echo = run(&mut connection, pending, limits, agreed);
    if let Ok(ended) = tokio::time::timeout(longest, echo).await {
        return ended.unwrap_or_else(Ended::from);
    }
    let _ = end(&mut connection, Some(Code::POLICY), "time is up").await;
    Ended::Done
}

async fn run(
    connection: &mut Connection,
    mut pending: Vec<u8>,
    limits: Limits,
    agreed: Option<Agreed>,
) -> io::Result<Ended> {
    let mut machine = Machine::with(limits, agreed.as_ref());
    // Its memory is taken when there is something to compress.
    let mut deflater: Option<Deflater> = None;
    let mut out = Vec::new();
    loop {
        let mut input = &pending[..];
        loop {
            match machine.receive(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Message { is_text, payload })) => {
                    let coded = agreed.as_ref().map(|agreed| {
                        let deflater = deflater.get_or_insert_with(|| Deflater::new(agreed));
                        deflater.message(&payload)
                    });
                    let is_coded = coded.is_some();
                    let payload = coded.unwrap_or(payload);
                    fragments(&mut out, (is_text, is_coded), &payload, limits.fragment);
                }
                Ok(Some(Event::Ping(payload))) => {
                    websocket::write(&mut out, true, Opcode::Pong, &payload);
                }
                Ok(Some(Event::Close(code))) => {
                    connection.write_all(&out).await?;
                    end(connection, code, "").await?;
                    return Ok(Ended::Done);
                }
                Err(fault) => {
                    connection.write_all(&out).await?;
                    connection.count_bad_input();
                    end(connection, Some(fault.code()), &fault.to_string()).await?;
                    return Ok(Ended::Protocol);
                }
            }
            // What is not taken is not read.
            if out.len() >= OUT_MAX {
                connection.write_all(&out).await?;
                out.clear();
            }
        }
        connection.write_all(&out).await?;
        (out, pending) = (Vec::new(), Vec::new());
        if connection.read_some(&mut pending, READ).await? == 0 {
            if connection.draining() {
                end(connection, Some(Code::GOING_AWAY), "the server goes down").await?;
                return Ok(Ended::Done);
            }
            return Ok(Ended::Protocol);
        }
    }
}

/// Says the last word, and closes.
async fn end(connection: &mut Connection, code: Option<Code>, reason: &str) -> io::Result<()> {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend_from_slice(&code.number().to_be_bytes());
        // All reasons are short.
        payload.extend_from_slice(reason.as_bytes());
    }
    let mut out = Vec::new();
    websocket::write(&mut out, true, Opcode::Close, &payload);
    connection.write_all(&out).await?;
    connection.finish().await;
    Ok(())
}

/// A message in fragments of the size that the client has named.
fn fragments(out: &mut Vec<u8>, (is_text, is_coded): (bool, bool), payload: &[u8], size: u64) {
    let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
    let first = if is_text {
        Opcode::Text
    } else {
        Opcode::Binary
    };
    let mut pieces = payload.chunks(size).peekable();
    if pieces.peek().is_none() {
        websocket::write(out, true, first, b"");
    }
    let mut opcode = first;
    while let Some(piece) = pieces.next() {
        let write = if is_coded && opcode == first {
            websocket::write_compressed
        } else {
            websocket::write
        };
        write(out, pieces.peek().is_none(), opcode, piece);
        opcode = Opcode::Continuation;
    }
}

/// What is read at once.
const READ: usize = 64 << 10;
/// What is kept before it is written.
const OUT_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_back_in_fragments() {
        let mut out = Vec::new();
        fragments(&mut out, (true, false), b"abcde", 2);
        assert_eq!(out, b"\x01\x02ab\x00\x02cd\x80\x01e");
        out.clear();
        fragments(&mut out, (false, false), b"", 2);
        assert_eq!(out, b"\x82\x00");
        out.clear();
        fragments(&mut out, (false, false), b"ab", 2);
        assert_eq!(out, b"\x82\x02ab");
        out.clear();
        // Only the first fragment says that it is compressed.
        fragments(&mut out, (true, true), b"abc", 2);
        assert_eq!(out, b"\x41\x02ab\x80\x01c");
    }
}
