//! `portyard cidr`: what a network holds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portyard_core::exit::{Exit, Fatal};
use serde_json::json;

use crate::out::Out;
use crate::stop::Outcome;

/// Tell what a network holds: range, count, netmask, usable addresses; IPv4 and IPv6.
///
/// NET is ADDRESS/PREFIX, for IPv4 also ADDRESS/NETMASK, or a single address. Bits set behind the
/// prefix are an error that names the right network, unless --strict=false.
///
/// "First" and "last" are the usable addresses: without network and broadcast address in IPv4,
/// without the subnet-router anycast address in IPv6 (RFC 4291 section 2.6.1); networks of one or
/// two addresses have no such reservation (RFC 3021, RFC 6164).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard cidr 192.0.2.0/24
  portyard cidr 2001:db8::/64 --json
  portyard cidr 10.0.0.0/8 --contains 10.1.2.3 && echo inside
  portyard cidr 2001:db8::/64 --list | head -n 3
  portyard cidr 192.0.2.0/255.255.255.252 --list
  portyard cidr 192.0.2.77/24 --strict=false

Exit codes: 0 done or \"yes\", 1 \"no\" to --contains, 64 NET or ADDRESS is none.")]
pub struct Args {
    /// The network: ADDRESS/PREFIX, for IPv4 also ADDRESS/NETMASK, or one address.
    net: String,
    /// Say whether ADDRESS is in the network; the exit code is the answer too.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "list")]
    contains: Option<IpAddr>,
    /// Print every address, one a line, from the first to the last, until the reader goes away.
    #[arg(long)]
    list: bool,
    /// Print at most N addresses.
    #[arg(long, value_name = "N", requires = "list")]
    limit: Option<u64>,
    /// Refuse bits behind the prefix; =false cuts them off.
    #[arg(
        long, value_name = "BOOL", default_value_t = true, default_missing_value = "true",
        num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set
    )]
    strict: bool,
    /// One JSON object; the count is a string because it may exceed what JSON readers take.
    #[arg(long, conflicts_with = "list")]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let block = Block::parse(&args.net, args.strict)?;
    let mut out = Out::new();
    let mut exit = Exit::Ok;
    if let Some(address) = args.contains {
        let inside = block.0.contains(&address);
        exit = if inside { Exit::Ok } else { Exit::No };
        if args.json {
            let (net, address) = (block.0.to_string(), address.to_string());
            out.json(&json!({"network": net, "address": address, "contains": inside}))?;
        } else {
            let is = if inside { "is" } else { "is not" };
            out.line(format_args!("{address} {is} in {}", block.0))?;
        }
    } else if args.list {
        for address in block.addresses(args.limit) {
            out.line(address)?;
        }
    } else if args.json {
        out.json(&block.json())?;
    } else {
        out.line(block)?;
    }
    out.flush()?;
    Ok(exit)
}

/// A network without bits behind its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block(IpNet);

impl Block {
    fn parse(text: &str, strict: bool) -> Result<Self, Fatal> {
        let wrong = |what: String| Fatal::new(Exit::Usage, what);
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            wrong(format!(
                "'{text}' is not a network; write 192.0.2.0/24 or 2001:db8::/32"
            ))
        })?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match prefix {
            None => longest,
            Some(prefix) => prefix_length(prefix, address.is_ipv4()).ok_or_else(|| {
                let mask = if address.is_ipv4() {
                    " or a netmask such as 255.255.255.0"
                } else {
                    ""
                };
                wrong(format!(
                    "'/{prefix}' is not a prefix length; write 0 to {longest}{mask}"
                ))
            })?,
        };
        let net = IpNet::new(address, length)
            .map_err(|_| wrong(format!("'{text}' needs a prefix from 0 to {longest}")))?;
        let whole = net.trunc();
        if strict && whole.addr() != address {
            return Err(wrong(format!(
                "{net} has bits set behind its prefix; the network is {whole} \
                 (--strict=false cuts them off)"
            )));
        }
        Ok(Self(whole))
    }

    /// Network address, last address and broadcast address, if there is such a thing.
    fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// First and last address for hosts, as Python's `hosts()` begins and ends.
    fn usable(self) -> (IpAddr, IpAddr) {
        let (first, last) = (self.0.network(), self.last());
        let reserved = self.0.max_prefix_len() - self.0.prefix_len() > 1;
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if reserved => (
                Ipv4Addr::from_bits(first.to_bits() + 1).into(),
                Ipv4Addr::from_bits(last.to_bits() - 1).into(),
            ),
            (IpAddr::V6(first), _) if reserved => {
                (Ipv6Addr::from_bits(first.to_bits() + 1).into(), last)
            }
            _ => (first, last),
        }
    }

    /// How many addresses, in decimal: 2^128 fits no integer.
    fn count(self) -> String {
        match self.0.max_prefix_len() - self.0.prefix_len() {
            128 => "340282366920938463463374607431768211456".into(),
            bits => (1_u128 << bits).to_string(),
        }
    }

    /// Every address in order; nothing is stored.
    fn addresses(self, limit: Option<u64>) -> impl Iterator<Item = IpAddr> {
        let (first, last) = match (self.0.network(), self.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                (u128::from(first.to_bits()), u128::from(last.to_bits()))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits(), last.to_bits()),
            // Both ends are of one family.
            _ => (1, 0),
        };
        let v4 = matches!(self.0, IpNet::V4(_));
        let count = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        (first..=last).take(count).map(move |bits| {
            if v4 {
                // The range ends within 32 bits.
                Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into()
            } else {
                Ipv6Addr::from_bits(bits).into()
            }
        })
    }

    fn json(self) -> serde_json::Value {
        let (first, last) = self.usable();
        let broadcast = match self.0 {
            IpNet::V4(net) => Some(net.broadcast().to_string()),
            IpNet::V6(_) => None,
        };
        json!({
            "network": self.0.to_string(),
            "version": if broadcast.is_some() { 4 } else { 6 },
            "address": self.0.network().to_string(),
            "prefix": self.0.prefix_len(),
            "netmask": self.0.netmask().to_string(),
            "hostmask": self.0.hostmask().to_string(),
            "broadcast": broadcast,
            "last_address": self.last().to_string(),
            "count": self.count(),
            "first_usable": first.to_string(),
            "last_usable": last.to_string(),
        })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.usable();
        writeln!(f, "network   {}", self.0)?;
        writeln!(f, "range     {} - {}", self.0.network(), self.last())?;
        writeln!(f, "netmask   {}", self.0.netmask())?;
        writeln!(f, "hostmask  {}", self.0.hostmask())?;
        if let IpNet::V4(net) = self.0 {
            writeln!(f, "broadcast {}", net.broadcast())?;
        }
        writeln!(f, "prefix    {}", self.0.prefix_len())?;
        writeln!(f, "count     {}", self.count())?;
        writeln!(f, "first     {first}")?;
        write!(f, "last      {last}")
    }
}

/// A prefix as a number, as a netmask or, as Python has it too, as a hostmask (0.0.0.255).
fn prefix_length(text: &str, v4: bool) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let length = text.parse().ok()?;
        let longest = if v4 {
            Ipv4Net::default().max_prefix_len()
        } else {
            Ipv6Net::default().max_prefix_len()
        };
        return (length <= longest).then_some(length);
    }
    let mask: Ipv4Addr = if v4 { text.parse().ok()? } else { return None };
    let bits = mask.to_bits();
    let ones = match (bits.leading_ones(), bits.trailing_ones()) {
        (ones, _) if bits.count_ones() == ones => ones,
        (_, ones) if bits.count_ones() == ones => 32 - ones,
        _ => return None,
    };
    u8::try_from(ones).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block::parse(text, true).unwrap()
    }

    #[test]
    fn host_bits_are_refused_and_the_network_named() {
        let error = Block::parse("192.0.2.77/24", true).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(
            error.to_string().contains("the network is 192.0.2.0/24"),
            "{error}"
        );
        assert_eq!(
            Block::parse("192.0.2.77/24", false).unwrap(),
            block("192.0.2.0/24")
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "x",
            "1.2.3/8",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/",
            "::/129",
            "1.2.3.4/255.0.255.0",
            "::/255.0.0.0",
            "01.2.3.4/8",
            "1.2.3.4/8/8",
            "1.2.3.4/+8",
        ] {
            assert!(Block::parse(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn masks_are_prefixes_too() {
        assert_eq!(block("10.0.0.0/255.0.0.0"), block("10.0.0.0/8"));
        assert_eq!(block("10.0.0.0/0.255.255.255"), block("10.0.0.0/8"));
        assert_eq!(block("0.0.0.0/0.0.0.0"), block("0.0.0.0/0"));
    }

    #[test]
    fn the_largest_networks_do_not_overflow() {
        let all = block("::/0");
        assert_eq!(all.count(), "340282366920938463463374607431768211456");
        assert_eq!(all.addresses(Some(2)).count(), 2);
        let last = block("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127");
        assert_eq!(last.addresses(None).count(), 2);
        assert_eq!(block("255.255.255.255").addresses(None).count(), 1);
    }
}
