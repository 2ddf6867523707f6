//! Percent-encoding and names, as werkzeug and Go have them.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::header::HeaderName;
use portyard_wire::decimal;

/// Undoes percent-encoding. What is no escape stays.
pub fn unquote(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return text.into();
    }
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        let code = if byte == b'%' {
            escaped(text, at)
        } else {
            None
        };
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    out.into()
}

/// The byte that the two digits behind `at` stand for.
fn escaped(text: &[u8], at: usize) -> Option<u8> {
    let digit = |place: usize| (*text.get(at + place)? as char).to_digit(16);
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Whether each `%` begins an escape.
pub fn is_quoted_well(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut marks = text.match_indices('%');
    marks.all(|(at, _)| escaped(bytes, at).is_some())
}

/// The parameters of a query or a form as werkzeug reads them: `+` is a space, and bytes that are no
/// UTF-8 stay escaped.
pub fn parameters(text: &[u8]) -> Vec<(String, String)> {
    let decode = |part: &[u8]| {
        let spaced: Vec<u8> = part
            .iter()
            .map(|byte| if *byte == b'+' { b' ' } else { *byte })
            .collect();
        requote(&unquote(&spaced))
    };
    let pairs = text.split(|byte| *byte == b'&');
    let pairs = pairs.filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = equals.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            (decode(name), decode(value))
        })
        .collect()
}

/// The parameters of a query as Go's `url.ParseQuery` reads them, without those that are none: with a
/// semicolon, or with an escape that is none.
pub fn go_parameters(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        go_text(&unquote(spaced.as_bytes()))
    };
    let pairs = pairs
        .filter(|pair| !pair.contains(';') && is_quoted_well(pair))
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
    pairs.collect()
}

/// Text of bytes, with U+FFFD for each that is no UTF-8.
fn go_text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    out
}

/// What Go says of the first parameter that is none.
pub fn go_fault(text: &str) -> Option<String> {
    text.split('&').find_map(|pair| {
        if pair.contains(';') {
            return Some("invalid semicolon separator in query".into());
        }
        let mut marks = pair.match_indices('%').map(|(at, _)| at);
        let at = marks.find(|at| escaped(pair.as_bytes(), *at).is_none())?;
        let escape: String = pair[at..].chars().take(3).collect();
        Some(format!("invalid URL escape {}", go_quoted(&escape)))
    })
}

/// Text of bytes; those that are no UTF-8 are escaped again.
fn requote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            escape(&mut out, *byte);
        }
    }
    out
}

fn escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(HEX[usize::from(byte >> 4)] as char);
    out.push(HEX[usize::from(byte & 15)] as char);
}

/// Escapes all but letters, digits, `-._~` and the bytes of `safe`.
pub fn quote(text: &[u8], safe: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || safe.contains(byte) {
            out.push(*byte as char);
        } else {
            escape(&mut out, *byte);
        }
    }
    out
}

/// The path of a URL as werkzeug shows it: readable, and only what would change its meaning escaped.
/// `decoded` is the path without escapes.
pub fn iri_path(decoded: &str) -> Cow<'_, str> {
    iri(decoded, b"!$&'()*+,/:;=@%", b"/?#")
}

/// The query of a URL, likewise, of the query as it came.
pub fn iri_query(query: &str) -> Cow<'_, str> {
    iri(query, b"!$&'()*+,/:;=?@%", b"&=+#")
}

fn iri<'a>(text: &'a str, safe: &[u8], kept: &[u8]) -> Cow<'a, str> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || (byte != b'%' && safe.contains(&byte));
    if text.bytes().all(is_safe) {
        return text.into();
    }
    let quoted = quote(text.as_bytes(), safe);
    let bytes = quoted.as_bytes();
    let (mut out, mut pending, mut at) = (String::with_capacity(bytes.len()), Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let code = if byte == b'%' {
            escaped(bytes, at)
        } else {
            None
        };
        match code {
            // Controls, spaces and `%` stay as they are.
            Some(code) if code <= 0x20 || b"%\x7f".contains(&code) || kept.contains(&code) => {
                out.push_str(&requote(&pending));
                pending.clear();
                out.push_str(&quoted[at..at + 3]);
                at += 3;
            }
            Some(code) => {
                pending.push(code);
                at += 3;
            }
            None => {
                pending.push(byte);
                at += 1;
            }
        }
    }
    out.push_str(&requote(&pending));
    out.into()
}

/// A field's name as WSGI tells it: `_` is `-`, and each letter behind anything but a letter is large.
pub fn title(name: &HeaderName) -> String {
    let mut inside = false;
    let letters = name.as_str().bytes().map(|byte| {
        let byte = match byte {
            b'_' => b'-',
            byte if inside => byte,
            byte => byte.to_ascii_uppercase(),
        };
        inside = byte.is_ascii_alphabetic();
        byte
    });
    // A token has no byte beyond ASCII (RFC 9110, 5.6.2).
    String::from_utf8(letters.collect()).unwrap_or_default()
}

/// A field's name as Go tells it: the first letter and each behind a `-` is large.
pub fn canonical(name: &HeaderName) -> String {
    let mut inside = false;
    let letters = name.as_str().bytes().map(|byte| {
        let large = if inside {
            byte
        } else {
            byte.to_ascii_uppercase()
        };
        inside = byte != b'-';
        large
    });
    String::from_utf8(letters.collect()).unwrap_or_default()
}

/// Bytes of a field as WSGI tells them: each is a character.
pub fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.into(),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// An address, as it is usually written.
pub fn of_address(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else {
        return address.to_string();
    };
    let mut out = Vec::with_capacity(15);
    for (place, number) in address.octets().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        decimal::push_unsigned(number.into(), &mut out);
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| DIGITS[usize::from(digit)] as char)
        .collect()
}

/// The bytes of base64 of either alphabet as Python's `urlsafe_b64decode` reads it: what is in no alphabet is
/// passed over, and nothing counts behind the padding. `None` where the padding is missing.
pub fn python_base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut left, mut place, mut pads) = (Vec::new(), 0, 0, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' if place >= 2 => {
                pads += 1;
                if place + pads >= 4 {
                    return Some(out);
                }
                continue;
            }
            _ => continue,
        };
        pads = 0;
        match place {
            0 => {}
            1 => out.push(left << 2 | value >> 4),
            2 => out.push(left << 4 | value >> 2),
            _ => out.push(left << 6 | value),
        }
        (left, place) = (value, (place + 1) % 4);
    }
    (place == 0).then_some(out)
}

/// Text that Go's `html.EscapeString` gives.
pub fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

/// Text in quotes, as Go's `%q` writes it.
pub fn go_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if u32::from(char) < 0x20 || char == '\x7f' => {
                out.push_str("\\x");
                out.push_str(&hex(&[u8::try_from(char).unwrap_or_default()]));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

/// What a `glob` with any number of `*` matches; upper and lower case are alike.
pub fn matches(glob: &str, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let glob = glob.to_ascii_lowercase();
    let Some((first, rest)) = glob.split_once('*') else {
        return glob == text;
    };
    let Some(mut left) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Werkzeug 3.1: Request({...}).args.
    #[test]
    fn parameters_are_read_as_werkzeug_reads_them() {
        let found = parameters(b"a=b+c&a&%C3%A4=%26%3D&=x&&q=%zz%&bad=%ff%41");
        let expected = [
            ("a", "b c"),
            ("a", ""),
            ("ä", "&="),
            ("", "x"),
            ("q", "%zz%"),
            ("bad", "%FFA"),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn go_leaves_out_what_it_does_not_read() {
        let found = go_parameters("a=%F0%9F%98");
        assert_eq!(found, [("a".to_owned(), "\u{fffd}".repeat(3))]);
        let found = go_parameters("a=1;b=2&c=%zz&d=+%41");
        assert_eq!(found, [("d".to_owned(), " A".to_owned())]);
    }

    // Python 3.11: base64.urlsafe_b64decode.
    #[test]
    fn base64_is_read_as_python_reads_it() {
        for (text, expected) in [
            ("aGVsbG8=", Some(&b"hello"[..])),
            ("aG\nVs bG8=", Some(b"hello")),
            ("-_+/", Some(b"\xfb\xff\xbf")),
            ("YQ==YQ==", Some(b"a")),
            ("====", Some(b"")),
            ("", Some(b"")),
            ("aGVsbG8", None),
            ("YQ=", None),
            ("x", None),
        ] {
            assert_eq!(python_base64(text).as_deref(), expected, "{text}");
        }
    }

    // Go 1.27: url.ParseQuery.
    #[test]
    fn go_says_what_it_does_not_read() {
        for (query, expected) in [
            ("a&b=%C3%A4&&=", None),
            ("a&b=1;c", Some("invalid semicolon separator in query")),
            ("a=%zzy", Some("invalid URL escape \"%zz\"")),
            ("a=%41%4", Some("invalid URL escape \"%4\"")),
        ] {
            assert_eq!(go_fault(query).as_deref(), expected, "{query}");
        }
    }

    // Werkzeug 3.1: get_current_url("http", "h", "", path, query).
    #[test]
    fn a_url_is_shown_readable() {
        assert_eq!(
            iri_path("/anything/ä b?#\u{1}\"<"),
            "/anything/ä%20b%3F%23%01\"<"
        );
        assert_eq!(iri_path("/a%41%2f"), "/aA%2f");
        assert_eq!(
            iri_query("a=%C3%A4+b&c=%26%20%ff\"%zz"),
            "a=ä+b&c=%26%20%FF\"%zz"
        );
        assert_eq!(iri_query("x=[1]&y={}|"), "x=[1]&y={}|");
    }

    #[test]
    fn names_of_fields_are_written_large() {
        for (name, wsgi, go) in [
            ("x-b3-traceid", "X-B3-Traceid", "X-B3-Traceid"),
            ("x-2x", "X-2X", "X-2x"),
            ("x_y", "X-Y", "X_y"),
            ("etag", "Etag", "Etag"),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!(
                (title(&name).as_str(), canonical(&name).as_str()),
                (wsgi, go)
            );
        }
    }

    #[test]
    fn an_address_is_written_as_by_the_standard_library() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "255.10.99.100",
            "::1",
            "2001:db8::7",
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(of_address(parsed), address);
        }
    }

    #[test]
    fn a_glob_matches_by_its_stars() {
        for (glob, text, expected) in [
            ("x-fc-*", "X-Fc-Id", true),
            ("x-fc-*", "x-fd-id", false),
            ("foo", "Foo", true),
            ("foo", "foo2", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }
}
