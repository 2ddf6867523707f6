//! Lines `date`, `os`, `ls`, `ls DIR`, `help` and `quit`, answered without ever starting a program.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::utsname::uname;
use portyard_core::serve::{Connection, Ended, Line, LineReader, Serving, StreamService};
use portyard_core::wire::command::{self, HELP};
use portyard_core::wire::escape::escape;
use portyard_core::wire::line::{self, LineTooLong};

use crate::options::Options;

/// The command service.
pub struct Command {
    cap: usize,
    listing: Arc<Listing>,
}

/// The directory that `ls` lists, held open: what happens to its path later does not matter.
struct Listing {
    root: Option<File>,
    max_entries: usize,
}

impl Command {
    /// Opens `root` and takes the caps out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        let root = options.root.as_ref().map(open_root).transpose()?;
        let max_entries = options.max_entries as usize;
        Ok(Self {
            cap: options.line_cap()?,
            listing: Arc::new(Listing { root, max_entries }),
        })
    }
}

fn open_root(path: &PathBuf) -> Result<File, String> {
    let wrong = |why: String| format!("options.root = \"{}\" {why}", path.display());
    let file = File::open(path).map_err(|error| wrong(format!("cannot be opened: {error}")))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(file),
        _ => Err(wrong("is not a directory".into())),
    }
}

impl StreamService for Command {
    fn serve(&self, connection: Connection) -> Serving {
        let session = Session {
            connection,
            listing: self.listing.clone(),
            cap: self.cap,
        };
        Box::pin(async move { session.run().await.unwrap_or_else(Ended::from) })
    }
}

struct Session {
    connection: Connection,
    listing: Arc<Listing>,
    cap: usize,
}

impl Session {
    async fn run(mut self) -> io::Result<Ended> {
        let mut lines = LineReader::new(self.cap, None);
        loop {
            let ended = match lines.next(&mut self.connection).await? {
                Line::Text(line) => match command::Command::parse(&line) {
                    Ok(command::Command::Quit) => Some(Ended::Done),
                    Ok(command) => {
                        let answer = self.obey(command).await;
                        self.say(&answer, &line).await?;
                        None
                    }
                    Err(error) => {
                        self.connection.count_bad_input();
                        self.say(&error.to_string(), &line).await?;
                        None
                    }
                },
                Line::TooLong => {
                    self.connection.count_bad_input();
                    self.say(&LineTooLong { max: self.cap }.to_string(), b"\n")
                        .await?;
                    Some(Ended::Protocol)
                }
                Line::End => Some(Ended::Done),
            };
            if let Some(ended) = ended {
                self.connection.finish().await;
                return Ok(ended);
            }
        }
    }

    async fn obey(&self, command: command::Command) -> String {
        let home = self.connection.home();
        match command {
            command::Command::Date => home.clock.ctime(home.clock.now()).as_str().into(),
            command::Command::Os => operating_system(),
            command::Command::Ls(directory) => {
                let listing = self.listing.clone();
                // A directory may be on a disk that takes its time.
                match home
                    .offload
                    .run(move || listing.list(directory.as_deref()))
                    .await
                {
                    Ok(Ok(text) | Err(text)) => text,
                    Err(busy) => format!("error: {busy}"),
                }
            }
            // Quit has been dealt with; it has nothing to say.
            command::Command::Help | command::Command::Quit => HELP.into(),
        }
    }

    async fn say(&mut self, answer: &str, question: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        line::answer(answer, question, &mut out);
        self.connection.write_all(&out).await
    }
}

fn operating_system() -> String {
    match uname() {
        Ok(name) => [name.sysname(), name.release(), name.machine()]
            .map(|part| part.to_string_lossy().into_owned())
            .join(" "),
        Err(error) => format!("error: the system does not say: {error}"),
    }
}

impl Listing {
    /// The names in a directory below the root, sorted, each on a line, directories with `/`.
    fn list(&self, directory: Option<&str>) -> Result<String, String> {
        let Some(root) = &self.root else {
            return Err("error: ls is not offered here".into());
        };
        let shown = escape(directory.unwrap_or(".").as_bytes(), SHOWN_MAX);
        let fail = |why: &str| format!("error: cannot list '{shown}': {why}");
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            // The kernel itself refuses every way out: "..", absolute paths, symbolic links that
            // lead outside (openat2(2)).
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let opened = openat2(root.as_fd(), directory.unwrap_or("."), how);
        let opened = opened.map_err(|errno| {
            fail(match errno {
                nix::errno::Errno::EXDEV => "it leads out of the listed directory",
                nix::errno::Errno::ENOENT => "there is no such directory",
                nix::errno::Errno::ENOTDIR => "it is not a directory",
                nix::errno::Errno::EACCES => "permission denied",
                _ => "it cannot be opened",
            })
        })?;
        let mut directory = Dir::from_fd(opened).map_err(|errno| fail(errno.desc()))?;
        let mut names = Vec::new();
        let mut more = false;
        for entry in directory.iter() {
            let entry = entry.map_err(|errno| fail(errno.desc()))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == self.max_entries {
                more = true;
                break;
            }
            let mark = if entry.file_type() == Some(nix::dir::Type::Directory) {
                "/"
            } else {
                ""
            };
            names.push(escape(name, NAME_MAX) + mark);
        }
        names.sort_unstable();
        if more {
            names.push(format!(
                "... (only {} entries are listed)",
                self.max_entries
            ));
        }
        Ok(if names.is_empty() {
            "(empty)".into()
        } else {
            names.join("\n")
        })
    }
}

/// A name of 255 bytes, each escaped.
const NAME_MAX: usize = 1020;
const SHOWN_MAX: usize = 100;
