//! Whom a TLS client means to talk to, out of the first bytes of its connection (RFC 8446, 4.1.2;
//! RFC 6066, 3; RFC 7301).
//!
//! The bytes are looked at and left where they are: [`parse`] is given the beginning of the stream, again
//! and longer, until it can say something. It understands a hello of TLS 1.0 to 1.3, in one record or
//! in many. It finds the name by which the connection can be routed, and is no check of anything: what
//! is wrong elsewhere in the hello is for the server to refuse.

/// Bytes from the beginning of the stream within which the hello must end. Those with post-quantum keys
/// have about 1,800, with tickets and padding 4,000.
pub const HELLO_MAX: usize = 16 * 1024;
/// Application protocols of one hello.
pub const PROTOCOLS_MAX: usize = 64;

/// What a client hello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name in lower case, without a dot at its end. 1 to 255 graphic ASCII characters.
    pub server_name: Option<String>,
    /// The application protocols, in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// The connection does not begin with a client hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It begins with something else, so it is not TLS.
    #[error("the connection does not begin with a TLS record")]
    NotTls,
    /// It is longer than [`HELLO_MAX`].
    #[error("the TLS client hello does not end within {HELLO_MAX} bytes")]
    TooLong,
    /// It breaks the rules.
    #[error("the TLS client hello is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads the hello at the front of `stream`; `None` while it is not complete, and only while there are
/// fewer than [`HELLO_MAX`] bytes. What comes behind it is not looked at.
pub fn parse(stream: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let window = &stream[..stream.len().min(HELLO_MAX)];
    match message(window)? {
        Some(body) => read(&body).map(Some),
        None if window.len() == HELLO_MAX => Err(HelloError::TooLong),
        None => Ok(None),
    }
}

/// Puts the body of the first message together from its records.
fn message(mut stream: &[u8]) -> Result<Option<Vec<u8>>, HelloError> {
    let mut message: Vec<u8> = Vec::new();
    let mut is_first = true;
    loop {
        // Judged as soon as it is there, so that nobody waits for the rest of what is not TLS.
        let differs = |at: usize, expected| stream.get(at).is_some_and(|byte| *byte != expected);
        if differs(0, HANDSHAKE) || differs(1, MAJOR_VERSION) {
            return Err(if is_first {
                HelloError::NotTls
            } else {
                HelloError::Malformed("a record of another kind interrupts it")
            });
        }
        let Some((&[_, _, _, high, low], rest)) = stream.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > RECORD_MAX {
            return Err(HelloError::Malformed("the length of a record"));
        }
        message.extend_from_slice(&rest[..length.min(rest.len())]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(HelloError::Malformed("another message comes first"));
        }
        if let Some((&[_, a, b, c], body)) = message.split_first_chunk() {
            let announced = u32::from_be_bytes([0, a, b, c]);
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            if announced > HELLO_MAX {
                return Err(HelloError::TooLong);
            }
            if let Some(body) = body.get(..announced) {
                return Ok(Some(body.to_vec()));
            }
        }
        let Some(behind) = rest.get(length..) else {
            return Ok(None);
        };
        stream = behind;
        is_first = false;
    }
}

fn read(mut body: &[u8]) -> Result<ClientHello, HelloError> {
    let rest = &mut body;
    // Version and random.
    bytes(rest, 2 + 32).ok_or(HelloError::Malformed("it is too short"))?;
    let cut = HelloError::Malformed("a list is longer than the message");
    let session = short_list(rest).ok_or(cut)?;
    let suites = long_list(rest).ok_or(cut)?;
    let compressions = short_list(rest).ok_or(cut)?;
    if session.len() > 32 || suites.len() < 2 || suites.len() % 2 != 0 || compressions.is_empty() {
        return Err(HelloError::Malformed("session, suites or compressions"));
    }
    let mut hello = ClientHello::default();
    if rest.is_empty() {
        // Before TLS 1.3 there may be none.
        return Ok(hello);
    }
    let mut extensions = long_list(rest).ok_or(cut)?;
    if !rest.is_empty() {
        return Err(HelloError::Malformed("something is behind the extensions"));
    }
    let (mut has_name, mut has_protocols) = (false, false);
    while !extensions.is_empty() {
        let kind = number(&mut extensions).ok_or(cut)?;
        let mut data = long_list(&mut extensions).ok_or(cut)?;
        let again = match kind {
            SERVER_NAME => std::mem::replace(&mut has_name, true),
            PROTOCOLS => std::mem::replace(&mut has_protocols, true),
            _ => false,
        };
        if again {
            return Err(HelloError::Malformed("an extension is there twice"));
        }
        match kind {
            SERVER_NAME => hello.server_name = server_name(&mut data)?,
            PROTOCOLS => hello.alpn = protocols(&mut data)?,
            _ => {}
        }
    }
    Ok(hello)
}

fn server_name(data: &mut &[u8]) -> Result<Option<String>, HelloError> {
    let wrong = HelloError::Malformed("the server name");
    let mut list = long_list(data).ok_or(wrong)?;
    let mut found = None;
    if list.is_empty() || !data.is_empty() {
        return Err(wrong);
    }
    while !list.is_empty() {
        let [kind] = *bytes(&mut list, 1).ok_or(wrong)? else {
            return Err(wrong);
        };
        let name = long_list(&mut list).ok_or(wrong)?;
        // Names of other kinds were never defined; whoever sends one knows what it means.
        if kind == HOST_NAME && found.replace(host_name(name).ok_or(wrong)?).is_some() {
            return Err(wrong);
        }
    }
    Ok(found)
}

fn host_name(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = (1..=255).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(name).ok()?;
    fits.then(|| text.to_ascii_lowercase())
}

fn protocols(data: &mut &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    let wrong = HelloError::Malformed("the application protocols");
    let mut list = long_list(data).ok_or(wrong)?;
    let mut found = Vec::new();
    if list.is_empty() || !data.is_empty() {
        return Err(wrong);
    }
    while !list.is_empty() {
        let name = short_list(&mut list).ok_or(wrong)?;
        if name.is_empty() || found.len() == PROTOCOLS_MAX {
            return Err(wrong);
        }
        found.push(name.to_vec());
    }
    Ok(found)
}

/// Takes `count` bytes from the front.
fn bytes<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (first, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(first)
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes(rest, 2)?.try_into().ok()?))
}

/// What is behind a length in one byte.
fn short_list<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [length] = *bytes(rest, 1)? else {
        return None;
    };
    bytes(rest, length.into())
}

/// What is behind a length in two bytes.
fn long_list<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    bytes(rest, length.into())
}

const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const CLIENT_HELLO: u8 = 1;
/// RFC 8446, 5.1: a fragment has at most 2^14 bytes.
const RECORD_MAX: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const PROTOCOLS: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with these extensions, in records of at most `record` bytes.
    fn hello(extensions: &[(u16, &[u8])], record: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        let mut list = Vec::new();
        for (kind, data) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            list.extend_from_slice(data);
        }
        if !extensions.is_empty() {
            body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
            body.extend(list);
        }
        let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        message[0] = CLIENT_HELLO;
        message.extend(body);
        let mut stream = Vec::new();
        for fragment in message.chunks(record) {
            stream.extend([HANDSHAKE, 3, 1]);
            stream.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
            stream.extend_from_slice(fragment);
        }
        stream
    }

    fn name(text: &[u8]) -> Vec<u8> {
        let length = u16::try_from(text.len()).unwrap();
        let mut data = (length + 3).to_be_bytes().to_vec();
        data.push(HOST_NAME);
        data.extend(length.to_be_bytes());
        data.extend_from_slice(text);
        data
    }

    fn named(text: &str) -> ClientHello {
        ClientHello {
            server_name: Some(text.into()),
            alpn: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_tls_is_told_by_its_first_bytes() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"G"), Err(HelloError::NotTls));
        assert_eq!(parse(b"SSH-2.0"), Err(HelloError::NotTls));
        assert_eq!(parse(&[22]), Ok(None));
        assert_eq!(parse(&[22, 2]), Err(HelloError::NotTls));
        // The hello of SSL 2.
        assert_eq!(parse(&[0x80, 0x2e, 1]), Err(HelloError::NotTls));
    }

    #[test]
    fn a_hello_is_the_same_in_any_records_and_whole_at_its_last_byte() {
        let server = name(b"Www.Example.org.");
        let protocols = [
            0, 12, 2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1',
        ];
        let extensions: [(u16, &[u8]); 3] = [
            (0x0a0a, &[]),
            (SERVER_NAME, &server),
            (PROTOCOLS, &protocols),
        ];
        let expected = ClientHello {
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ..named("www.example.org")
        };
        for record in [RECORD_MAX, 100, 7, 1] {
            let stream = hello(&extensions, record);
            for end in 0..stream.len() {
                assert_eq!(
                    parse(&stream[..end]),
                    Ok(None),
                    "{end} of records of {record}"
                );
            }
            assert_eq!(parse(&stream), Ok(Some(expected.clone())));
            let more = [&stream[..], b"\x14\x03\x03\x00\x01\x01early"].concat();
            assert_eq!(parse(&more), Ok(Some(expected.clone())));
        }
    }

    #[test]
    fn without_extensions_nothing_is_said() {
        assert_eq!(parse(&hello(&[], 500)), Ok(Some(ClientHello::default())));
        let none = hello(&[(43, &[2, 3, 4])], 500);
        assert_eq!(parse(&none), Ok(Some(ClientHello::default())));
    }

    #[test]
    fn a_hello_without_end_meets_the_cap() {
        let padding = vec![0; 15_000];
        let long = hello(&[(21, &padding)], 500);
        assert!(long.len() < HELLO_MAX);
        assert_eq!(parse(&long), Ok(Some(ClientHello::default())));
        // The same in many records is more.
        let long = hello(&[(21, &padding)], 10);
        assert_eq!(parse(&long[..HELLO_MAX - 1]), Ok(None));
        assert_eq!(parse(&long[..HELLO_MAX]), Err(HelloError::TooLong));
        assert_eq!(parse(&long), Err(HelloError::TooLong));
        // And one that announces more is not waited for.
        let announced = [22, 3, 1, 0, 4, 1, 0, 0x40, 1];
        assert_eq!(parse(&announced), Err(HelloError::TooLong));
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        let malformed = |stream: &[u8]| {
            let result = parse(stream);
            assert!(
                matches!(result, Err(HelloError::Malformed(_))),
                "{result:?}"
            );
        };
        malformed(&[22, 3, 1, 0, 0]);
        malformed(&[22, 3, 1, 0x40, 1]);
        malformed(&[22, 3, 1, 0, 1, 2]);
        let good = name(b"a");
        malformed(&hello(&[(SERVER_NAME, &good), (SERVER_NAME, &good)], 500));
        for bad in [
            &b""[..],
            b" a",
            b"a\0",
            b".",
            "\u{e4}".as_bytes(),
            &[b'a'; 256],
        ] {
            malformed(&hello(&[(SERVER_NAME, &name(bad))], 500));
        }
        let twice = [&[0, 8][..], &good[2..], &good[2..]].concat();
        malformed(&hello(&[(SERVER_NAME, &twice)], 500));
        malformed(&hello(&[(SERVER_NAME, &[0, 0])], 500));
        malformed(&hello(&[(SERVER_NAME, &[&good[..], &[0]].concat())], 500));
        malformed(&hello(&[(PROTOCOLS, &[0, 1, 0])], 500));
        malformed(&hello(&[(PROTOCOLS, &[0, 2, 2, b'h'])], 500));
        // A record of another kind in the middle.
        let mut broken = hello(&[], 10);
        broken[15] = 23;
        malformed(&broken);
        // Something behind the extensions.
        let mut longer = hello(&[(43, &[2, 3, 4])], 500);
        longer.push(0);
        longer[4] += 1;
        longer[8] += 1;
        malformed(&longer);
    }

    #[test]
    fn the_longest_name_is_read() {
        let longest = "a".repeat(255);
        let stream = hello(&[(SERVER_NAME, &name(longest.as_bytes()))], 500);
        assert_eq!(parse(&stream), Ok(Some(named(&longest))));
    }
}
