//! Connections and sockets on their way between processes.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod broker;
mod hired;
mod peek;
mod python;
mod server;
mod taken;
mod worker;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A client, and its connection as a broker accepts it.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    (client, accepted)
}

/// Whether any epoll instance of this process watches the descriptor.
fn is_watched(descriptor: i32) -> bool {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let watched = infos.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    watched.into_iter().any(|info| {
        info.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("tfd:") && words.next() == Some(&descriptor.to_string())
        })
    })
}

const PATIENCE: Duration = Duration::from_secs(10);
