//! Connections that are passed on to another place.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::thread;

use portyard_testkit::{Client, End, eventually};

use crate::{connect, start};

fn redirect(name: &str, target: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nlisten = [\"tcp://127.0.0.1:0\"]\nredirect = \"{target}\"\n{more}\n"
    )
}

/// bore and docker-proxy drop the other direction when one has ended.
#[test]
fn each_direction_lasts_to_its_own_end() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = target.accept().unwrap();
        let mut request = Vec::new();
        // Answers only when the whole request has come, and after its end.
        stream.read_to_end(&mut request).unwrap();
        for byte in request.chunks(10_000) {
            stream.write_all(byte).unwrap();
        }
        drop(stream);
        // And the other way round: it ends first, and the peer may still speak.
        let (mut stream, _) = target.accept().unwrap();
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        rest
    });
    let daemon = start(&redirect("pass", &format!("tcp://{address}"), ""));
    let client = connect(&daemon, "pass");
    let request: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    client.send(&request);
    client.send_end();
    assert!(client.receive_all() == (request, End::Fin));
    let client = connect(&daemon, "pass");
    assert_eq!(client.receive(3), b"bye");
    client.send("last words");
    client.send_end();
    assert_eq!(server.join().unwrap(), b"last words");
    daemon.wait_for_log("received=200000 sent=200000");
    daemon.wait_for_log("received=10 sent=3");
}

#[test]
fn a_target_that_is_gone_is_a_log_line_a_count_and_the_answer_of_the_limits() {
    // A port that nobody has.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let target = format!("tcp://{address}");
    let told = "limits = { at_limit = \"banner\", banner = \"Down.\\r\\n\" }";
    let daemon = start(
        &[
            redirect("quiet", &target, ""),
            redirect("told", &target, told),
        ]
        .concat(),
    );
    connect(&daemon, "quiet").end();
    assert_eq!(connect(&daemon, "told").receive_all().0, b"Down.\r\n");
    daemon.wait_for_log("cannot pass a connection on");
    for name in ["quiet", "told"] {
        let count = format!("portyard_service_refused_total{{name=\"{name}\",reason=\"target\"}}");
        eventually("it is counted", || daemon.count(&count) == 1);
    }
}

#[test]
fn a_target_may_be_a_unix_socket_and_a_service_of_ours() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("d").join("cat").display());
    let cat =
        format!("[[service]]\nname = \"cat\"\nlisten = [\"{socket}\"]\ncommand = [\"/bin/cat\"]\n");
    let banner = "banner = \"passed on\\r\\n\"";
    let daemon = start(&(cat + &redirect("pass", &socket, banner)));
    let client = connect(&daemon, "pass");
    assert_eq!(client.receive_line(), "passed on\r\n");
    assert!(client.is_echoed());
    let limits = &daemon.status()["listeners"];
    assert_eq!(limits.as_array().unwrap().len(), 2);
    drop::<Client>(client);
}

#[test]
fn a_broken_peer_breaks_the_far_end() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    let daemon = start(&redirect("pass", &format!("tcp://{address}"), ""));
    let client = connect(&daemon, "pass");
    let (mut far, _) = target.accept().unwrap();
    client.send("x");
    far.read_exact(&mut [0]).unwrap();
    client.reset();
    // The end comes, in whatever form.
    let mut rest = Vec::new();
    let _ = far.read_to_end(&mut rest);
    assert!(rest.is_empty());
}
