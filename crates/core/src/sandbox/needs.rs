//! What a daemon does after its start, said before it: everything else is denied from then on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names;
use crate::access::AccessConfig;
use crate::config::TlsConfig;
use crate::endpoint::{Endpoint, Host};
use crate::files::FilePlace;

/// The needs of a daemon with one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    files: BTreeSet<PathBuf>,
    trees: BTreeSet<PathBuf>,
    stores: BTreeSet<PathBuf>,
    sockets: BTreeSet<PathBuf>,
    /// TCP ports that are connected to.
    pub ports: BTreeSet<u16>,
    /// Whether hosts or users are looked up by name.
    pub names: bool,
    /// Whether abstract Unix sockets of others are connected to, or sent to.
    pub abstract_sockets: bool,
    /// What is asked of the kernel by netlink.
    pub netlink: Netlink,
    /// Whether a file in memory is made.
    pub memory_file: bool,
    /// What happens outside of the sandbox.
    pub outside: Outside,
}

/// What is asked of the kernel by netlink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Netlink {
    /// The machine's addresses.
    pub addresses: bool,
    /// What became of connections.
    pub sockets: bool,
}

/// What happens outside of the sandbox, on a thread of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outside {
    /// Nothing.
    #[default]
    Nothing,
    /// Looking at other processes, which landlock never permits. The system calls are filtered.
    Looks,
    /// Programs are started, which must not inherit the sandbox.
    Programs,
}

/// What may be done with what lies at or below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Files are read.
    Read,
    /// Files are read, directories listed.
    List,
    /// Files are read, made, written, named and removed.
    Store,
    /// Unix sockets are made and removed.
    Sockets,
}

/// A path as the kernel knows it, and what may be done there.
pub type Grant = (PathBuf, Right);

impl Needs {
    /// A file that is read again, and may have been replaced by then.
    pub fn read(&mut self, path: impl Into<PathBuf>) {
        self.files.insert(path.into());
    }

    /// The same, for a file that a configuration names.
    pub fn read_place(&mut self, place: &FilePlace) {
        // A credential without a directory is an error that others report.
        self.files.extend(place.path());
    }

    /// A directory whose files are read and listed, at any depth.
    pub fn list(&mut self, directory: impl Into<PathBuf>) {
        self.trees.insert(directory.into());
    }

    /// A directory in which files are made and written.
    pub fn store(&mut self, directory: impl Into<PathBuf>) {
        self.stores.insert(directory.into());
    }

    /// Whether there is such a directory.
    pub fn stores(&self) -> bool {
        !self.stores.is_empty()
    }

    /// A place to listen at.
    pub fn listen(&mut self, endpoint: &Endpoint) {
        match endpoint {
            Endpoint::Unix(path) => {
                self.sockets(parent(path));
            }
            Endpoint::Tcp(at) | Endpoint::Udp(at) | Endpoint::Bare(at) => {
                self.names |= matches!(at.host, Host::Name(_));
            }
            Endpoint::Abstract(_)
            | Endpoint::Systemd(_)
            | Endpoint::Fd(_)
            | Endpoint::Inetd
            | Endpoint::Broker { .. } => {}
        }
    }

    /// A place to listen at, as a configuration spells it; what is no endpoint is an error elsewhere.
    pub fn listen_text(&mut self, text: &str) {
        if let Ok(endpoint) = text.parse() {
            self.listen(&endpoint);
        }
    }

    /// A directory in which Unix sockets are made and removed.
    pub fn sockets(&mut self, directory: impl Into<PathBuf>) {
        self.sockets.insert(directory.into());
    }

    /// A place to connect to.
    pub fn connect(&mut self, endpoint: &Endpoint) {
        match endpoint {
            Endpoint::Tcp(at) | Endpoint::Bare(at) => {
                self.ports.insert(at.port);
                self.names |= matches!(at.host, Host::Name(_));
            }
            Endpoint::Abstract(_) => self.abstract_sockets = true,
            // Landlock leaves those with a path to the rights of their files.
            _ => {}
        }
    }

    /// The files of a listener's keys and certificates.
    pub fn trust<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a FilePlace>,
        tls: Option<&'a TlsConfig>,
    ) {
        let certificates = tls.iter().flat_map(|tls| &tls.certificates);
        let pairs = certificates.flat_map(|one| [&one.chain, &one.key]);
        let lists = tls
            .iter()
            .flat_map(|tls| tls.client_ca.iter().chain(&tls.crls));
        for place in pairs.chain(lists).chain(keys) {
            self.read_place(place);
        }
    }

    /// The system's authorities, wherever its distribution keeps them.
    pub fn authorities(&mut self) {
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
        let named = named.iter().filter_map(std::env::var_os);
        let named = named.map(PathBuf::from);
        self.trees
            .extend(names::AUTHORITIES.iter().map(PathBuf::from).chain(named));
    }

    /// The users and groups that rules name.
    pub fn access(&mut self, access: &AccessConfig) {
        for rule in &access.rules {
            self.user_rule(rule.get_ref());
        }
    }

    /// The user or group that a rule names.
    pub fn user_rule(&mut self, rule: &str) {
        self.names |= rule.contains("user:") || rule.contains("group:");
    }

    /// Programs are started.
    pub fn programs(&mut self) {
        self.outside = Outside::Programs;
    }

    /// All that either needs.
    pub fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.trees.extend(other.trees);
        self.stores.extend(other.stores);
        self.sockets.extend(other.sockets);
        self.ports.extend(other.ports);
        self.names |= other.names;
        self.abstract_sockets |= other.abstract_sockets;
        self.netlink.addresses |= other.netlink.addresses;
        self.netlink.sockets |= other.netlink.sockets;
        self.memory_file |= other.memory_file;
        self.outside = self.outside.max(other.outside);
    }

    /// The paths, as the kernel knows them now. What is not there is left out.
    pub fn grants(&self) -> BTreeSet<Grant> {
        let mut grants = BTreeSet::new();
        for file in &self.files {
            // Who replaces a file makes a new one in its directory, and a link may lead to another.
            let beside = parent(file).canonicalize();
            let target = file.canonicalize();
            let behind = target.as_deref().map(parent);
            for directory in [beside.as_deref(), behind] {
                match directory {
                    // All that others keep there is none of ours.
                    Ok(wide) if is_wide(wide) => {
                        grants.extend(target.iter().map(|file| (file.clone(), Right::Read)));
                    }
                    Ok(directory) => {
                        grants.insert((directory.into(), Right::Read));
                    }
                    Err(_) => {}
                }
            }
        }
        let mut below = |paths: &BTreeSet<PathBuf>, right| {
            let found = paths.iter().filter_map(|path| path.canonicalize().ok());
            grants.extend(found.map(|path| (path, right)));
        };
        below(&self.trees, Right::List);
        below(&self.stores, Right::Store);
        below(&self.sockets, Right::Sockets);
        grants
    }
}

impl Netlink {
    /// Whether anything is asked.
    pub fn any(self) -> bool {
        self.addresses || self.sockets
    }
}

impl Right {
    /// Whether it includes another.
    pub fn covers(self, other: Self) -> bool {
        match other {
            Self::Read => self != Self::Sockets,
            Self::List => matches!(self, Self::List | Self::Store),
            Self::Store | Self::Sockets => self == other,
        }
    }

    /// Its word in the status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Store => "store",
            Self::Sockets => "sockets",
        }
    }

    /// What it is, behind "the sandbox was closed without".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Read => "the right to read files in",
            Self::List => "the right to list",
            Self::Store => "the right to write files in",
            Self::Sockets => "the right to make sockets in",
        }
    }
}

/// The directory that holds a path.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// Whether a directory is everybody's, so that a file in it says nothing of the others.
fn is_wide(directory: &Path) -> bool {
    WIDE.iter().any(|wide| directory == Path::new(wide))
}

const WIDE: &[&str] = &[
    "/",
    "/dev",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/local/etc",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/tmp",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_grants_its_directory_and_the_one_that_its_link_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["live", "archive"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        fs::write(root.join("archive/1.pem"), "x").unwrap();
        symlink("../archive/1.pem", root.join("live/cert.pem")).unwrap();
        let mut needs = Needs::default();
        needs.read(root.join("live/cert.pem"));
        let wanted = ["archive", "live"].map(|name| (root.join(name), Right::Read));
        assert_eq!(needs.grants(), BTreeSet::from(wanted));
    }

    #[test]
    fn a_file_in_a_directory_of_everybody_grants_itself_alone() {
        let mut needs = Needs::default();
        needs.read("/etc/passwd");
        needs.read("/etc/there-is-none");
        let wanted = (PathBuf::from("/etc/passwd"), Right::Read);
        assert_eq!(needs.grants(), BTreeSet::from([wanted]));
    }

    #[test]
    fn hosts_and_users_by_name_are_told_from_numbers() {
        let by_name = |listen: &str, rule: &str| {
            let mut needs = Needs::default();
            needs.listen_text(listen);
            needs.user_rule(rule);
            needs.names
        };
        assert!(!by_name("tcp://127.0.0.1:7", "allow uid:7"));
        assert!(by_name("tcp://localhost:7", "allow uid:7"));
        assert!(by_name("unix:/run/x", "allow user:backup"));
        assert!(by_name("unix:/run/x", "deny group:games"));
    }

    #[test]
    fn writing_includes_reading_and_sockets_include_nothing() {
        assert!(Right::Store.covers(Right::List) && Right::List.covers(Right::Read));
        assert!(!Right::Read.covers(Right::List) && !Right::List.covers(Right::Store));
        assert!(!Right::Sockets.covers(Right::Read) && !Right::Store.covers(Right::Sockets));
    }
}
