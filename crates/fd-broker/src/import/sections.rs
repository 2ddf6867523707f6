//! The sections of an xinetd.conf(5), with those of included files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Imported, read};

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// The service's name; empty for `defaults`.
    pub name: String,
    /// Where it begins.
    pub place: String,
    attributes: Vec<Attribute>,
}

/// `NAME OPERATOR VALUES`.
#[derive(Debug)]
struct Attribute {
    name: String,
    operator: Operator,
    values: Vec<String>,
    place: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Set,
    Add,
    Remove,
}

/// The values of all attributes of a service, defaults included, each with its place.
pub type Values = HashMap<String, (Vec<String>, String)>;

/// Whether a text is of this kind.
pub fn is_like(text: &str) -> bool {
    lines(text).any(|(_, line)| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("{" | "}" | "defaults" | "includedir") => true,
            Some("service" | "include") => words.count() == 1,
            _ => false,
        }
    })
}

/// Lines that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let trimmed = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()));
    trimmed.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Reads a text, and the files that it includes, into sections.
pub fn parse(
    path: &Path,
    text: &str,
    sections: &mut Vec<Section>,
    imported: &mut Imported,
    depth: u32,
) {
    let mut inside = false;
    for (number, line) in lines(text) {
        let place = format!("{}:{number}", path.display());
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        match (first, inside) {
            ("service", false) => sections.push(Section {
                name: words.next().unwrap_or("unnamed").into(),
                place,
                attributes: Vec::new(),
            }),
            ("defaults", false) => sections.push(Section {
                name: String::new(),
                place,
                attributes: Vec::new(),
            }),
            ("include" | "includedir", false) => {
                let target = PathBuf::from(words.next().unwrap_or_default());
                include(
                    &target,
                    first == "includedir",
                    &place,
                    sections,
                    imported,
                    depth,
                );
            }
            ("{", false) => inside = true,
            ("}", _) => inside = false,
            (_, true) => match (attribute(line, &place), sections.last_mut()) {
                (Some(attribute), Some(section)) => section.attributes.push(attribute),
                _ => imported.warn(&place, &format!("'{line}' is no attribute")),
            },
            (_, false) => imported.warn(&place, &format!("'{line}' is not understood")),
        }
        // The brace may stand behind the name.
        inside |= line.ends_with('{');
    }
}

fn attribute(line: &str, place: &str) -> Option<Attribute> {
    let (before, values) = line.split_once('=')?;
    let (name, operator) = match before.strip_suffix(['+', '-']) {
        Some(name) if before.ends_with('+') => (name, Operator::Add),
        Some(name) => (name, Operator::Remove),
        None => (before, Operator::Set),
    };
    Some(Attribute {
        name: name.trim().into(),
        operator,
        values: values.split_whitespace().map(String::from).collect(),
        place: place.into(),
    })
}

fn include(
    target: &Path,
    is_directory: bool,
    place: &str,
    sections: &mut Vec<Section>,
    imported: &mut Imported,
    depth: u32,
) {
    if depth == DEPTH_MAX {
        return imported.warn(place, "files include each other too deeply");
    }
    let mut files = vec![target.to_owned()];
    if is_directory {
        let listed = match fs::read_dir(target) {
            Ok(listed) => listed,
            Err(error) => {
                return imported.warn(
                    place,
                    &format!("{} cannot be listed: {error}", target.display()),
                );
            }
        };
        files = listed.flatten().map(|entry| entry.path()).collect();
        // As xinetd does: backups and hidden files are left out.
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            file.is_file() && !name.contains('.') && !name.ends_with('~')
        });
        files.sort();
    }
    for file in files {
        match read(&file) {
            Ok(text) => parse(&file, &text, sections, imported, depth + 1),
            Err(error) => imported.warn(
                place,
                &format!("{} cannot be read: {error}", file.display()),
            ),
        }
    }
}

/// Applies the attributes of a section, in their order.
pub fn apply(section: &Section, values: &mut Values) {
    let mut own: Vec<&str> = Vec::new();
    for attribute in &section.attributes {
        let entry = values.entry(attribute.name.clone()).or_default();
        entry.1.clone_from(&attribute.place);
        match attribute.operator {
            // A second one in the same section adds to the first.
            Operator::Set if own.contains(&&*attribute.name) => {
                entry.0.extend(attribute.values.iter().cloned());
            }
            Operator::Set => entry.0.clone_from(&attribute.values),
            Operator::Add => entry.0.extend(attribute.values.iter().cloned()),
            Operator::Remove => entry.0.retain(|value| !attribute.values.contains(value)),
        }
        own.push(&attribute.name);
    }
}

/// xinetd itself follows one level; a loop must end somewhere.
const DEPTH_MAX: u32 = 8;
