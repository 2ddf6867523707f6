//! Access lists: who may use a listener, by address, local user, certificate or key, and why.
//!
//! Of the rules on addresses the one with the longest matching prefix decides, else the list's
//! default. Of the rules on an identity (the user at the other end of a Unix socket, the client's
//! certificate, the key that was proved) the last that matches decides; where none does, the peer is
//! denied if the list allows somebody by that kind of identity, and allowed otherwise.

mod rule;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use rule::{Identity, Kind, Matcher, Rule, RuleError};

use crate::config::{ConfigError, Source};

/// The `[access]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// What happens to an address that no rule matches.
    pub default: Action,
    /// The [`Rule`]s as texts: of addresses the longest prefix decides, and of equal ones the later.
    /// They are parsed with the list, so that an error names the line of its rule.
    pub rules: Vec<Spanned<String>>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Serve.
    Allow,
    /// Close, or for datagrams stay silent.
    Deny,
}

/// A list ready to be asked. Asking costs one hash look-up per distinct prefix length.
#[derive(Debug, Clone)]
pub struct AccessList {
    default: Action,
    /// Longest first; v4 and v6 apart.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
    rules: HashMap<IpNet, Placed>,
    /// In the order of the file.
    identities: Vec<Placed>,
}

/// A rule and its place in the file.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The rule.
    pub rule: Rule,
    /// `FILE:LINE`.
    pub place: String,
}

/// The answer to "why?".
#[derive(Debug, Clone)]
pub struct Explanation<'a> {
    /// What happens.
    pub action: Action,
    /// The rule that decided; `None`: the list's default did.
    pub rule: Option<&'a Placed>,
}

impl AccessList {
    /// Parses the rules and builds the list; `source` gives each rule its file and line.
    pub fn new(config: &AccessConfig, source: &Source) -> Result<Self, ConfigError> {
        let (mut rules, mut identities) = (HashMap::new(), Vec::new());
        for text in &config.rules {
            let rule: Rule = text
                .get_ref()
                .parse()
                .map_err(|error: RuleError| source.error(&text.span(), error.to_string()))?;
            let place = source.locate(&text.span());
            match rule.matcher {
                Matcher::Net(net) => {
                    rules.insert(net, Placed { rule, place });
                }
                _ => identities.push(Placed { rule, place }),
            }
        }
        let lengths = |v4: bool| {
            let mut all: Vec<u8> = rules
                .keys()
                .filter(|net| matches!(net, IpNet::V4(_)) == v4)
                .map(IpNet::prefix_len)
                .collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.dedup();
            all
        };
        Ok(Self {
            default: config.default,
            lengths_v4: lengths(true),
            lengths_v6: lengths(false),
            rules,
            identities,
        })
    }

    /// Whether there are rules on this kind of identity.
    pub fn concerns(&self, kind: Kind) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// Whether there are rules on anything but addresses.
    pub fn knows_identities(&self) -> bool {
        !self.identities.is_empty()
    }

    /// What happens to a peer with this identity, and which rule decided.
    pub fn check_identity(&self, identity: Identity<'_>) -> Explanation<'_> {
        let kind = identity.kind();
        let rule = self
            .of_kind(kind)
            .filter(|placed| placed.rule.matcher.matches(identity))
            .last();
        let allows = |placed: &Placed| placed.rule.action == Action::Allow;
        let action = match rule {
            Some(placed) => placed.rule.action,
            None if self.of_kind(kind).any(allows) => Action::Deny,
            None => Action::Allow,
        };
        Explanation { action, rule }
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Placed> {
        let concerned = move |placed: &&Placed| placed.rule.matcher.kind() == kind;
        self.identities.iter().filter(concerned)
    }

    /// What happens to `address`. IPv4 addresses mapped into IPv6 are taken as IPv4.
    pub fn check(&self, address: IpAddr) -> Action {
        if self.rules.is_empty() {
            self.default
        } else {
            self.explain(address).action
        }
    }

    /// What happens to `address`, and which rule decided.
    pub fn explain(&self, address: IpAddr) -> Explanation<'_> {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() {
            &self.lengths_v4
        } else {
            &self.lengths_v6
        };
        let rule = lengths.iter().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.rules.get(&net)
        });
        Explanation {
            action: rule.map_or(self.default, |placed| placed.rule.action),
            rule,
        }
    }
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            default: Action::Allow,
            rules: Vec::new(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(placed) => {
                write!(
                    f,
                    "{}: rule \"{}\" at {}",
                    self.action, placed.rule, placed.place
                )
            }
            None => write!(f, "{}: no rule matches, the default decides", self.action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> AccessList {
        let source = Source::from_text(text);
        AccessList::new(&source.parse().unwrap(), &source).unwrap()
    }

    #[test]
    fn the_longest_prefix_decides_whatever_the_order() {
        let list = list(
            "default = 'deny'\nrules = [\n 'allow 10.1.2.0/24',\n 'deny 10.1.2.3 noisy',\n 'deny 10.0.0.0/8',\n 'allow 2001:db8::/32',\n]",
        );
        let check = |a: &str| list.check(a.parse().unwrap());
        assert_eq!(check("10.1.2.4"), Action::Allow);
        assert_eq!(check("10.1.2.3"), Action::Deny);
        assert_eq!(check("10.9.9.9"), Action::Deny);
        assert_eq!(check("2001:db8::7"), Action::Allow);
        assert_eq!(check("::ffff:10.1.2.4"), Action::Allow);
        assert_eq!(check("192.0.2.1"), Action::Deny);
    }

    #[test]
    fn the_explanation_names_rule_reason_and_line() {
        let list = list("rules = [\n 'allow 10.0.0.0/8',\n 'deny 10.1.2.3 noisy',\n]");
        let text = list.explain("10.1.2.3".parse().unwrap()).to_string();
        assert_eq!(text, "deny: rule \"deny 10.1.2.3/32 noisy\" at line 3");
        let text = list.explain("192.0.2.1".parse().unwrap()).to_string();
        assert!(text.starts_with("allow: no rule matches"), "{text}");
    }

    #[test]
    fn an_allow_list_of_an_identity_is_closed_and_a_deny_list_is_open() {
        let user = |uid, gid| Identity::User { uid, gid, pid: 7 };
        let closed = list("rules = [ 'allow uid:5', 'allow gid:9', 'deny uid:6' ]");
        let check = |list: &AccessList, identity| list.check_identity(identity).action;
        assert_eq!(check(&closed, user(5, 1)), Action::Allow);
        assert_eq!(check(&closed, user(7, 9)), Action::Allow);
        assert_eq!(check(&closed, user(6, 9)), Action::Deny);
        assert_eq!(check(&closed, user(7, 7)), Action::Deny);
        // Other kinds are not concerned.
        assert_eq!(check(&closed, Identity::Key("k")), Action::Allow);
        assert!(closed.concerns(Kind::User) && !closed.concerns(Kind::Key));
        let open = list("rules = [ 'deny key:old' ]");
        assert_eq!(check(&open, Identity::Key("old")), Action::Deny);
        assert_eq!(check(&open, Identity::Key("new")), Action::Allow);
    }
}
