//! Names to addresses and back, by the system's resolver, with a deadline.
//!
//! getaddrinfo(3) and getnameinfo(3) know hosts files, DNS and whatever else nsswitch.conf names,
//! and can take minutes when a DNS server is silent. So they run on a thread that is left behind
//! when the deadline passes.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind};
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether the address is of this family.
    pub fn holds(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

/// The addresses of a host name in the resolver's order of preference (RFC 6724), without repeats.
///
/// Never empty: a name without an address of the family is an error.
pub fn addresses(name: &str, family: Family, deadline: Duration) -> Result<Vec<IpAddr>, Fatal> {
    let shown = escape(name.as_bytes(), SHOWN);
    let question = name.to_owned();
    let answer = within(deadline, move || {
        let hints = AddrInfoHints {
            // One answer per address, not one per type of socket.
            socktype: libc::SOCK_STREAM,
            ..AddrInfoHints::default()
        };
        dns_lookup::getaddrinfo(Some(&question), None, Some(hints)).map(|found| {
            found
                .filter_map(Result::ok)
                .map(|info| info.sockaddr.ip())
                .take(MAX_ADDRESSES)
                .collect::<Vec<_>>()
        })
    })
    .map_err(|overdue| overdue.fatal(&shown, deadline))?
    .map_err(|error| failure(&shown, &error))?;
    let mut found = Vec::new();
    for ip in answer {
        if family.holds(ip) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    if found.is_empty() {
        let family = match family {
            Family::Any => "",
            Family::V4 => "IPv4 ",
            Family::V6 => "IPv6 ",
        };
        return Err(Fatal::new(
            Exit::NoHost,
            format!("{shown} has no {family}address"),
        ));
    }
    Ok(found)
}

/// The name of an address; having none is an error.
pub fn name(ip: IpAddr, deadline: Duration) -> Result<String, Fatal> {
    let shown = ip.to_string();
    within(deadline, move || {
        dns_lookup::getnameinfo(&SocketAddr::new(ip, 0), libc::NI_NAMEREQD)
    })
    .map_err(|overdue| overdue.fatal(&shown, deadline))?
    .map(|(name, _)| name)
    .map_err(|error| failure(&shown, &error))
}

/// Why there is no result of [`within`].
enum Overdue {
    Late,
    NoThread,
}

impl Overdue {
    fn fatal(&self, shown: &str, deadline: Duration) -> Fatal {
        match self {
            Self::Late => Fatal::new(
                Exit::TempFail,
                format!("no answer about {shown} within {deadline:?}; is a DNS server reachable?"),
            ),
            Self::NoThread => Fatal::new(
                Exit::OsError,
                format!("cannot look up {shown}: the kernel refuses a thread"),
            ),
        }
    }
}

/// What `work` returns, if it returns in time. Else its thread is left behind.
fn within<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Overdue> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("lookup".into())
        // Nobody may be waiting any more; then the result is of no use.
        .spawn(move || drop(sender.send(work())))
        .map_err(|_| Overdue::NoThread)?;
    receiver.recv_timeout(deadline).map_err(|_| Overdue::Late)
}

fn failure(shown: &str, error: &LookupError) -> Fatal {
    let (exit, what) = match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => {
            (Exit::NoHost, "nobody knows it; check the spelling")
        }
        LookupErrorKind::Again => (
            Exit::TempFail,
            "the name server did not answer; try again later",
        ),
        LookupErrorKind::Memory | LookupErrorKind::System => {
            (Exit::OsError, "the system's resolver failed")
        }
        _ => (Exit::NoHost, "the resolver refuses it"),
    };
    Fatal::new(exit, format!("cannot look up {shown}: {what}"))
}

/// Characters of a name in a message; a DNS name has at most 253.
const SHOWN: usize = 260;
/// Far more than any real host has; a name server cannot make us collect more.
const MAX_ADDRESSES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_resolver_does_not_hold_us() {
        let result = within(Duration::from_millis(1), || {
            // Longer than the deadline, as long as the test process lives.
            thread::park_timeout(Duration::from_secs(5));
        });
        assert!(matches!(result, Err(Overdue::Late)));
    }

    #[test]
    fn a_literal_address_is_its_own_answer() {
        let deadline = Duration::from_secs(5);
        let v6 = addresses("::1", Family::Any, deadline).unwrap();
        assert_eq!(v6, [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        let error = addresses("127.0.0.1", Family::V6, deadline).unwrap_err();
        assert_eq!(error.exit, Exit::NoHost);
        assert_eq!(error.to_string(), "127.0.0.1 has no IPv6 address");
    }
}
