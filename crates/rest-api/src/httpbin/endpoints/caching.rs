//! Endpoints for caches: validators, conditions, lifetimes.

use std::time::SystemTime;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};

use super::{bytes, go_number, random, status};
use crate::http::conditions::Validators;
use crate::httpbin::Dialect;
use crate::httpbin::answer::{self, Given};
use crate::httpbin::asked::Asked;
use crate::httpbin::digest::Algorithm;
use crate::httpbin::{echo, text};

/// `/cache`: whoever has something has the right thing.
pub fn cache(asked: &Asked) -> Given {
    let has = |name| asked.field(&name).is_some_and(|value| !value.is_empty());
    if has(IF_MODIFIED_SINCE) || has(IF_NONE_MATCH) {
        return status::with_status(asked, StatusCode::NOT_MODIFIED);
    }
    let mut response = get(asked);
    let date = httpdate::fmt_http_date(SystemTime::now());
    answer::set(&mut response, LAST_MODIFIED, &date)?;
    // Neither has quotes, and clients are tested with it.
    let tag = match asked.dialect {
        Dialect::Python => Algorithm::Md5.hash(&random::<16>()),
        // What Go's hash gives for the sum of nothing, behind the date.
        Dialect::Go => format!("{}{SHA1_OF_NOTHING}", text::hex(date.as_bytes())),
    };
    answer::set(&mut response, ETAG, &tag)?;
    Ok(response)
}

/// `/cache/{n}`.
pub fn cache_control(asked: &Asked) -> Given {
    let seconds = match asked.dialect {
        // As many digits as there are: Python's numbers have no end.
        Dialect::Python => {
            let digits = asked.parameter(0).trim_start_matches('0');
            if digits.is_empty() {
                "0".into()
            } else {
                digits.to_owned()
            }
        }
        Dialect::Go => go_number(asked.parameter(0), "seconds")?.to_string(),
    };
    let mut response = get(asked);
    answer::set(
        &mut response,
        CACHE_CONTROL,
        &format!("public, max-age={seconds}"),
    )?;
    Ok(response)
}

/// `/etag/{etag}`.
pub fn etag(asked: &Asked) -> Given {
    let tag = asked.parameter(0).to_owned();
    match asked.dialect {
        Dialect::Python => {
            let none_match = tags(&asked.field(&IF_NONE_MATCH).unwrap_or_default());
            let matches = tags(&asked.field(&IF_MATCH).unwrap_or_default());
            let names = |list: &[String]| list.iter().any(|other| *other == tag || other == "*");
            if !none_match.is_empty() {
                if names(&none_match) {
                    let mut response = status::with_status(asked, StatusCode::NOT_MODIFIED)?;
                    answer::set(&mut response, ETAG, &tag)?;
                    return Ok(response);
                }
            } else if !matches.is_empty() && !names(&matches) {
                return status::with_status(asked, StatusCode::PRECONDITION_FAILED);
            }
            let mut response = get(asked);
            answer::set(&mut response, ETAG, &tag)?;
            Ok(response)
        }
        Dialect::Go => {
            let tag = format!("\"{tag}\"");
            let there = Validators {
                etag: Some(&tag),
                modified: Some(SystemTime::now()),
            };
            let body = Bytes::from(echo::head(asked, true).finish());
            let mut response = bytes::serve(asked, there, &body)?;
            // Go takes validators off what is refused.
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            }
            let date = httpdate::fmt_http_date(SystemTime::now());
            if response.status() != StatusCode::NOT_MODIFIED {
                answer::set(&mut response, LAST_MODIFIED, &date)?;
            }
            answer::set(&mut response, ETAG, &tag)?;
            Ok(response)
        }
    }
}

/// The tags of a list, without their quotes, as httpbin takes them.
fn tags(list: &str) -> Vec<String> {
    let parts = list.split(',').filter(|_| !list.is_empty());
    let bare = parts.map(|part| {
        let part = part.trim();
        let part = part.strip_prefix("W/").unwrap_or(part);
        let part = part.strip_prefix('"').unwrap_or(part);
        part.split('"').next().unwrap_or_default().to_owned()
    });
    bare.collect()
}

/// FIPS 180-4.
const SHA1_OF_NOTHING: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

fn get(asked: &Asked) -> crate::http::Response {
    answer::json(StatusCode::OK, asked.dialect, echo::head(asked, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    // httpbin 0.10: parse_multi_value_header.
    #[test]
    fn tags_are_taken_with_and_without_quotes() {
        assert_eq!(tags(""), [""; 0]);
        assert_eq!(tags("a"), ["a"]);
        assert_eq!(tags("W/\"a\", \"b\",c, *"), ["a", "b", "c", "*"]);
    }
}
