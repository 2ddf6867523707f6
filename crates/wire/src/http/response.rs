//! The head of an answer.

use crate::decimal;

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// Bytes of the body; `None` where there can be none (204).
    pub length: Option<usize>,
    /// The `Content-Type`, where there is a body.
    pub content_type: Option<&'a str>,
    /// Whether the connection goes on.
    pub keep_alive: bool,
    /// Whether the client speaks HTTP/1.0 and must be told that the connection goes on.
    pub is_1_0: bool,
    /// Further lines, each with its CRLF.
    pub more: &'a str,
}

impl ResponseHead<'_> {
    /// Appends the head, its empty line included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        decimal::push(self.status.into(), out);
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(kind) = self.content_type {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if let Some(length) = self.length {
            out.extend_from_slice(b"Content-Length: ");
            decimal::push_unsigned(length as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        if !self.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if self.is_1_0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(self.more.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The phrase of a status code (RFC 9110, 15), of those that are sent here.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_as_it_should_be() {
        let mut out = Vec::new();
        let head = ResponseHead {
            status: 200,
            length: Some(1050),
            content_type: Some("text/xml"),
            keep_alive: true,
            is_1_0: false,
            more: "X: y\r\n",
        };
        head.encode(&mut out);
        assert_eq!(
            str::from_utf8(&out).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 1050\r\nX: y\r\n\r\n"
        );
        out.clear();
        let head = ResponseHead {
            status: 204,
            length: None,
            content_type: None,
            keep_alive: false,
            is_1_0: true,
            more: "",
        };
        head.encode(&mut out);
        let text = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        assert_eq!(str::from_utf8(&out).unwrap(), text);
    }
}
