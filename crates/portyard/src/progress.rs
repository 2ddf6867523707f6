//! How far a transfer is, on standard error.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// When to show a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Always, into a file or pipe too.
    Always,
    /// When standard error is a terminal.
    Auto,
    /// Never.
    Never,
}

/// A bar for `total` bytes, or for as many as come. It vanishes when it is dropped.
pub fn bar(when: When, total: Option<u64>) -> ProgressBar {
    let terminal = io::stderr().is_terminal();
    let target = match when {
        When::Never => ProgressDrawTarget::hidden(),
        When::Auto if !terminal => ProgressDrawTarget::hidden(),
        _ if terminal => ProgressDrawTarget::stderr(),
        _ => ProgressDrawTarget::term_like(Box::new(Pipe)),
    };
    let bar = ProgressBar::with_draw_target(total, target);
    let template = match total {
        Some(_) => "[{bar:30}] {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left",
        None => "{bytes}, {binary_bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Standard error that is no terminal: each state of the bar follows the one before.
#[derive(Debug)]
struct Pipe;

impl TermLike for Pipe {
    fn width(&self) -> u16 {
        80
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{text}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        write!(io::stderr(), "{text}")
    }

    fn clear_line(&self) -> io::Result<()> {
        write!(io::stderr(), "\r")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}
