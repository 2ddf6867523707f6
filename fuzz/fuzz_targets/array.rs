//! A receipt says one thing: what is decoded encodes to the same bytes. A size survives its eight
//! bytes, and computed values are the same whatever piece they are written in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::array::{
    RECEIPT_LEN, Receipt, SIZE_LEN, VALUE_LEN, Values, decode_size, encode_size,
};

fuzz_target!(|input: (&[u8], f64, f64, u16, u8)| {
    let (bytes, start, step, first, count) = input;
    match Receipt::decode(bytes) {
        Ok(Some(receipt)) => {
            let encoded = receipt.encode();
            assert_eq!(encoded, bytes[..RECEIPT_LEN]);
            assert_eq!(Receipt::decode(&encoded), Ok(Some(receipt)));
        }
        Ok(None) => assert!(bytes.len() < RECEIPT_LEN),
        // All ones, and a number that is no refusal.
        Err(_) => assert!(bytes.starts_with(&[0xff; SIZE_LEN])),
    }
    match decode_size(bytes) {
        Some(size) => assert_eq!(encode_size(size), bytes[..SIZE_LEN]),
        None => assert!(bytes.len() < SIZE_LEN),
    }

    let values = Values { start, step };
    let (first, count) = (u64::from(first), usize::from(count));
    let mut whole = vec![0; count * VALUE_LEN];
    assert_eq!(values.write(first, &mut whole), whole.len());
    for (n, one) in (first..).zip(whole.chunks(VALUE_LEN)) {
        let mut piece = [0; VALUE_LEN];
        values.write(n, &mut piece);
        assert_eq!(piece, one);
    }
});
