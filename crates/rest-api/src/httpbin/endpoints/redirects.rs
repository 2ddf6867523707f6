//! Endpoints that lead elsewhere.

use hyper::StatusCode;
use hyper::header::LOCATION;

use super::{count, go_count, go_status, integer};
use crate::httpbin::Dialect;
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::text;

/// Whether a target names the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Relative,
    Absolute,
}

/// `/redirect/{n}`.
pub fn redirect(asked: &Asked) -> Given {
    let absolute = asked.argument("absolute");
    let absolute = absolute.is_some_and(|absolute| absolute.eq_ignore_ascii_case("true"));
    let kind = if absolute {
        Kind::Absolute
    } else {
        Kind::Relative
    };
    lead(asked, kind, true)
}

/// `/relative-redirect/{n}`.
pub fn relative(asked: &Asked) -> Given {
    lead(asked, Kind::Relative, false)
}

/// `/absolute-redirect/{n}`.
pub fn absolute(asked: &Asked) -> Given {
    lead(asked, Kind::Absolute, true)
}

/// Leads to the same with one less, and at last to `/get`. With a page, where Python's has one.
fn lead(asked: &Asked, kind: Kind, with_page: bool) -> Given {
    let left = match asked.dialect {
        Dialect::Python => count(asked, 0),
        Dialect::Go => u64::try_from(go_count(asked.parameter(0), "redirect count")?).unwrap_or(0),
    };
    let next = left.checked_sub(1);
    let next = next.ok_or_else(|| Refusal::bad("redirect count must be > 0"))?;
    let path = match (next, kind) {
        (0, _) => "/get".into(),
        (next, Kind::Relative) => format!("/relative-redirect/{next}"),
        (next, Kind::Absolute) => format!("/absolute-redirect/{next}"),
    };
    let root = match (kind, asked.dialect) {
        (Kind::Relative, _) => String::new(),
        (Kind::Absolute, _) => {
            let root = asked.root();
            let host = root.split_once("://").map_or("", |(_, host)| host);
            format!("{}://{host}", asked.claimed_scheme())
        }
    };
    let prefix = match (kind, asked.dialect) {
        // The original knows nothing of its prefix where it names its host.
        (Kind::Absolute, Dialect::Go) => "",
        _ => asked.prefix(),
    };
    let location = format!("{root}{prefix}{path}");
    if with_page || asked.dialect == Dialect::Go {
        answer::redirect(StatusCode::FOUND, &location, asked.dialect)
    } else {
        let mut response = answer::html(StatusCode::FOUND, "");
        answer::set(&mut response, LOCATION, &location)?;
        Ok(response)
    }
}

/// `/redirect-to`.
pub fn to(asked: &Asked) -> Given {
    let url = asked.argument("url").filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| Refusal::bad("missing required query parameter: url"))?;
    if url.chars().any(char::is_control) {
        return Err(Refusal::bad("invalid url: it has a control character"));
    }
    if asked.dialect == Dialect::Go && has_bad_escape(&url) {
        return Err(Refusal::bad(
            "invalid url: % must have two hex digits behind it",
        ));
    }
    let hosts = &asked.options().redirect_hosts;
    if !is_allowed(&url, hosts, asked.dialect) {
        let mut list = hosts.clone();
        list.sort();
        let list = list.join("\n- ");
        let detail = if hosts.is_empty() {
            "Forbidden redirect URL: it must be absolute, or begin with /.".into()
        } else {
            format!(
                "Forbidden redirect URL. Please be careful with this link.\n\nAllowed redirect destinations:\n- {list}"
            )
        };
        return Err(Refusal::new(StatusCode::FORBIDDEN, detail).in_text());
    }
    let status = match asked.dialect {
        Dialect::Python => integer(asked, "status_code")?,
        Dialect::Go => {
            let text = asked.argument("status_code");
            text.map(|text| go_status(&text, 300..=399)).transpose()?
        }
    };
    let status = status.filter(|status| (300..400).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let status = status.unwrap_or(StatusCode::FOUND);
    let quoted = text::quote(url.as_bytes(), b"!#$%&'()*+,/:;=?@[]");
    let mut response = match asked.dialect {
        // 304 has no content that could have a type.
        Dialect::Python if status != StatusCode::NOT_MODIFIED => answer::html(status, ""),
        _ => answer::bare(status),
    };
    let is_path = asked.dialect == Dialect::Go && url.starts_with('/') && !url.starts_with("//");
    let prefix = if is_path { asked.prefix() } else { "" };
    answer::set(&mut response, LOCATION, &format!("{prefix}{quoted}"))?;
    Ok(response)
}

/// Whether there is a `%` before the query that stands for no byte.
fn has_bad_escape(url: &str) -> bool {
    let mut parts = url.split(['?', '#']).next().unwrap_or_default().split('%');
    parts.next();
    parts.any(|part| {
        let digits = part.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.count() < 2
    })
}

/// Whether a URL may be led to. With a list of hosts, one that has a host must be on it, and it must be
/// plain which host it has: browsers take `\` for `/`, and `https:host` for `https://host`.
fn is_allowed(url: &str, hosts: &[String], dialect: Dialect) -> bool {
    let scheme_end = url.find(':').filter(|end| {
        let scheme = &url[..*end];
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        scheme.starts_with(|char: char| char.is_ascii_alphabetic()) && scheme.bytes().all(plain)
    });
    let rest = scheme_end.map_or(url, |end| &url[end + 1..]);
    if hosts.is_empty() {
        return dialect == Dialect::Python || scheme_end.is_some() || rest.starts_with('/');
    }
    if url.contains(['\\', ' ']) {
        return false;
    }
    let Some(authority) = rest.strip_prefix("//") else {
        return scheme_end.is_none() && rest.starts_with('/');
    };
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    hosts
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_escape_is_no_url() {
        for (url, expected) in [
            ("http://a/%41", false),
            ("/x?%%", false),
            ("/x#%", false),
            ("", false),
            ("http://foo%%bar", true),
            ("/%4", true),
            ("/%4x", true),
        ] {
            assert_eq!(has_bad_escape(url), expected, "{url}");
        }
    }

    #[test]
    fn only_listed_hosts_are_led_to() {
        let hosts = ["example.com".to_owned(), "::1".to_owned()];
        for (url, expected) in [
            ("https://example.com/x", true),
            ("http://EXAMPLE.com:80", true),
            ("//example.com", true),
            ("http://[::1]:80/", true),
            ("/path?u=http://evil.test", true),
            ("https://evil.test/example.com", false),
            ("https://example.com.evil.test", false),
            ("https://example.com@evil.test", false),
            ("//evil.test", false),
            ("/\\evil.test", false),
            ("https:evil.test", false),
            ("https:/evil.test", false),
            ("javascript:alert(1)", false),
            ("relative", false),
            ("", false),
        ] {
            for dialect in [Dialect::Python, Dialect::Go] {
                assert_eq!(is_allowed(url, &hosts, dialect), expected, "{url}");
            }
        }
        for (url, python, go) in [
            ("https://any.test", true, true),
            ("/path", true, true),
            ("//any.test", true, true),
            ("relative", true, false),
        ] {
            assert_eq!(is_allowed(url, &[], Dialect::Python), python, "{url}");
            assert_eq!(is_allowed(url, &[], Dialect::Go), go, "{url}");
        }
    }
}
