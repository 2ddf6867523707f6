//! What ties a reply to its request.

use super::writer::write_string;

/// The id of a request: a string, a number or null, kept as the bytes that it was written with. So
/// `1`, `1.0` and `1e0` are three ids, and none is too large.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(Box<str>);

impl Id {
    /// `null`: the id of a reply to what has none. A client does well not to choose it.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// A string.
    pub fn text(text: &str) -> Self {
        let mut json = Vec::with_capacity(text.len() + 2);
        write_string(text, &mut json);
        Self(String::from_utf8_lossy(&json).into())
    }

    /// The id as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Takes JSON that is a string, a number or null.
    pub(super) fn from_json(json: &str) -> Self {
        Self(json.into())
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}
