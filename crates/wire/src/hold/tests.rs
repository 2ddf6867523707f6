//! Documented bytes, and what holds for all of them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The examples of `docs/protocols/fd-broker.md`, byte by byte.
fn requests() -> Vec<(&'static str, Request)> {
    vec![
        ("40 01 00 00 00", Request::List { behind: None }),
        (
            "40 01 00 00 03 77 65 62",
            Request::List {
                behind: Some(name("web")),
            },
        ),
        (
            "41 01 00 00 01 01 00 00 0e 10 03 77 65 62",
            Request::Store {
                name: name("web"),
                sockets: 1,
                expiry: Some(Duration::from_secs(3600)),
                replace: true,
            },
        ),
        (
            "42 01 00 00 03 77 65 62",
            Request::Retrieve { name: name("web") },
        ),
        (
            "43 01 00 00 03 77 65 62",
            Request::Delete { name: name("web") },
        ),
        ("48 01 00 00", Request::TakeOver),
        ("49 01 00 00 00 00 00 02", Request::Received { batch: 2 }),
        ("4a 01 00 00", Request::Serving),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    vec![
        ("c0 01 00 00", Reply::Done),
        (
            "c1 01 00 00 00 00 01 03 77 65 62 01 00 00 03 e8 00 00 00 3c 00 00 0e 10 \
             00 00 00 00 00 00 00 02 01 01 00 0f 74 63 70 3a 2f 2f 5b 3a 3a 5d 3a 38 30 38 30",
            Reply::Listed {
                entries: vec![Entry {
                    name: name("web"),
                    origin: Origin::User(1000),
                    age: Duration::from_secs(60),
                    expiry: Some(Duration::from_secs(3600)),
                    retrieved: 2,
                    sockets: vec![(Kind::Stream, "tcp://[::]:8080".into())],
                }],
                more: false,
            },
        ),
        (
            "c2 01 00 00 02 01 02",
            Reply::Sockets {
                kinds: vec![Kind::Stream, Kind::Datagram],
            },
        ),
        (
            "c3 01 00 00 01",
            Reply::Pool {
                mode: Mode::Connections,
            },
        ),
        (
            "c4 01 00 00 02 00 07 6e 6f 74 68 69 6e 67",
            Reply::Refused {
                reason: Reason::NoSuchName,
                text: "nothing".into(),
            },
        ),
        (
            "c8 01 00 00 00 00 00 01 00 03 \
             01 00 10 74 63 70 3a 2f 2f 30 2e 30 2e 30 2e 30 3a 38 30 \
             02 03 77 65 62 00 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00 00 00 00 00 02 01 01 \
             03 00 03 61 70 70 00 00 00 fa 00 02 ab cd",
            Reply::Batch {
                number: 1,
                records: vec![
                    Record::Bound(Bound {
                        endpoint: "tcp://0.0.0.0:80".into(),
                    }),
                    Record::Held(Held {
                        name: name("web"),
                        origin: Origin::Configured,
                        age: Duration::from_secs(9),
                        expiry: None,
                        retrieved: 2,
                        kinds: vec![Kind::Stream],
                    }),
                    Record::Waiting(Waiting {
                        pool: "app".into(),
                        offer: vec![0xab, 0xcd],
                        waited: Duration::from_millis(250),
                    }),
                ],
            },
        ),
        ("c9 01 00 00 00 00 00 01", Reply::Complete { batches: 1 }),
        ("ca 01 00 00 00 00 00 02", Reply::Over { batches: 2 }),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_documented_bytes_are_these_messages() {
    for (bytes, request) in requests() {
        assert_eq!(request.encode(), unhex(bytes), "{request:?}");
        assert_eq!(Request::decode(&unhex(bytes)), Ok(request));
    }
    for (bytes, reply) in replies() {
        assert_eq!(reply.encode(), unhex(bytes), "{reply:?}");
        assert_eq!(Reply::decode(&unhex(bytes)), Ok(reply));
    }
}

#[test]
fn a_message_cut_anywhere_or_with_a_tail_is_refused() {
    let requests = requests().into_iter().map(|(bytes, _)| unhex(bytes));
    let replies = replies().into_iter().map(|(bytes, _)| unhex(bytes));
    for bytes in requests.chain(replies) {
        let decode = |bytes: &[u8]| {
            Request::decode(bytes)
                .map(|_| ())
                .or_else(|error| match error {
                    HoldError::Type(_) => Reply::decode(bytes).map(|_| ()),
                    error => Err(error),
                })
        };
        assert_eq!(decode(&bytes), Ok(()));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} of {bytes:x?}");
        }
        let tail = [&bytes[..], b"x"].concat();
        assert_eq!(decode(&tail), Err(HoldError::Trailing(1)));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |bytes: &str| Request::decode(&unhex(bytes)).unwrap_err();
    assert_eq!(wrong("42 02 00 00 01 61"), HoldError::Version(2));
    assert_eq!(wrong("42 01 00 01 01 61"), HoldError::Field("the header"));
    assert_eq!(wrong("7f 01 00 00"), HoldError::Type(0x7f));
    assert_eq!(wrong("42 01 00 00 00"), HoldError::Field("an empty name"));
    for byte in ["20", "0a", "7f", "c3"] {
        let error = wrong(&format!("42 01 00 00 01 {byte}"));
        assert_eq!(error, HoldError::Field("a name"), "{byte}");
    }
    for sockets in ["00", "11"] {
        let error = wrong(&format!("41 01 00 00 00 {sockets} 00 00 00 00 01 61"));
        assert_eq!(error, HoldError::Field("the number of sockets"));
    }
    let long = vec![0x42; MESSAGE_MAX + 1];
    assert_eq!(
        Request::decode(&long),
        Err(HoldError::Long(MESSAGE_MAX + 1))
    );
}

#[test]
fn names_are_printable_ascii_of_a_bounded_length() {
    let longest = "x".repeat(NAME_MAX);
    assert_eq!(name(&longest).as_str(), longest);
    for text in ["", " ", "a b", "a\n", "ä", "\u{7f}", &"x".repeat(256)] {
        assert_eq!(text.parse::<Name>(), Err(BadName), "{text:?}");
    }
}

#[test]
fn a_batch_takes_no_more_descriptors_than_a_message() {
    let bound = Record::Bound(Bound {
        endpoint: "tcp://127.0.0.1:80".into(),
    });
    let many = vec![bound; BATCH_MAX + 1];
    assert_eq!(Reply::batch_length(&many), BATCH_MAX);
    let reply = Reply::Batch {
        number: 1,
        records: many,
    };
    assert_eq!(
        Reply::decode(&reply.encode()),
        Err(HoldError::Field("the number of descriptors"))
    );
}

#[test]
fn a_list_that_is_too_long_for_a_message_says_that_there_is_more() {
    let entry = |number: usize| Entry {
        name: name(&format!("{number:0>255}")),
        origin: Origin::Configured,
        age: Duration::ZERO,
        expiry: None,
        retrieved: 0,
        sockets: vec![(Kind::Stream, "x".repeat(1000)); SOCKETS_MAX],
    };
    let Reply::Listed { entries, more } = Reply::listed((0..1000).map(entry)) else {
        panic!("not a list");
    };
    assert!(more && !entries.is_empty());
    let bytes = Reply::Listed { entries, more }.encode();
    assert!(bytes.len() <= MESSAGE_MAX, "{}", bytes.len());
    assert!(matches!(
        Reply::listed([entry(1)]),
        Reply::Listed { more: false, .. }
    ));
}

proptest! {
    #[test]
    fn whatever_is_understood_is_written_the_same(bytes: Vec<u8>, kind: u8) {
        let packet = [&[kind, VERSION, 0, 0][..], &bytes].concat();
        if let Ok(request) = Request::decode(&packet) {
            prop_assert_eq!(request.encode(), packet.clone());
        }
        if let Ok(reply) = Reply::decode(&packet) {
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }
}
