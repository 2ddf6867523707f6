//! Servers for the tests of `portyard http`: a real rest-api, real nginx and nghttpd, and servers that
//! answer with whatever bytes a test wants.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use portyard_testkit::{Daemon, eventually, peer};

use crate::common::beside;

/// A rest-api with httpbin in both dialects, and files of a directory of its own at `/files`.
pub fn rest_api(more: &str) -> Daemon {
    let builder = Daemon::build(beside("rest-api"));
    let socket = builder.dir().join("bin.sock");
    let config = format!(
        "[[listener]]\nname = \"python\"\nservice = \"httpbin\"\n\
         listen = [\"tcp://127.0.0.1:0\", \"unix:{}\"]\n\
         [listener.options.httpbin]\nprefixes = {{ \"/go\" = \"go\" }}\n{more}",
        socket.display()
    );
    builder.config(&config).start()
}

/// `http://HOST:PORT` of a listener.
pub fn url(daemon: &Daemon, label: &str) -> String {
    format!("http://{}", daemon.address(label))
}

/// A server that answers each connection with bytes that a test makes of the request's head, and then
/// closes.
pub struct Answering {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    /// `answer` gets the number of the connection and the head, and gives the whole answer.
    pub fn new(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let url = serve(move |mut stream| {
            let head = read_head(&mut stream);
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(head.clone());
                seen.len() - 1
            };
            let bytes = answer(number, &head);
            // The client may have had enough.
            let _ = stream.write_all(&bytes);
            finish(stream);
        });
        Self { url, heads }
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Serves each connection in a thread; the listener lasts as long as the test.
pub fn serve(work: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let work = Arc::new(work);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = Arc::clone(&work);
            thread::spawn(move || work(stream));
        }
    });
    url
}

/// Up to the empty line.
pub fn read_head(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Closes without a reset, which could overtake what was sent.
pub fn finish(mut stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

/// An answer with a body.
pub fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A program that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago, for programs that cannot tell which one they took.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    eventually("it listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// nginx that serves the files of a directory; `more` stands in its `server` block. Ends with what it
/// returns.
pub fn nginx(directory: &Path, more: &str) -> (Running, String) {
    let port = free_port();
    let at = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        "daemon off; master_process off; pid {}; error_log {};\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {}; proxy_temp_path {}; fastcgi_temp_path {};\n\
         uwsgi_temp_path {}; scgi_temp_path {};\n\
         server {{ listen 127.0.0.1:{port}; root {}; {more} }} }}\n",
        at("nginx.pid"),
        at("nginx.log"),
        at("t1"),
        at("t2"),
        at("t3"),
        at("t4"),
        at("t5"),
        directory.display(),
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(peer("nginx"));
    command.arg("-c").arg(&path).arg("-p").arg(directory);
    (
        start(&mut command, port),
        format!("http://127.0.0.1:{port}"),
    )
}

/// nghttpd, which speaks HTTP/2 alone, with the files of a directory.
pub fn nghttpd(directory: &Path, pair: Option<(PathBuf, PathBuf)>) -> (Running, u16) {
    let port = free_port();
    let mut command = Command::new(peer("nghttpd"));
    command.arg("--address=127.0.0.1").arg("-d").arg(directory);
    match pair {
        Some((chain, key)) => {
            command.arg(port.to_string()).arg(key).arg(chain);
        }
        None => {
            command.arg("--no-tls").arg(port.to_string());
        }
    }
    (start(&mut command, port), port)
}

/// Python's own server of files, by one of the interpreters.
pub fn python_files(python: &Path, version: (u8, u8), directory: &Path) -> (Running, String) {
    let port = free_port();
    let module = if version.0 == 2 {
        "SimpleHTTPServer"
    } else {
        "http.server"
    };
    let mut command = Command::new(python);
    command.args(["-m", module, &port.to_string()]);
    command.current_dir(directory);
    (
        start(&mut command, port),
        format!("http://127.0.0.1:{port}"),
    )
}

fn start(command: &mut Command, port: u16) -> Running {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    wait_for(port);
    running
}

/// microsocks, with these arguments beside its address; its port.
pub fn microsocks(arguments: &[&str]) -> (Running, u16) {
    let port = free_port();
    let mut command = Command::new(peer("microsocks"));
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    command.args(arguments);
    (start(&mut command, port), port)
}

/// httpbin itself, Python's, in the server that it is developed with.
pub fn httpbin() -> (Running, String) {
    let python =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/httpbin/bin/python");
    assert!(
        python.exists(),
        "httpbin is missing in target/peers: run scripts/install-suites"
    );
    let port = free_port();
    let script = format!(
        "import logging; from httpbin import app; logging.disable(); app.run(port={port}, threaded=True)"
    );
    let mut command = Command::new(python);
    command.args(["-c", &script]);
    (
        start(&mut command, port),
        format!("http://127.0.0.1:{port}"),
    )
}
