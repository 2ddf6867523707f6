//! `portyard keygen`: the lines it makes, the files it changes, and what it says of them.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod yard;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use portyard_testkit::python;
use yard::{Yard, mode, text};

fn read(yard: &Yard, name: &str) -> String {
    fs::read_to_string(yard.path(name)).unwrap()
}

#[test]
fn a_key_is_a_line_that_python_reads_too() {
    let yard = Yard::new();
    let script = "\
import base64, re, sys
name, coding, value = sys.argv[1].split(':')
assert coding == 'base64'
assert name == sys.argv[3] or re.match(r'key-\\d{4}-\\d\\d-\\d\\d$', name)
print(len(base64.b64decode(value, validate=True)))";
    for (words, bytes, name) in [
        ("keygen", "32", ""),
        ("keygen yard --bytes 16", "16", "yard"),
        ("keygen a.b-c_1 --bytes 1024", "1024", "a.b-c_1"),
    ] {
        let line = yard.made(words, &[]);
        assert_eq!(line.lines().count(), 1, "{line}");
        let length = python(script, &[line.trim_end(), bytes, name]).success();
        assert_eq!(length.trim(), bytes, "{words}");
        assert_ne!(yard.made(words, &[]), line);
    }
}

#[test]
fn a_new_key_comes_first_and_the_file_stays_as_it_is_otherwise() {
    let yard = Yard::new();
    yard.made("keygen first --out keys", &[]);
    assert_eq!(mode(&yard.path("keys")), 0o600);
    let old = format!("# the old ones\n{}last:text:short\n", read(&yard, "keys"));
    fs::write(yard.path("keys"), &old).unwrap();
    for bits in [0o600, 0o400] {
        fs::set_permissions(yard.path("keys"), Permissions::from_mode(bits)).unwrap();
        let said = yard.made("keygen --add keys", &[&format!("new-{bits:o}")]);
        assert!(
            said.contains(&format!("new-{bits:o} is now the first")),
            "{said}"
        );
        assert_eq!(mode(&yard.path("keys")), bits);
    }
    let new = read(&yard, "keys");
    assert!(new.starts_with("new-400:base64:"), "{new}");
    assert!(new.ends_with(&old), "{new}");
    assert_eq!(yard.names(), ["keys"]);

    let checked = yard.portyard("keygen --check keys", &[]);
    let shown = "\
new-400: 32 bytes, which a client proves
new-600: 32 bytes
first: 32 bytes
last: 5 bytes
";
    assert_eq!(checked.clone().success(), shown);
    assert!(
        checked.stderr.contains("the key last has only 5 bytes"),
        "{checked:?}"
    );
    assert_eq!(checked.stderr.lines().count(), 1, "{checked:?}");
    let json = yard.made("keygen --json --check keys", &[]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["name"], "new-400");
    assert_eq!(first["bytes"], 32);
    for line in new.lines().filter(|line| line.contains(":base64:")) {
        let key = line.rsplit(':').next().unwrap();
        assert!(!shown.contains(key) && !json.contains(key));
    }
}

#[test]
fn what_is_there_is_not_lost() {
    let yard = Yard::new();
    yard.made("keygen yard --out keys", &[]);
    let before = read(&yard, "keys");
    yard.refused("keygen other --out keys", 64, "--add puts a key in front");
    yard.refused(
        "keygen yard --add keys",
        64,
        "has a key called yard already",
    );
    yard.refused("keygen other --add none", 78, "none");
    symlink("keys", yard.path("link")).unwrap();
    yard.refused("keygen other --add link", 78, "symbolic link");
    fs::set_permissions(yard.path("keys"), Permissions::from_mode(0o640)).unwrap();
    yard.refused("keygen other --add keys", 78, "chmod 600");
    yard.refused("keygen --check keys", 78, "chmod 600");
    assert_eq!(read(&yard, "keys"), before);
    assert_eq!(yard.names(), ["keys", "link"]);
}

#[test]
fn a_file_has_no_more_keys_than_are_read() {
    let yard = Yard::new();
    let path = yard.path("keys");
    let lines =
        |count: usize| (0..count).fold(String::new(), |text, n| text + &format!("k{n}:text:x\n"));
    fs::write(&path, lines(63)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    yard.made("keygen last --add keys", &[]);
    yard.refused("keygen more --add keys", 78, "is full");
    fs::write(&path, format!("#{}\nk:text:x\n", "x".repeat(65_500))).unwrap();
    yard.refused("keygen more --add keys", 78, "is full");
    assert_eq!(
        yard.made("keygen --check keys", &[]),
        "k: 1 bytes, which a client proves\n"
    );
}

#[test]
fn mistakes_are_named_with_their_place_and_no_key_is_shown() {
    let yard = Yard::new();
    for (words, because) in [
        ("keygen a:b", "cannot name a key"),
        ("keygen --bytes 15", "16..=1024"),
        ("keygen --bytes 1025", "16..=1024"),
        ("keygen --out a --add b", "cannot be used with"),
        ("keygen x --check a", "cannot be used with"),
        ("keygen --json", "--check"),
    ] {
        yard.refused(words, 64, because);
    }
    for (content, because) in [
        (
            "good:text:fine\n\nbad:base64:canary!\n",
            "keys:3: the key of bad is not base64",
        ),
        ("", "holds no key"),
        ("canary", "keys:1: this is not a key"),
    ] {
        fs::write(yard.path("keys"), content).unwrap();
        fs::set_permissions(yard.path("keys"), Permissions::from_mode(0o600)).unwrap();
        let run = yard.portyard("keygen --check", &[text(&yard.path("keys"))]);
        assert_eq!(run.code, Some(78), "{run:?}");
        assert!(run.stderr.contains(because), "{run:?}");
        assert!(!run.stderr.contains("canary"), "{run:?}");
    }
}
