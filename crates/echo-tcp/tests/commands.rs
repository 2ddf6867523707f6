//! The command service: what it answers, and what `ls` never shows.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use portyard_testkit::{Client, Daemon, python};
use tempfile::TempDir;

#[test]
fn every_line_is_answered_and_quit_closes() {
    let daemon = start("");
    let client = Client::connect(&daemon.endpoint("command"));
    client.send("date\r\nOS\n");
    let date = client.receive_line();
    python(
        "import sys, time\ntime.strptime(sys.argv[1])",
        &[date.trim_end()],
    )
    .success();
    assert!(date.ends_with("\r\n"));
    let system = client.receive_line();
    assert!(system.starts_with("Linux "), "{system}");
    assert!(!system.contains('\r'));
    let refused = "error: unknown command 'rm'; type help\n";
    client.send("rm -rf /\n");
    assert_eq!(client.receive_line(), refused);
    client.send("help\n");
    for verb in ["date", "os", "ls", "ls DIR", "help", "quit"] {
        let line = client.receive_line();
        assert!(line.starts_with(verb), "{line}");
    }
    assert_eq!(client.exchange("quit\nnever answered\n"), b"");
}

#[test]
fn ls_shows_the_root_and_what_is_below_it() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("My Files/deep")).unwrap();
    fs::create_dir(root.path().join("empty")).unwrap();
    fs::write(root.path().join("b.txt"), "").unwrap();
    fs::write(root.path().join("My Files/deep/x"), "").unwrap();
    symlink("My Files/deep", root.path().join("inside")).unwrap();
    let daemon = below(&root);
    assert_eq!(ask(&daemon, "ls"), "My Files/\nb.txt\nempty/\ninside\n");
    assert_eq!(ask(&daemon, "ls My Files"), "deep/\n");
    assert_eq!(ask(&daemon, "ls My Files/deep"), "x\n");
    assert_eq!(ask(&daemon, "ls ./My Files/../empty"), "(empty)\n");
    // A link that stays below the root is as good as what it leads to.
    assert_eq!(ask(&daemon, "ls inside"), "x\n");
}

#[test]
fn ls_never_leaves_its_root() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "").unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("dir")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/", root.join("top")).unwrap();
    symlink(outer.path(), root.join("dir/out")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let daemon = at(&root);
    for way in [
        "..",
        "../root",
        "dir/../..",
        "/",
        "/etc",
        "up",
        "top",
        "dir/out",
        "magic",
    ] {
        let answer = ask(&daemon, &format!("ls {way}"));
        let wanted = format!("error: cannot list '{way}': it leads out of the listed directory\n");
        assert_eq!(answer, wanted);
    }
    for (wrong, why) in [("loop", "opened"), ("none", "no such"), ("~", "no such")] {
        let answer = ask(&daemon, &format!("ls {wrong}"));
        assert!(
            answer.starts_with("error: cannot list") && answer.contains(why),
            "{answer}"
        );
    }
    // Moving the root's path elsewhere does not move what is listed.
    fs::rename(&root, outer.path().join("moved")).unwrap();
    symlink("/etc", &root).unwrap();
    assert!(ask(&daemon, "ls").starts_with("dir/\n"));
}

#[test]
fn ls_lists_no_more_entries_than_configured_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::write(root.path().join(format!("f{number}")), "").unwrap();
    }
    let path = root.path().display();
    let daemon = start(&format!(
        "options = {{ root = \"{path}\", max_entries = 5 }}"
    ));
    let answer = ask(&daemon, "ls");
    assert_eq!(answer.lines().count(), 6, "{answer}");
    assert!(
        answer.ends_with("... (only 5 entries are listed)\n"),
        "{answer}"
    );
}

#[test]
fn names_that_would_fool_a_terminal_or_a_parser_are_spelled_out() {
    let root = tempfile::tempdir().unwrap();
    for name in [
        "two\nlines",
        "\x1b[2Jclear",
        "right\u{202e}left",
        "back\\slash",
    ] {
        fs::write(root.path().join(name), "").unwrap();
    }
    let daemon = below(&root);
    let answer = ask(&daemon, "ls");
    let wanted = "\\x1b[2Jclear\nback\\\\slash\nright\\u{202e}left\ntwo\\x0alines\n";
    assert_eq!(answer, wanted);
    assert!(ask(&daemon, "ls \x1b[2J").starts_with("error: "));
}

#[test]
fn without_a_root_there_is_no_ls() {
    let daemon = start("");
    for line in ["ls", "ls .", "ls /"] {
        assert_eq!(ask(&daemon, line), "error: ls is not offered here\n");
    }
}

fn ask(daemon: &Daemon, line: &str) -> String {
    let answer = Client::connect(&daemon.endpoint("command")).exchange(format!("{line}\n"));
    String::from_utf8(answer).unwrap()
}

fn below(root: &TempDir) -> Daemon {
    at(root.path())
}

fn at(root: &Path) -> Daemon {
    start(&format!("options.root = \"{}\"", root.display()))
}

fn start(more: &str) -> Daemon {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
        .config(&format!(
            "[[listener]]\nservice = \"command\"\nlisten = [\"tcp://127.0.0.1:0\"]\n{more}\n"
        ))
        .start()
}
