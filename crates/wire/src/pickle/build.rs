//! From the objects of a pickle to a value.

use super::PickleError;
use super::machine::{Number, Object};
use crate::value::{DEPTH_MAX, Value};
use std::cmp::Ordering;

/// The object `root` with all that it holds, if that is no more than `max` bytes.
pub(super) fn value(
    objects: &[Object<'_>],
    root: Number,
    max: usize,
) -> Result<Value, PickleError> {
    let mut builder = Builder {
        objects,
        path: Vec::new(),
        left: max,
        max,
    };
    builder.value(root, false)
}

struct Builder<'a> {
    objects: &'a [Object<'a>],
    /// The objects that hold the present one.
    path: Vec<Number>,
    left: usize,
    max: usize,
}

impl Builder<'_> {
    /// One object. As a `key`, Python must be able to hash it.
    fn value(&mut self, number: Number, key: bool) -> Result<Value, PickleError> {
        self.charge(size_of::<Value>())?;
        Ok(match &self.objects[number as usize] {
            Object::None => Value::Nil,
            Object::Bool(bool) => Value::Bool(*bool),
            Object::Int(int) => Value::Int(*int),
            Object::Float(float) => Value::Double(*float),
            Object::Text(text) => {
                self.charge(text.len())?;
                Value::String(text.clone().into_owned())
            }
            Object::Bytes(bytes) => {
                self.charge(bytes.len())?;
                Value::Bytes(bytes.clone().into_owned())
            }
            Object::List(_) if key => return Err(PickleError::Key("list")),
            Object::Dict(_) if key => return Err(PickleError::Key("dict")),
            Object::Tuple(items) | Object::List(items) => {
                self.enter(number)?;
                let list = items.iter().map(|item| self.value(*item, key));
                let list = list.collect::<Result<_, _>>()?;
                self.path.pop();
                Value::List(list)
            }
            Object::Dict(pairs) => {
                self.enter(number)?;
                let mut map = Vec::new();
                for (key, value) in pairs {
                    map.push((self.value(*key, true)?, self.value(*value, false)?));
                }
                self.path.pop();
                if !distinct(&map) {
                    return Err(PickleError::EqualKeys);
                }
                Value::Map(map)
            }
            Object::Name(_) => return Err(PickleError::Forbidden("GLOBAL")),
        })
    }

    fn enter(&mut self, number: Number) -> Result<(), PickleError> {
        if self.path.contains(&number) {
            return Err(PickleError::Cycle);
        }
        if self.path.len() == DEPTH_MAX {
            return Err(PickleError::Depth);
        }
        self.path.push(number);
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), PickleError> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(PickleError::Size { max: self.max })?;
        Ok(())
    }
}

/// Whether no two keys are equal.
fn distinct(pairs: &[(Value, Value)]) -> bool {
    let mut keys: Vec<_> = pairs.iter().map(|(key, _)| key).collect();
    keys.sort_unstable_by(|one, other| compare(one, other));
    keys.is_sorted_by(|one, other| compare(one, other) == Ordering::Less)
}

/// An order of keys: any will do in which equal ones are neighbours. Zeros are equal.
fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Int(one), Value::Int(other)) => one.cmp(other),
        (Value::Double(one), Value::Double(other)) => (one + 0.0).total_cmp(&(other + 0.0)),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bytes(one), Value::Bytes(other)) => one.cmp(other),
        (Value::List(one), Value::List(other)) => {
            let pairs = one
                .iter()
                .zip(other)
                .map(|(one, other)| compare(one, other));
            let first = pairs.into_iter().find(|order| order.is_ne());
            first.unwrap_or(one.len().cmp(&other.len()))
        }
        _ => one.kind().cmp(other.kind()),
    }
}
