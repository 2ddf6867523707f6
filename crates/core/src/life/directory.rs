//! Where a daemon's sockets are when nobody says where.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The directory for the sockets of the daemon of this name: systemd's `RuntimeDirectory=`, else one in
/// the user's runtime directory, or, where a session has none, in the state directory (XDG Base
/// Directory Specification). All of them are for one user alone. Without any variable: below `/run`.
pub fn runtime_directory(name: &str) -> PathBuf {
    find(name, |variable| env::var_os(variable))
}

fn find(name: &str, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    // What is empty or relative counts as not set.
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let user = |base: &str| absolute(variable(base)?.into());
    // systemd's may name several directories, and the first is ours.
    let given = variable("RUNTIME_DIRECTORY");
    given
        .and_then(|list| absolute(env::split_paths(&list).next()?))
        .or_else(|| Some(user("XDG_RUNTIME_DIR")?.join(name)))
        .or_else(|| Some(user("XDG_STATE_HOME")?.join(name)))
        .or_else(|| Some(user("HOME")?.join(".local/state").join(name)))
        .unwrap_or_else(|| PathBuf::from("/run").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_believed_before_the_session() {
        let with = |set: &[(&str, &str)]| {
            find("x", |wanted| {
                let found = set.iter().find(|(name, _)| *name == wanted)?;
                Some(found.1.into())
            })
        };
        let session = ("XDG_RUNTIME_DIR", "/run/user/7");
        let home = ("HOME", "/home/u");
        assert_eq!(
            with(&[("RUNTIME_DIRECTORY", "/run/a:/run/b"), session, home]),
            PathBuf::from("/run/a")
        );
        assert_eq!(with(&[session, home]), PathBuf::from("/run/user/7/x"));
        assert_eq!(
            with(&[("XDG_RUNTIME_DIR", "relative"), home]),
            PathBuf::from("/home/u/.local/state/x")
        );
        assert_eq!(with(&[]), PathBuf::from("/run/x"));
    }
}
