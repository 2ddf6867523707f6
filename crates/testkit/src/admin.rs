//! A client for the admin endpoint: one request, one answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// Status code and body of a page.
#[track_caller]
pub fn get(endpoint: &str, path: &str) -> (u16, String) {
    ask(endpoint, "GET", path)
}

/// Status code and body of the answer to another method than GET.
#[track_caller]
pub fn ask(endpoint: &str, method: &str, path: &str) -> (u16, String) {
    let answer = try_ask(endpoint, method, path);
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path} from {endpoint}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.unwrap_or_else(|| panic!("{method} {path} from {endpoint}: {answer:?}"));
    (code, body.into())
}

fn try_ask(endpoint: &str, method: &str, path: &str) -> io::Result<String> {
    if let Some(address) = endpoint.strip_prefix("tcp://") {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        return exchange(stream, method, path);
    }
    let place = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
    let stream = match place.strip_prefix('@') {
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => UnixStream::connect(place)?,
    };
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    exchange(stream, method, path)
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> io::Result<String> {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const ANSWER_WAIT: Duration = Duration::from_secs(20);
