//! The lines a person types to echo-tcp's `command` service.

use crate::escape::escape;
use std::fmt;

/// What one line asks for.
///
/// `Display` gives the line back in its plainest form, which parses to the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `date`: the date and time of the server.
    Date,
    /// `os`: the operating system of the server.
    Os,
    /// `ls` or `ls DIR`: the entries of the configured root, or of a directory.
    ///
    /// The text is what the peer wrote, free of control characters but not otherwise judged: `..`,
    /// an absolute path or a link must not lead out of the root, and that is for the one who opens
    /// it to see to.
    Ls(Option<String>),
    /// `help`: the text [`HELP`].
    Help,
    /// `quit`, or `exit`: close the connection.
    Quit,
}

impl Command {
    /// Parses a line, with or without its terminator. White space around it is ignored, and so is
    /// the case of the verb.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Err(CommandError::Empty);
        }
        let text = str::from_utf8(line).map_err(|_| CommandError::NotText)?;
        let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let argument = rest.trim_ascii();
        let (command, name) = match verb.to_ascii_lowercase().as_str() {
            "date" => (Self::Date, "date"),
            "os" => (Self::Os, "os"),
            "help" => (Self::Help, "help"),
            "quit" => (Self::Quit, "quit"),
            "exit" => (Self::Quit, "exit"),
            "ls" if argument.is_empty() => return Ok(Self::Ls(None)),
            "ls" if argument.contains(char::is_control) => return Err(CommandError::BadPath),
            "ls" => return Ok(Self::Ls(Some(argument.to_owned()))),
            _ => return Err(CommandError::Unknown(escape(verb.as_bytes(), MAX_SHOWN))),
        };
        if argument.is_empty() {
            Ok(command)
        } else {
            Err(CommandError::ExtraArgument { command: name })
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date => f.write_str("date"),
            Self::Os => f.write_str("os"),
            Self::Ls(None) => f.write_str("ls"),
            Self::Ls(Some(dir)) => write!(f, "ls {dir}"),
            Self::Help => f.write_str("help"),
            Self::Quit => f.write_str("quit"),
        }
    }
}

/// Why a line is no command. The text, without a line end, is the answer the person gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing but white space.
    #[error("error: empty line; type help")]
    Empty,
    /// The first word, made safe to print and cut to 32 characters, is none of ours.
    #[error("error: unknown command '{0}'; type help")]
    Unknown(String),
    /// The line is not UTF-8.
    #[error("error: the line is not UTF-8 text; type help")]
    NotText,
    /// A command that takes no argument got one.
    #[error("error: {command} takes no argument")]
    ExtraArgument {
        /// The verb as we spell it.
        command: &'static str,
    },
    /// The directory holds a control character.
    #[error("error: the directory name holds a control character")]
    BadPath,
}

/// The answer to `help`: lines joined by LF, the last one without.
pub const HELP: &str = "\
date     show the date and time
os       show the operating system
ls       list the entries of the top directory
ls DIR   list the entries of a directory below it
help     show this text
quit     close the connection";

const MAX_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_white_space_is_empty() {
        for line in [&b""[..], b"\r\n", b"  \t\n"] {
            assert_eq!(Command::parse(line), Err(CommandError::Empty));
        }
    }

    #[test]
    fn an_unknown_verb_is_shown_safely_and_short() {
        let error = Command::parse(b"foo bar\n").unwrap_err();
        assert_eq!(error.to_string(), "error: unknown command 'foo'; type help");
        let error = Command::parse(b"\x1b[31mred").unwrap_err();
        assert_eq!(error, CommandError::Unknown(r"\x1b[31mred".into()));
        let CommandError::Unknown(shown) = Command::parse(&[b'x'; 900]).unwrap_err() else {
            panic!()
        };
        assert_eq!(shown.chars().count(), 32);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(Command::parse(b"ls \xff\n"), Err(CommandError::NotText));
        assert_eq!(Command::parse(b"\x80"), Err(CommandError::NotText));
    }

    #[test]
    fn a_command_without_arguments_takes_none() {
        for (line, command) in [
            (&b"date now"[..], "date"),
            (b"QUIT please", "quit"),
            (b"exit 1", "exit"),
        ] {
            assert_eq!(
                Command::parse(line),
                Err(CommandError::ExtraArgument { command })
            );
        }
    }

    #[test]
    fn a_directory_with_control_characters_is_refused() {
        for line in ["ls a\0b", "ls a\rb", "ls \u{1b}[2J", "ls a\u{9b}b"] {
            assert_eq!(
                Command::parse(line.as_bytes()),
                Err(CommandError::BadPath),
                "{line:?}"
            );
        }
    }

    #[test]
    fn verbs_ignore_case_and_white_space_around() {
        assert_eq!(Command::parse(b" Date\r\n"), Ok(Command::Date));
        assert_eq!(Command::parse(b"OS"), Ok(Command::Os));
        assert_eq!(Command::parse(b"\thelp "), Ok(Command::Help));
        assert_eq!(Command::parse(b"exit\n"), Ok(Command::Quit));
        assert_eq!(Command::parse(b"ls \n"), Ok(Command::Ls(None)));
    }

    #[test]
    fn the_directory_is_the_rest_of_the_line() {
        let ls = |dir: &str| Ok(Command::Ls(Some(dir.into())));
        assert_eq!(
            Command::parse(b"ls  My Files/2026 \r\n"),
            ls("My Files/2026")
        );
        assert_eq!(Command::parse("LS Grüße".as_bytes()), ls("Grüße"));
        assert_eq!(
            Command::parse(b"ls ../etc"),
            ls("../etc"),
            "the root is guarded by the one who opens"
        );
    }

    #[test]
    fn help_names_every_command_in_lines_of_a_terminal() {
        for verb in ["date", "os", "ls", "ls DIR", "help", "quit"] {
            assert!(HELP.lines().any(|line| line.starts_with(verb)), "{verb}");
        }
        assert!(!HELP.ends_with('\n') && HELP.lines().all(|line| line.len() < 80));
    }

    proptest! {
        #[test]
        fn a_command_written_out_parses_to_itself(
            line in "(?i)(date|os|ls|help|quit|exit) ?\\PC{0,12}",
        ) {
            if let Ok(command) = Command::parse(line.as_bytes()) {
                prop_assert_eq!(Command::parse(command.to_string().as_bytes()), Ok(command));
            }
        }

        #[test]
        fn every_refusal_is_one_safe_line(line: Vec<u8>) {
            if let Err(error) = Command::parse(&line) {
                let text = error.to_string();
                prop_assert!(text.starts_with("error: ") && !text.contains(char::is_control));
            }
        }
    }
}
