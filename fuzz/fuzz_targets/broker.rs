//! A message of either end of the broker's protocol survives being written and read, keeps to its caps,
//! and is never taken for another one when something of it is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::broker::{
    BrokerError, FIRST_BYTES_MAX, FromWorker, MESSAGE_MAX, NAME_MAX, OFFERS_MAX, Offers, REPORTS_MAX,
    ToWorker,
};

fuzz_target!(|packet: &[u8]| {
    // As many descriptors as it says: all other numbers are refused, which is checked below.
    let descriptors = packet.get(1).copied().map_or(0, usize::from);
    if let Ok(message) = FromWorker::decode(packet, descriptors) {
        assert_eq!(descriptors, 0);
        if let FromWorker::Report(reports) = &message {
            assert!((1..=REPORTS_MAX).contains(&reports.len()));
        }
        let written = message.encode();
        assert_eq!(FromWorker::decode(&written, 0), Ok(message));
        for end in 0..written.len() {
            assert!(FromWorker::decode(&written[..end], 0).is_err());
        }
    }
    let wrong = descriptors + 1;
    assert!(FromWorker::decode(packet, wrong).is_err());
    assert!(ToWorker::decode(packet, wrong).is_err());
    let Ok(message) = ToWorker::decode(packet, descriptors) else {
        return;
    };
    if let ToWorker::Offer(offers) = &message {
        assert_eq!(offers.len(), descriptors);
        assert!((1..=OFFERS_MAX).contains(&offers.len()));
        let mut all = Offers::new();
        for offer in offers {
            assert!(offer.listener.len() <= NAME_MAX);
            assert!(offer.first_bytes.len() <= FIRST_BYTES_MAX);
            // Alone it fits always; together perhaps not.
            let mut alone = Offers::new();
            assert!(alone.push(offer));
            let alone = alone.take();
            assert_eq!(
                ToWorker::decode(&alone, 1),
                Ok(ToWorker::Offer(vec![offer.clone()]))
            );
            all.push(offer);
        }
        let count = all.len();
        let together = all.take();
        assert!(together.len() <= MESSAGE_MAX);
        assert_eq!(
            ToWorker::decode(&together, count),
            Ok(ToWorker::Offer(offers[..count].to_vec()))
        );
        return;
    }
    let written = message.encode();
    assert_eq!(ToWorker::decode(&written, descriptors), Ok(message));
    let mut longer = written;
    longer.push(0);
    assert!(matches!(
        ToWorker::decode(&longer, descriptors),
        Err(BrokerError::Length { .. } | BrokerError::TooLong(_))
    ));
});
