//! Where in a content a value may stand: only where its escaping makes it harmless.

use super::template::{Escape, Name};

/// A content, read up to a point.
#[derive(Debug)]
pub struct Context {
    escape: Escape,
    place: Place,
    /// What has been read of the tag, or of the script, that we are in.
    read: String,
    /// Where in that the last quotes begin.
    quotes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Text: of markup between tags, of JSON and CSV outside of quotes.
    Text,
    /// Within quotes, of this kind.
    Quoted(char),
    /// In a tag, outside of quotes.
    Tag,
    /// In an element whose text is no text.
    Raw(&'static str),
}

impl Context {
    /// Of a content whose values are escaped so.
    pub fn new(escape: Escape) -> Self {
        Self {
            escape,
            place: Place::Text,
            read: String::new(),
            quotes: 0,
        }
    }

    /// Reads text of the template.
    pub fn read(&mut self, text: &str) {
        match self.escape {
            Escape::Markup => text.chars().for_each(|char| self.read_markup(char)),
            Escape::Json | Escape::Csv => text.chars().for_each(|char| self.read_quotes(char)),
            Escape::None | Escape::Url | Escape::Path => {}
        }
    }

    /// Whether a value may stand here, or what to do.
    pub fn check(&self, name: &Name) -> Result<(), &'static str> {
        let is_number = matches!(name, Name::Time(part) if part != "iso" && part != "ctime");
        if is_number {
            return Ok(());
        }
        match (self.escape, self.place) {
            (Escape::Csv, Place::Text) => {
                Err("write quotes around it: a field ends at a comma otherwise")
            }
            (Escape::Markup, Place::Tag) => {
                Err("write quotes around it: an attribute ends at a blank otherwise")
            }
            (Escape::Markup, Place::Raw(_)) => Err(
                "it cannot be made harmless in a script or a style; put it into an attribute such as data-value",
            ),
            (Escape::Markup, Place::Text) if self.read == "<" => Err(
                "it cannot be the name of an element, of which there are some that are programs",
            ),
            (Escape::Markup, Place::Quoted(_)) => self.check_attribute(),
            _ => Ok(()),
        }
    }

    /// Whether a value that stands here is all of a value of JSON, rather than text in a string.
    pub fn is_bare(&self) -> bool {
        (self.escape, self.place) == (Escape::Json, Place::Text)
    }

    /// In quotes a value is text, but of some attributes text is a program.
    fn check_attribute(&self) -> Result<(), &'static str> {
        let (before, value) = self.read.split_at(self.quotes);
        let before = before.trim_end().trim_end_matches('=').trim_end();
        let name = before.rsplit(|char: char| char.is_whitespace()).next();
        let name = name.unwrap_or_default().to_ascii_lowercase();
        // The quotes are the first of it.
        let is_first = value[1..].trim_start().is_empty();
        if name.starts_with("on") || name == "style" || name == "srcdoc" {
            Err(
                "it cannot be made harmless in this attribute, which is a program; use another, such as data-value",
            )
        } else if is_first && LINKS.contains(&name.as_str()) {
            Err(
                "write where it leads before it, such as a path: the client could choose javascript: otherwise",
            )
        } else {
            Ok(())
        }
    }

    fn read_quotes(&mut self, char: char) {
        let is_escaped = self.escape == Escape::Json && self.read == "\\";
        self.read.clear();
        match (char, self.place) {
            (_, Place::Quoted(_)) if is_escaped => {}
            ('\\', Place::Quoted(_)) => self.read.push(char),
            ('"', Place::Quoted(_)) => self.place = Place::Text,
            ('"', _) => self.place = Place::Quoted('"'),
            _ => {}
        }
    }

    fn read_markup(&mut self, char: char) {
        self.read.push(char);
        match self.place {
            Place::Text => {
                // A tag, not a comparison.
                let is_tag = self.read.starts_with('<')
                    && (char.is_ascii_alphabetic() || "/?".contains(char));
                if char == '<' {
                    "<".clone_into(&mut self.read);
                } else if is_tag {
                    self.place = Place::Tag;
                } else {
                    self.read.clear();
                }
            }
            Place::Tag if char == '>' => {
                let raw = RAW.iter().find(|name| {
                    let begins = self.read.get(1..=name.len());
                    let is_whole = self.read.as_bytes().get(name.len() + 1);
                    begins.is_some_and(|found| found.eq_ignore_ascii_case(name))
                        && is_whole.is_some_and(|byte| !byte.is_ascii_alphanumeric())
                        && !self.read.ends_with("/>")
                });
                self.place = raw.map_or(Place::Text, |name| Place::Raw(name));
                self.read.clear();
            }
            // Quotes are quotes only behind the sign.
            Place::Tag if matches!(char, '"' | '\'') => {
                let before = self.read[..self.read.len() - 1].trim_end();
                if before.ends_with('=') {
                    self.place = Place::Quoted(char);
                    self.quotes = self.read.len() - 1;
                }
            }
            Place::Quoted(end) if char == end => {
                self.place = Place::Tag;
                // What the element is called is still to be known.
                let name = |char: char| !char.is_ascii_alphanumeric();
                let end = self.read[1..]
                    .find(name)
                    .map_or(self.read.len(), |at| at + 1);
                self.read.truncate(end);
                self.read.push(' ');
            }
            Place::Raw(_) if char == '<' => "<".clone_into(&mut self.read),
            Place::Raw(name) if char == '>' => {
                let end = self.read.to_ascii_lowercase();
                if end
                    .trim_end_matches('>')
                    .trim_end()
                    .ends_with(&format!("</{name}"))
                {
                    self.place = Place::Text;
                    self.read.clear();
                }
            }
            _ => {}
        }
    }
}

/// Elements whose text is read by another than the reader of markup.
const RAW: &[&str] = &["script", "style"];
/// Attributes that lead somewhere.
const LINKS: &[&str] = &["href", "src", "action", "formaction", "xlink:href", "data"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a value may stand where the text has `@`.
    fn may(escape: Escape, text: &str) -> bool {
        let name = Name::Query("a".into());
        until(escape, text).check(&name).is_ok()
    }

    /// The context of the `@` in a text.
    fn until(escape: Escape, text: &str) -> Context {
        let (before, _) = text.split_once('@').unwrap();
        let mut context = Context::new(escape);
        context.read(before);
        context
    }

    #[test]
    fn a_value_stands_in_text_and_quotes_alone() {
        for (text, expected) in [
            ("<p>@</p>", true),
            ("1 < 2 @", true),
            ("<@>", false),
            ("</@>", false),
            ("<!DOCTYPE html><!-- it's --><p>@", true),
            ("<?xml version=\"1.0\"?><a b='@'/>", true),
            ("<a b = \"x\" title=\"@\">", true),
            ("<a title=it's>@", true),
            ("<a href=\"/x?a=@\">", true),
            ("<a href='@'>", false),
            ("<A HREF=\" @\">", false),
            ("<a href=\"/x\" title=\"@\">", true),
            ("<img alt=\"x\" src=\"@\">", false),
            ("<p title=@>", false),
            ("<p @>", false),
            ("<p onclick=\"f('@')\">", false),
            ("<p style=\"color: @\">", false),
            ("<script>f(\"@\")</script>", false),
            ("<script src=\"a.js\">if (a > b && c</d>) @", false),
            ("<script src=\"a.js\"></script ><p>@", true),
            ("<STYLE>p { color: @", false),
            ("<script src=\"a\"/><b>@</b>", true),
            ("<scripted>@", true),
            ("<p title=\"a>b\">@", true),
        ] {
            assert_eq!(may(Escape::Markup, text), expected, "{text}");
        }
        for (text, expected) in [
            ("{\"a\": \"@\"}", false),
            ("{\"a\": @}", true),
            ("{\"@\": 1}", false),
            ("{\"a\\\"\": @", true),
            ("{\"a\\\\\": @", true),
            ("{\"a\\\"@", false),
        ] {
            assert!(may(Escape::Json, text), "{text}");
            assert_eq!(until(Escape::Json, text).is_bare(), expected, "{text}");
        }
        assert!(may(Escape::Csv, "a,\"b \"\" @\"") && !may(Escape::Csv, "\"a\",@"));
        assert!(may(Escape::None, "@"));
        let context = Context::new(Escape::Csv);
        assert!(context.check(&Name::Time("unix".into())).is_ok());
        assert!(context.check(&Name::Time("iso".into())).is_err());
    }
}
