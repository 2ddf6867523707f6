//! Cookies, as werkzeug and Go read and write them.

use super::Dialect;

/// The cookies of a request, in their order.
pub fn parse(field: &str, dialect: Dialect) -> Vec<(String, String)> {
    match dialect {
        Dialect::Python => parse_python(field),
        Dialect::Go => parse_go(field),
    }
}

fn parse_python(field: &str) -> Vec<(String, String)> {
    let mut cookies = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', '\t']);
        let key_end = rest.find([' ', '\t', '=', '"', ';']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(key_end);
        let behind = behind.trim_start_matches([' ', '\t']);
        let (value, behind) =
            match behind.strip_prefix('=') {
                None => ("", behind),
                Some(behind) => {
                    let behind = behind.trim_start_matches([' ', '\t']);
                    behind.split_at(quoted_end(behind).unwrap_or_else(|| {
                        behind.find([' ', '\t', '"', ';']).unwrap_or(behind.len())
                    }))
                }
            };
        let behind = behind.trim_start_matches([' ', '\t']);
        let is_good = !key.is_empty() && (behind.is_empty() || behind.starts_with(';'));
        if is_good {
            cookies.push((key.to_owned(), unslash(value)));
        }
        let end = if is_good { Some(0) } else { None };
        rest = match end.or_else(|| behind.find(';')) {
            Some(at) => behind.get(at + 1..).unwrap_or_default(),
            None => "",
        };
    }
    cookies
}

/// Where a quoted value ends.
fn quoted_end(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, char) in inner.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Undoes the quotes: backslashes before three octal digits, or before any character.
fn unslash(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.into();
    };
    let (bytes, mut out, mut at) = (inner.as_bytes(), Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| {
            let value = std::str::from_utf8(digits).ok()?;
            let plain = digits.iter().all(u8::is_ascii_digit);
            plain.then(|| u8::from_str_radix(value, 8).ok()).flatten()
        });
        match (byte, octal, bytes.get(at + 1)) {
            (b'\\', Some(code), _) => {
                out.push(code);
                at += 4;
            }
            (b'\\', None, Some(&next)) => {
                out.push(next);
                at += 2;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse_go(field: &str) -> Vec<(String, String)> {
    let pairs = field
        .split(';')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    let cookies = pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let quoted = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        let value = quoted.unwrap_or(value);
        let good = is_token(name)
            && value
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte) && !b"\";\\".contains(&byte));
        good.then(|| (name.to_owned(), value.to_owned()))
    });
    cookies.collect()
}

/// Whether text is a token (RFC 9110, 5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// `Set-Cookie` as werkzeug writes it, for the path `/`.
pub fn set_python(name: &str, value: &str, secure: bool) -> Vec<u8> {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={}{secure}; Path=/", quote_python(value)).into_bytes()
}

/// `Set-Cookie` that makes a client forget one, as werkzeug writes it.
pub fn delete_python(name: &str) -> Vec<u8> {
    format!("{name}=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/").into_bytes()
}

fn quote_python(value: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"_!#$%&'()*+-./:<=>?@[]^`{|}~".contains(&byte);
    if value.bytes().all(plain) {
        return value.into();
    }
    let mut out = String::from("\"");
    for byte in value.bytes() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0..=0x19 | b',' | b';' | 0x7f.. => {
                let digits = [
                    b'\\',
                    b'0' + (byte >> 6),
                    b'0' + (byte >> 3 & 7),
                    b'0' + (byte & 7),
                ];
                out.extend(digits.map(char::from));
            }
            byte => out.push(byte as char),
        }
    }
    out.push('"');
    out
}

/// What Go writes behind a cookie's value.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// For which path.
    pub path: String,
    /// For which domain.
    pub domain: String,
    /// Not for scripts.
    pub http_only: bool,
    /// Over TLS alone.
    pub secure: bool,
    /// `Strict`, `Lax` or `None`.
    pub same_site: Option<&'static str>,
    /// When it ends, as a date, for one that is over.
    pub expired: Option<String>,
}

/// `Set-Cookie` as Go writes it; `None` where it writes none, as the name is no token.
pub fn set_go(name: &str, value: &str, attributes: &Attributes) -> Option<Vec<u8>> {
    if !is_token(name) {
        return None;
    }
    let good = |byte: &u8| (0x20..0x7f).contains(byte) && !b"\";\\".contains(byte);
    let value: String = value.bytes().filter(good).map(char::from).collect();
    let quoted = value.contains([' ', ',']);
    let mark = if quoted { "\"" } else { "" };
    let mut out = format!("{name}={mark}{value}{mark}");
    let path: String = (attributes.path.chars())
        .filter(|char| (' '..'\x7f').contains(char) && *char != ';')
        .collect();
    if !path.is_empty() {
        out.extend(["; Path=", &path]);
    }
    let domain = attributes
        .domain
        .strip_prefix('.')
        .unwrap_or(&attributes.domain);
    let is_domain = domain
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if !domain.is_empty() && is_domain {
        out.extend(["; Domain=", domain]);
    }
    if let Some(date) = &attributes.expired {
        out.extend(["; Expires=", date, "; Max-Age=0"]);
    }
    if attributes.http_only {
        out.push_str("; HttpOnly");
    }
    if attributes.secure {
        out.push_str("; Secure");
    }
    if let Some(same_site) = attributes.same_site {
        out.extend(["; SameSite=", same_site]);
    }
    Some(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(field: &str, dialect: Dialect) -> String {
        let cookies = parse(field, dialect);
        let pairs: Vec<_> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("|")
    }

    // Werkzeug 3.1: parse_cookie(field).
    #[test]
    fn a_field_is_read_as_werkzeug_reads_it() {
        for (field, expected) in [
            ("a=b; c = d ;e", "a=b|c=d|e="),
            ("foo=\"bar:baz\"", "foo=bar:baz"),
            (r#"a="x\"\054\303\244;"; b=1"#, "a=x\",ä;|b=1"),
            ("a=\"b; c=d", "c=d"),
            ("a b=c; d=e", "d=e"),
            ("=x; y=z", "y=z"),
            ("a=1;a=2", "a=1|a=2"),
            ("", ""),
            (";;", ""),
        ] {
            assert_eq!(found(field, Dialect::Python), expected, "{field}");
        }
    }

    // Go 1.27: Request.Cookies.
    #[test]
    fn a_field_is_read_as_go_reads_it() {
        for (field, expected) in [
            ("a=b; c=d;e", "a=b|c=d|e="),
            ("foo=\"bar:baz\"", "foo=bar:baz"),
            ("a=\"b; c=d", "c=d"),
            ("a b=c; d=e", "d=e"),
            ("a=x y", "a=x y"),
        ] {
            assert_eq!(found(field, Dialect::Go), expected, "{field}");
        }
    }

    // Werkzeug 3.1: dump_cookie("k", value).
    #[test]
    fn a_cookie_is_written_as_werkzeug_writes_it() {
        for (value, expected) in [
            ("v", "k=v; Path=/"),
            ("", "k=; Path=/"),
            ("a b", "k=\"a b\"; Path=/"),
            (
                "a,\"\\;ä\r\n",
                r#"k="a\054\"\\\073\303\244\015\012"; Path=/"#,
            ),
        ] {
            assert_eq!(
                set_python("k", value, false),
                expected.as_bytes(),
                "{value}"
            );
        }
        assert_eq!(set_python("k", "v", true), b"k=v; Secure; Path=/");
    }

    #[test]
    fn a_cookie_is_written_as_go_writes_it() {
        let attributes = Attributes {
            path: "/;x".into(),
            domain: ".example.com".into(),
            http_only: true,
            secure: true,
            same_site: Some("Lax"),
            expired: None,
        };
        let cookie = set_go("k", "a \"b", &attributes).unwrap();
        let expected = "k=\"a b\"; Path=/x; Domain=example.com; HttpOnly; Secure; SameSite=Lax";
        assert_eq!(String::from_utf8(cookie).unwrap(), expected);
        assert_eq!(set_go("k k", "v", &attributes), None);
    }
}
