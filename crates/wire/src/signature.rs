//! Telling our own answers apart from requests.
//!
//! Echo, time, daytime and their kin have no field that says "this is an answer". Point two such
//! servers at each other with one forged datagram and they talk for ever; two timestamp servers
//! even grow each message by 27 bytes a turn. So a service whose answers can be recognised does not
//! answer them.

use crate::{ctime, time};

/// Whether a datagram looks like an answer of ours, and so must not be answered.
///
/// True for what starts with a ctime (ctime, daytime), with a ctime in brackets (timestamp) or with
/// `error: ` (every refusal), and for four bytes that tell a time (RFC 868) within one day of
/// `now_unix`. Answers of echo, discard, chargen, fib and sntp have no such mark in their bytes;
/// sntp has a direction field and the others need another guard.
///
/// Costs one look at the first byte and the length for nearly all other datagrams.
pub fn is_own_answer(payload: &[u8], now_unix: i64) -> bool {
    if let Ok(bytes) = <[u8; 4]>::try_from(payload) {
        return time::decode(bytes).abs_diff(now_unix) <= ONE_DAY;
    }
    match payload.first() {
        Some(b'[') => {
            ctime::starts_with_ctime(&payload[1..])
                && payload
                    .get(1 + ctime::LEN..)
                    .is_some_and(|rest| rest.starts_with(b"] "))
        }
        Some(b'e') => payload.starts_with(b"error: "),
        _ => ctime::starts_with_ctime(payload),
    }
}

const ONE_DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::ctime::Ctime;
    use crate::daytime::Daytime;
    use crate::{fib, sleep, timestamp};
    use proptest::prelude::*;
    use std::time::Duration;

    const NOW: i64 = 1_793_619_700;

    #[test]
    fn what_people_send_is_no_answer_of_ours() {
        for request in [
            &b""[..],
            b"hi",
            b"time",
            b"now?",
            b"1234",
            b"\0\0\0\0",
            b"error",
            b"errors: none",
            b"Error: upper case",
            b"Monday",
            b"What time is it in Nome?",
            b"[hi] there",
            b"[Mon Nov  2 11:41:40 2026]",
            b"[Mon Nov  2 11:41:40 2026]no space",
            b"it is Mon Nov  2 11:41:40 2026",
        ] {
            assert!(
                !is_own_answer(request, NOW),
                "{:?}",
                request.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn four_bytes_far_from_now_are_no_time() {
        for seconds in [NOW - 86_401, NOW + 86_401, 0] {
            assert!(!is_own_answer(&time::encode(seconds).unwrap(), NOW));
        }
        assert!(!is_own_answer(&[0xff; 4], i64::MAX));
        assert!(!is_own_answer(&[0; 4], i64::MIN));
    }

    #[test]
    fn each_text_we_answer_with_is_recognised() {
        let ctime = Ctime::from_unix(NOW, 0);
        let mut stamped = Vec::new();
        timestamp::stamp(&ctime, b"", &mut stamped);
        assert!(is_own_answer(&stamped, NOW));
        assert!(is_own_answer(ctime.as_bytes(), NOW));
        assert!(is_own_answer(Daytime::from_unix(NOW, 0).as_bytes(), NOW));
        for error in [
            fib::parse(b"x", 9).unwrap_err().to_string(),
            fib::parse(b"10", 9).unwrap_err().to_string(),
            sleep::parse(b"x", Duration::ZERO).unwrap_err().to_string(),
            Command::parse(b"x").unwrap_err().to_string(),
        ] {
            assert!(is_own_answer(error.as_bytes(), NOW), "{error}");
        }
    }

    #[test]
    fn a_time_answer_is_recognised_for_a_day() {
        for seconds in [NOW - 86_400, NOW, NOW + 86_400] {
            assert!(is_own_answer(&time::encode(seconds).unwrap(), NOW));
        }
    }

    proptest! {
        #[test]
        fn four_characters_of_ascii_are_never_a_time_of_this_century(
            text in "[ -~]{4}",
            now in 946_684_800_i64..2_085_978_496,
        ) {
            prop_assert!(!is_own_answer(text.as_bytes(), now));
        }

        #[test]
        fn a_stamped_message_is_recognised_whatever_it_holds(
            data: Vec<u8>,
            now in 0_i64..4_000_000_000,
        ) {
            let mut stamped = Vec::new();
            timestamp::stamp(&Ctime::from_unix(now, 0), &data, &mut stamped);
            prop_assert!(is_own_answer(&stamped, now));
        }

        #[test]
        fn arbitrary_bytes_are_looked_at_without_panic(payload: Vec<u8>, now: i64) {
            let _ = is_own_answer(&payload, now);
        }
    }
}
