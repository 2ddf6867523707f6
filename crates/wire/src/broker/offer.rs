//! Connections on their way to a worker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::field::{self, Fields};
use super::frame::{Writer, cut, take, text};
use super::{
    ALPN_MAX, BrokerError, FIRST_BYTES_MAX, HEADER_LEN, MESSAGE_MAX, NAME_MAX, OFFER, OFFERS_MAX,
};

/// One connection and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Its number, which the worker's reports name. Never used twice by one broker.
    pub connection: u64,
    /// When it was accepted, in nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine
    /// share.
    pub arrival: u64,
    /// The listener that accepted it; empty where that was not said.
    pub listener: &'a str,
    /// Who connected; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that was connected to, where the broker knows it without asking.
    pub local: Option<SocketAddr>,
    /// Who connected to a Unix socket.
    pub user: Option<User>,
    /// The TLS server name, where the broker has looked for it.
    pub server_name: Option<&'a str>,
    /// The application protocols of the client hello, in the client's order.
    pub alpn: Vec<&'a [u8]>,
    /// The first bytes, where the broker has looked at them. They are still there to be read.
    pub first_bytes: &'a [u8],
}

/// The process at the other end of a Unix socket, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process.
    pub pid: i32,
}

/// Collects offers into a packet, so that many cost one call. The descriptors are sent in the same
/// order.
#[derive(Clone, Debug)]
pub struct Offers {
    writer: Writer,
    count: u8,
}

impl Offers {
    /// None yet.
    pub fn new() -> Self {
        Self {
            writer: Writer::new(OFFER),
            count: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an offer; false, and nothing is changed, when the packet is full. Into an empty one
    /// every offer fits: names, first bytes and the list of protocols are cut at their caps.
    pub fn push(&mut self, offer: &Offer<'_>) -> bool {
        if self.len() >= OFFERS_MAX || !self.writer.has_room(ENTRY_MAX) {
            return false;
        }
        let writer = &mut self.writer;
        let start = writer.len();
        writer.bytes(&[0; 2]);
        writer.bytes(&offer.connection.to_be_bytes());
        writer.bytes(&offer.arrival.to_be_bytes());
        if !offer.listener.is_empty() {
            writer.field(field::LISTENER, cut(offer.listener, NAME_MAX).as_bytes());
        }
        for (kind, address) in [(field::PEER, offer.peer), (field::LOCAL, offer.local)] {
            if let Some(address) = address {
                write_address(writer, kind, address);
            }
        }
        if let Some(User { uid, gid, pid }) = offer.user {
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&uid.to_be_bytes());
            bytes[4..8].copy_from_slice(&gid.to_be_bytes());
            bytes[8..].copy_from_slice(&pid.to_be_bytes());
            writer.field(field::USER, &bytes);
        }
        if let Some(name) = offer.server_name {
            writer.field(field::SERVER_NAME, cut(name, NAME_MAX).as_bytes());
        }
        for protocol in offer.alpn.iter().take(ALPN_MAX) {
            if (1..=NAME_MAX).contains(&protocol.len()) {
                writer.field(field::ALPN, protocol);
            }
        }
        if !offer.first_bytes.is_empty() {
            let first = &offer.first_bytes[..offer.first_bytes.len().min(FIRST_BYTES_MAX)];
            writer.field(field::FIRST_BYTES, first);
        }
        // ENTRY_MAX is below 65,536.
        let length = u16::try_from(writer.len() - start - 2).unwrap_or(u16::MAX);
        writer.patch(start, length);
        self.count += 1;
        true
    }

    /// The packet, to be sent with [`Offers::len`] descriptors, and begins the next.
    pub fn take(&mut self) -> Vec<u8> {
        let count = std::mem::take(&mut self.count);
        std::mem::replace(&mut self.writer, Writer::new(OFFER)).finish(count)
    }
}

impl Default for Offers {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn decode(mut body: &[u8]) -> Result<Vec<Offer<'_>>, BrokerError> {
    let mut offers = Vec::new();
    while !body.is_empty() {
        let wanted = usize::from(u16::from_be_bytes(take(&mut body)?));
        let (entry, rest) = body.split_at_checked(wanted).ok_or(BrokerError::Length {
            came: body.len(),
            wanted,
        })?;
        if offers.len() == OFFERS_MAX {
            return Err(too_many(OFFERS_MAX + 1));
        }
        offers.push(decode_entry(entry)?);
        body = rest;
    }
    if offers.is_empty() {
        return Err(too_many(0));
    }
    Ok(offers)
}

fn too_many(came: usize) -> BrokerError {
    BrokerError::Entries {
        came,
        max: OFFERS_MAX,
    }
}

fn decode_entry(mut entry: &[u8]) -> Result<Offer<'_>, BrokerError> {
    let mut offer = Offer {
        connection: u64::from_be_bytes(take(&mut entry)?),
        arrival: u64::from_be_bytes(take(&mut entry)?),
        ..Offer::default()
    };
    for field in Fields::new(entry) {
        let (kind, value) = field?;
        match kind {
            field::LISTENER => offer.listener = text(value, NAME_MAX)?,
            field::PEER => offer.peer = Some(read_address(kind, value)?),
            field::LOCAL => offer.local = Some(read_address(kind, value)?),
            field::USER => offer.user = Some(read_user(value)?),
            field::SERVER_NAME => offer.server_name = Some(text(value, NAME_MAX)?),
            field::ALPN => {
                let fits = (1..=NAME_MAX).contains(&value.len()) && offer.alpn.len() < ALPN_MAX;
                if !fits {
                    return Err(BrokerError::Field(kind));
                }
                offer.alpn.push(value);
            }
            field::FIRST_BYTES if value.len() <= FIRST_BYTES_MAX => offer.first_bytes = value,
            field::FIRST_BYTES => return Err(BrokerError::Field(kind)),
            _ => {}
        }
    }
    Ok(offer)
}

fn write_address(writer: &mut Writer, kind: u8, address: SocketAddr) {
    let mut bytes = [0; 22];
    let length = match address {
        SocketAddr::V4(address) => {
            bytes[..4].copy_from_slice(&address.ip().octets());
            bytes[4..6].copy_from_slice(&address.port().to_be_bytes());
            6
        }
        SocketAddr::V6(address) => {
            bytes[..16].copy_from_slice(&address.ip().octets());
            bytes[16..18].copy_from_slice(&address.port().to_be_bytes());
            bytes[18..].copy_from_slice(&address.scope_id().to_be_bytes());
            if address.scope_id() == 0 { 18 } else { 22 }
        }
    };
    writer.field(kind, &bytes[..length]);
}

fn read_address(kind: u8, mut bytes: &[u8]) -> Result<SocketAddr, BrokerError> {
    let wrong = |_| BrokerError::Field(kind);
    let ip: IpAddr = match bytes.len() {
        6 => Ipv4Addr::from(take::<4>(&mut bytes)?).into(),
        18 | 22 => Ipv6Addr::from(take::<16>(&mut bytes)?).into(),
        _ => return Err(BrokerError::Field(kind)),
    };
    let port = u16::from_be_bytes(take(&mut bytes)?);
    Ok(match ip {
        IpAddr::V6(ip) if !bytes.is_empty() => {
            let scope = u32::from_be_bytes(bytes.try_into().map_err(wrong)?);
            SocketAddrV6::new(ip, port, 0, scope).into()
        }
        ip => (ip, port).into(),
    })
}

fn read_user(mut bytes: &[u8]) -> Result<User, BrokerError> {
    if bytes.len() != 12 {
        return Err(BrokerError::Field(field::USER));
    }
    Ok(User {
        uid: u32::from_be_bytes(take(&mut bytes)?),
        gid: u32::from_be_bytes(take(&mut bytes)?),
        pid: i32::from_be_bytes(take(&mut bytes)?),
    })
}

/// The longest entry: its fixed part, and every field at its cap.
const ENTRY_MAX: usize = 18
    + 2 * (3 + NAME_MAX)
    + 2 * (3 + 22)
    + (3 + 12)
    + ALPN_MAX * (3 + NAME_MAX)
    + (3 + FIRST_BYTES_MAX);
const _: () = assert!(HEADER_LEN + ENTRY_MAX <= MESSAGE_MAX);
