//! One binary, called by the name of each program.

use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn the_name_it_is_called_by_decides_what_it_is() {
    let directory = tempfile::TempDir::new().unwrap();
    for program in &portyard_all::PROGRAMS {
        let link = directory.path().join(program.name);
        symlink(env!("CARGO_BIN_EXE_portyard-all"), &link).unwrap();
        let output = Command::new(&link).arg("--version").output().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with(&format!("{} ", program.name)), "{said}");
    }
}

#[test]
fn any_other_name_is_told_the_right_ones() {
    let output = Command::new(env!("CARGO_BIN_EXE_portyard-all"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("called as \"portyard-all\""), "{said}");
    assert!(said.contains("echo-tcp, time-udp, kv-rpc, rest-api, fd-broker, portyard"));
}
