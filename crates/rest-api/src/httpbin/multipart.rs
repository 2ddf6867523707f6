//! Forms with files (RFC 7578), of a body that has been read whole.

/// A part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The field's name.
    pub name: String,
    /// Whether it says that it is part of a form, and not something else.
    pub is_form: bool,
    /// Whether it is a file: it says how it is called.
    pub filename: Option<String>,
    /// Its type, where it says one.
    pub content_type: Option<String>,
    /// Its bytes.
    pub content: &'a [u8],
}

/// The parts of a form, by the `Content-Type` that the request has. Parts without a name are left out.
pub fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, &'static str> {
    let boundary = boundary(content_type).ok_or("no multipart boundary param in Content-Type")?;
    if boundary.len() > BOUNDARY_MAX {
        return Err("the multipart boundary is too long");
    }
    let delimiter = format!("--{boundary}").into_bytes();
    // What stands before the first delimiter is for people.
    let (_, mut rest) = split(body, &delimiter).ok_or("multipart: no part begins")?;
    let mut parts = Vec::new();
    for _ in 0..=PARTS_MAX {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let line_end = rest.iter().position(|byte| *byte == b'\n');
        let line_end = line_end.ok_or("multipart: the form breaks off")?;
        if !rest[..line_end].iter().all(|byte| b" \t\r".contains(byte)) {
            return Err("multipart: a delimiter's line does not end");
        }
        let fields;
        (fields, rest) = head(&rest[line_end + 1..])?;
        let content;
        (content, rest) = split(rest, &delimiter).ok_or("multipart: the form breaks off")?;
        let disposition = fields
            .iter()
            .find(|(name, _)| name == "content-disposition");
        let Some((_, disposition)) = disposition else {
            continue;
        };
        let Some(name) = parameter(disposition, "name") else {
            continue;
        };
        let content_type = fields.iter().find(|(name, _)| name == "content-type");
        let kind = disposition.split(';').next().unwrap_or_default().trim();
        parts.push(Part {
            name,
            is_form: kind.eq_ignore_ascii_case("form-data"),
            filename: parameter(disposition, "filename*")
                .or_else(|| parameter(disposition, "filename")),
            content_type: content_type.map(|(_, value)| value.clone()),
            content,
        });
    }
    Err("multipart: the form has too many parts")
}

/// What parts the form, by the `Content-Type` that the request has.
pub fn boundary(content_type: &str) -> Option<String> {
    parameter(content_type, "boundary").filter(|text| !text.is_empty())
}

type Fields = Vec<(String, String)>;

/// The fields of a part, names in lower case, and what follows.
fn head(mut rest: &[u8]) -> Result<(Fields, &[u8]), &'static str> {
    let (mut fields, start) = (Vec::new(), rest.len());
    loop {
        let end = rest.iter().take(HEAD_MAX).position(|byte| *byte == b'\n');
        let end = end.ok_or("multipart: a part's head is too long or breaks off")?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Ok((fields, rest));
        }
        if start - rest.len() > HEAD_MAX {
            return Err("multipart: a part's head is too long");
        }
        let line = String::from_utf8_lossy(line);
        let (name, value) = line
            .split_once(':')
            .ok_or("multipart: a field lacks its colon")?;
        fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// What stands before a delimiter, which begins a line, and what behind it. That of a part without a body may
/// follow its head at once (RFC 2046, 5.1.1).
fn split<'a>(bytes: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    if let Some(rest) = bytes.strip_prefix(delimiter) {
        return Some((&[], rest));
    }
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let line = from + at + 1;
        if let Some(rest) = bytes[line..].strip_prefix(delimiter) {
            let content = &bytes[..line - 1];
            return Some((content.strip_suffix(b"\r").unwrap_or(content), rest));
        }
        from = line;
    }
    None
}

/// A parameter of a field such as `form-data; name="a"`.
pub fn parameter(field: &str, wanted: &str) -> Option<String> {
    let mut rest = field.split_once(';')?.1;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, behind) = rest.split_once('=')?;
        let name = name.trim();
        // Something without a value stands before.
        if let Some((_, behind)) = name.rsplit_once(';') {
            rest = &rest[rest.len() - (rest.len() - name.len() + behind.len())..];
            continue;
        }
        let behind = behind.trim_start();
        let (value, behind) = if let Some(quoted) = behind.strip_prefix('"') {
            quoted_value(quoted)?
        } else {
            let (value, behind) = behind.split_once(';').unwrap_or((behind, ""));
            (value.trim().to_owned(), behind)
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(if wanted.ends_with('*') {
                let encoded = value.rsplit('\'').next().unwrap_or_default();
                let decoded = super::text::unquote(encoded.as_bytes());
                String::from_utf8_lossy(&decoded).into_owned()
            } else {
                value
            });
        }
        rest = behind;
    }
}

/// A quoted value and what follows. Only quotes and backslashes are escaped: old browsers write
/// backslashes of paths as they are.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.peek() {
                Some((_, next @ ('"' | '\\'))) => {
                    value.push(*next);
                    chars.next();
                }
                _ => value.push('\\'),
            },
            char => value.push(char),
        }
    }
    None
}

/// RFC 2046, 5.1.1.
const BOUNDARY_MAX: usize = 70;
/// More fields than a form has.
const PARTS_MAX: usize = 1000;
/// The head of a part.
const HEAD_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"b b\"";

    fn part<'a>(name: &str, filename: Option<&str>, content: &'a [u8]) -> Part<'a> {
        Part {
            name: name.into(),
            is_form: true,
            filename: filename.map(Into::into),
            content_type: None,
            content,
        }
    }

    #[test]
    fn parts_are_cut_at_their_delimiters() {
        let body = b"preamble\r\n--b b  \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\n\
            \r\n--b b\r\ncontent-disposition: form-data; x; filename=\"q\\\"C:\\x\"; name=\"b\"\r\n\
            Content-Type: text/plain; charset=x\r\n\r\n\0\n\r\n\r\n--b b\r\nX: y\r\n\r\nnameless\r\n\
            --b b\r\nContent-Disposition: form-data; name=c; filename*=utf-8''%C3%A4\r\n\r\n\
            --b b--epilogue";
        let parts = parse(TYPE, body).unwrap();
        let mut file = part("b", Some("q\"C:\\x"), b"\0\n\r\n");
        file.content_type = Some("text/plain; charset=x".into());
        let expected = [
            part("a", None, b"1\r\n--b\r\n"),
            file,
            part("c", Some("ä"), b""),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for body in [
            "",
            "%ZZ",
            "--b b",
            "--b bx\r\n",
            "--b b\r\nno colon\r\n\r\n--b b--",
            "--b b\r\nA: b\r\n",
            "--b b\r\nA: b\r\n\r\ncontent",
            "x--b b\r\n",
        ] {
            assert!(parse(TYPE, body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse("multipart/form-data; etc", b"--\r\n").is_err());
        assert!(parse("multipart/form-data; boundary=", b"--\r\n").is_err());
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        assert!(parse(&long, b"").is_err());
    }

    #[test]
    fn parts_and_heads_have_their_caps() {
        let one = "--b b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
        let good = format!("{}--b b--", one.repeat(1000));
        assert_eq!(parse(TYPE, good.as_bytes()).unwrap().len(), 1000);
        let many = format!("{}--b b--", one.repeat(1001));
        assert!(parse(TYPE, many.as_bytes()).is_err());
        let head = format!("--b b\r\n{}\r\n1\r\n--b b--", "A: b\r\n".repeat(2000));
        assert!(parse(TYPE, head.as_bytes()).is_err());
        let line = format!("--b b\r\nA: {}\r\n\r\n1\r\n--b b--", "x".repeat(9000));
        assert!(parse(TYPE, line.as_bytes()).is_err());
    }

    #[test]
    fn a_parameter_is_found_behind_others() {
        for (field, expected) in [
            ("x; a=1", Some("1")),
            ("x;b=\"a=2;\" ; A = \"3;\\\"\" ", Some("3;\"")),
            ("x; flag; a=4", Some("4")),
            ("x; b=5", None),
            ("x; a=\"6", None),
            ("a=7", None),
        ] {
            assert_eq!(parameter(field, "a").as_deref(), expected, "{field}");
        }
    }
}
