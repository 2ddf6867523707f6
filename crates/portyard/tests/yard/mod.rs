//! A directory for certificates and keys, and the programs that make and judge them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use portyard_testkit::{Finished, finish, peer};
use serde_json::Value;
use tempfile::TempDir;

/// A directory in which the programs run.
pub struct Yard(TempDir);

impl Yard {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With an authority in `ca`, `server.pem` for the usual names, and `client.pem` for alice.
    pub fn furnished(key_type: &str) -> Self {
        let yard = Self::new();
        let more = ["--key-type", key_type];
        yard.made("cert ca --out ca", &more);
        yard.made(
            "cert server localhost 127.0.0.1 ::1 *.example.org --ca ca --out server",
            &more,
        );
        yard.made("cert client alice@example.org --ca ca --out client", &more);
        yard
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn portyard(&self, words: &str, more: &[&str]) -> Finished {
        let words = words.split_whitespace().chain(more.iter().copied());
        let mut command = Command::new(env!("CARGO_BIN_EXE_portyard"));
        finish(command.args(words).current_dir(self.0.path()), b"")
    }

    #[track_caller]
    pub fn made(&self, words: &str, more: &[&str]) -> String {
        self.portyard(words, more).success()
    }

    #[track_caller]
    pub fn refused(&self, words: &str, code: i32, because: &str) {
        let run = self.portyard(words, &[]);
        assert_eq!(run.code, Some(code), "{words}: {run:?}");
        assert!(run.stderr.contains(because), "{words}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{words}");
    }

    pub fn openssl(&self, words: &str) -> Finished {
        let mut command = Command::new(peer("openssl"));
        let words = words.split_whitespace();
        finish(command.args(words).current_dir(self.0.path()), b"")
    }

    /// What is wrong with files, by the words of `show`; its exit code must agree.
    #[track_caller]
    pub fn fails(&self, words: &str) -> Vec<String> {
        let run = self.portyard(&format!("cert show --json {words}"), &[]);
        let fails: Vec<String> = run
            .stdout
            .lines()
            .flat_map(|line| {
                let file: Value = serde_json::from_str(line).unwrap();
                let fails = file["fails"].as_array().unwrap().clone();
                fails
                    .into_iter()
                    .map(|text| text.as_str().unwrap().to_owned())
            })
            .collect();
        let code = i32::from(!fails.is_empty());
        assert_eq!(run.code, Some(code), "{words}: {run:?}");
        fails
    }

    #[track_caller]
    pub fn fails_once(&self, words: &str, because: &str) {
        let fails = self.fails(words);
        assert_eq!(fails.len(), 1, "{words}: {fails:?}");
        assert!(fails[0].contains(because), "{words}: {fails:?}");
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
