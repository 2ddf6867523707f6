//! A message about held sockets survives being written and read, keeps to its caps and to its
//! descriptors; a journal that is written anew says the same, and one that is cut says a beginning of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::hold::{BATCH_MAX, MESSAGE_MAX, Note, Reply, Request, SOCKETS_MAX, replay};

fuzz_target!(|bytes: &[u8]| {
    messages(bytes);
    journal(bytes);
});

fn messages(packet: &[u8]) {
    // As many descriptors as it says: all other numbers are refused.
    let descriptors = packet.get(1).copied().map_or(0, usize::from);
    let wrong = descriptors + 1;
    assert!(Request::decode(packet, wrong).is_err());
    assert!(Reply::decode(packet, wrong).is_err());
    if let Ok(request) = Request::decode(packet, descriptors) {
        assert!(descriptors <= SOCKETS_MAX);
        assert_eq!(request.descriptors(), descriptors);
        assert_eq!(request.encode(), packet);
        assert!(Reply::decode(packet, descriptors).is_err(), "one or the other");
    }
    let Ok(reply) = Reply::decode(packet, descriptors) else {
        return;
    };
    assert!(descriptors <= BATCH_MAX);
    let written = reply.encode();
    assert!(written.len() <= MESSAGE_MAX);
    assert_eq!(Reply::decode(&written, descriptors).as_ref(), Ok(&reply));
    for end in 0..written.len() {
        assert!(Reply::decode(&written[..end], descriptors).is_err());
    }
    match reply {
        Reply::Listed { entries, more } => {
            // What came in one message goes into one again.
            let again = Reply::listed(entries.clone());
            let Reply::Listed {
                entries: fit,
                more: cut,
            } = again
            else {
                panic!("a list is a list");
            };
            assert!(fit.len() + 1 >= entries.len() || cut || more);
            assert!(fit.len() == entries.len() || cut);
        }
        Reply::Batch { records, .. } if !records.is_empty() => {
            let fit = Reply::batch_length(&records);
            assert!((1..=records.len()).contains(&fit));
        }
        _ => {}
    }
}

fn journal(bytes: &[u8]) {
    let notes = replay(bytes);
    let written: Vec<u8> = notes.iter().flat_map(Note::encode).collect();
    assert_eq!(replay(&written), notes);
    for end in 0..written.len().min(512) {
        let part = replay(&written[..end]);
        assert!(notes.starts_with(&part));
    }
}
