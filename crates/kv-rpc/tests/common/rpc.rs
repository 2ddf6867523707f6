//! The running daemon and its JSON door, as users of it see them.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use portyard_testkit::{Daemon, DaemonBuilder};
use serde_json::{Value, json};

/// A connection to the JSON door, a message on each line.
pub struct Rpc {
    stream: BufReader<TcpStream>,
    next: u64,
}

/// Why there is no result.
#[derive(Debug)]
pub enum NoResult {
    /// The connection broke; nobody knows whether the call was done.
    Lost(io::Error),
    /// The daemon says no.
    Error(Value),
}

impl Rpc {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        Ok(Self {
            stream: BufReader::new(stream),
            next: 0,
        })
    }

    /// Connects to a daemon that serves.
    pub fn to(daemon: &Daemon) -> Self {
        Self::connect(daemon.address("json-rpc")).unwrap()
    }

    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value, NoResult> {
        self.exchange(method, params)
            .map_err(NoResult::Lost)
            .and_then(|mut answer| match answer.get_mut("error") {
                Some(error) => Err(NoResult::Error(error.take())),
                None => Ok(answer["result"].take()),
            })
    }

    fn exchange(&mut self, method: &str, params: &Value) -> io::Result<Value> {
        self.next += 1;
        let request =
            json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params });
        self.stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer: Value = serde_json::from_str(&line)?;
        assert_eq!(answer["id"], self.next, "{answer}");
        Ok(answer)
    }

    /// All keys with their values, in order.
    pub fn all(&mut self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let mut page = self.call("scan", &json!([null, cursor, 1_000])).unwrap();
            let Value::Array(entries) = page["entries"].take() else {
                panic!("{page}");
            };
            for mut pair in entries {
                let key = pair[0].as_str().unwrap().to_owned();
                found.push((key, pair[1].take()));
            }
            cursor = page["cursor"].take();
            if cursor.is_null() {
                return found;
            }
        }
    }
}

/// A daemon with its data in `directory` and all it needs besides.
pub fn daemon(directory: &Path) -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_kv-rpc")).config(&config(directory))
}

pub fn config(directory: &Path) -> String {
    format!(
        "[store]\ndirectory = {:?}\n[[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
        directory.display().to_string()
    )
}

const ANSWER_WAIT: Duration = Duration::from_secs(20);
