//! The `process` table of whatever starts programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portyard_core::config::{FileMode, Size, Span};
use serde::{Deserialize, Serialize};

/// What a program is given, and whom it runs as.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// What the program is told to be called (its `argv[0]`); absent: its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The user, by name or number; absent: the broker's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group, by name or number; absent: the user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The supplementary groups; absent: those of the user, or with `group` alone the broker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// The working directory.
    pub directory: PathBuf,
    /// Variables beside those that every program gets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Variables of the broker's own environment that the program gets as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pass_environment: Vec<String>,
    /// The mode bits that its files do not get.
    pub umask: FileMode,
    /// Its priority, from -20 (first) to 19 (last).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i8>,
    /// Limits of resources; absent ones are the broker's.
    #[serde(skip_serializing_if = "ResourceLimits::is_default")]
    pub limits: ResourceLimits,
    /// Whether it can never gain privileges, by a set-user-ID program for one.
    pub no_new_privileges: bool,
    /// Whether it goes on when the broker ends or dies.
    pub outlive: bool,
    /// Where what it writes to standard error goes.
    pub stderr: Stderr,
    /// How long it has to end after SIGTERM before it is killed.
    pub kill_after: Span,
}

impl ProcessConfig {
    /// Whether users or groups have to be looked up.
    pub fn names_users(&self) -> bool {
        self.user.is_some() || self.group.is_some() || self.groups.is_some()
    }
}

/// Where a program's standard error goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stderr {
    /// Into the broker's log, line by line.
    #[default]
    Log,
    /// Nowhere.
    Null,
    /// Where standard output goes: to the peer.
    Peer,
}

/// Limits of resources (setrlimit(2)), soft and hard alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceLimits {
    /// Descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<u64>,
    /// Processes of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Span>,
    /// Address space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Data segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Size>,
    /// Stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Size>,
    /// The largest file it may write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<Size>,
    /// The largest core file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<Size>,
}

impl ResourceLimits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            name: None,
            user: None,
            group: None,
            groups: None,
            directory: "/".into(),
            environment: BTreeMap::new(),
            pass_environment: Vec::new(),
            umask: FileMode(0o022),
            nice: None,
            limits: ResourceLimits::default(),
            no_new_privileges: false,
            outlive: false,
            stderr: Stderr::Log,
            kill_after: DEFAULT_KILL_AFTER,
        }
    }
}

/// Time to write a file and say goodbye; within a daemon's own 90 seconds of patience.
const DEFAULT_KILL_AFTER: Span = Span::secs(5);
