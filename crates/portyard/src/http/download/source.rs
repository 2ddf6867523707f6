//! Of what a file is a part.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hyper::HeaderMap;
use hyper::header::{DATE, ETAG, HeaderName, LAST_MODIFIED};
use serde::{Deserialize, Serialize};

/// What a part is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where it came from.
    pub url: String,
    /// An entity tag, or a date: what `If-Range` says.
    pub validator: String,
    /// Bytes of the whole.
    pub length: Option<u64>,
}

impl Source {
    /// What an earlier run has written down; `None`: nothing that can be used.
    pub fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        file.ok()?.take(SOURCE_MAX).read_to_string(&mut text).ok()?;
        let source: Self = serde_json::from_str(&text).ok()?;
        let is_clean = !source.validator.contains(char::is_control);
        is_clean.then_some(source)
    }

    /// Writes it down. A URL may hold a key, so nobody else can read it.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.write_all(text.as_bytes())
    }

    /// What `If-Range` may say later: something that changes whenever a byte does (RFC 9110, 8.8.1).
    pub fn validator(fields: &HeaderMap) -> Option<String> {
        let tag = text(fields, &ETAG);
        if tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"') {
            return Some(tag);
        }
        // A date tells nothing of what happened within its second (8.8.2.2).
        let modified = text(fields, &LAST_MODIFIED);
        let [at, now] =
            [&modified, &text(fields, &DATE)].map(|text| httpdate::parse_http_date(text));
        (at.ok()? < now.ok()?).then_some(modified)
    }
}

/// The value of a field, or nothing.
pub fn text(fields: &HeaderMap, name: &HeaderName) -> String {
    let value = fields.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().into()
}

const SOURCE_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_with_every_byte_is_a_validator() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let later = "Sun, 06 Nov 1994 08:49:38 GMT";
        let of = |pairs: &[(&'static str, &str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in pairs {
                fields.append(*name, value.parse().unwrap());
            }
            Source::validator(&fields)
        };
        assert_eq!(
            of(&[("etag", "\"a\""), ("last-modified", date)]).unwrap(),
            "\"a\""
        );
        assert_eq!(
            of(&[
                ("etag", "W/\"a\""),
                ("last-modified", date),
                ("date", later)
            ])
            .unwrap(),
            date
        );
        assert_eq!(of(&[("last-modified", date), ("date", date)]), None);
        assert_eq!(of(&[("etag", "a")]), None);
        assert_eq!(of(&[]), None);
    }
}
