//! A service manager in small: it starts the broker, hears its notifications, keeps the descriptors that
//! it is given, and passes them to the next start (sd_notify(3), `FDSTORE=1`).

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_core::fdpass::{Channel, ReceiveError};
use portyard_testkit::eventually;

/// A unit with `FileDescriptorStoreMax=`.
pub struct Unit {
    directory: PathBuf,
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
    child: Option<Child>,
    store_size: u32,
}

#[derive(Default)]
struct Heard {
    store: Mutex<Vec<(String, OwnedFd)>>,
    messages: Mutex<Vec<String>>,
    /// How often nothing was there to be read.
    idle: AtomicUsize,
    stop: AtomicBool,
}

impl Unit {
    /// A unit in this directory, whose configuration is `config.toml`.
    pub fn new(directory: &Path, config: &str, store_size: u32) -> Self {
        std::fs::write(directory.join("config.toml"), config).unwrap();
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        let channel = Channel::new(socket).unwrap();
        let heard = Arc::new(Heard::default());
        let shared = heard.clone();
        let reader = thread::spawn(move || shared.listen(&channel));
        Self {
            directory: directory.into(),
            heard,
            reader: Some(reader),
            child: None,
            store_size,
        }
    }

    /// Starts the broker with everything that is kept, and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.heard.messages.lock().unwrap().clear();
        let mut command = Command::new("sh");
        command
            .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh", super::BINARY])
            .arg("--config")
            .arg(self.directory.join("config.toml"))
            .env("NOTIFY_SOCKET", self.directory.join("notify"))
            .env("FDSTORE", self.store_size.to_string())
            .stdin(Stdio::null());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .unwrap();
        command.stderr(log);
        let (names, mappings) = self.pass();
        if !names.is_empty() {
            command
                .env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"));
        }
        command.fd_mappings(mappings).unwrap();
        self.child = Some(command.spawn().unwrap());
        let start = Instant::now();
        while !self.said("READY=1") {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "the broker is not ready ({ended:?}):\n{}",
                self.log()
            );
            thread::sleep(POLL);
        }
    }

    fn pass(&self) -> (Vec<String>, Vec<FdMapping>) {
        let store = self.heard.store.lock().unwrap();
        let one = |(number, (name, descriptor)): (i32, &(String, OwnedFd))| {
            let mapping = FdMapping {
                parent_fd: descriptor.try_clone().unwrap(),
                child_fd: number,
            };
            (name.clone(), mapping)
        };
        (3..).zip(store.iter()).map(one).unzip()
    }

    /// Ends the broker with a signal and waits for it.
    #[track_caller]
    pub fn stop(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the broker runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, signal).unwrap();
        eventually("the broker ends", || child.try_wait().unwrap().is_some());
        // A manager reads what it was told before it looks who has ended.
        let idle = self.heard.idle.load(Ordering::Acquire);
        eventually("all notifications are read", || {
            self.heard.idle.load(Ordering::Acquire) > idle + 1
        });
    }

    /// The names of what is kept.
    pub fn kept(&self) -> Vec<String> {
        let store = self.heard.store.lock().unwrap();
        store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Forgets what is kept under names that match.
    pub fn lose(&self, which: impl Fn(&str) -> bool) {
        let mut store = self.heard.store.lock().unwrap();
        store.retain(|(name, _)| !which(name));
    }

    /// Whether the broker has said a line since it was started.
    pub fn said(&self, line: &str) -> bool {
        let messages = self.heard.messages.lock().unwrap();
        messages
            .iter()
            .any(|message| message.lines().any(|found| found == line))
    }

    /// What all brokers have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Heard {
    fn listen(&self, channel: &Channel<UnixDatagram>) {
        let mut buffer = vec![0; 65536];
        while !self.stop.load(Ordering::Acquire) {
            match channel.receive(&mut buffer) {
                Ok(message) => {
                    let text = String::from_utf8_lossy(&buffer[..message.length]);
                    // A barrier's descriptor is closed here, as any other.
                    self.take(&text, message.descriptors);
                }
                Err(ReceiveError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.idle.fetch_add(1, Ordering::AcqRel);
                    thread::sleep(POLL);
                }
                Err(error) => panic!("notifications: {error}"),
            }
        }
    }

    fn take(&self, text: &str, descriptors: Vec<OwnedFd>) {
        let has = |line: &str| text.lines().any(|found| found == line);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        if let Some(name) = name {
            let mut store = self.store.lock().unwrap();
            if has("FDSTOREREMOVE=1") {
                store.retain(|(kept, _)| kept != name);
            } else if has("FDSTORE=1") {
                assert!(has("FDPOLL=0"), "{text}");
                store.extend(descriptors.into_iter().map(|fd| (name.to_owned(), fd)));
            }
        }
        self.messages.lock().unwrap().push(text.into());
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.heard.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("the log of the unit:\n{}", self.log());
        }
    }
}

const POLL: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(20);
