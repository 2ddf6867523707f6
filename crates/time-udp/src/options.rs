//! The `[listener.options]` table.

use serde::{Deserialize, Serialize};

/// Options of the services. Each service reads its own; the others have no effect on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// sntp: how far from a reference clock we are, 1 to 15; 0: not synchronised, which is said
    /// to every client honestly.
    pub stratum: u8,
    /// sntp: the reference: four ASCII characters at stratum 1 (`"GPS"`, `"PPS"`, `"LOCL"`), an
    /// IPv4 address above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// fib: the largest n.
    pub max_n: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stratum: 0,
            reference: None,
            max_n: DEFAULT_MAX_N,
        }
    }
}

/// fib(300) has 63 digits: within the 64 bytes that an answer to a stranger may have.
const DEFAULT_MAX_N: u32 = 300;
