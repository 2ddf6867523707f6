//! `portyard yard` with a real rest-api and a real echo-tcp behind it.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::path::Path;

use common::run;
use portyard_testkit::{Daemon, eventually};

fn daemon(program: &str, config: impl FnOnce(&Path) -> String) -> Daemon {
    let binary = Path::new(env!("CARGO_BIN_EXE_portyard")).with_file_name(program);
    assert!(
        binary.is_file(),
        "{} is missing: cargo build -p {program}",
        binary.display()
    );
    let builder = Daemon::build(&binary);
    let config = config(builder.dir());
    builder.config(&config).start()
}

#[test]
fn the_state_of_all_is_a_table_or_json_and_the_exit_code() {
    let echo = daemon("echo-tcp", |dir| {
        format!(
            "admin.listen = \"unix:{}\"\n[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
            dir.join("admin").display()
        )
    });
    let rest = daemon("rest-api", |dir| {
        format!(
            "[[listener]]\nservice = \"yard\"\nlisten = [\"tcp://127.0.0.1:0\", \"unix:{}\"]\n\
             [[yard]]\nname = \"the-echo\"\nadmin = \"{}\"\nevery = \"200ms\"\n",
            dir.join("yard").display(),
            echo.endpoint("admin")
        )
    });
    let endpoint = rest.endpoint("yard");
    eventually("it is ready", || {
        run(&["yard", &endpoint], b"").code == Some(0)
    });
    let told = run(&["yard", &endpoint], b"").expect(0);
    let lines: Vec<_> = told.text().lines().collect();
    assert!(
        lines[0].starts_with("NAME ") && lines.len() == 2,
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("the-echo  ready  echo-tcp "),
        "{lines:?}"
    );
    let unix = format!("unix:{}", rest.dir().join("yard").display());
    let json = run(&["yard", &unix, "--json"], b"").expect(0);
    let json: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["daemons"][0]["name"], "the-echo");
    echo.kill();
    eventually("it is missed", || {
        run(&["yard", &endpoint], b"").code == Some(1)
    });
    let told = run(&["yard", &endpoint], b"").expect(1);
    assert!(
        told.text().contains("the-echo: nothing listens there"),
        "{}",
        told.text()
    );
    drop(rest);
    let gone = run(&["yard", &endpoint, "--timeout", "5s"], b"");
    assert_eq!(gone.code, Some(69), "{}", gone.stderr);
}
