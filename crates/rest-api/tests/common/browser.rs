//! A real browser, by way of WebDriver (W3C).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portyard_testkit::{eventually, peer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser without a window, and its driver.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
}

impl Browser {
    pub fn start(more: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let chosen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = chosen.local_addr().unwrap().port();
        drop(chosen);
        let driver = Command::new(peer("chromedriver"))
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            profile,
        };
        eventually("the driver is there", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let data = format!(
            "--user-data-dir={}",
            browser.profile.path().join("data").display()
        );
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &data,
        ];
        arguments.extend(more);
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments, "binary": peer("chromium") },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let session = browser.call("POST", "/session", Some(&wanted));
        session["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        browser
    }

    /// One command of WebDriver: its value.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(90)))
            .unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        // The driver does not close at once: its answer has a length.
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map(|(_, length)| length.trim().parse::<usize>().unwrap());
                if length.is_some_and(|length| rest.len() >= length) {
                    let told: Value = serde_json::from_str(rest).unwrap();
                    assert!(head.contains(" 200 "), "{method} {path}: {told}");
                    return told["value"].clone();
                }
            }
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "{method} {path}: the driver has broken off");
            answer.extend_from_slice(&buffer[..length]);
        }
    }

    pub fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    pub fn open(&self, url: &str) {
        self.command("POST", "/url", Some(&json!({ "url": url })));
    }

    pub fn run(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.command("POST", "/execute/sync", Some(&script))
    }

    /// Until a condition in JavaScript holds.
    #[track_caller]
    pub fn wait_for(&self, what: &str, script: &str) {
        eventually(what, || self.run(&format!("return {script}")) == true);
    }

    /// Presses keys, on what has the focus.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] });
        self.command("POST", "/actions", Some(&actions));
    }

    /// Keeps a picture of the page as it looks now, for people.
    pub fn picture(&self, name: &str) {
        let picture = self.command("GET", "/screenshot", None);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("yard");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join(name).display().to_string();
        let script =
            "import base64, sys; open(sys.argv[1], 'wb').write(base64.b64decode(sys.stdin.read()))";
        let mut child = Command::new(peer("python3"))
            .args(["-c", script, &file])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(picture.as_str().unwrap().as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
        let size = fs::metadata(&file).unwrap().len();
        assert!(size > 5_000, "{file} has {size} bytes");
    }

    /// What the browser has complained about.
    pub fn complaints(&self) -> Vec<Value> {
        let log = self.command("POST", "/se/log", Some(&json!({ "type": "browser" })));
        log.as_array().unwrap().clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.command("DELETE", "", None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Keys, as WebDriver calls them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
