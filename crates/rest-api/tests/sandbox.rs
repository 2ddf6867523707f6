//! The sandbox: what somebody could do who has broken in; and that programs, names and files of
//! routes go on working in it.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{builder, config, get, start};
use portyard_testkit::intruder::{assert_denied, intrude, unconfined};

#[test]
fn who_breaks_in_can_do_nothing_of_what_he_would_like() {
    let daemon = start("", "");
    let outside = tempfile::tempdir().unwrap();
    assert_denied("rest-api", &intrude(&daemon, outside.path()));
    assert_eq!(unconfined(daemon.pid()), <[String; 0]>::default());
    assert_eq!(get(&daemon, "/hello").status, 200);
}

#[test]
fn a_program_is_started_outside_and_all_that_serves_is_inside() {
    let builder = builder();
    let program = builder.dir().join("status");
    fs::write(
        &program,
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\ngrep -E '^(Seccomp|NoNewPrivs):' /proc/self/status\n\
         head -c 4 /etc/passwd\n",
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let route = format!(
        "[[route]]\npath = \"/run\"\ncgi.program = \"{}\"\n",
        program.display()
    );
    let text = config(&builder, "", &route);
    let daemon = builder.config(&text).start();
    let said = get(&daemon, "/run").text();
    assert!(
        said.contains("Seccomp:\t0") && said.contains("NoNewPrivs:\t0"),
        "{said}"
    );
    assert!(said.contains("root"), "{said}");
    assert_eq!(unconfined(daemon.pid()), ["outside"]);
    assert_eq!(daemon.status()["sandbox"]["outside"], "programs");
    assert_eq!(daemon.status()["sandbox"]["denied"].to_string(), "{}");
}

#[test]
fn a_reload_that_adds_the_first_program_or_another_port_says_restart() {
    let builder = builder();
    let text = config(&builder, "", "");
    let daemon = builder.config(&text).start();
    for route in [
        "[[route]]\npath = \"/run\"\ncgi.program = \"/bin/true\"\n",
        "[[route]]\npath = \"/x\"\nproxy.to = \"http://127.0.0.1:9\"\n",
    ] {
        daemon.rewrite_config(&format!("{text}{route}"));
        let said = daemon.reload();
        assert!(
            said.contains("refused") && said.contains("restart"),
            "{said}"
        );
    }
    assert_eq!(get(&daemon, "/hello").status, 200);
}

#[test]
fn servers_by_name_and_files_are_reached_as_the_configuration_says() {
    let behind = start("", "");
    let port = behind.address("http").port();
    let builder = builder();
    let files = builder.dir().join("files");
    fs::create_dir_all(files.join("deep")).unwrap();
    fs::write(files.join("deep/a.txt"), "from a file").unwrap();
    let routes = format!(
        "[[route]]\npath = \"/behind\"\nproxy = {{ to = \"http://localhost:{port}\", path = \"/hello\" }}\n\
         [[route]]\npath = \"/files/{{name..}}\"\ndirectory = {{ path = \"{}\", listing = true }}\n",
        files.display()
    );
    let text = config(&builder, "", &routes);
    let daemon = builder.config(&text).start();
    let answer = get(&daemon, "/behind");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(get(&daemon, "/files/deep/a.txt").text(), "from a file");
    assert!(get(&daemon, "/files/deep/").text().contains("a.txt"));
    // What comes later is seen, too.
    fs::write(files.join("b.txt"), "new").unwrap();
    assert_eq!(get(&daemon, "/files/b.txt").text(), "new");
    assert_eq!(daemon.status()["sandbox"]["denied"].to_string(), "{}");
}
