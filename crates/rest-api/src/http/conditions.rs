//! Conditional requests (RFC 9110, 13), decided from fields alone.

use std::time::{Duration, SystemTime};

use hyper::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};
use hyper::{HeaderMap, Method};

/// What there is to compare with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// The entity tag, as in the field: quoted, `W/` before a weak one. `None`: nothing is there, or
    /// it has none.
    pub etag: Option<&'a str>,
    /// When it was last changed.
    pub modified: Option<SystemTime>,
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They hold.
    Go,
    /// The client has what there is: 304.
    NotModified,
    /// They do not hold: 412.
    Failed,
}

/// Evaluates the conditions in their order (RFC 9110, 13.2.2).
pub fn evaluate(method: &Method, headers: &HeaderMap, there: Validators<'_>) -> Verdict {
    if headers.is_empty() {
        return Verdict::Go;
    }
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if headers.contains_key(IF_MATCH) {
        if !matches_any(headers, &IF_MATCH, there.etag, true) {
            return Verdict::Failed;
        }
    } else if let (Some(limit), Some(modified)) =
        (date(headers, &IF_UNMODIFIED_SINCE), there.modified)
        && whole_second(modified) > limit
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if matches_any(headers, &IF_NONE_MATCH, there.etag, false) {
            return if reads {
                Verdict::NotModified
            } else {
                Verdict::Failed
            };
        }
    } else if reads
        && let (Some(since), Some(modified)) = (date(headers, &IF_MODIFIED_SINCE), there.modified)
        && whole_second(modified) <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Go
}

/// Whether what is there is still what `If-Range` names, so that parts of both fit together (RFC 9110, 13.1.5). A
/// date is no promise of equal bytes while what it is of may have changed again within its second (8.8.2.2).
pub fn is_unchanged(condition: &HeaderValue, there: Validators<'_>, now: SystemTime) -> bool {
    let condition = condition.to_str().unwrap_or_default();
    if condition.contains('"') {
        // A weak tag is no promise of equal bytes.
        let is_same = |tag: &str| tag == condition && !tag.starts_with("W/");
        there.etag.is_some_and(is_same)
    } else {
        let Some(asked) = httpdate::parse_http_date(condition).ok() else {
            return false;
        };
        let age = now.duration_since(asked).unwrap_or_default();
        there.modified.map(whole_second) == Some(asked) && age >= SETTLED
    }
}

/// Whether the list in a field names the tag; `strong`: weak tags match nothing.
fn matches_any(headers: &HeaderMap, field: &HeaderName, etag: Option<&str>, strong: bool) -> bool {
    let Some(etag) = etag else {
        return false;
    };
    let values = headers.get_all(field).iter();
    values.filter_map(|value| value.to_str().ok()).any(|list| {
        list.trim() == "*"
            || tags(list).any(|tag| {
                let (a, b) = (bare(tag), bare(etag));
                let weak = tag.starts_with("W/") || etag.starts_with("W/");
                a == b && !(strong && weak)
            })
    })
}

/// The tags of a list. What is no tag ends it.
fn tags(mut list: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        list = list.trim_start_matches([' ', '\t', ',']);
        let start = if list.starts_with("W/") { 2 } else { 0 };
        let quoted = list.get(start..)?.strip_prefix('"')?;
        let end = start + 1 + quoted.find('"')? + 1;
        let (tag, rest) = list.split_at(end);
        list = rest;
        Some(tag)
    })
}

/// A tag without its weakness, and without what a coding of ours has added.
fn bare(tag: &str) -> &str {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let inner = tag.trim_matches('"');
    for coding in portyard_wire::http::coding::Coding::NAMES {
        let stem = inner
            .strip_suffix(coding)
            .and_then(|stem| stem.strip_suffix('+'));
        if let Some(stem) = stem {
            return stem;
        }
    }
    inner
}

/// The tag of a content in a coding: other bytes, another tag.
pub fn coded_etag(etag: &HeaderValue, coding: &str) -> Option<HeaderValue> {
    let text = etag.to_str().ok()?.strip_suffix('"')?;
    HeaderValue::from_str(&format!("{text}+{coding}\"")).ok()
}

/// A list of tags without what a coding of ours has added to them; `None` if nothing has been.
pub fn uncoded_etags(list: &HeaderValue) -> Option<HeaderValue> {
    without_endings(list, portyard_wire::http::coding::Coding::NAMES)
}

/// A list of tags without any of these endings, each behind a `+`; `None` if there are none.
pub fn without_endings(list: &HeaderValue, endings: &[&str]) -> Option<HeaderValue> {
    let text = list.to_str().ok()?;
    let mut plain = text.to_owned();
    for ending in endings {
        plain = plain.replace(&format!("+{ending}\""), "\"");
    }
    (plain != text)
        .then(|| HeaderValue::from_str(&plain).ok())
        .flatten()
}

/// The tag that 304 tells, where 200 would tell `selected`: that, or, if the client has only another coding of the
/// same content, the tag of what it has (RFC 9111, 4.3.4).
pub fn known_etag(headers: &HeaderMap, selected: &HeaderValue) -> HeaderValue {
    let Ok(text) = selected.to_str() else {
        return selected.clone();
    };
    let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let lists = headers.get_all(IF_NONE_MATCH).iter();
    let known: Vec<&str> = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(tags)
        .filter(|tag| bare(tag) == bare(text))
        .collect();
    let has_selected = known.iter().any(|tag| strong(tag) == strong(text));
    let other = known.first().filter(|_| !has_selected);
    let weak = if text.starts_with("W/") { "W/" } else { "" };
    other
        .and_then(|tag| HeaderValue::from_str(&format!("{weak}{}", strong(tag))).ok())
        .unwrap_or_else(|| selected.clone())
}

fn date(headers: &HeaderMap, field: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(field)?.to_str().ok()?).ok()
}

/// Dates in fields have no fractions.
fn whole_second(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// How old a date must be to stand for one content alone. A second would do if the files were dated by our clock.
const SETTLED: Duration = Duration::from_secs(60);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// What there is: a strong tag, and a time.
    pub fn there() -> Validators<'static> {
        Validators {
            etag: Some("\"a\""),
            // Sun, 09 Sep 2001 01:46:40 GMT, and a bit.
            modified: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500)),
        }
    }

    const BEFORE: &str = "Sun, 09 Sep 2001 01:46:39 GMT";
    const THEN: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

    #[test]
    fn conditions_are_evaluated_in_their_order() {
        use Verdict::{Failed, Go, NotModified};
        let get = Method::GET;
        for (method, fields, expected) in [
            (&get, vec![], Go),
            (&get, vec![(IF_NONE_MATCH, "\"a\"")], NotModified),
            (&get, vec![(IF_NONE_MATCH, "W/\"a\"")], NotModified),
            (
                &get,
                vec![(IF_NONE_MATCH, "\"b\", W/\"x,y\" ,\"a+gzip\"")],
                NotModified,
            ),
            (&get, vec![(IF_NONE_MATCH, "*")], NotModified),
            (
                &get,
                vec![(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, THEN)],
                Go,
            ),
            (&get, vec![(IF_MODIFIED_SINCE, THEN)], NotModified),
            (&get, vec![(IF_MODIFIED_SINCE, BEFORE)], Go),
            (&get, vec![(IF_MODIFIED_SINCE, "yesterday")], Go),
            (&get, vec![(IF_UNMODIFIED_SINCE, BEFORE)], Failed),
            (&get, vec![(IF_UNMODIFIED_SINCE, THEN)], Go),
            (&get, vec![(IF_MATCH, "\"a\"")], Go),
            (&get, vec![(IF_MATCH, "W/\"a\"")], Failed),
            (&get, vec![(IF_MATCH, "\"b\"")], Failed),
            (
                &get,
                vec![(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"a\"")],
                NotModified,
            ),
            (&Method::PUT, vec![(IF_NONE_MATCH, "*")], Failed),
            (&Method::PUT, vec![(IF_MODIFIED_SINCE, THEN)], Go),
            (&Method::PUT, vec![(IF_MATCH, "*")], Go),
            (&get, vec![(IF_NONE_MATCH, "a")], Go),
        ] {
            assert_eq!(
                evaluate(method, &headers(&fields), there()),
                expected,
                "{fields:?}"
            );
        }
        let nothing = Validators::default();
        let any = headers(&[(IF_MATCH, "*")]);
        assert_eq!(evaluate(&Method::PUT, &any, nothing), Failed);
        let none = headers(&[(IF_NONE_MATCH, "*")]);
        assert_eq!(evaluate(&Method::PUT, &none, nothing), Go);
    }

    #[test]
    fn a_date_stands_for_a_range_once_nothing_can_have_changed_within_its_second() {
        let then = HeaderValue::from_static(THEN);
        let at =
            |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        for (seconds, expected) in [(0, false), (59, false), (60, true), (10_000_000, true)] {
            assert_eq!(
                is_unchanged(&then, there(), at(seconds)),
                expected,
                "{seconds}"
            );
        }
        let later = at(10_000_000);
        assert!(!is_unchanged(
            &HeaderValue::from_static(BEFORE),
            there(),
            later
        ));
        assert!(!is_unchanged(
            &HeaderValue::from_static("soon"),
            Validators::default(),
            later
        ));
        // A clock that is behind knows nothing of the future.
        let early = SystemTime::UNIX_EPOCH;
        assert!(!is_unchanged(&then, there(), early));
        assert!(is_unchanged(
            &HeaderValue::from_static("\"a\""),
            there(),
            early
        ));
    }

    #[test]
    fn a_client_is_told_the_tag_of_what_it_has() {
        let selected = HeaderValue::from_static("\"a+gzip\"");
        for (list, expected) in [
            ("\"a+gzip\"", "\"a+gzip\""),
            ("\"b\", \"a\", W/\"a+gzip\"", "\"a+gzip\""),
            ("\"b\", \"a+br\"", "\"a+br\""),
            ("\"a\"", "\"a\""),
            ("*", "\"a+gzip\""),
        ] {
            let headers = headers(&[(IF_NONE_MATCH, list)]);
            assert_eq!(known_etag(&headers, &selected), expected, "{list}");
        }
        assert_eq!(known_etag(&HeaderMap::new(), &selected), selected);
    }

    #[test]
    fn the_tag_of_a_coded_content_leads_back() {
        let coded = coded_etag(&HeaderValue::from_static("\"a\""), "br").unwrap();
        assert_eq!(coded, "\"a+br\"");
        let list = HeaderValue::from_static("W/\"a+br\", \"b+gzip\", \"c\"");
        let plain = uncoded_etags(&list).unwrap();
        assert_eq!(plain, "W/\"a\", \"b\", \"c\"");
        assert_eq!(uncoded_etags(&plain), None);
        assert_eq!(bare("W/\"a+br\""), "a");
    }
}
