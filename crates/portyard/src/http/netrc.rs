//! Users and passwords in a file `.netrc`, as curl and Python's `netrc` read it.

use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::{FilePlace, Links};
use zeroize::Zeroizing;

/// Who we are to a host, whatever the port: its first entry, or the file's `default`; with `user`, the first
/// that is of this user. `None`: there is no such entry.
pub fn look_up(
    place: &FilePlace,
    host: &str,
    user: Option<&str>,
) -> Result<Option<(String, Zeroizing<String>)>, Fatal> {
    let wrong = |why: String| Fatal::new(Exit::Config, format!("--netrc: {why}"));
    let bytes = place
        .read_secret(Links::Followed, FILE_MAX)
        .map_err(|error| wrong(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(format!("{place} is not text")))?;
    let mut entries = read(text).map_err(|line| {
        wrong(format!(
            "{place}, line {line}: this is not 'machine HOST login USER password PASSWORD'"
        ))
    })?;
    entries.retain(|entry| user.is_none_or(|user| entry.login == user));
    let is_it = |entry: &Entry| {
        let machine = entry.machine.as_deref();
        machine.is_some_and(|machine| machine.eq_ignore_ascii_case(host))
    };
    let at = entries.iter().position(is_it);
    let at = at.or_else(|| entries.iter().position(|entry| entry.machine.is_none()));
    let found = at.map(|at| entries.swap_remove(at));
    Ok(found.map(|entry| (entry.login, entry.password)))
}

/// What stands behind `machine` or `default`.
#[derive(Default)]
struct Entry {
    /// `None`: any.
    machine: Option<String>,
    login: String,
    password: Zeroizing<String>,
}

/// All entries, or the number of the line that is none.
fn read(text: &str) -> Result<Vec<Entry>, usize> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = text.lines().enumerate();
    // What the word before wants.
    let mut wants: Option<String> = None;
    let mut last = 1;
    while let Some((at, line)) = lines.next() {
        last = at + 1;
        let mut rest = line;
        while let Some(word) = next(&mut rest).ok_or(last)? {
            match (wants.take().as_deref(), word.as_str()) {
                (Some("machine"), _) => entries.push(Entry {
                    machine: Some(word.to_string()),
                    ..Entry::default()
                }),
                (Some(what @ ("login" | "password")), _) => {
                    let entry = entries.last_mut().ok_or(last)?;
                    if what == "login" {
                        entry.login = word.to_string();
                    } else {
                        entry.password = word;
                    }
                }
                (Some("macdef"), _) => {
                    // Commands for ftp, up to an empty line.
                    let _ = lines.by_ref().find(|(_, line)| line.trim().is_empty());
                    break;
                }
                // An account, which HTTP has not.
                (Some(_), _) => {}
                (None, "default") => entries.push(Entry::default()),
                (None, "machine" | "login" | "password" | "account" | "macdef") => {
                    wants = Some(word.to_string());
                }
                (None, comment) if comment.starts_with('#') => break,
                (None, _) => return Err(last),
            }
        }
    }
    match wants {
        None => Ok(entries),
        Some(_) => Err(last),
    }
}

/// Takes the next word of a line, in quotes perhaps, in which a backslash makes the next character its own;
/// `Some(None)`: there is none left, `None`: its quotes do not end.
#[expect(clippy::option_option, reason = "the outer one is a mistake")]
fn next(rest: &mut &str) -> Option<Option<Zeroizing<String>>> {
    let text = rest.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, after) = text.split_at(end);
        *rest = after;
        return Some((!word.is_empty()).then(|| word.to_owned().into()));
    };
    let mut word = Zeroizing::new(String::new());
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                *rest = &quoted[at + 1..];
                return Some(Some(word));
            }
            '\\' => match chars.next()?.1 {
                'n' => word.push('\n'),
                'r' => word.push('\r'),
                't' => word.push('\t'),
                other => word.push(other),
            },
            _ => word.push(char),
        }
    }
    None
}

const FILE_MAX: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_over_lines_comments_macros_and_quotes() {
        let text = "# of me\nmachine a.example login ada password p#1 account x\nmacdef init\n\
            machine not.example\n\nmachine b.example\n  login \"b \\\"c\\\\\"\n  password \"\" # no more\n\
            default login any password # x\n";
        // A password may begin with the sign of a comment; what follows it is a mistake then.
        assert_eq!(read(text).err(), Some(9));
        let entries = read(&text.replace("# x", "#x")).unwrap();
        let told: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.machine.as_deref(),
                    &*entry.login,
                    entry.password.as_str(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Some("a.example"), "ada", "p#1"),
                (Some("b.example"), "b \"c\\", ""),
                (None, "any", "#x"),
            ]
        );
    }

    #[test]
    fn what_is_none_says_where() {
        for (text, line) in [
            ("machine", 1),
            ("login x", 1),
            ("machine a\nlogin \"x\n", 2),
            ("machine a\npasswd x", 2),
            ("machine a login", 1),
        ] {
            assert_eq!(read(text).err(), Some(line), "{text}");
        }
        assert!(read("").unwrap().is_empty());
    }
}
