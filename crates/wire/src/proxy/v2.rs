//! Version 2: a binary header (section 2.2).

use super::{Header, ProxyError, Transport, V2_MAX};
use std::net::{IpAddr, SocketAddr};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const FIXED_LEN: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0;
const INET: u8 = 0x10;
const INET6: u8 = 0x20;
const UNIX: u8 = 0x30;
const PATH_LEN: usize = 108;

/// How long the header is, as far as its beginning says: not more than [`V2_MAX`].
pub(super) fn length(bytes: &[u8]) -> usize {
    let announced = bytes
        .first_chunk::<FIXED_LEN>()
        .map_or(0, |fixed| u16::from_be_bytes([fixed[14], fixed[15]]));
    (FIXED_LEN + usize::from(announced)).min(V2_MAX)
}

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    // What is wrong is refused with the byte that makes it so.
    let command = bytes.get(12).copied();
    match command {
        Some(LOCAL | PROXY) | None => {}
        Some(other) if other >> 4 != 2 => return Err(ProxyError::Version(other >> 4)),
        Some(other) => return Err(ProxyError::Command(other & 0x0f)),
    }
    let family = bytes.get(13).copied();
    let needed = match (command, family) {
        // The receiver of LOCAL must not look at the family.
        (Some(LOCAL), _) => 0,
        (_, Some(family)) => addresses_len(family).ok_or(ProxyError::Family(family))?,
        _ => 0,
    };
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_LEN>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len < needed {
        return Err(ProxyError::TooShort { len, needed });
    }
    if FIXED_LEN + len > V2_MAX {
        return Err(ProxyError::TooLong {
            len: FIXED_LEN + len,
        });
    }
    if rest.len() < len {
        return Ok(None);
    }
    let header = if needed == 0 {
        Header::Local
    } else {
        addresses(fixed[13], &rest[..needed])
    };
    Ok(Some((header, FIXED_LEN + len)))
}

/// Bytes of both addresses for the seven families and transports that exist.
fn addresses_len(family: u8) -> Option<usize> {
    match (family & 0xf0, family & 0x0f) {
        (UNSPEC, 0) => Some(0),
        (INET, 1 | 2) => Some(12),
        (INET6, 1 | 2) => Some(36),
        (UNIX, 1 | 2) => Some(2 * PATH_LEN),
        _ => None,
    }
}

/// The header, given exactly the bytes that its family needs.
fn addresses(family: u8, bytes: &[u8]) -> Header {
    let transport = if family & 0x0f == 1 {
        Transport::Stream
    } else {
        Transport::Datagram
    };
    if let Some(&[a, b, c, d, e, f, g, h, p, q, r, s]) = bytes.first_chunk()
        && bytes.len() == 12
    {
        return Header::Inet {
            transport,
            source: ([a, b, c, d], u16::from_be_bytes([p, q])).into(),
            destination: ([e, f, g, h], u16::from_be_bytes([r, s])).into(),
        };
    }
    let (v6, ports) = bytes.split_at(bytes.len().min(32));
    if let (Some((source, destination)), &[p, q, r, s]) = (v6.split_first_chunk::<16>(), ports)
        && let Some(&destination) = destination.first_chunk::<16>()
    {
        return Header::Inet {
            transport,
            source: (*source, u16::from_be_bytes([p, q])).into(),
            destination: (destination, u16::from_be_bytes([r, s])).into(),
        };
    }
    let (source, destination) = bytes.split_at(bytes.len() / 2);
    Header::Unix {
        transport,
        source: name(source),
        destination: name(destination),
    }
}

/// A path ends at its first NUL. An abstract name begins with one; where it ends is not said, so
/// the NULs that fill the field are left out.
fn name(field: &[u8]) -> Vec<u8> {
    let len = if field.first() == Some(&0) {
        field
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1)
    } else {
        field
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(field.len())
    };
    field[..len].to_vec()
}

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let (command, family, addresses) = match header {
        Header::Inet {
            transport,
            source,
            destination,
        } => match inet(source, destination) {
            Some((family, addresses)) => (PROXY, family | *transport as u8, addresses),
            None => (LOCAL, UNSPEC, Vec::new()),
        },
        Header::Unix {
            transport,
            source,
            destination,
        } => {
            let addresses = [path(source), path(destination)].concat();
            (PROXY, UNIX | *transport as u8, addresses)
        }
        Header::Local => (LOCAL, UNSPEC, Vec::new()),
    };
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend_from_slice(&[command, family, 0]);
    // At most 216.
    bytes.push(u8::try_from(addresses.len()).unwrap_or(u8::MAX));
    bytes.extend(addresses);
    bytes
}

/// Two addresses of one family, then their ports.
fn inet(source: &SocketAddr, destination: &SocketAddr) -> Option<(u8, Vec<u8>)> {
    let (family, mut addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (INET, [source.octets(), destination.octets()].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (INET6, [source.octets(), destination.octets()].concat())
        }
        _ => return None,
    };
    addresses.extend_from_slice(&source.port().to_be_bytes());
    addresses.extend_from_slice(&destination.port().to_be_bytes());
    Some((family, addresses))
}

fn path(name: &[u8]) -> [u8; PATH_LEN] {
    let mut field = [0; PATH_LEN];
    let len = name.len().min(PATH_LEN);
    field[..len].copy_from_slice(&name[..len]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fixed: [u8; 4], addresses: &[u8]) -> Vec<u8> {
        [SIGNATURE, &fixed[..], addresses].concat()
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for (fixed, error) in [
            ([0x11, 0x11, 0, 12], ProxyError::Version(1)),
            ([0x31, 0x11, 0, 12], ProxyError::Version(3)),
            ([0x22, 0x11, 0, 12], ProxyError::Command(2)),
            ([0x21, 0x10, 0, 12], ProxyError::Family(0x10)),
            ([0x21, 0x13, 0, 12], ProxyError::Family(0x13)),
            ([0x21, 0x41, 0, 12], ProxyError::Family(0x41)),
            ([0x21, 0x01, 0, 12], ProxyError::Family(0x01)),
        ] {
            assert_eq!(parse(&header(fixed, &[])), Err(error));
        }
    }

    #[test]
    fn a_length_is_held_against_the_family_and_the_cap() {
        for (family, needed) in [(0x11, 12), (0x22, 36), (0x31, 216)] {
            let len = needed - 1;
            let short = header([0x21, family, 0, u8::try_from(len).unwrap()], &[0; 300]);
            assert_eq!(parse(&short), Err(ProxyError::TooShort { len, needed }));
        }
        let longest = header([0x21, 0x11, 2, 8], &[0; 520]);
        assert!(matches!(parse(&longest), Ok(Some((_, V2_MAX)))));
        let too_long = header([0x20, 0, 2, 9], &[]);
        assert_eq!(parse(&too_long), Err(ProxyError::TooLong { len: 537 }));
    }

    #[test]
    fn local_ignores_its_family_and_addresses() {
        let local = header([0x20, 0xff, 0, 3], b"abcrest");
        assert_eq!(parse(&local), Ok(Some((Header::Local, 19))));
        let unspec = header([0x21, 0, 0, 3], b"abcrest");
        assert_eq!(parse(&unspec), Ok(Some((Header::Local, 19))));
    }

    #[test]
    fn names_of_unix_sockets_end_where_they_should() {
        assert_eq!(name(b"/run/x\0garbage"), b"/run/x");
        assert_eq!(name(b"\0abstract\0b\0\0"), b"\0abstract\0b");
        assert_eq!(name(&[0; PATH_LEN]), b"");
        assert_eq!(name(&[b'x'; PATH_LEN]), [b'x'; PATH_LEN]);
    }

    #[test]
    fn headers_of_haproxy_are_read() {
        // Sent by HAProxy 2.6.12 with `send-proxy-v2`: TCP, TCP over IPv6, a Unix socket, and TCP
        // with `proxy-v2-options crc32c,unique-id`.
        let v4 = b"\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\xda\xc3\xdc\x05";
        let v6 = b"\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xda\xc4\xdc\x05";
        let tlvs = b"\x21\x11\0\x16\x7f\0\0\x01\x7f\0\0\x01\xda\xc5\xdc\x06\x03\0\x04\x06\xe6\x9b\xd1\x05\0\0";
        let inet = |source: &str, destination: &str| Header::Inet {
            transport: Transport::Stream,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        for (bytes, expected, plain) in [
            (&v4[..], inet("127.0.0.1:56003", "127.0.0.1:56325"), true),
            (v6, inet("[::1]:56004", "[::1]:56325"), true),
            (b"\x20\0\0\0", Header::Local, true),
            (tlvs, inet("127.0.0.1:56005", "127.0.0.1:56326"), false),
        ] {
            let written = [SIGNATURE, bytes].concat();
            let stream = [&written[..], b"hi"].concat();
            assert_eq!(parse(&stream), Ok(Some((expected.clone(), written.len()))));
            assert_eq!(expected.to_v2() == written, plain);
        }
    }
}
