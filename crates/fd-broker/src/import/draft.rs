//! A service on its way from another inetd's words to a `[[service]]` table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::Value;

/// A service as it will be written.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Its name, unique among all.
    pub name: String,
    /// What is said before it, each a line.
    pub comments: Vec<String>,
    /// Whether it is written as a comment.
    pub off: bool,
    /// Keys of the table, in the order in which they are written.
    pub keys: Vec<(&'static str, Value)>,
    /// Keys of the tables in it, by their names.
    pub tables: BTreeMap<&'static str, Vec<(&'static str, Value)>>,
}

impl Draft {
    /// A service of this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Sets a key.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.keys.push((key, value.into()));
    }

    /// Sets a key of a table in it.
    pub fn set_in(&mut self, table: &'static str, key: &'static str, value: impl Into<Value>) {
        self.tables
            .entry(table)
            .or_default()
            .push((key, value.into()));
    }

    /// Says something before it.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.comments.push(text.into());
    }

    /// Leaves it out, and says why.
    pub fn leave_out(&mut self, why: &str) {
        self.comment(format!("LEFT OUT: {why}"));
        self.off = true;
    }

    /// The table as text.
    pub fn to_toml(&self) -> String {
        let mut table = String::from("[[service]]\n");
        let name = Value::from(self.name.as_str());
        // Writing into a String does not fail.
        let _ = writeln!(table, "name = {name}");
        for (key, value) in &self.keys {
            let _ = writeln!(table, "{key} = {value}");
        }
        for (name, keys) in &self.tables {
            let _ = writeln!(table, "[service.{name}]");
            for (key, value) in keys {
                let _ = writeln!(table, "{key} = {value}");
            }
        }
        let mut text = String::new();
        for line in self.comments.iter().flat_map(|comment| comment.lines()) {
            let line = line
                .trim_end()
                .replace(|c: char| c.is_control() && c != '\t', "?");
            let _ = writeln!(text, "# {line}");
        }
        if self.off {
            for line in table.lines() {
                let _ = writeln!(text, "#{line}");
            }
        } else {
            text.push_str(&table);
        }
        text
    }
}

/// A list of texts.
pub fn texts<S: AsRef<str>>(all: impl IntoIterator<Item = S>) -> Value {
    Value::Array(
        all.into_iter()
            .map(|text| Value::from(text.as_ref()))
            .collect(),
    )
}
