//! How a method is called, and Python's complaints about calls that are not so.

use std::fmt::Write as _;

use portyard_wire::value::Value;

use crate::error::MethodError;

/// The name of a method, its parameters, and what it is for.
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// Its parameters; those from `required` on may be left out.
    pub parameters: &'static [&'static str],
    /// How many must be there.
    pub required: usize,
    /// One line of help.
    pub help: &'static str,
}

/// Arguments as a door delivers them.
pub enum Arguments {
    /// By position.
    Positional(Vec<Value>),
    /// Some by position, the rest by name.
    Named(Vec<Value>, Vec<(String, Value)>),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Positional(Vec::new())
    }
}

impl Signature {
    /// The arguments by position, or Python's complaint about them. What is left out is nil.
    pub fn arrange(&self, arguments: Arguments) -> Result<Vec<Value>, MethodError> {
        let (mut positional, named) = match arguments {
            Arguments::Positional(positional) => (positional, Vec::new()),
            Arguments::Named(positional, named) => (positional, named),
        };
        let most = self.parameters.len();
        if positional.len() > most {
            return Err(MethodError::Type(self.too_many(positional.len())));
        }
        let given = positional.len();
        positional.resize(most, Value::Nil);
        let mut is_given: Vec<bool> = (0..most).map(|n| n < given).collect();
        for (name, value) in named {
            let Some(at) = self.parameters.iter().position(|known| *known == name) else {
                return Err(MethodError::Type(format!(
                    "KeyValueServer.{}() got an unexpected keyword argument '{name}'",
                    self.name
                )));
            };
            if is_given[at] {
                return Err(MethodError::Type(format!(
                    "KeyValueServer.{}() got multiple values for argument '{name}'",
                    self.name
                )));
            }
            is_given[at] = true;
            positional[at] = value;
        }
        let missing: Vec<&str> = (0..self.required)
            .filter(|at| !is_given[*at])
            .map(|at| self.parameters[at])
            .collect();
        if missing.is_empty() {
            Ok(positional)
        } else {
            Err(MethodError::Type(self.missing(&missing)))
        }
    }

    /// As Python counts: with `self`.
    fn too_many(&self, given: usize) -> String {
        let (least, most) = (self.required + 1, self.parameters.len() + 1);
        let takes = if least == most {
            format!("{most} positional argument{}", plural(most))
        } else {
            format!("from {least} to {most} positional arguments")
        };
        let given = given + 1;
        let was = if given == 1 { "was" } else { "were" };
        format!(
            "KeyValueServer.{}() takes {takes} but {given} {was} given",
            self.name
        )
    }

    fn missing(&self, names: &[&str]) -> String {
        let mut list = String::new();
        for (at, name) in names.iter().enumerate() {
            list += match at {
                0 => "",
                _ if names.len() == 2 => " and ",
                _ if at == names.len() - 1 => ", and ",
                _ => ", ",
            };
            // Writing into a String does not fail.
            let _ = write!(list, "'{name}'");
        }
        format!(
            "KeyValueServer.{}() missing {} required positional argument{}: {list}",
            self.name,
            names.len(),
            plural(names.len())
        )
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
