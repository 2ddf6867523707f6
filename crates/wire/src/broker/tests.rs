//! The bytes of each message, and what is refused.

use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn offer() -> Offer<'static> {
    Offer {
        connection: 258,
        arrival: 1_000_000_007,
        listener: "web",
        peer: Some("192.0.2.7:40000".parse().unwrap()),
        ..Offer::default()
    }
}

/// Written down by hand from the tables in this module's documentation.
#[test]
fn each_message_has_the_bytes_that_are_written_down() {
    let hello = Hello {
        version: 1,
        reports_done: true,
        capacity: 16,
        weight: 1,
        name: "w1",
        pool: "",
    };
    let done = Report {
        connection: 258,
        verdict: Verdict::Done,
    };
    let refused = Report {
        connection: 7,
        verdict: Verdict::Refused(Why::Draining),
    };
    for (message, bytes) in [
        (
            FromWorker::Hello(hello),
            "01 00 000f 0001 0001 00000010 0001 01 0002 7731",
        ),
        (
            FromWorker::Report(vec![done, refused]),
            "02 00 0014 03 00 0000000000000102 02 02 0000000000000007",
        ),
        (FromWorker::Capacity(3), "03 00 0004 00000003"),
        (FromWorker::Drain, "04 00 0000"),
        (FromWorker::Resume, "05 00 0000"),
        (FromWorker::Ping(5), "06 00 0008 0000000000000005"),
    ] {
        assert_eq!(message.encode(), hex(bytes), "{message:?}");
        assert_eq!(FromWorker::decode(&hex(bytes), 0), Ok(message));
    }
    let welcome = Welcome {
        version: 1,
        mode: Mode::Connections,
        pool: "web",
    };
    for (message, bytes, descriptors) in [
        (
            ToWorker::Welcome(welcome),
            "21 00 000a 0001 00 00 02 0003 776562",
            0,
        ),
        (ToWorker::Rejected("no"), "22 00 0002 6e6f", 0),
        (
            ToWorker::Offer(vec![offer()]),
            "23 01 0021 001f 0000000000000102 000000003b9aca07 03 0003 776562 04 0006 c0000207 9c40",
            1,
        ),
        (
            ToWorker::Listener { name: "web" },
            "24 01 0006 03 0003 776562",
            1,
        ),
        (ToWorker::Drain, "25 00 0000", 0),
        (ToWorker::Resume, "26 00 0000", 0),
        (ToWorker::Pong(5), "27 00 0008 0000000000000005", 0),
    ] {
        assert_eq!(message.encode(), hex(bytes), "{message:?}");
        assert_eq!(ToWorker::decode(&hex(bytes), descriptors), Ok(message));
    }
}

#[test]
fn a_lost_or_smuggled_descriptor_is_noticed() {
    let packet = ToWorker::Offer(vec![offer(), offer()]).encode();
    for came in [0, 1, 3] {
        assert_eq!(
            ToWorker::decode(&packet, came),
            Err(BrokerError::Descriptors { came, wanted: 2 })
        );
    }
    // Announced and sent, but no message of a worker has one.
    let drain = hex("04 01 0000");
    assert_eq!(
        FromWorker::decode(&drain, 1),
        Err(BrokerError::Descriptors { came: 1, wanted: 0 })
    );
    let one_entry_two_descriptors = {
        let mut packet = ToWorker::Offer(vec![offer()]).encode();
        packet[1] = 2;
        packet
    };
    assert_eq!(
        ToWorker::decode(&one_entry_two_descriptors, 2),
        Err(BrokerError::Descriptors { came: 2, wanted: 1 })
    );
}

#[test]
fn a_cut_message_is_never_taken_for_a_shorter_one() {
    let packet = ToWorker::Offer(vec![offer()]).encode();
    for end in 0..packet.len() {
        assert!(ToWorker::decode(&packet[..end], 1).is_err(), "{end}");
    }
    let mut longer = packet;
    longer.push(0);
    assert!(ToWorker::decode(&longer, 1).is_err());
}

#[test]
fn each_end_refuses_what_the_other_one_sends() {
    let drain = FromWorker::Drain.encode();
    assert_eq!(ToWorker::decode(&drain, 0), Err(BrokerError::Kind(4)));
    let drain = ToWorker::Drain.encode();
    assert_eq!(FromWorker::decode(&drain, 0), Err(BrokerError::Kind(0x25)));
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    for (packet, error) in [
        (
            "01 00 000a 0001 0000 00000000 0001",
            BrokerError::Value("capacity", 0),
        ),
        (
            "01 00 000a 0001 0000 00000001 0000",
            BrokerError::Value("weight", 0),
        ),
        (
            "02 00 000a 09 00 0000000000000001",
            BrokerError::Value("verb", 9),
        ),
        (
            "02 00 0000",
            BrokerError::Entries {
                came: 0,
                max: REPORTS_MAX,
            },
        ),
        (
            "01 00 000f 0001 0000 00000001 0001 01 0002 0a0b",
            BrokerError::Text,
        ),
        (
            "01 00 000f 0001 0000 00000001 0001 01 0003 7731",
            BrokerError::Field(1),
        ),
        (
            "01 00 0012 0001 0000 00000001 0001 01 0001 61 01 0001 61",
            BrokerError::Field(1),
        ),
    ] {
        assert_eq!(FromWorker::decode(&hex(packet), 0), Err(error), "{packet}");
    }
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let packet = hex("01 00 0012 0001 8000 00000001 0001 63 0001 ff 01 0001 61");
    let Ok(FromWorker::Hello(hello)) = FromWorker::decode(&packet, 0) else {
        panic!("refused");
    };
    assert_eq!((hello.name, hello.reports_done), ("a", false));
}

#[test]
fn a_full_packet_says_so_and_keeps_to_the_cap() {
    let long = "n".repeat(NAME_MAX + 50);
    let protocol = long.as_bytes();
    let largest = Offer {
        listener: &long,
        peer: Some("[fe80::1%7]:9".parse().unwrap()),
        local: Some("[fe80::2%7]:9".parse().unwrap()),
        user: Some(User {
            uid: 1,
            gid: 2,
            pid: 3,
        }),
        server_name: Some(&long),
        alpn: vec![&protocol[..NAME_MAX]; ALPN_MAX + 3],
        first_bytes: &[7; FIRST_BYTES_MAX + 1],
        ..offer()
    };
    let mut offers = Offers::new();
    while offers.push(&largest) {}
    let count = offers.len();
    assert!(count >= 1);
    let packet = offers.take();
    assert!(packet.len() <= MESSAGE_MAX);
    let Ok(ToWorker::Offer(read)) = ToWorker::decode(&packet, count) else {
        panic!("unreadable");
    };
    assert_eq!(read[0].listener.len(), NAME_MAX);
    assert_eq!(read[0].alpn.len(), ALPN_MAX);
    assert_eq!((read[0].peer, read[0].user), (largest.peer, largest.user));
    for _ in 0..OFFERS_MAX {
        assert!(offers.push(&offer()));
    }
    assert!(!offers.push(&offer()));
}

#[test]
fn a_full_report_says_so() {
    let mut reports = Reports::new();
    let done = |connection| Report {
        connection,
        verdict: Verdict::Done,
    };
    for connection in 0.. {
        if reports.is_full() {
            break;
        }
        reports.push(done(connection));
    }
    let packet = reports.take();
    let Ok(FromWorker::Report(read)) = FromWorker::decode(&packet, 0) else {
        panic!("unreadable");
    };
    assert_eq!(read.len(), REPORTS_MAX);
    assert!(reports.is_empty());
}

proptest! {
    #[test]
    fn what_is_read_survives_being_written(packet in prop::collection::vec(any::<u8>(), 0..200),
                                           kind in 0u8..0x30, descriptors in 0usize..3) {
        let mut packet = packet;
        if packet.len() >= HEADER_LEN {
            packet[0] = kind;
            packet[1] = u8::try_from(descriptors).unwrap();
            let length = u16::try_from(packet.len() - HEADER_LEN).unwrap();
            packet[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(message) = FromWorker::decode(&packet, descriptors) {
            let written = message.encode();
            prop_assert_eq!(FromWorker::decode(&written, 0), Ok(message));
        }
        if let Ok(message) = ToWorker::decode(&packet, descriptors) {
            let written = message.encode();
            prop_assert_eq!(ToWorker::decode(&written, descriptors), Ok(message));
        }
    }
}
