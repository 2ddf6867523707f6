//! The head of what a program writes (RFC 3875, 6.2 and 6.3).

use hyper::StatusCode;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION};

/// The head of what a program writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// That which is said, or that which goes without saying.
    pub status: StatusCode,
    /// It is said.
    has_status: bool,
    /// What it calls the status.
    pub reason: Option<ReasonPhrase>,
    /// All other fields but those that frame its answer, which is done here.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// How much follows, if the program says so.
    pub length: Option<u64>,
}

impl Head {
    /// The path here that is to answer instead: where nothing but a Location says so, which has no host.
    pub fn elsewhere(&self) -> Option<&str> {
        let [(name, to)] = &self.fields[..] else {
            return None;
        };
        let to = to.to_str().ok()?;
        let is_path = to.starts_with('/') && !to.starts_with("//");
        (*name == LOCATION && !self.has_status && is_path).then_some(to)
    }
}

/// The head at the front of a program's output and how long it is; `None` while it is not complete.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let (mut status, mut reason, mut told, mut at) = (None, None, None, 0);
    let mut fields = Vec::new();
    loop {
        let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = &bytes[at..at + length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += length + 1;
        if line.is_empty() {
            break;
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or("a line of its head has no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let mut parts = value.splitn(2, |byte| *byte == b' ');
            let code = StatusCode::from_bytes(parts.next().unwrap_or_default())
                .ok()
                .filter(|code| !code.is_informational());
            let phrase = parts.next().map(<[u8]>::trim_ascii);
            reason = phrase.and_then(|phrase| ReasonPhrase::try_from(phrase).ok());
            status = Some(code.ok_or("its Status is none")?);
            continue;
        }
        let name =
            HeaderName::from_bytes(name).map_err(|_| "a field of its head has no good name")?;
        // How its answer is framed is ours to say.
        if [
            "connection",
            "transfer-encoding",
            "keep-alive",
            "upgrade",
            "trailer",
        ]
        .contains(&name.as_str())
        {
            continue;
        }
        let value =
            HeaderValue::from_bytes(value).map_err(|_| "a field of its head has no good value")?;
        if name == CONTENT_LENGTH {
            let digits = value.to_str().ok().filter(|text| !text.starts_with('+'));
            let length: u64 = digits
                .and_then(|text| text.parse().ok())
                .ok_or("its Content-Length is none")?;
            if told.is_some_and(|told| told != length) {
                return Err("it has two lengths");
            }
            told = Some(length);
            continue;
        }
        fields.push((name, value));
    }
    let redirects = fields.iter().any(|(name, _)| *name == LOCATION);
    if fields.is_empty() && status.is_none() {
        return Err("its head has no field; Content-Type is owed");
    }
    let has_status = status.is_some();
    let status = status.unwrap_or(if redirects {
        StatusCode::FOUND
    } else {
        StatusCode::OK
    });
    let head = Head {
        status,
        has_status,
        reason: reason.filter(|reason| !reason.as_bytes().is_empty()),
        fields,
        length: told,
    };
    Ok(Some((head, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_with_either_line_end() {
        for text in [
            "Content-Type: a/b\nStatus: 404 Not Here\nX-A: b\n\nbody",
            "Content-Type: a/b\r\nstatus:404\r\nX-A:b\r\n\r\nbody",
        ] {
            let (head, length) = parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!((head.status.as_u16(), head.fields.len()), (404, 2));
            let reason = head.reason.as_ref().map(ReasonPhrase::as_bytes);
            assert_eq!(reason.is_some(), text.contains("404 "));
            assert!(reason.is_none_or(|reason| reason == b"Not Here"));
            assert_eq!(&text[length..], "body");
            for n in 0..length {
                assert_eq!(parse(&text.as_bytes()[..n]), Ok(None), "{n}");
            }
        }
        let (head, _) = parse(b"Content-Length: 3\nContent-Length: 3\nA: b\n\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.length, head.fields.len()), (Some(3), 1));
    }

    #[test]
    fn a_path_alone_leads_elsewhere_here_and_all_else_is_for_the_client() {
        for (text, status, to) in [
            ("Location: /x?y\n\n", 302, Some("/x?y")),
            ("Location: http://a/x\n\n", 302, None),
            ("Location: //a/x\n\n", 302, None),
            ("Status: 303\nLocation: /x\n\n", 303, None),
            ("Location: /x\nContent-Type: a/b\n\n", 302, None),
            ("Status: 204\n\n", 204, None),
        ] {
            let (head, _) = parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(
                (head.status.as_u16(), head.elsewhere()),
                (status, to),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "hello\n",
            "\n",
            "Status: abc\n\n",
            "Status: 100\n\n",
            "A b: c\n\n",
            "A: \u{1}\n\n",
            "A: b\nContent-Length: x\n\n",
            "A: b\nContent-Length: +3\n\n",
            "A: b\nContent-Length: 3\nContent-Length: 4\n\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
