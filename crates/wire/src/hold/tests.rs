//! Documented bytes, and what holds for all of them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The examples of `docs/protocols/holding.md`, byte by byte, and some more.
fn requests() -> Vec<(&'static str, Request)> {
    vec![
        ("40 00 00 01 00", Request::List { behind: None }),
        (
            "40 00 00 04 03 77 65 62",
            Request::List {
                behind: Some(name("web")),
            },
        ),
        (
            "41 01 00 0a 01 01 00 00 0e 10 03 77 65 62",
            Request::Store {
                name: name("web"),
                sockets: 1,
                expiry: Some(Duration::from_secs(3600)),
                replace: true,
            },
        ),
        (
            "42 00 00 04 03 77 65 62",
            Request::Retrieve { name: name("web") },
        ),
        (
            "43 00 00 04 03 77 65 62",
            Request::Delete { name: name("web") },
        ),
        ("48 00 00 00", Request::TakeOver),
        ("49 00 00 04 00 00 00 02", Request::Received { batch: 2 }),
        ("4a 00 00 00", Request::Serving),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    vec![
        ("c0 00 00 00", Reply::Done),
        (
            "c1 00 00 2f 00 00 01 03 77 65 62 01 00 00 03 e8 00 00 00 3c 00 00 0e 10 \
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
            "c2 02 00 03 02 01 02",
            Reply::Sockets {
                kinds: vec![Kind::Stream, Kind::Datagram],
            },
        ),
        (
            "c3 00 00 01 01",
            Reply::Pool {
                mode: Mode::Connections,
            },
        ),
        (
            "c4 00 00 0a 02 00 07 6e 6f 74 68 69 6e 67",
            Reply::Refused {
                reason: Reason::NoSuchName,
                text: "nothing".into(),
            },
        ),
        ("c9 00 00 04 00 00 00 01", Reply::Complete { batches: 1 }),
        ("ca 00 00 04 00 00 00 02", Reply::Over { batches: 2 }),
    ]
}

/// What goes over at a hand-over.
fn batches() -> Vec<(&'static str, Reply)> {
    vec![
        (
            "c8 03 00 48 00 00 00 01 00 03 \
             01 00 10 74 63 70 3a 2f 2f 30 2e 30 2e 30 2e 30 3a 38 30 00 03 77 65 62 00 00 00 00 00 00 00 01 \
             02 03 77 65 62 00 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00 00 00 00 00 02 01 01 \
             03 00 03 77 65 62",
            Reply::Batch {
                number: 1,
                records: vec![
                    Record::Bound(Bound {
                        endpoint: "tcp://0.0.0.0:80".into(),
                        listener: "web".into(),
                        opening: 1,
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
                        listener: "web".into(),
                    }),
                ],
            },
        ),
        (
            "c8 02 00 43 00 00 00 02 00 02 \
             04 00 06 70 79 74 68 6f 6e 00 03 77 65 62 00 00 04 d2 00 00 00 3c 00 00 00 00 00 00 00 07 \
             00 00 00 00 00 00 01 03 00 03 77 65 62 \
             05 00 03 77 65 62 00 01 00 00 00 00 00 00 10 01 1f 90",
            Reply::Batch {
                number: 2,
                records: vec![
                    Record::Worker(Worker {
                        listener: "python".into(),
                        key: "web".into(),
                        process: 1234,
                        age: Duration::from_secs(60),
                        taken: 7,
                        drained: true,
                        lent: 0,
                        answered: 0,
                        served: 1,
                        offered: Some("web".into()),
                    }),
                    Record::Served(Served {
                        listener: "web".into(),
                        connections: vec![(0x1001, 8080)],
                    }),
                ],
            },
        ),
        (
            "c8 01 00 13 00 00 00 03 00 01 06 00 00 00 00 00 00 10 02 00 00 04 d2",
            Reply::Batch {
                number: 3,
                records: vec![Record::Running(Running {
                    socket: 0x1002,
                    process: 1234,
                })],
            },
        ),
        (
            "c8 00 00 06 00 00 00 04 00 00",
            Reply::Batch {
                number: 4,
                records: Vec::new(),
            },
        ),
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
        assert_eq!(
            Request::decode(&unhex(bytes), request.descriptors()),
            Ok(request.clone())
        );
    }
    for (bytes, reply) in replies().into_iter().chain(batches()) {
        assert_eq!(reply.encode(), unhex(bytes), "{reply:?}");
        assert_eq!(
            Reply::decode(&unhex(bytes), reply.descriptors()),
            Ok(reply.clone())
        );
    }
}

#[test]
fn the_page_shows_these_bytes_and_no_others() {
    let page = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/protocols/holding.md"
    ));
    let known: Vec<Vec<u8>> = requests()
        .into_iter()
        .map(|(bytes, _)| unhex(bytes))
        .chain(replies().into_iter().map(|(bytes, _)| unhex(bytes)))
        .collect();
    let is_byte = |word: &&str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
    let (mut shown, mut in_block) = (0, false);
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        if !in_block {
            continue;
        }
        let bytes: Vec<&str> = line.split_whitespace().take_while(is_byte).collect();
        if bytes.len() >= HEADER_LEN {
            shown += 1;
            let bytes = unhex(&bytes.join(" "));
            assert!(known.contains(&bytes), "{line} is no example");
        }
    }
    assert_eq!(shown, 14, "examples on the page");
}

#[test]
fn a_message_cut_anywhere_or_with_a_tail_is_refused() {
    let requests = requests().into_iter().map(|(bytes, _)| unhex(bytes));
    let replies = replies().into_iter().map(|(bytes, _)| unhex(bytes));
    for bytes in requests.chain(replies) {
        let decode = |bytes: &[u8]| {
            let descriptors = bytes.get(1).map_or(0, |count| (*count).into());
            match Request::decode(bytes, descriptors) {
                Err(HoldError::Kind(_)) => Reply::decode(bytes, descriptors).map(|_| ()),
                other => other.map(|_| ()),
            }
        };
        assert_eq!(decode(&bytes), Ok(()));
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(HoldError::Short));
            // The same, where the header knows of it.
            let mut shorter = bytes[..length].to_vec();
            if let Some(field) = shorter.get_mut(2..HEADER_LEN) {
                let rest = u16::try_from(length - HEADER_LEN).unwrap();
                field.copy_from_slice(&rest.to_be_bytes());
                assert!(decode(&shorter).is_err(), "{length} of {bytes:x?}");
            }
        }
        let tail = [&bytes[..], b"x"].concat();
        assert_eq!(decode(&tail), Err(HoldError::Trailing(1)));
    }
}

#[test]
fn descriptors_that_got_lost_or_were_slipped_in_are_an_error() {
    for (bytes, request) in requests() {
        for came in [request.descriptors() + 1, 17] {
            let error = Request::decode(&unhex(bytes), came).unwrap_err();
            assert!(matches!(error, HoldError::Descriptors { .. }), "{error}");
            let mut agreeing = unhex(bytes);
            agreeing[1] = u8::try_from(came).unwrap();
            let error = Request::decode(&agreeing, came).unwrap_err();
            assert!(matches!(error, HoldError::Descriptors { .. }), "{error}");
        }
    }
    for (bytes, reply) in replies().into_iter().chain(batches()) {
        let came = reply.descriptors() + 1;
        assert!(Reply::decode(&unhex(bytes), came).is_err(), "{reply:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |bytes: &str| {
        let bytes = unhex(bytes);
        Request::decode(&bytes, bytes[1].into()).unwrap_err()
    };
    assert_eq!(wrong("7f 00 00 00"), HoldError::Kind(0x7f));
    assert_eq!(wrong("42 00 00 01 00"), HoldError::Field("an empty name"));
    for byte in ["20", "0a", "7f", "c3"] {
        let error = wrong(&format!("42 00 00 02 01 {byte}"));
        assert_eq!(error, HoldError::Field("a name"), "{byte}");
    }
    for sockets in ["00", "11"] {
        let error = wrong(&format!(
            "41 {sockets} 00 08 00 {sockets} 00 00 00 00 01 61"
        ));
        assert_eq!(error, HoldError::Field("the number of sockets"));
    }
    let long = vec![0x42; MESSAGE_MAX + 1];
    assert_eq!(
        Request::decode(&long, 0),
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
        listener: "web".into(),
        opening: 1,
    });
    let many = vec![bound; BATCH_MAX + 1];
    assert_eq!(Reply::batch_length(&many), BATCH_MAX);
    let reply = Reply::Batch {
        number: 1,
        records: many,
    };
    assert_eq!(
        Reply::decode(&reply.encode(), BATCH_MAX + 1),
        Err(HoldError::Field("the number of descriptors"))
    );
}

#[test]
fn the_connections_of_a_worker_fit_a_message_and_no_more_are_read() {
    let served = |count: usize| {
        Record::Served(Served {
            listener: "x".repeat(ENDPOINT_MAX),
            connections: vec![(u64::MAX, u16::MAX); count],
        })
    };
    let most = served(SERVED_MAX);
    assert_eq!(Record::read(&most.encode()), Ok(most.clone()));
    assert_eq!(Reply::batch_length(&[most]), 1);
    let wrong = Err(HoldError::Field("the number of connections"));
    assert_eq!(Record::read(&served(0).encode()), wrong);
    let mut many = served(1).encode();
    let at = many.len() - 12;
    many[at..at + 2].copy_from_slice(&1025_u16.to_be_bytes());
    assert_eq!(Record::read(&many), wrong);
    // A count of what is not there is no reason to allocate.
    many[at..at + 2].copy_from_slice(&1024_u16.to_be_bytes());
    assert_eq!(Record::read(&many), Err(HoldError::Short));
}

#[test]
fn a_list_that_is_too_long_for_a_message_says_that_there_is_more() {
    let entry = |number: usize| Entry {
        name: name(&format!("{number:0>255}")),
        origin: Origin::Configured,
        age: Duration::ZERO,
        expiry: None,
        retrieved: 0,
        sockets: vec![(Kind::Stream, "x".repeat(ENDPOINT_MAX)); SOCKETS_MAX],
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

#[test]
fn a_journal_is_read_up_to_where_its_writer_was_killed() {
    let held = |text: &str| {
        Record::Held(Held {
            name: name(text),
            origin: Origin::User(7),
            age: Duration::ZERO,
            expiry: None,
            retrieved: 0,
            kinds: vec![Kind::Stream, Kind::Datagram],
        })
    };
    let note = |number, at, record| Note { number, at, record };
    let mut journal = Vec::new();
    for note in [
        note(1, 10, Some(held("a"))),
        note(3, 20, Some(held("b"))),
        note(1, 30, None),
        note(3, 40, Some(held("c"))),
    ] {
        journal.extend(note.encode());
    }
    let kept = vec![note(3, 40, Some(held("c")))];
    assert_eq!(replay(&journal), kept);
    let torn = note(5, 50, Some(held("d"))).encode();
    for length in 0..torn.len() {
        let bytes = [&journal[..], &torn[..length]].concat();
        assert_eq!(replay(&bytes), kept, "{length}");
    }
    assert_eq!(replay(&[&journal[..], &torn].concat()).len(), 2);
    assert_eq!(replay(b""), []);
    assert_eq!(replay(&[0xff; 64]), []);
}

proptest! {
    #[test]
    fn whatever_is_understood_is_written_the_same(body: Vec<u8>, kind: u8, came in 0_u8..20) {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let packet = [&[kind, came, length[0], length[1]][..], &body].concat();
        if let Ok(request) = Request::decode(&packet, came.into()) {
            prop_assert_eq!(request.encode(), packet.clone());
        }
        if let Ok(reply) = Reply::decode(&packet, came.into()) {
            prop_assert_eq!(Reply::decode(&reply.encode(), came.into()), Ok(reply));
        }
    }
}
