//! The `[[yard]]` table, and `[listener.options.yard]`.

use std::num::NonZeroU32;

use portyard_core::config::Span;
use portyard_core::endpoint::{Endpoint, Host};
use serde::{Deserialize, Serialize};

use crate::routes::KeyConfig;

/// A daemon that is looked after.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct YardConfig {
    /// What it is called here: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Its admin endpoint: a Unix socket, or a loopback address. Actions need the socket.
    pub admin: Endpoint,
    /// How often it is asked.
    #[serde(default = "default_every")]
    pub every: Span,
    /// How long it may take to answer.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Of a kv-rpc: where its json-rpc listens, for looking at keys; absent: nobody looks at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Endpoint>,
}

/// The table `[listener.options.yard]`, for listeners of service `yard`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct YardOptions {
    /// Whether daemons can be told to reload or to drain. Needs `key` or `allow`.
    pub actions: bool,
    /// The key that must be shown for an action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyConfig>,
    /// Whose client certificate is good for an action: what follows `allow` in a rule of `[access]`,
    /// such as `"cn:ada"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Whether the same is demanded of who only looks.
    pub private: bool,
    /// Event streams at a time.
    pub streams: NonZeroU32,
}

impl Default for YardOptions {
    fn default() -> Self {
        Self {
            actions: false,
            key: None,
            allow: Vec::new(),
            private: false,
            streams: NonZeroU32::MIN.saturating_add(31),
        }
    }
}

impl YardConfig {
    /// Checks what types cannot say.
    pub fn check(all: &[Self]) -> Result<(), String> {
        if all.len() > DAEMONS_MAX {
            return Err(format!("[[yard]] names more than {DAEMONS_MAX} daemons"));
        }
        for (place, config) in all.iter().enumerate() {
            let wrong = |why: &str| Err(format!("[[yard]] \"{}\": {why}", config.name));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let name = &config.name;
            if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
                return wrong("name takes 1 to 64 letters, digits, - _ and .");
            }
            if name.bytes().all(|byte| byte == b'.') {
                return wrong("name must not be all dots");
            }
            if all[..place].iter().any(|other| other.name == *name) {
                return wrong("another daemon has this name");
            }
            if config.every.0.is_zero() || config.timeout.0.is_zero() {
                return wrong("every and timeout must be longer than \"0s\"");
            }
            if !is_near(&config.admin) {
                return wrong(
                    "admin must be unix:/PATH, unix:@NAME or a loopback address: admin endpoints \
                     have no authentication and no encryption",
                );
            }
            if let Some(keys) = &config.keys
                && !is_near(keys)
            {
                return wrong("keys must be unix:/PATH, unix:@NAME or a loopback address");
            }
        }
        Ok(())
    }

    /// Whether actions can reach it.
    pub fn can_be_steered(&self) -> bool {
        matches!(self.admin, Endpoint::Unix(_) | Endpoint::Abstract(_))
    }
}

/// Whether an endpoint is on this machine.
fn is_near(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) | Endpoint::Abstract(_) => true,
        Endpoint::Tcp(at) | Endpoint::Bare(at) => match &at.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name == "localhost",
        },
        _ => false,
    }
}

fn default_every() -> Span {
    Span::secs(2)
}

fn default_timeout() -> Span {
    Span::secs(2)
}

const NAME_MAX: usize = 64;
/// More than a machine runs; each costs a task and a minute of figures.
const DAEMONS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, admin: &str) -> YardConfig {
        YardConfig {
            name: name.into(),
            admin: admin.parse().unwrap(),
            every: default_every(),
            timeout: default_timeout(),
            keys: None,
        }
    }

    #[test]
    fn daemons_of_other_machines_and_two_of_one_name_are_refused() {
        let good = config("a", "unix:/run/a");
        for bad in [
            "tcp://192.0.2.1:1",
            "tcp://example.org:1",
            "udp://127.0.0.1:1",
            "inetd",
        ] {
            let why = YardConfig::check(&[config("a", bad)]).unwrap_err();
            assert!(why.contains("loopback"), "{why}");
        }
        for near in [
            "tcp://127.0.0.1:1",
            "tcp://[::1]:1",
            "tcp://localhost:1",
            "unix:@a",
        ] {
            YardConfig::check(&[config("a", near)]).unwrap();
        }
        assert!(YardConfig::check(&[good.clone(), good]).is_err());
        for name in ["", "a/b", "..", "a b", "<b>"] {
            assert!(
                YardConfig::check(&[config(name, "unix:/a")]).is_err(),
                "{name}"
            );
        }
    }
}
