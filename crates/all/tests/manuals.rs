//! The man pages and completions of every program, read by the programs that users read them with.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

fn written() -> TempDir {
    let prefix = TempDir::new().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_portyard-manuals"))
        .arg(prefix.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    prefix
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Runs a program that must be there and returns what it printed; anything on standard error fails.
fn silent(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("{command:?}: {error}; scripts/install-peers installs what the tests need")
        });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaint.is_empty(),
        "{command:?}: {}: {complaint}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn man_renders_every_page_without_a_warning() {
    let prefix = written();
    let mut pages = files(&prefix.path().join("share/man/man8"));
    assert_eq!(pages.len(), 5, "one for each daemon: {pages:?}");
    pages.extend(files(&prefix.path().join("share/man/man1")));
    assert!(pages.len() > 40, "{pages:?}");
    for page in pages {
        let shown = silent(
            Command::new("man")
                .args(["--warnings", "-E", "UTF-8", "-l"])
                .arg(&page)
                .env("LC_ALL", "C.UTF-8")
                .env("MANWIDTH", "100"),
        );
        assert!(shown.contains("SYNOPSIS"), "{}", page.display());
        // What a table of the help says on one line stays on one line.
        if page.ends_with("echo-tcp.8") {
            assert!(shown.contains("  echo         7007   returns what it is sent (RFC 862)\n"));
        }
    }
}

#[test]
fn a_subcommand_has_a_page_named_as_git_names_them() {
    let prefix = written();
    for page in ["portyard.1", "portyard-kv.1", "portyard-kv-set.1"] {
        assert!(prefix.path().join("share/man/man1").join(page).is_file());
    }
    let hidden = prefix
        .path()
        .join("share/man/man1/portyard-exec-activated.1");
    assert!(!hidden.exists());
}

#[test]
fn each_shell_loads_its_completions() {
    let prefix = written();
    for file in files(&prefix.path().join("share/bash-completion/completions")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let said = silent(
            Command::new("bash")
                .args([
                    "--norc",
                    "-c",
                    "source \"$1\" && complete -p \"$2\"",
                    "bash",
                ])
                .arg(&file)
                .arg(name),
        );
        assert!(said.contains(name), "{said}");
    }
    for file in files(&prefix.path().join("share/zsh/vendor-completions")) {
        silent(
            Command::new("zsh")
                .args(["-f", "-c", "fpath=(\"$1:h\" $fpath); autoload -Uz compinit && compinit -u -D && (( $+functions[$1:t] ))", "zsh"])
                .arg(&file),
        );
    }
    for file in files(&prefix.path().join("share/fish/vendor_completions.d")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let said = silent(
            Command::new("fish")
                .args([
                    "--no-config",
                    "-c",
                    "source $argv[1]; complete -C \"$argv[2] --\"",
                ])
                .arg(&file)
                .arg(name),
        );
        assert!(said.contains("--help"), "{name}: {said}");
    }
}
