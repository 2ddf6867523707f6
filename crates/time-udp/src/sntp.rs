//! The time for NTP clients. We serve the machine's clock and say honestly how good it is.

use std::net::Ipv4Addr;

use portyard_core::clock::Now;
use portyard_core::datagram::{Answer, DatagramService, Guard, Request};
use portyard_core::observe::metrics::Drop;
use portyard_core::wire::sntp::{self, KissCode, LeapIndicator, Server, Timestamp};

use crate::options::Options;

/// The sntp service.
pub struct Sntp {
    server: Server,
}

impl Sntp {
    /// Takes `stratum` and `reference` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        let mut server = match options.stratum {
            0 if options.reference.is_some() => {
                return Err(
                    "options.reference says who we follow, which needs a stratum from 1 \
                            to 15"
                        .into(),
                );
            }
            0 => Server::unsynchronised(),
            stratum @ 1..=15 => Server::local(stratum),
            stratum => return Err(format!("options.stratum = {stratum} is not from 0 to 15")),
        };
        if let Some(reference) = &options.reference {
            server.reference_id = reference_id(options.stratum, reference)?;
            server.leap = LeapIndicator::NoWarning;
        }
        Ok(Self { server })
    }
}

/// RFC 5905, 7.3: ASCII at stratum 1, the upstream's IPv4 address above.
fn reference_id(stratum: u8, text: &str) -> Result<[u8; 4], String> {
    if stratum > 1
        && let Ok(address) = text.parse::<Ipv4Addr>()
    {
        return Ok(address.octets());
    }
    let ascii = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !ascii {
        return Err(format!(
            "options.reference = \"{text}\" is not a reference: write up to four characters such \
             as \"GPS\", or above stratum 1 an IPv4 address"
        ));
    }
    let mut id = [0; 4];
    id[..text.len()].copy_from_slice(text.as_bytes());
    Ok(id)
}

impl DatagramService for Sntp {
    fn reads(&self) -> usize {
        sntp::LEN
    }

    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer {
        let received = stamp(request.now);
        let port = request.source.map_or(0, |source| source.port());
        // The transmit time is read as late as possible: now, not when the batch came.
        match self
            .server
            .reply(request.payload, port, received, stamp(Now::read()))
        {
            Ok(reply) => {
                answer.extend_from_slice(&reply);
                Answer::Buffer
            }
            Err(_) => Answer::Ignore(Drop::Malformed),
        }
    }

    fn over_rate(&self, request: Request<'_>, answer: &mut Vec<u8>) -> bool {
        let port = request.source.map_or(0, |source| source.port());
        let received = stamp(request.now);
        let kiss = sntp::kiss(
            KissCode::Rate,
            request.payload,
            port,
            received,
            stamp(Now::read()),
        );
        if let Some(kiss) = &kiss {
            answer.extend_from_slice(kiss);
        }
        kiss.is_some()
    }

    fn guard(&self) -> Guard {
        Guard::DIRECTION
    }
}

fn stamp(now: Now) -> Timestamp {
    Timestamp::from_unix(now.seconds, now.nanoseconds)
}
