//! The programs that tests talk to. One that is missing fails the test; none is ever skipped.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::{Finished, finish};

/// A Python interpreter.
#[derive(Debug, Clone)]
pub struct Python {
    /// Major and minor version.
    pub version: (u8, u8),
    /// The program.
    pub path: PathBuf,
}

impl Python {
    /// Runs a script with arguments, to its end.
    #[track_caller]
    pub fn run(&self, script: &str, arguments: &[&str]) -> Finished {
        finish(
            Command::new(&self.path)
                .args(["-c", script])
                .args(arguments),
            b"",
        )
    }
}

/// The path of a program: of this machine, or unpacked by `scripts/install-peers`.
#[track_caller]
pub fn peer(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/usr");
    let places = env::split_paths(&path)
        // pyenv's shims start another shell each time, and what they start depends on the directory.
        .filter(|place| !place.ends_with("shims"))
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(["sbin", "bin"].map(|place| unpacked.join(place)));
    let found = places
        .map(|place| place.join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing: run scripts/test, which installs it"))
}

/// Runs a script of Node's with arguments, to its end. It may require the packages of npm that
/// `scripts/install-peers` has put into `target/peers/node`.
#[track_caller]
pub fn node(script: &str, arguments: &[&str]) -> Finished {
    let packages =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/node/node_modules");
    assert!(
        packages.is_dir(),
        "the npm packages are missing: run scripts/test, which installs them"
    );
    let mut node = Command::new(peer("node"));
    node.env("NODE_PATH", packages).args(["-e", script]);
    finish(node.args(arguments), b"")
}

/// Every Python of this machine: the system's, and those that pyenv has, 2.7 included.
#[track_caller]
pub fn pythons() -> Vec<Python> {
    static FOUND: OnceLock<Vec<Python>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let home = env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv"));
        let root = env::var_os("PYENV_ROOT").map(PathBuf::from).or(home);
        let versions = root.and_then(|root| root.join("versions").read_dir().ok());
        let installed = versions.into_iter().flatten().flatten();
        let mut others: Vec<_> = installed
            .map(|version| version.path().join("bin/python"))
            .filter(|path| path.is_file())
            .collect();
        others.sort();
        std::iter::once(peer("python3"))
            .chain(others)
            .map(with_version)
            .collect()
    });
    found.clone()
}

/// Runs a script with the system's Python 3, to its end.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) -> Finished {
    finish(
        Command::new(peer("python3"))
            .args(["-c", script])
            .args(arguments),
        b"",
    )
}

fn with_version(path: PathBuf) -> Python {
    let script = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])";
    let said = finish(Command::new(&path).args(["-c", script]), b"").success();
    let version = said
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let version = version.unwrap_or_else(|| panic!("{} has version {said:?}", path.display()));
    Python { version, path }
}
