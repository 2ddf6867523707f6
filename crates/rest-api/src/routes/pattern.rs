//! Patterns of paths: `/a/{id}/{rest..}`.

use crate::http::decode;

/// A pattern, ready to be compared with paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// This text.
    Fixed(String),
    /// Any one segment that is not empty.
    One(String),
    /// All that follows the slash, perhaps nothing; only at the end.
    Rest(String),
}

/// What the parameters of a pattern stand for in a path, decoded.
pub type Captures = Vec<(String, String)>;

impl Pattern {
    /// Reads a pattern, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("path = \"{text}\" must begin with a slash"));
        };
        let mut segments: Vec<Segment> = Vec::new();
        for part in rest.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err(format!("path = \"{text}\": nothing may follow {{NAME..}}"));
            }
            let inner = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'));
            let segment = match inner {
                Some(inner) => {
                    let (name, is_rest) = match inner.strip_suffix("..") {
                        Some(name) => (name, true),
                        None => (inner, false),
                    };
                    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                    if name.is_empty() || !name.bytes().all(is_word) {
                        return Err(format!(
                            "path = \"{text}\": '{part}' is no parameter; write {{NAME}} with letters, \
                             digits and _, or {{NAME..}} for all that follows"
                        ));
                    }
                    if segments.iter().any(|segment| segment.name() == Some(name)) {
                        return Err(format!("path = \"{text}\" has two parameters named {name}"));
                    }
                    if is_rest {
                        Segment::Rest(name.into())
                    } else {
                        Segment::One(name.into())
                    }
                }
                None if part.contains(['{', '}', '%', '?', '#']) => {
                    return Err(format!(
                        "path = \"{text}\": '{part}' holds one of {{ }} % ? #; a parameter is a whole \
                         segment, and other text stands as it is meant, not encoded"
                    ));
                }
                None => Segment::Fixed(part.into()),
            };
            segments.push(segment);
        }
        Ok(Self {
            text: text.into(),
            segments,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a parameter has this name.
    pub fn has(&self, name: &str) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.name() == Some(name))
    }

    /// Whether every path that fits the other fits this one, too.
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.segments.iter();
        for segment in &self.segments {
            match (segment, others.next()) {
                (Segment::Rest(_), Some(_)) => return true,
                (Segment::One(_), Some(Segment::One(_))) => {}
                (Segment::One(_), Some(Segment::Fixed(text))) if !text.is_empty() => {}
                (Segment::Fixed(ours), Some(Segment::Fixed(theirs))) if ours == theirs => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }

    /// What the parameters stand for, if the path, as it came, fits.
    pub fn captures(&self, path: &str) -> Option<Captures> {
        self.read(path, decode)
    }

    /// As [`Pattern::captures`], as they are spelled: not decoded.
    pub fn spelled(&self, path: &str) -> Option<Captures> {
        self.read(path, str::to_owned)
    }

    fn read(&self, path: &str, value_of: impl Fn(&str) -> String) -> Option<Captures> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let mut captures = Captures::new();
        for segment in &self.segments {
            match segment {
                Segment::Fixed(text) => {
                    if decode(parts.next()?) != *text {
                        return None;
                    }
                }
                Segment::One(name) => {
                    let part = parts.next().filter(|part| !part.is_empty())?;
                    captures.push((name.clone(), value_of(part)));
                }
                Segment::Rest(name) => {
                    let first = value_of(parts.next()?);
                    let rest: Vec<String> =
                        std::iter::once(first).chain(parts.map(&value_of)).collect();
                    captures.push((name.clone(), rest.join("/")));
                    return Some(captures);
                }
            }
        }
        parts.next().is_none().then_some(captures)
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::One(name) | Self::Rest(name) => Some(name),
        }
    }
}

/// Whether a path has a segment `.` or `..`, encoded or not, or one that hides a slash: what another
/// server behind us could take for another path.
pub fn is_crooked(path: &str) -> bool {
    path.split('/').any(|part| {
        let decoded = decode(part);
        matches!(decoded.as_str(), "." | "..") || decoded.contains(['/', '\\', '\0'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures(pattern: &str, path: &str) -> Option<Vec<String>> {
        let captures = Pattern::parse(pattern).unwrap().captures(path)?;
        Some(
            captures
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        )
    }

    #[test]
    fn parameters_stand_for_segments() {
        let some = |items: &[&str]| Some(items.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (pattern, path, expected) in [
            ("/", "/", some(&[])),
            ("/", "/a", None),
            ("/a", "/a", some(&[])),
            ("/a", "/a/", None),
            ("/a", "/%61", some(&[])),
            ("/a/{id}", "/a/7", some(&["id=7"])),
            ("/a/{id}", "/a/", None),
            ("/a/{id}", "/a/x%20y", some(&["id=x y"])),
            ("/a/{id}/b", "/a/7/b", some(&["id=7"])),
            ("/a/{id}/b", "/a/7/c", None),
            ("/a/{rest..}", "/a/x/y%2Bz", some(&["rest=x/y+z"])),
            ("/a/{rest..}", "/a/", some(&["rest="])),
            ("/a/{rest..}", "/a", None),
            ("/{rest..}", "/", some(&["rest="])),
        ] {
            assert_eq!(captures(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_covers_what_fits_no_other_path() {
        for (one, other, expected) in [
            ("/a", "/a", true),
            ("/a", "/b", false),
            ("/a", "/a/b", false),
            ("/{x}", "/a", true),
            ("/{x}", "/{y}", true),
            ("/{x}", "/", false),
            ("/a", "/{x}", false),
            ("/{x}/b", "/a/{y}", false),
            ("/{x..}", "/a/{y}/b", true),
            ("/{x..}", "/", true),
            ("/a/{x..}", "/a", false),
            ("/a/{x..}", "/a/{y..}", true),
            ("/a/{x}", "/a/{y..}", false),
        ] {
            let parse = |text| Pattern::parse(text).unwrap();
            assert_eq!(parse(one).covers(&parse(other)), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_wrong_pattern_is_refused_with_what_to_do() {
        for text in [
            "a", "/{}", "/{a", "/{a b}", "/x{a}", "/{a..}/b", "/{a}/{a}", "/a%20b", "/a?b",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_path_gets_around_its_pattern() {
        for path in [
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/.",
            "/a/b%2f..",
            "/a%5cb",
            "/a%00",
        ] {
            assert!(is_crooked(path), "{path}");
        }
        for path in ["/a/...", "/a/b.c", "/", "/a//b", "/.well-known"] {
            assert!(!is_crooked(path), "{path}");
        }
    }
}
