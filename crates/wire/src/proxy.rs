//! The PROXY protocol, versions 1 and 2: whom a load balancer speaks for (haproxy,
//! `doc/proxy-protocol.txt`).
//!
//! The header comes before everything else on a connection, TLS included. [`parse`] finds out
//! which version it is. It is believed only from sources that the operator has listed, and there it
//! is required: who may leave it out could pose as anybody.

mod v1;
mod v2;

use std::net::SocketAddr;

/// The longest line of version 1, CRLF included.
pub const V1_MAX: usize = 107;
/// The longest header of version 2, its 16 fixed bytes included. Longer ones are allowed by the
/// length field and by nothing else: this is what fits the smallest segment.
pub const V2_MAX: usize = 536;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The balancer speaks for itself, as in a health check, or does not know for whom: the
    /// connection's own addresses hold. Version 1 `UNKNOWN`; version 2 `LOCAL` and `UNSPEC`.
    Local,
    /// A connection or datagram between these two.
    Inet {
        /// Stream or datagram. Version 1 knows streams only.
        transport: Transport,
        /// Who connected to the balancer.
        source: SocketAddr,
        /// Where to. Of the same family.
        destination: SocketAddr,
    },
    /// A connection or datagram between Unix sockets. Version 2 only.
    Unix {
        /// Stream or datagram.
        transport: Transport,
        /// The path, at most 108 bytes; empty for a socket without a name, with a leading NUL for
        /// an abstract one.
        source: Vec<u8>,
        /// The path, likewise.
        destination: Vec<u8>,
    },
}

/// What carries the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// `SOCK_STREAM`: TCP.
    Stream = 1,
    /// `SOCK_DGRAM`: UDP.
    Datagram = 2,
}

/// Reads the header at the front of `bytes` and says how long it is, or `None` while it is not
/// complete.
///
/// A caller who keeps what is incomplete never holds more than [`V2_MAX`] bytes, because the error
/// comes as soon as no further byte could help. Extensions of version 2 (TLVs) are skipped unread.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    if is_prefix(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else if is_prefix(bytes, v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(ProxyError::NoHeader)
    }
}

/// How many more bytes certainly belong to the header whose beginning [`parse`] found incomplete.
/// Who reads no more than that reads nothing that comes after it.
pub fn wanted(bytes: &[u8]) -> usize {
    let have = bytes.len();
    if !bytes.is_empty() && is_prefix(bytes, v2::SIGNATURE) {
        v2::length(bytes).saturating_sub(have).max(1)
    } else if have < v1::SHORTEST {
        v1::SHORTEST - have
    } else if bytes.ends_with(b"\r") {
        1
    } else {
        2
    }
}

impl Header {
    /// The line of version 1, CRLF included. What version 1 cannot say is `UNKNOWN`.
    pub fn to_v1(&self) -> Vec<u8> {
        v1::encode(self)
    }

    /// The bytes of version 2, without extensions. Paths are cut at 108 bytes.
    pub fn to_v2(&self) -> Vec<u8> {
        v2::encode(self)
    }
}

/// Whether `bytes` begins with `signature` as far as it goes.
fn is_prefix(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

/// The sender is no balancer, or a broken one. The connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Neither version begins so.
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    /// Version 1: no CRLF where the longest line would have ended.
    #[error("the PROXY line is longer than {V1_MAX} bytes")]
    LineTooLong,
    /// Version 1: not `TCP4`, `TCP6` or `UNKNOWN`, two addresses and two ports, with one space
    /// between them.
    #[error("the PROXY line is malformed")]
    MalformedLine,
    /// Version 2 in the signature and another number after it.
    #[error("the PROXY header has version {0}; 1 and 2 are spoken here")]
    Version(u8),
    /// Neither `LOCAL` nor `PROXY`.
    #[error("the PROXY header has the command {0}, which does not exist")]
    Command(u8),
    /// A family and transport that do not exist.
    #[error("the PROXY header has the family and transport {0:#04x}, which do not exist")]
    Family(u8),
    /// Over the cap.
    #[error("the PROXY header announces {len} bytes; {max} are allowed", max = V2_MAX)]
    TooLong {
        /// What was announced, with the 16 fixed bytes.
        len: usize,
    },
    /// Too short for the addresses of its family.
    #[error("the PROXY header has {len} bytes of addresses; its family needs {needed}")]
    TooShort {
        /// What is there.
        len: usize,
        /// What must be there.
        needed: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv6Addr};

    #[test]
    fn other_beginnings_are_refused_at_the_first_wrong_byte() {
        for bytes in [
            &b"G"[..],
            b"PROXX",
            b"PROXY\t",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\0",
        ] {
            assert_eq!(parse(bytes), Err(ProxyError::NoHeader));
        }
        assert_eq!(parse(b""), Ok(None));
    }

    fn header() -> impl Strategy<Value = Header> {
        let transport = prop::sample::select(&[Transport::Stream, Transport::Datagram][..]);
        let path = prop::collection::vec(1_u8.., 0..=108);
        let inet = (transport.clone(), any::<[(u128, u16); 2]>(), any::<bool>()).prop_map(
            |(transport, ends, v6)| {
                let [source, destination] = ends.map(|(bits, port)| {
                    let [.., a, b, c, d] = bits.to_be_bytes();
                    let v4 = IpAddr::from([a, b, c, d]);
                    let address = if v6 { Ipv6Addr::from(bits).into() } else { v4 };
                    SocketAddr::new(address, port)
                });
                Header::Inet {
                    transport,
                    source,
                    destination,
                }
            },
        );
        let unix = (transport, path.clone(), path).prop_map(|(transport, source, destination)| {
            Header::Unix {
                transport,
                source,
                destination,
            }
        });
        prop_oneof![Just(Header::Local), inet, unix]
    }

    proptest! {
        #[test]
        fn a_header_survives_version_2(header in header(), rest: Vec<u8>) {
            let written = header.to_v2();
            prop_assert!(written.len() <= V2_MAX);
            for n in 0..written.len() {
                prop_assert_eq!(parse(&written[..n]), Ok(None));
            }
            let stream = [&written[..], &rest].concat();
            prop_assert_eq!(parse(&stream), Ok(Some((header, written.len()))));
        }

        #[test]
        fn what_version_1_can_say_survives_it(header in header(), rest: Vec<u8>) {
            let written = header.to_v1();
            prop_assert!(written.len() <= V1_MAX);
            for n in 0..written.len() {
                prop_assert_eq!(parse(&written[..n]), Ok(None));
            }
            let expected = match header {
                Header::Inet { transport: Transport::Stream, .. } => header,
                _ => Header::Local,
            };
            let stream = [&written[..], &rest].concat();
            prop_assert_eq!(parse(&stream), Ok(Some((expected, written.len()))));
        }

        #[test]
        fn bytes_one_by_one_give_the_same_verdict(
            v2: bool,
            tail in prop::collection::vec(any::<u8>(), 0..600),
            text in "[ 0-9a-fA-FTCPUNKOW.:\r\n]{0,120}",
        ) {
            let stream = if v2 {
                [v2::SIGNATURE, &tail].concat()
            } else {
                [v1::SIGNATURE, text.as_bytes()].concat()
            };
            let early = (0..=stream.len()).map(|n| parse(&stream[..n])).find(|v| *v != Ok(None));
            let whole = parse(&stream);
            prop_assert_eq!(early.unwrap_or(Ok(None)), whole.clone());
            prop_assert!(whole != Ok(None) || stream.len() < V2_MAX);
        }
    }

    #[test]
    fn who_reads_what_is_wanted_takes_nothing_of_what_follows() {
        let source = "192.0.2.1:5".parse().unwrap();
        let header = Header::Inet {
            transport: Transport::Stream,
            source,
            destination: source,
        };
        for encoded in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            header.to_v1(),
            header.to_v2(),
            Header::Local.to_v2(),
        ] {
            let mut have = 0;
            while parse(&encoded[..have]).unwrap().is_none() {
                have += wanted(&encoded[..have]);
                assert!(have <= encoded.len());
            }
            assert_eq!(have, encoded.len());
        }
    }
}
