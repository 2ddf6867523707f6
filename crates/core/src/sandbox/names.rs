//! Files that libraries open by themselves.

/// A spare descriptor, random numbers where the kernel has no call for them, and the time zones, whose
/// names are looked for in their directory.
pub const ALWAYS: &[&str] = &[
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/etc/localtime",
    "/etc/zoneinfo",
    "/usr/lib/zoneinfo",
    "/usr/share/lib/zoneinfo",
    "/usr/share/zoneinfo",
];

/// What the name service switch may read or load (nsswitch.conf(5)): all of `/etc`, because its files
/// are replaced by new ones and read again; libraries with its modules; what other services leave
/// for it.
pub const BY_NAME: &[&str] = &[
    "/etc",
    "/lib",
    "/lib64",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/usr/lib",
    "/usr/lib64",
    "/var/lib/extrausers",
    "/var/lib/sss",
];

/// The system's authorities, and what links there lead to.
pub const AUTHORITIES: &[&str] = &[
    "/etc/ca-certificates",
    "/etc/pki",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
];
