//! Who may do what with which names.
//!
//! A rule is `allow` or `deny`, operations, a pattern of names, and whom it is for. The last rule that
//! matches decides; where none does, the answer is no.

use std::fmt;
use std::str::FromStr;

use portyard_core::access::{Action, Identity, Matcher, Rule as AccessRule};
use portyard_core::wire::hold::Name;

/// All rules, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// What can be done with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// See that it is held.
    List,
    /// Hold something under it.
    Store,
    /// Get what is held under it.
    Retrieve,
    /// Have what is held under it closed.
    Delete,
}

/// Who asks: a process, and the key it has proved, if any.
#[derive(Debug, Clone)]
pub struct Asker<'a> {
    /// The process, as the kernel says.
    pub user: Identity<'a>,
    /// The key.
    pub key: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    action: Action,
    /// In the order of [`Operation`].
    operations: [bool; Operation::ALL.len()],
    pattern: String,
    /// `None`: everybody that the listener lets in.
    whom: Option<Matcher>,
    text: String,
}

impl Rules {
    /// Reads the rules, or says which one is wrong and what a right one looks like.
    pub fn new(texts: &[String]) -> Result<Self, String> {
        texts
            .iter()
            .map(|text| text.parse().map_err(|why| format!("[holding]: {why}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it is allowed.
    pub fn allow(&self, asker: &Asker<'_>, operation: Operation, name: &Name) -> bool {
        let decides = |rule: &&Rule| {
            rule.operations[operation as usize]
                && asker.is(rule.whom.as_ref())
                && matches(rule.pattern.as_bytes(), name.as_str().as_bytes())
        };
        let rule = self.0.iter().rev().find(decides);
        rule.is_some_and(|rule| rule.action == Action::Allow)
    }
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::List, Self::Store, Self::Retrieve, Self::Delete];

    /// Its name in rules and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Store => "store",
            Self::Retrieve => "retrieve",
            Self::Delete => "delete",
        }
    }
}

impl Asker<'_> {
    fn is(&self, whom: Option<&Matcher>) -> bool {
        whom.is_none_or(|whom| {
            let key = self.key.map(Identity::Key);
            whom.matches(self.user) || key.is_some_and(|key| whom.matches(key))
        })
    }

    /// Its user, where the kernel names one.
    pub fn uid(&self) -> Option<u32> {
        match self.user {
            Identity::User { uid, .. } => Some(uid),
            _ => None,
        }
    }
}

/// Who asks, as a rule would name them.
impl fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key, self.user) {
            (Some(key), _) => write!(f, "key:{key}"),
            (None, Identity::User { uid, .. }) => write!(f, "uid:{uid}"),
            (None, _) => f.write_str("unknown"),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "the rule {text:?} {why}; write \"allow retrieve web user:www-data\", \
                 \"allow store,delete build-* key:deploy\", or \"deny all admin-* uid:33\""
            )
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [action, operations, pattern, whom] = words[..] else {
            return Err(wrong("has not four words"));
        };
        let action = match action {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            _ => return Err(wrong("begins neither with allow nor with deny")),
        };
        let mut wanted = [false; Operation::ALL.len()];
        for word in operations.split(',') {
            let named = |operation: &Operation| word == "all" || word == operation.label();
            let found: Vec<_> = Operation::ALL.into_iter().filter(named).collect();
            if found.is_empty() {
                return Err(wrong(
                    "names something else than list, store, retrieve, delete or all",
                ));
            }
            for operation in found {
                wanted[operation as usize] = true;
            }
        }
        if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) || pattern.len() > PATTERN_MAX {
            return Err(wrong("has a pattern that no name can match"));
        }
        let whom = if whom == "any" {
            None
        } else {
            let rule: AccessRule = format!("allow {whom}")
                .parse()
                .map_err(|error| wrong(&format!("is for nobody: {error}")))?;
            match rule.matcher {
                matcher @ (Matcher::Uid(_)
                | Matcher::Gid(_)
                | Matcher::Pid(_)
                | Matcher::Key(_)) => Some(matcher),
                _ => {
                    return Err(wrong(
                        "is for somebody who cannot come here: user:, group:, uid:, gid:, pid:, \
                         key: and any can",
                    ));
                }
            }
        };
        Ok(Self {
            action,
            operations: wanted,
            pattern: pattern.into(),
            whom,
            text: text.into(),
        })
    }
}

/// Whether a name matches a pattern, in which `*` is any characters or none, and `?` any one. Takes at
/// most the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last star was, and up to where it has reached.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || *wanted == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((place, reached)) = star else {
                    return false;
                };
                star = Some((place, reached + 1));
                (at, read) = (place + 1, reached + 1);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

/// As long as a name, and as many stars again.
const PATTERN_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        let texts: Vec<String> = texts.iter().map(|text| (*text).into()).collect();
        Rules::new(&texts).unwrap()
    }

    fn user(uid: u32, gid: u32) -> Asker<'static> {
        Asker {
            user: Identity::User { uid, gid, pid: 9 },
            key: None,
        }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let none = rules(&[]);
        let some = rules(&["allow retrieve web uid:7", "allow store build-* gid:9"]);
        for operation in Operation::ALL {
            assert!(!none.allow(&user(0, 0), operation, &name("web")));
            let allowed = some.allow(&user(7, 1), operation, &name("web"));
            assert_eq!(allowed, operation == Operation::Retrieve);
            let allowed = some.allow(&user(8, 9), operation, &name("build-1"));
            assert_eq!(allowed, operation == Operation::Store);
        }
        assert!(!some.allow(&user(7, 1), Operation::Retrieve, &name("web2")));
        assert!(!some.allow(&user(0, 0), Operation::Retrieve, &name("web")));
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules = rules(&[
            "allow all * any",
            "deny store,delete web* any",
            "allow delete web-old key:ops",
        ]);
        let plain = user(5, 5);
        let ops = Asker {
            key: Some("ops"),
            ..plain.clone()
        };
        assert!(rules.allow(&plain, Operation::Retrieve, &name("web")));
        assert!(rules.allow(&plain, Operation::Store, &name("other")));
        assert!(!rules.allow(&plain, Operation::Store, &name("web")));
        assert!(!rules.allow(&plain, Operation::Delete, &name("web-old")));
        assert!(rules.allow(&ops, Operation::Delete, &name("web-old")));
        assert!(!rules.allow(&ops, Operation::Delete, &name("web")));
    }

    #[test]
    fn a_star_is_any_characters_and_a_question_mark_is_one() {
        for (pattern, name, matched) in [
            ("*", "anything", true),
            ("web", "web", true),
            ("web", "web2", false),
            ("web", "we", false),
            ("web*", "web", true),
            ("*web", "theweb", true),
            ("*web", "webs", false),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--c--b", false),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("?*", "", false),
            ("[a-z]", "b", false),
            ("a.c", "abc", false),
        ] {
            let got = matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(got, matched, "{pattern} {name}");
        }
        // A pattern that makes careless matchers take for ever.
        let (pattern, name) = ("a*".repeat(60) + "b", "a".repeat(255));
        assert!(!matches(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn a_wrong_rule_is_quoted_and_shown_a_right_one() {
        for text in [
            "",
            "allow",
            "allow retrieve web",
            "permit retrieve web uid:1",
            "allow fetch web uid:1",
            "allow retrieve web 10.0.0.0/8",
            "allow retrieve web dns:x",
            "allow retrieve web user:no-such-user-here",
            "allow retrieve web uid:1 why",
            "allow retrieve wéb uid:1",
        ] {
            let error = Rules::new(&[text.to_owned()]).unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(
                error.contains("allow retrieve web user:www-data"),
                "{error}"
            );
        }
    }
}
