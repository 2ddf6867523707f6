//! A person at a terminal: a prompt that knows commands and keys, and remembers what was typed.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use portyard_core::exit::Exit;
use portyard_wire::value::Value;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::pages::Pages;
use super::script::{Line, Said};
use super::server::Server;
use super::{Style, word};
use crate::out::{Out, complain};
use crate::save::{self, Existing, Saved};
use crate::stop::{Outcome, Stop};

/// Does what the person types until ^D or ^C.
pub fn run(server: Server, style: Style) -> Outcome {
    let mut out = Out::new();
    let endpoint = &server.target().endpoint;
    out.line(format_args!(
        "{endpoint}; Tab completes, help lists the commands, ^D leaves"
    ))?;
    out.flush()?;
    drop(out);
    let mut history = History::load();
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)
        .and_then(|config| config.history_ignore_dups(true));
    let config = config.map_err(|error| broken(&error))?.build();
    let mut editor: Editor<Completion, DefaultHistory> =
        Editor::with_config(config).map_err(|error| broken(&error))?;
    for line in &history.lines {
        // A full one drops its oldest line.
        let _ = editor.add_history_entry(line);
    }
    editor.set_helper(Some(Completion {
        server: RefCell::new(server),
        style,
    }));
    loop {
        let line = match editor.readline("kv> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => break,
            Err(error) => return Err(broken(&error)),
        };
        // As in a shell: what begins with a blank is not remembered.
        if !line.starts_with(char::is_whitespace) && !line.is_empty() {
            let _ = editor.add_history_entry(&line);
            history.add(&line);
        }
        let Some(completion) = editor.helper_mut() else {
            break;
        };
        if let Said::Line(line) = Line::read(&line) {
            match line.run(completion.server.get_mut(), style) {
                Ok(_) => {}
                // The next call connects again.
                Err(Stop::Fatal(fatal)) => complain(&fatal.to_string()),
                Err(gone @ Stop::ReaderGone) => return Err(gone),
            }
        }
    }
    history.save();
    Ok(Exit::Ok)
}

/// What Tab offers.
struct Completion {
    server: RefCell<Server>,
    style: Style,
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..position];
        let Ok((mut words, begin)) = word::split(typed) else {
            return Ok((position, Vec::new()));
        };
        if begin == typed.len() {
            words.push(String::new());
        }
        let offered = match &words[..] {
            [] | [_] => commands(words.first().map_or("", |word| word)),
            [command, prefix]
                if TAKES_NO_KEY.contains(&&command[..]) || prefix.starts_with('-') =>
            {
                Vec::new()
            }
            [_, prefix] if !self.style.json_key => self.keys(prefix),
            _ => Vec::new(),
        };
        Ok((begin, offered))
    }
}

impl Completion {
    /// Keys that begin so; none when the server does not answer.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let Ok(mut server) = self.server.try_borrow_mut() else {
            return Vec::new();
        };
        let mut pages = Pages::new(Value::from(prefix));
        let Ok(Some(Ok(page))) = pages.next(&mut server, OFFERED) else {
            return Vec::new();
        };
        let keys = page.entries.into_iter().filter_map(|(key, _)| match key {
            Value::String(key) => typable(&key),
            _ => None,
        });
        keys.collect()
    }
}

impl Helper for Completion {}
impl Validator for Completion {}
impl Highlighter for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

fn commands(prefix: &str) -> Vec<String> {
    let line = Line::command();
    let names = line.get_subcommands().map(clap::Command::get_name);
    let names = names.chain(["help"]);
    names
        .filter(|name| name.starts_with(prefix))
        .map(|name| format!("{name} "))
        .collect()
}

/// A key as it can be typed; `None` where a terminal would obey it.
fn typable(key: &str) -> Option<String> {
    if portyard_wire::escape::escape(key.as_bytes(), usize::MAX).replace("\\\\", "\\") != key {
        return None;
    }
    let is_plain = |c: char| c.is_alphanumeric() || "_-.:/@+=,%".contains(c);
    if !key.is_empty() && !key.starts_with('-') && key.chars().all(is_plain) {
        return Some(key.into());
    }
    (!key.contains('\'')).then(|| format!("'{key}'"))
}

/// What was typed before, in a file that nobody else may read: values may be secrets.
struct History {
    path: Option<PathBuf>,
    lines: Vec<String>,
}

impl History {
    fn load() -> Self {
        let path = state_directory().map(|directory| directory.join("kv-history"));
        let text = path.as_ref().and_then(|path| {
            let length = fs::metadata(path).ok()?.len();
            (length <= HISTORY_MAX).then(|| fs::read_to_string(path).ok())?
        });
        let lines = text.unwrap_or_default();
        Self {
            path,
            lines: lines.lines().map(Into::into).collect(),
        }
    }

    fn add(&mut self, line: &str) {
        if line.len() <= HISTORY_LINE && self.lines.last().is_none_or(|last| last != line) {
            self.lines.push(line.into());
        }
    }

    /// Keeps the last lines. A history that cannot be kept is no reason to fail.
    fn save(&self) {
        let Some(path) = &self.path else {
            return;
        };
        let from = self.lines.len().saturating_sub(HISTORY_LINES);
        let mut text = self.lines[from..].join("\n");
        text.push('\n');
        let saved = Saved {
            path,
            bytes: text.as_bytes(),
            secret: true,
        };
        let kept = directory_of(path)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                save::all(&[saved], Existing::Replaced).map_err(|error| error.to_string())
            });
        if let Err(why) = kept {
            complain(&format!("the history is not kept: {why}"));
        }
    }
}

fn directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent),
        None => Ok(()),
    }
}

/// Where programs of this user keep what is no configuration.
fn state_directory() -> Option<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("portyard"))
}

fn broken(error: &ReadlineError) -> Stop {
    Stop::fatal(
        Exit::Io,
        format!("cannot use the terminal: {error}; pipe the commands instead"),
    )
}

const TAKES_NO_KEY: [&str; 5] = ["keys", "size", "import", "export", "help"];
/// Keys that Tab offers at once.
const OFFERED: u64 = 50;
const HISTORY_LINES: usize = 1000;
/// Bytes of a line that is remembered, and of a file that is read.
const HISTORY_LINE: usize = 4096;
const HISTORY_MAX: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_offered_is_read_back_as_it_is() {
        for key in ["user:1", "a b", "{\"a\"", "", "\\", "-x", "é"] {
            let typed = typable(key).unwrap();
            let (words, _) = word::split(&typed).unwrap();
            assert_eq!(words, [key], "{typed}");
        }
        for key in ["\x1b[2J", "a\nb", "it's"] {
            assert_eq!(typable(key), None);
        }
    }

    #[test]
    fn commands_are_offered_by_their_beginning() {
        assert_eq!(commands("si"), ["size "]);
        assert!(commands("").len() > 15);
    }
}
