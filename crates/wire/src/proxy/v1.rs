//! Version 1: one line of text (section 2.1).

use super::{Header, ProxyError, Transport, V1_MAX};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and CRLF.
pub(super) const SHORTEST: usize = 15;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    // The first CR or LF ends the line, and only as CRLF.
    let Some(end) = window.iter().position(|byte| b"\r\n".contains(byte)) else {
        return if window.len() < V1_MAX {
            Ok(None)
        } else {
            Err(ProxyError::LineTooLong)
        };
    };
    match &window[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if window.len() < V1_MAX => return Ok(None),
        [b'\r'] => return Err(ProxyError::LineTooLong),
        _ => return Err(ProxyError::MalformedLine),
    }
    let header = header(&window[SIGNATURE.len()..end]).ok_or(ProxyError::MalformedLine)?;
    Ok(Some((header, end + 2)))
}

fn header(line: &[u8]) -> Option<Header> {
    // What follows UNKNOWN is ignored, as the specification demands.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Header::Local);
    }
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let ends = match words.next()? {
        "TCP4" => addresses::<Ipv4Addr>(&mut words)?,
        "TCP6" => addresses::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    let [source_port, destination_port] = [port(words.next()?)?, port(words.next()?)?];
    if words.next().is_some() {
        return None;
    }
    Some(Header::Inet {
        transport: Transport::Stream,
        source: SocketAddr::new(ends[0], source_port),
        destination: SocketAddr::new(ends[1], destination_port),
    })
}

/// Two addresses of one family. The standard library's parsers are as strict as is asked for: no
/// leading zeros, no zone.
fn addresses<'a, T: FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Option<[IpAddr; 2]> {
    let mut next = || Some(words.next()?.parse::<T>().ok()?.into());
    Some([next()?, next()?])
}

/// Decimal digits without a leading zero, up to 65535.
fn port(word: &str) -> Option<u16> {
    let canonical = word == "0" || !word.starts_with(['0', '+']);
    word.parse().ok().filter(|_| canonical)
}

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let line = match header {
        Header::Inet {
            transport: Transport::Stream,
            source,
            destination,
        } if source.is_ipv4() == destination.is_ipv4() => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (source, destination) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {source} {destination}\r\n")
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_nearly_right_are_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 127.0.0.1 127.0.0.1 1 2\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 1\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 1 2 3\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 1 2 \r\n",
            "PROXY TCP4  127.0.0.1 127.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP4 127.0.0.01 127.0.0.1 1 2\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 01 2\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 +1 2\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 1 65536\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 1 -1\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY unknown\r\n",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWN\rX",
        ] {
            let refused = Err(ProxyError::MalformedLine);
            assert_eq!(parse(line.as_bytes()), refused, "{line:?}");
        }
    }

    #[test]
    fn a_line_has_at_most_107_bytes() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(105, b'x');
        assert_eq!(parse(&line), Ok(None));
        let whole = [&line[..], b"\r\n"].concat();
        assert_eq!(parse(&whole), Ok(Some((Header::Local, 107))));
        assert_eq!(
            parse(&[&line[..], b"x\r"].concat()),
            Err(ProxyError::LineTooLong)
        );
        line.resize(107, b'x');
        assert_eq!(parse(&line), Err(ProxyError::LineTooLong));
    }

    #[test]
    fn the_longest_lines_of_the_specification_are_read() {
        // Section 2.1 lists them; 56, 104 and 107 bytes.
        let ffff = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        for (line, len) in [
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_owned(),
                56,
            ),
            (format!("PROXY TCP6 {ffff} {ffff} 65535 65535\r\n"), 104),
            (format!("PROXY UNKNOWN {ffff} {ffff} 65535 65535\r\n"), 107),
        ] {
            let (_, read) = parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!((read, line.len()), (len, len));
        }
    }

    #[test]
    fn lines_of_haproxy_are_read_and_written() {
        // Sent by HAProxy 2.6.12 with `send-proxy`, frontends on TCP, TCP over IPv6 and Unix.
        for (line, expected) in [
            (
                "PROXY TCP4 127.0.0.1 127.0.0.1 56001 56324\r\n",
                Some(("127.0.0.1:56001", "127.0.0.1:56324")),
            ),
            (
                "PROXY TCP6 ::1 ::1 56002 56324\r\n",
                Some(("[::1]:56002", "[::1]:56324")),
            ),
            ("PROXY UNKNOWN\r\n", None),
        ] {
            let header = expected.map_or(Header::Local, |(source, destination)| Header::Inet {
                transport: Transport::Stream,
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            });
            assert_eq!(header.to_v1(), line.as_bytes());
            let stream = format!("{line}hi");
            assert_eq!(parse(stream.as_bytes()), Ok(Some((header, line.len()))));
        }
    }
}
