//! Access lists: the rule with the longest matching prefix decides, and can say why.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::config::{ConfigError, Source};

/// The `[access]` table.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// What happens to an address that no rule matches.
    pub default: Action,
    /// The [`Rule`]s as texts, in any order: the longest prefix decides, and of equal ones the later.
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

/// One rule: `allow 10.0.0.0/8`, `deny 192.0.2.0/24 scans us`. The rest of the text is the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The addresses it is for; host bits are cut off.
    pub net: IpNet,
    /// Why, for the log and for `--explain`; may be empty.
    pub reason: String,
}

/// A list ready to be asked. Asking costs one hash look-up per distinct prefix length.
#[derive(Debug, Clone)]
pub struct AccessList {
    default: Action,
    /// Longest first; v4 and v6 apart.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
    rules: HashMap<IpNet, Placed>,
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

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an access rule; write \"allow 10.0.0.0/8\" or \"deny 192.0.2.7 reason\"")]
pub struct RuleError(String);

impl AccessList {
    /// Parses the rules and builds the list; `source` gives each rule its file and line.
    pub fn new(config: &AccessConfig, source: &Source) -> Result<Self, ConfigError> {
        let mut rules = HashMap::new();
        for text in &config.rules {
            let rule: Rule = text
                .get_ref()
                .parse()
                .map_err(|error: RuleError| source.error(&text.span(), error.to_string()))?;
            let place = source.locate(&text.span());
            rules.insert(rule.net, Placed { rule, place });
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
        })
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

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError(text.into());
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
        let (net, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let net = match (net.parse::<IpNet>(), net.parse::<IpAddr>()) {
            (Ok(net), _) => net,
            (_, Ok(address)) => IpNet::from(address),
            _ => return Err(wrong()),
        };
        Ok(Self {
            action,
            net: net.trunc(),
            reason: reason.trim().into(),
        })
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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.net)?;
        if self.reason.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.reason)
        }
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
            None => write!(
                f,
                "{}: no rule matches, the list's default decides",
                self.action
            ),
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
    fn a_wrong_rule_is_refused() {
        for text in [
            "",
            "allow",
            "permit 10.0.0.0/8",
            "allow 10.0.0.0/33",
            "deny host.example",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
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
}
