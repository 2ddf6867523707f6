//! What JSON has no words for.

use crate::value::Value;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What an object with one special key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bytes,
    DateTime,
    Map,
}

impl Form {
    pub fn of(key: &Value) -> Option<Self> {
        match key {
            Value::String(key) if key == BYTES => Some(Self::Bytes),
            Value::String(key) if key == DATE_TIME => Some(Self::DateTime),
            Value::String(key) if key == MAP => Some(Self::Map),
            _ => None,
        }
    }

    pub fn read(self, value: Value) -> Option<Value> {
        match (self, value) {
            (Self::Bytes, Value::String(text)) => {
                BASE64_STANDARD.decode(text).ok().map(Value::Bytes)
            }
            (Self::DateTime, Value::String(text)) => Some(Value::DateTime(text)),
            (Self::Map, map @ Value::Map(_)) => Some(map),
            _ => None,
        }
    }
}

pub(super) const BYTES: &str = "$bytes";
pub(super) const DATE_TIME: &str = "$datetime";
pub(super) const MAP: &str = "$map";
