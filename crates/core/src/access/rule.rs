//! One rule of an access list, as text and as value.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use nix::unistd::{Group, User};

use super::Action;

/// One rule: `allow 10.0.0.0/8`, `deny 192.0.2.0/24 scans us`, `allow user:www-data`. What follows
/// the matcher is the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Whom it is for.
    pub matcher: Matcher,
    /// Why, for the log and for `--explain`; may be empty.
    pub reason: String,
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    /// Addresses; host bits are cut off.
    Net(IpNet),
    /// `uid:N` or `user:NAME`: processes of a user, over a Unix socket.
    Uid(u32),
    /// `gid:N` or `group:NAME`: processes whose primary group this is, over a Unix socket.
    Gid(u32),
    /// `pid:N`: one process, over a Unix socket.
    Pid(i32),
    /// `dns:NAME`, `email:NAME`, `uri:URI` or `ip:ADDRESS`: certificates with that alternative name.
    /// `dns:*.NAME` matches any one label in place of the star.
    Name(String),
    /// `cn:NAME`: certificates whose subject has that common name.
    CommonName(String),
    /// `key:NAME`: peers that have proved that key.
    Key(String),
}

/// What a rule can look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The address.
    Address,
    /// The process at the other end of a Unix socket.
    User,
    /// The client's certificate.
    Certificate,
    /// The key that was proved.
    Key,
}

/// Who a peer has turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// A process of this machine, as the kernel says (`SO_PEERCRED`): when it connected.
    User {
        /// Its user.
        uid: u32,
        /// Its primary group.
        gid: u32,
        /// Its number.
        pid: i32,
    },
    /// The holder of a certificate; without any, both are empty.
    Certificate {
        /// The subject's common name.
        common_name: Option<&'a str>,
        /// The alternative names, as `dns:NAME` and so on.
        names: &'a [String],
    },
    /// The holder of a key.
    Key(&'a str),
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It has not the form of one.
    #[error(
        "'{0}' is not an access rule; write \"allow 10.0.0.0/8\", \"deny 192.0.2.7 reason\", or one \
         for user:, group:, uid:, gid:, pid:, dns:, email:, uri:, ip:, cn: or key:"
    )]
    Form(String),
    /// It names nobody.
    #[error("'{0}' names no user or group of this machine")]
    Nobody(String),
}

impl Matcher {
    /// What it looks at.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Net(_) => Kind::Address,
            Self::Uid(_) | Self::Gid(_) | Self::Pid(_) => Kind::User,
            Self::Name(_) | Self::CommonName(_) => Kind::Certificate,
            Self::Key(_) => Kind::Key,
        }
    }

    /// Whether it is for this identity.
    pub fn matches(&self, identity: Identity<'_>) -> bool {
        match (self, identity) {
            (Self::Uid(wanted), Identity::User { uid, .. }) => *wanted == uid,
            (Self::Gid(wanted), Identity::User { gid, .. }) => *wanted == gid,
            (Self::Pid(wanted), Identity::User { pid, .. }) => *wanted == pid,
            (Self::Name(wanted), Identity::Certificate { names, .. }) => {
                names.iter().any(|name| same_name(wanted, name))
            }
            (Self::CommonName(wanted), Identity::Certificate { common_name, .. }) => {
                common_name == Some(wanted.as_str())
            }
            (Self::Key(wanted), Identity::Key(name)) => wanted == name,
            _ => false,
        }
    }
}

/// DNS names do not care for case, and a star stands for one label; other names are exact.
fn same_name(wanted: &str, name: &str) -> bool {
    let (Some(wanted_host), Some(host)) = (wanted.strip_prefix("dns:"), name.strip_prefix("dns:"))
    else {
        return wanted == name;
    };
    match wanted_host.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => host.eq_ignore_ascii_case(wanted_host),
    }
}

impl Identity<'_> {
    /// What it is an identity by.
    pub fn kind(&self) -> Kind {
        match self {
            Self::User { .. } => Kind::User,
            Self::Certificate { .. } => Kind::Certificate,
            Self::Key(_) => Kind::Key,
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError::Form(text.into());
        let (action, rest) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(wrong)?;
        let action = match action {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            _ => return Err(wrong()),
        };
        let rest = rest.trim_start();
        let (whom, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        Ok(Self {
            action,
            matcher: matcher(whom)?.ok_or_else(wrong)?,
            reason: reason.trim().into(),
        })
    }
}

/// `None` when the text has no form that we know.
fn matcher(text: &str) -> Result<Option<Matcher>, RuleError> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(Some(Matcher::Net(net.trunc())));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(Matcher::Net(address.into())));
    }
    let Some((kind, name)) = text.split_once(':').filter(|(_, name)| !name.is_empty()) else {
        return Ok(None);
    };
    let nobody = || RuleError::Nobody(text.into());
    Ok(match kind {
        "uid" => name.parse().ok().map(Matcher::Uid),
        "gid" => name.parse().ok().map(Matcher::Gid),
        "pid" => name.parse().ok().map(Matcher::Pid),
        "user" => {
            let user = User::from_name(name).ok().flatten().ok_or_else(nobody)?;
            Some(Matcher::Uid(user.uid.as_raw()))
        }
        "group" => {
            let group = Group::from_name(name).ok().flatten().ok_or_else(nobody)?;
            Some(Matcher::Gid(group.gid.as_raw()))
        }
        "dns" | "email" | "uri" | "ip" => Some(Matcher::Name(text.into())),
        "cn" => Some(Matcher::CommonName(name.into())),
        "key" => Some(Matcher::Key(name.into())),
        _ => None,
    })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.matcher)?;
        if self.reason.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.reason)
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Gid(gid) => write!(f, "gid:{gid}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Name(name) => f.write_str(name),
            Self::CommonName(name) => write!(f, "cn:{name}"),
            Self::Key(name) => write!(f, "key:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn a_wrong_rule_is_refused() {
        for text in [
            "",
            "allow",
            "permit 10.0.0.0/8",
            "allow 10.0.0.0/33",
            "deny host.example",
            "allow uid:",
            "allow uid:root",
            "allow user:no-such-user-here",
            "allow planet:mars",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in [
            "allow 10.0.0.0/8",
            "deny 2001:db8::/32 scans us",
            "allow uid:1000",
            "deny gid:33 web",
            "allow pid:1",
            "allow dns:*.example.org",
            "allow email:ada@example.org",
            "allow cn:web",
            "deny key:old rotated",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule("allow user:root").matcher, Matcher::Uid(0));
        assert_eq!(rule("allow group:root").matcher, Matcher::Gid(0));
    }

    #[test]
    fn a_star_is_one_label() {
        let names = ["dns:Web.Example.org".to_owned()];
        let matches = |text: &str| {
            rule(text).matcher.matches(Identity::Certificate {
                common_name: Some("web"),
                names: &names,
            })
        };
        assert!(matches("allow dns:web.example.org"));
        assert!(matches("allow dns:*.example.org"));
        assert!(matches("allow cn:web"));
        for text in [
            "allow dns:*.org",
            "allow dns:*.web.example.org",
            "allow dns:example.org",
            "allow cn:Web",
            "allow email:web",
            "allow key:web",
        ] {
            assert!(!matches(text), "{text}");
        }
    }
}
