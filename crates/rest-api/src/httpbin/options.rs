//! The `[listener.options.httpbin]` table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use portyard_core::config::Span;
use serde::{Deserialize, Serialize};

use super::{Dialect, text};

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpbinOptions {
    /// Whose answers are given under `prefix`.
    pub dialect: Dialect,
    /// The path under which the API is; empty: the root.
    pub prefix: String,
    /// Further prefixes, each with its dialect.
    pub prefixes: BTreeMap<String, Dialect>,
    /// The longest wait that a client may ask for.
    pub max_duration: Span,
    /// The hosts that `/redirect-to` leads to; empty: any.
    pub redirect_hosts: Vec<String>,
    /// Fields of requests that no answer tells, such as `x-fc-*`.
    pub hide_headers: Vec<String>,
    /// The variables of the environment that `/env` tells, such as `HTTPBIN_*`.
    pub environment: Vec<String>,
    /// What `/hostname` tells.
    pub hostname: String,
}

/// A prefix and its dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Empty, or a path that begins with `/` and does not end with one.
    pub prefix: String,
    /// Whose answers are given under it.
    pub dialect: Dialect,
}

impl Default for HttpbinOptions {
    fn default() -> Self {
        Self {
            dialect: Dialect::Python,
            prefix: String::new(),
            prefixes: BTreeMap::new(),
            // What both originals allow.
            max_duration: Span::secs(10),
            redirect_hosts: Vec::new(),
            hide_headers: Vec::new(),
            environment: vec!["HTTPBIN_*".into()],
            hostname: "rest-api".into(),
        }
    }
}

impl HttpbinOptions {
    /// All prefixes, the longest first.
    pub fn mounts(&self) -> Result<Vec<Mount>, String> {
        let first = std::iter::once((&self.prefix, &self.dialect));
        let mut mounts = Vec::new();
        for (prefix, dialect) in first.chain(&self.prefixes) {
            let trimmed = prefix.trim_end_matches('/');
            if !trimmed.is_empty() && !trimmed.starts_with('/') {
                return Err(format!(
                    "httpbin: the prefix \"{prefix}\" must begin with /"
                ));
            }
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
            if !trimmed.bytes().all(plain) || trimmed.contains("//") {
                let why = "may have letters, digits and -._~ between single slashes";
                return Err(format!("httpbin: the prefix \"{prefix}\" {why}"));
            }
            if mounts.iter().any(|mount: &Mount| mount.prefix == trimmed) {
                return Err(format!("httpbin: the prefix \"{prefix}\" is given twice"));
            }
            mounts.push(Mount {
                prefix: trimmed.into(),
                dialect: *dialect,
            });
        }
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
        Ok(mounts)
    }

    /// The longest wait.
    pub fn longest(&self) -> Duration {
        self.max_duration.0
    }

    /// The variables that may be told.
    pub fn chosen_environment(
        &self,
        all: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(String, String)> {
        let texts = all.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let chosen = |name: &str| {
            self.environment
                .iter()
                .any(|glob| text::matches(glob, name))
        };
        let mut variables: Vec<_> = texts.filter(|(name, _)| chosen(name)).collect();
        variables.sort();
        variables
    }

    /// Whether no answer tells of a field.
    pub fn hides(&self, name: &str) -> bool {
        self.hide_headers
            .iter()
            .any(|glob| text::matches(glob, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_paths_and_the_longest_counts() {
        let options = |prefix: &str, more: &[&str]| HttpbinOptions {
            prefix: prefix.into(),
            prefixes: more
                .iter()
                .map(|prefix| ((*prefix).into(), Dialect::Go))
                .collect(),
            ..HttpbinOptions::default()
        };
        let mounts = options("/", &["/go/", "/go/deep"]).mounts().unwrap();
        let prefixes: Vec<_> = mounts.iter().map(|mount| mount.prefix.as_str()).collect();
        assert_eq!(prefixes, ["/go/deep", "/go", ""]);
        for (prefix, more) in [
            ("x", &[][..]),
            ("/a b", &[]),
            ("/a//b", &[]),
            ("/a", &["/a/"]),
            ("/%41", &[]),
        ] {
            assert!(options(prefix, more).mounts().is_err(), "{prefix}");
        }
    }

    #[test]
    fn only_chosen_variables_are_told() {
        let options = HttpbinOptions::default();
        let all = [("HTTPBIN_B", "2"), ("PATH", "/bin"), ("HTTPBIN_A", "1")];
        let all = all
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let chosen = options.chosen_environment(all);
        let expected = [("HTTPBIN_A", "1"), ("HTTPBIN_B", "2")];
        assert_eq!(
            chosen,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
