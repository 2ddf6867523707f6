//! XML-RPC: `POST` on a connection that stays open where the server lets it.

use portyard_core::endpoint::Endpoint;
use portyard_wire::escape::escape;
use portyard_wire::xmlrpc::{self, Options};

use super::{Call, Nonsense, Reply};
use crate::kv::raised::Raised;

/// The bytes of a call.
pub fn encode(call: &Call, endpoint: &Endpoint) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let options = Options { emit_i8: true };
    xmlrpc::encode_call(call.method, &call.params, options, &mut body)
        .map_err(|error| error.to_string())?;
    let host = match endpoint {
        Endpoint::Tcp(at) => at.to_string(),
        _ => "localhost".into(),
    };
    let mut request = format!(
        "POST /RPC2 HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.append(&mut body);
    Ok(request)
}

/// The replies of a connection.
pub struct Replies {
    input: Vec<u8>,
    head: Option<Head>,
    max: usize,
}

/// What matters of the head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    /// The status line, when it is no success.
    failure: Option<(u16, String)>,
    length: usize,
    /// Bytes of the head itself.
    end: usize,
    closes: bool,
}

impl Replies {
    pub fn new(max: usize) -> Self {
        Self {
            input: Vec::new(),
            head: None,
            max,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub fn at_boundary(&self) -> bool {
        self.input.is_empty()
    }

    pub fn next(&mut self) -> Result<Option<Reply>, Nonsense> {
        if self.head.is_none() {
            self.head = Head::parse(&self.input, self.max)?;
        }
        let Some(head) = &self.head else {
            return Ok(None);
        };
        let end = head.end + head.length;
        if let Some((status, line)) = &head.failure {
            return Err(refused(*status, line));
        }
        if self.input.len() < end {
            return Ok(None);
        }
        let caps = xmlrpc::Caps {
            bytes: self.max,
            elements: self.max / SHORTEST_ELEMENT + 10,
            ..xmlrpc::Caps::default()
        };
        let outcome = xmlrpc::decode_response(&self.input[head.end..end], &caps)
            .map_err(|error| Nonsense::Other(error.to_string()))?;
        let is_last = head.closes;
        self.input.drain(..end);
        self.head = None;
        Ok(Some(Reply {
            outcome: outcome.map_err(|fault| Raised::from_fault(&fault)),
            is_last,
        }))
    }
}

impl Head {
    /// Reads the head of an answer; `None` while it is not whole.
    fn parse(input: &[u8], max: usize) -> Result<Option<Self>, Nonsense> {
        let other = |why: &str| Nonsense::Other(why.into());
        let begins = HTTP.len().min(input.len());
        if input[..begins] != HTTP[..begins] {
            return Err(other("the answer is not HTTP/1"));
        }
        let window = &input[..input.len().min(HEAD_MAX)];
        let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if window.len() == HEAD_MAX {
                Err(other("the head of the answer is too long"))
            } else {
                Ok(None)
            };
        };
        let mut lines = window[..end].split(|byte| *byte == b'\n');
        let status_line = lines.next().unwrap_or_default().trim_ascii();
        let digits = status_line.get(9..12).unwrap_or_default();
        let status: u16 = str::from_utf8(digits)
            .ok()
            .filter(|_| digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| other("the answer has no status"))?;
        let mut length = None;
        // A server of HTTP/1.0 closes, unless it says otherwise.
        let mut closes = status_line.starts_with(b"HTTP/1.0");
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.ok_or_else(|| other("a header is none"))?);
            let value = value[1..].trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                if length.replace(number(value)).is_some() {
                    return Err(other("the answer has two lengths"));
                }
            } else if name.eq_ignore_ascii_case(b"connection") {
                closes = !value.eq_ignore_ascii_case(b"keep-alive");
            } else if name.eq_ignore_ascii_case(b"transfer-encoding")
                || name.eq_ignore_ascii_case(b"content-encoding")
            {
                return Err(other(
                    "the answer is encoded in a way that was not asked for",
                ));
            }
        }
        let failure = (status != 200).then(|| (status, escape(status_line, STATUS_SHOWN)));
        let length = match length {
            Some(Some(length)) => length,
            None if failure.is_some() => 0,
            _ => return Err(other("the answer has no Content-Length")),
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= max)
            .ok_or(Nonsense::TooLong { max })?;
        Ok(Some(Self {
            failure,
            length,
            end: end + 4,
            closes,
        }))
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok()?.parse().ok().filter(|_| digits)
}

fn refused(status: u16, line: &str) -> Nonsense {
    match status {
        413 => Nonsense::TooLarge(line.into()),
        503 => Nonsense::Busy(line.into()),
        _ => Nonsense::Other(line.into()),
    }
}

const HTTP: &[u8] = b"HTTP/1.";
const HEAD_MAX: usize = 16 << 10;
const STATUS_SHOWN: usize = 80;
/// `<a/>`: so many elements fit into the bytes at the most.
const SHORTEST_ELEMENT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_wire::value::Value;

    fn answer(head: &str) -> Vec<u8> {
        let mut body = Vec::new();
        xmlrpc::encode_response(&Value::Int(5), Options::default(), &mut body).unwrap();
        let mut bytes = head.replace("LENGTH", &body.len().to_string()).into_bytes();
        bytes.append(&mut body);
        bytes
    }

    #[test]
    fn answers_come_out_whole_however_they_were_cut() {
        let one = answer("HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n");
        let mut replies = Replies::new(1000);
        for bytes in [&one[..], &one[..]].concat().chunks(7) {
            replies.feed(bytes);
            if let Some(reply) = replies.next().unwrap() {
                assert_eq!(reply.outcome.unwrap(), Value::Int(5));
                assert!(!reply.is_last);
            }
        }
        assert!(replies.at_boundary());
    }

    #[test]
    fn a_server_of_http_1_0_closes_unless_it_says_otherwise() {
        for (fields, is_last) in [
            ("HTTP/1.0 200 OK\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", false),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n", true),
        ] {
            let mut replies = Replies::new(1000);
            replies.feed(&answer(&format!("{fields}Content-Length: LENGTH\r\n\r\n")));
            assert_eq!(
                replies.next().unwrap().unwrap().is_last,
                is_last,
                "{fields}"
            );
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_is_too_long_is_refused() {
        let ok = "HTTP/1.1 200 OK\r\n";
        for head in [
            "SSH-2.0-x\r\n".into(),
            "HTTP/2 200 OK\r\n\r\n".into(),
            "HTTP/1.1 +20 OK\r\n\r\n".into(),
            format!("{ok}\r\n"),
            format!("{ok}Content-Length: +1\r\n\r\n"),
            format!("{ok}Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
            format!("{ok}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            format!("{ok}nonsense\r\n\r\n"),
            format!("{ok}a: {}", "a".repeat(HEAD_MAX)),
            "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n".into(),
        ] {
            let refused = Head::parse(head.as_bytes(), 10);
            let refused = refused.and_then(|head| {
                let head = head.filter(|head| head.failure.is_some());
                head.map_or(Ok(()), |_| Err(Nonsense::Other(String::new())))
            });
            assert!(matches!(refused, Err(Nonsense::Other(_))), "{head}");
        }
        for length in ["11", "18446744073709551615"] {
            let head = format!("{ok}Content-Length: {length}\r\n\r\n");
            assert_eq!(
                Head::parse(head.as_bytes(), 10),
                Err(Nonsense::TooLong { max: 10 })
            );
        }
    }
}
