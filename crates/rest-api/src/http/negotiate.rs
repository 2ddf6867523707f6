//! Which of several forms a client gets (RFC 9110, 12), by what it accepts and how much.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};

/// A form that an answer can have.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// Its media type, with parameters.
    pub content_type: &'static str,
    /// Other names by which clients ask for it.
    aliases: &'static [&'static str],
}

impl Offer {
    /// A form of that type, which clients may also call otherwise.
    pub const fn new(content_type: &'static str, aliases: &'static [&'static str]) -> Self {
        Self {
            content_type,
            aliases,
        }
    }

    /// How much it is liked. Another name counts only for who writes it in full: a range that it falls in says
    /// nothing of what the answer will be called.
    fn quality(&self, ranges: &[(&str, u16)]) -> u16 {
        let own = self.content_type.split(';').next().unwrap_or_default();
        let is_alias = |name: &str| {
            let mut aliases = self.aliases.iter();
            aliases.any(|alias| alias.eq_ignore_ascii_case(name))
        };
        let aliased = ranges.iter().filter(|(name, _)| is_alias(name));
        let aliased = aliased.map(|(_, quality)| *quality).max();
        quality_of(ranges, own).max(aliased.unwrap_or(0))
    }
}

/// The offer that a client with these fields likes best, the earlier of two that it likes alike; the
/// first when it has no wish; `None` when it accepts none.
pub fn choose(headers: &HeaderMap, offers: &[Offer]) -> Option<usize> {
    let ranges = items(headers, &ACCEPT);
    if ranges.is_empty() {
        return (!offers.is_empty()).then_some(0);
    }
    let mut best = None;
    for (place, offer) in offers.iter().enumerate() {
        let quality = offer.quality(&ranges);
        if quality > best.map_or(0, |(_, quality)| quality) {
            best = Some((place, quality));
        }
    }
    best.map(|(place, _)| place)
}

/// The content coding that a client likes best of those that we know, in our order where it does not
/// mind; `None` for none.
pub fn choose_coding(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    rank_codings(headers, known).first().copied()
}

/// The content codings that a client likes no less than none, of those that we know: the best first, in our order
/// where it does not mind.
pub fn rank_codings(headers: &HeaderMap, known: &[&'static str]) -> Vec<&'static str> {
    let wishes = items(headers, &ACCEPT_ENCODING);
    let quality = |coding: &str| {
        let named = wishes
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(coding));
        let any = || wishes.iter().find(|(name, _)| *name == "*");
        named.or_else(any).map(|(_, quality)| *quality)
    };
    // What is not compressed is fine unless the client says otherwise, but the last choice.
    let plain = wishes.iter().find(|(name, _)| *name == "identity");
    let plain = plain.map_or(1, |(_, quality)| *quality);
    let liked = known
        .iter()
        .map(|coding| (quality(coding).unwrap_or(0), *coding));
    let mut liked: Vec<_> = liked
        .filter(|(quality, _)| *quality > 0 && *quality >= plain)
        .collect();
    // It keeps the order of those that are alike.
    liked.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    liked.into_iter().map(|(_, coding)| coding).collect()
}

/// The items of a list-valued field with their qualities in thousandths. A quality that is none counts
/// as 0: it is not known what was meant.
fn items<'a>(headers: &'a HeaderMap, name: &hyper::header::HeaderName) -> Vec<(&'a str, u16)> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let all = values.flat_map(|value| value.split(','));
    all.map(str::trim)
        .filter(|item| !item.is_empty())
        .take(ITEMS_MAX)
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| {
                let (key, value) = part.split_once('=')?;
                key.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| thousandths(value.trim()))
            });
            (name, weight.unwrap_or(1000))
        })
        .collect()
}

/// `0`, `1`, or either with up to three digits behind the point.
fn thousandths(text: &str) -> u16 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let fraction: u16 = format!("{rest:0<3}").parse().unwrap_or(0);
    match whole {
        "1" if fraction == 0 => 1000,
        "0" | "" => fraction,
        _ => 0,
    }
}

/// The quality of the most specific range that names a type.
fn quality_of(ranges: &[(&str, u16)], name: &str) -> u16 {
    let kind = name.split_once('/').map_or(name, |(kind, _)| kind);
    let mut found = (0, 0);
    for (range, quality) in ranges {
        let precision = match range.split_once('/') {
            _ if range.eq_ignore_ascii_case(name) => 3,
            Some((wanted, "*")) if wanted.eq_ignore_ascii_case(kind) => 2,
            Some(("*", "*")) => 1,
            // Old Java clients send `*` alone.
            None if *range == "*" => 1,
            _ => continue,
        };
        if precision > found.0 {
            found = (precision, *quality);
        }
    }
    found.1
}

/// More wishes than a browser has.
const ITEMS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const OFFERS: &[Offer] = &[
        Offer::new("text/html; charset=utf-8", &[]),
        Offer::new("application/json", &["text/json"]),
        Offer::new("text/plain; charset=utf-8", &[]),
    ];

    fn with(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn the_best_liked_form_wins_and_the_most_specific_range_speaks() {
        for (accept, expected) in [
            ("*/*", Some(0)),
            ("application/json", Some(1)),
            ("text/json", Some(1)),
            ("text/*", Some(0)),
            ("text/*;q=0.5, text/plain", Some(2)),
            ("text/html;q=0.1, application/json;q=0.2", Some(1)),
            ("application/json;q=0, */*", Some(0)),
            ("text/html;q=0, */*;q=0.1", Some(1)),
            (
                "TEXT/HTML ; level=1 ; Q=0.7 , application/json;q=0.700",
                Some(0),
            ),
            ("image/png", None),
            ("text/html;q=0", None),
            ("text/html;q=x, application/json;q=0.001", Some(1)),
            ("text/html;q=1.1", None),
            ("", Some(0)),
            ("text/html, image/avif, */*;q=0.8", Some(0)),
        ] {
            assert_eq!(choose(&with(ACCEPT, accept), OFFERS), expected, "{accept}");
        }
        assert_eq!(choose(&HeaderMap::new(), OFFERS), Some(0));
        // What is called otherwise falls in no range of its other name.
        let xml = &[
            Offer::new("application/xml", &["text/xml"]),
            Offer::new("text/csv", &[]),
        ];
        for (accept, expected) in [("text/*", Some(1)), ("text/xml", Some(0)), ("*/*", Some(0))] {
            assert_eq!(choose(&with(ACCEPT, accept), xml), expected, "{accept}");
        }
    }

    #[test]
    fn a_coding_is_used_only_where_it_is_liked_more_than_none() {
        let known = &["br", "zstd", "gzip"];
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip;q=1.0, br;q=0.5", Some("gzip")),
            ("*", Some("br")),
            ("br;q=0, *", Some("zstd")),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("compress", None),
            ("", None),
        ] {
            assert_eq!(
                choose_coding(&with(ACCEPT_ENCODING, accept), known),
                expected,
                "{accept}"
            );
        }
    }
}
