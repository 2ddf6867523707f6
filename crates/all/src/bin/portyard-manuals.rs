//! Writes the man pages and the shell completions of every program, from their own command lines.
//!
//! usage: portyard-manuals DIRECTORY
//!
//! The files are laid out as below a prefix such as /usr: `share/man/man8` for daemons, `share/man/man1` for
//! the client and its subcommands, and the directories in which bash, zsh and fish look. `scripts/install`
//! calls it; it is not installed itself.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use portyard_all::PROGRAMS;

/// The client; the others are daemons.
const CLIENT: &str = "portyard";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: portyard-manuals DIRECTORY");
        return ExitCode::from(64);
    };
    match write_all(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "portyard-manuals: cannot write below {}: {error}",
                Path::new(&directory).display()
            );
            ExitCode::from(74)
        }
    }
}

fn write_all(prefix: &Path) -> io::Result<()> {
    for program in &PROGRAMS {
        let section = if program.name == CLIENT { "1" } else { "8" };
        let pages = made(prefix, &format!("share/man/man{section}"))?;
        let mut command = (program.command_line)().disable_help_subcommand(true);
        // Gives each subcommand its full name.
        command.build();
        write_pages(&command, &pages, section)?;
        let command = (program.command_line)();
        complete(prefix, command, program.name)?;
    }
    Ok(())
}

/// Writes the page of a command and of each of its subcommands that is not hidden, as git names them:
/// `portyard-kv.1`, `portyard-kv-set.1`.
fn write_pages(command: &Command, directory: &Path, section: &str) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        write_pages(below, directory, section)?;
    }
    let man = Man::new(command.clone())
        .section(section)
        .manual("Portyard");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let notes = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    if let Some(notes) = notes {
        page.extend(as_laid_out("NOTES", &notes.to_string()).into_bytes());
    }
    page.extend_from_slice(SEE_ALSO.as_bytes());
    std::fs::write(directory.join(man.get_filename()), page)
}

const SEE_ALSO: &str = "\
.SH SEE ALSO
The documents in /usr/share/doc/portyard: operations.md, and a page for each protocol in protocols.
";

/// A section whose lines stay as they are: tables and examples must not be filled.
fn as_laid_out(title: &str, text: &str) -> String {
    let mut section = format!(".SH {title}\n.nf\n");
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or a quote at its beginning would make the line a request (groff(7)).
        if line.starts_with(['.', '\'']) {
            section.push_str("\\&");
        }
        section.push_str(&line);
        section.push('\n');
    }
    section.push_str(".fi\n");
    section
}

fn complete(prefix: &Path, mut command: Command, name: &str) -> io::Result<()> {
    for (shell, directory) in [
        (Shell::Bash, "share/bash-completion/completions"),
        (Shell::Zsh, "share/zsh/vendor-completions"),
        (Shell::Fish, "share/fish/vendor_completions.d"),
    ] {
        let directory = made(prefix, directory)?;
        let written = clap_complete::generate_to(shell, &mut command, name, &directory)?;
        if shell == Shell::Bash {
            // bash-completion looks for the command's bare name.
            std::fs::rename(written, directory.join(name))?;
        }
    }
    Ok(())
}

fn made(prefix: &Path, below: &str) -> io::Result<PathBuf> {
    let directory = prefix.join(below);
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_text_becomes_a_request() {
        assert_eq!(
            as_laid_out("NOTES", ".so /etc/passwd\n'br\na\\b --c"),
            ".SH NOTES\n.nf\n\\&.so /etc/passwd\n\\&'br\na\\eb \\-\\-c\n.fi\n"
        );
    }
}
