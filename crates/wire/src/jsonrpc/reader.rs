//! From JSON to values.

use super::Caps;
use super::form::Form;
use super::json::JsonError;
use super::scanner::{NESTING_MAX, Scanner};
use crate::value::{DEPTH_MAX, Value};

/// Reads values while it counts what they take.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub scanner: Scanner<'a>,
    max: usize,
    left: usize,
    /// How deep lists and objects have lain in each other so far.
    deepest: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8], caps: &Caps) -> Result<Self, JsonError> {
        Ok(Self {
            scanner: Scanner::new(text)?,
            max: caps.size,
            left: caps.size,
            deepest: 0,
        })
    }

    pub fn value(&mut self) -> Result<Value, JsonError> {
        self.shallow(|reader| reader.nested(0))
    }

    /// The members of an object as a map, whatever its keys are.
    pub fn plain_map(&mut self) -> Result<Value, JsonError> {
        self.shallow(|reader| reader.pairs(0, true).map(Value::Map))
    }

    /// Refuses what lies too deep. Counting brackets is not enough: an escaped map has two pairs.
    fn shallow(
        &mut self,
        read: impl Fn(&mut Self) -> Result<Value, JsonError>,
    ) -> Result<Value, JsonError> {
        let at = self.scanner.at();
        self.deepest = 0;
        let value = read(self)?;
        if self.deepest > DEPTH_MAX && depth(&value) > DEPTH_MAX {
            return Err(JsonError::Depth { at });
        }
        Ok(value)
    }

    fn nested(&mut self, nesting: usize) -> Result<Value, JsonError> {
        self.charge(size_of::<Value>())?;
        match self.scanner.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.scanner.word("null").map(|()| Value::Nil),
            Some(b't') => self.scanner.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.scanner.word("false").map(|()| Value::Bool(false)),
            Some(b'[') => self.list(nesting),
            Some(b'{') => self.object(nesting),
            _ => Err(self.scanner.expected("a value")),
        }
    }

    fn string(&mut self) -> Result<Value, JsonError> {
        let text = self.scanner.string()?;
        self.charge(text.len())?;
        Ok(Value::String(text.into_owned()))
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let at = self.scanner.at();
        let number = self.scanner.number()?;
        if number.whole {
            let parsed = number.text.parse().map(Value::Int);
            return parsed.map_err(|_| JsonError::IntRange { at });
        }
        match number.text.parse() {
            Ok(double) if f64::is_finite(double) => Ok(Value::Double(double)),
            _ => Err(JsonError::DoubleRange { at }),
        }
    }

    fn list(&mut self, nesting: usize) -> Result<Value, JsonError> {
        let nesting = self.deeper(nesting)?;
        let mut items = Vec::new();
        self.scanner.eat(b'[');
        if self.scanner.eat(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.nested(nesting)?);
            if !self.scanner.another(b']')? {
                return Ok(Value::List(items));
            }
        }
    }

    /// An object as what it stands for.
    fn object(&mut self, nesting: usize) -> Result<Value, JsonError> {
        let at = self.scanner.at();
        let mut pairs = self.pairs(nesting, false)?;
        let Some(form) = pairs.first().and_then(|(key, _)| Form::of(key)) else {
            return Ok(Value::Map(pairs));
        };
        let value = match pairs.pop() {
            Some((_, value)) if pairs.is_empty() => form.read(value),
            _ => None,
        };
        value.ok_or(JsonError::Form { at })
    }

    /// The pairs of an object. Unless it is `plain` itself, the object in a `$map` is.
    fn pairs(&mut self, nesting: usize, plain: bool) -> Result<Vec<(Value, Value)>, JsonError> {
        let at = self.scanner.at();
        let nesting = self.deeper(nesting)?;
        let mut pairs = Vec::new();
        self.scanner.eat(b'{');
        if self.scanner.eat(b'}') {
            return Ok(pairs);
        }
        loop {
            self.charge(size_of::<Value>())?;
            let key = self.string()?;
            if !self.scanner.eat(b':') {
                return Err(self.scanner.expected("a colon"));
            }
            let escaped = !plain && pairs.is_empty() && Form::of(&key) == Some(Form::Map);
            let value = if escaped && self.scanner.peek() == Some(b'{') {
                Value::Map(self.pairs(nesting, true)?)
            } else {
                self.nested(nesting)?
            };
            pairs.push((key, value));
            if !self.scanner.another(b'}')? {
                break;
            }
        }
        if !distinct(&pairs) {
            return Err(JsonError::EqualKeys { at });
        }
        Ok(pairs)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), JsonError> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(JsonError::Size { max: self.max })?;
        Ok(())
    }

    fn deeper(&mut self, nesting: usize) -> Result<usize, JsonError> {
        if nesting == NESTING_MAX {
            return Err(self.scanner.too_deep());
        }
        self.deepest = self.deepest.max(nesting + 1);
        Ok(nesting + 1)
    }
}

/// The pairs of a map whose keys are strings.
pub(super) fn named(pairs: Vec<(Value, Value)>) -> Vec<(String, Value)> {
    let named = pairs.into_iter().filter_map(|(key, value)| match key {
        Value::String(key) => Some((key, value)),
        _ => None,
    });
    named.collect()
}

/// How deep lists and maps lie in each other.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(pairs) => 1 + pairs.iter().map(|(_, v)| depth(v)).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether no two keys are equal. Keys are strings here.
fn distinct(pairs: &[(Value, Value)]) -> bool {
    if pairs.len() <= FEW {
        let mut rest = pairs;
        while let Some(((key, _), behind)) = rest.split_first() {
            if behind.iter().any(|(other, _)| other == key) {
                return false;
            }
            rest = behind;
        }
        return true;
    }
    let keys = pairs.iter().filter_map(|(key, _)| match key {
        Value::String(key) => Some(key.as_str()),
        _ => None,
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    keys.is_sorted_by(|one, other| one != other)
}

/// Up to here, comparing each with each is faster than sorting.
const FEW: usize = 8;
