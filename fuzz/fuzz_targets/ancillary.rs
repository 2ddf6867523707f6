//! A walk through control messages ends, stays inside the buffer, and finds what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::ancillary::{Messages, space, write};

fuzz_target!(|control: &[u8]| {
    let mut messages = Messages::new(control);
    let mut walked = 0;
    for message in messages.by_ref() {
        walked += message.data.len();
        assert!(walked <= control.len());
        let inside = control.as_ptr_range();
        let data = message.data.as_ptr_range();
        assert!(inside.start <= data.start && data.end <= inside.end);
        assert_eq!(message.numbers().count(), message.data.len() / 4);
    }
    assert_eq!(messages.next(), None);
    if messages.is_complete() {
        // Each byte belongs to a message, but for what fills one up.
        assert!(control.is_empty() || walked < control.len());
    }

    let (chunks, _) = control.as_chunks::<4>();
    let numbers: Vec<i32> = chunks.iter().map(|bytes| i32::from_ne_bytes(*bytes)).collect();
    let mut buffer = vec![0xff; space(numbers.len())];
    assert_eq!(write(&mut buffer, 1, 2, &numbers), Some(buffer.len()));
    let short = buffer.len() - 1;
    assert_eq!(write(&mut vec![0; short], 1, 2, &numbers), None);
    let mut messages = Messages::new(&buffer);
    let message = messages.next().expect("it was written");
    assert_eq!((message.level, message.kind), (1, 2));
    assert!(message.numbers().eq(numbers));
    assert!(messages.next().is_none() && messages.is_complete());
});
