//! The checks that stand before any handler, for HTTP/1.1 and HTTP/2 alike.

use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, StatusCode, Version};

use super::Problem;
use super::request::Head;
use crate::settings::Options;

/// Whether a head is one that we serve.
pub fn check(head: &Head, options: &Options) -> Result<(), Problem> {
    let bad = |detail| Err(Problem::new(StatusCode::BAD_REQUEST, detail).closing());
    if !METHODS.contains(&head.method.as_str()) {
        let problem = Problem::new(StatusCode::NOT_IMPLEMENTED, "this method is not known here");
        // What follows a CONNECT may be meant for somebody else.
        return Err(if head.method == Method::CONNECT {
            problem.closing()
        } else {
            problem
        });
    }
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target as u64 > options.max_uri.0 {
        return Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            format!(
                "the target may have {} bytes at the most",
                options.max_uri.0
            ),
        )
        .closing());
    }
    if head.version == Version::HTTP_2 {
        check_h2(head)?;
    }
    let is_asterisk = head.uri.path() == "*";
    if is_asterisk && head.method != Method::OPTIONS {
        return bad("the target * is for OPTIONS alone");
    }
    if !is_asterisk && !head.uri.path().starts_with('/') {
        return bad("the target is no path");
    }
    if head
        .uri
        .scheme_str()
        .is_some_and(|scheme| scheme != "http" && scheme != "https")
    {
        return bad("the target's scheme is not http or https");
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return bad("the request needs exactly one Host");
    }
    let host = match host.map(|host| host.to_str()) {
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return bad("Host is no host"),
        None => None,
    };
    // HTTP/1.0 had none.
    if !options.hosts.is_empty() && !is_ours(head.host(), &options.hosts) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "there is no such host here",
        ));
    }
    let mut expected = head.headers.get_all(EXPECT).iter();
    if expected.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Problem::new(
            StatusCode::EXPECTATION_FAILED,
            "only 100-continue can be expected here",
        )
        .closing());
    }
    let needs_host = head.version != Version::HTTP_10 && head.uri.authority().is_none();
    if needs_host && host.is_none() {
        return bad("the request needs exactly one Host");
    }
    if let Some(host) = host
        && !host.is_empty()
        && !is_host(host)
    {
        return bad("Host is no host");
    }
    if let Some(authority) = head.uri.authority() {
        if !is_host(authority.as_str()) {
            return bad("the target's authority is no host; names of users have no place there");
        }
        // RFC 9113, 8.3.1. Of HTTP/1.1 the target counts (RFC 9112, 3.2.2).
        if head.version == Version::HTTP_2
            && host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_str()))
        {
            return bad("Host differs from :authority");
        }
    }
    Ok(())
}

/// What of HTTP/2 would be another request, or none, in HTTP/1.1 (RFC 9113, 8.2.1, 8.3.1): who reads that checks
/// it there ([`portyard_wire::http::Checker`]).
fn check_h2(head: &Head) -> Result<(), Problem> {
    let bad = |detail| Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"<>#".contains(&byte);
    if !target.bytes().all(fits) {
        return bad("the target of the request holds a character that must be percent-encoded");
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    if lengths.next().is_some() && lengths.next().is_some() {
        return bad("the length of the body is ambiguous");
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = head.headers.values().map(HeaderValue::as_bytes);
    if values.any(|value| is_blank(value.first()) || is_blank(value.last())) {
        return bad("a header field begins or ends with a blank");
    }
    Ok(())
}

/// Whether a host, its port aside, is one of those that are served.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let name = host.parse::<Authority>();
    let name = name.as_ref().map_or("", Authority::host);
    hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// A host with an optional port and without a user (RFC 3986, 3.2).
fn is_host(text: &str) -> bool {
    // Most are, and need no parser.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    let end = text.bytes().position(|b| !is_plain(b));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let port = rest.strip_prefix(':').unwrap_or(rest);
    if !name.is_empty() && (rest.is_empty() || is_port(port)) {
        return true;
    }
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let behind = &text[host.len().min(text.len())..];
    let port = behind.strip_prefix(':').unwrap_or_default();
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let good = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    !text.contains('@')
        && !host.is_empty()
        && good
        && (behind.is_empty() || behind == ":" || is_port(port))
        && (behind.is_empty() || behind.starts_with(':'))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// RFC 9110, 9.1, without CONNECT, and PATCH (RFC 5789).
pub const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "a",
            "a.b-c:80",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "a:",
            "a_b",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", "a b", "u@a", "u:p@a", "a:b", "a:+80", "a:99999", "[::1", "[x]", "a/b", "a,b",
            ":80", "a:80:80", "a?b", "a#b", "::1",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
