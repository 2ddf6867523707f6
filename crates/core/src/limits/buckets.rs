//! Token buckets per source, in a table of fixed size.
//!
//! The shape is that of chrony's client log (clientlog.c): sets of a few slots, so that looking up
//! and replacing cost the same however many sources there are, and a flood of forged sources can
//! neither take memory nor slow us. A replaced slot is the one whose bucket is fullest, which is
//! the one whose memory matters least.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::Prefix;
use crate::config::Rate;

/// Token buckets: `burst` at once, then `rate`.
#[derive(Debug)]
pub struct Buckets {
    slots: Vec<Slot>,
    keys: RandomState,
    /// Tokens that come back in a millisecond.
    per_millisecond: f32,
    burst: f32,
    random: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// A keyed hash of the source; 0 is free.
    key: u64,
    tokens: f32,
    /// Milliseconds, as in [`Buckets::take`], modulo 2^32.
    updated: u32,
}

/// What became of a request for a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token {
    /// There was one.
    Taken,
    /// There was none; one will be there after this long.
    Wait(Duration),
}

impl Buckets {
    /// Empty buckets for sources nobody knows yet: each starts with a full burst.
    pub fn new(rate: Rate, burst: u32) -> Self {
        let keys = RandomState::new();
        let random = keys.hash_one(0) | 1;
        // A rate is at most u32::MAX per second and a burst u32::MAX; f32 keeps seven digits.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "seven digits are enough for a rate"
        )]
        let per_millisecond = (rate.hertz() / 1e3) as f32;
        let burst = burst.max(1) as f32;
        Self {
            slots: vec![Slot::default(); SETS * WAYS],
            keys,
            per_millisecond,
            burst,
            random,
        }
    }

    /// Takes a token of `source` at `now`, a time in milliseconds from any fixed start.
    pub fn take(&mut self, source: Prefix, now: u64) -> Token {
        let key = self.keys.hash_one(source).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "time is kept modulo 2^32")]
        let now = now as u32;
        // SETS is a power of two and far below 2^32.
        let set = usize::try_from(key % SETS as u64).unwrap_or(0) * WAYS;
        let (per_millisecond, burst) = (self.per_millisecond, self.burst);
        // Loops read their clocks before they get here: one may come with a time just before the last.
        let elapsed = |slot: &Slot| match now.wrapping_sub(slot.updated) {
            behind if behind > u32::MAX - BEHIND_MAX => 0,
            elapsed => elapsed,
        };
        let level = |slot: &Slot| {
            if slot.key == 0 {
                f32::INFINITY
            } else {
                (slot.tokens + elapsed(slot) as f32 * per_millisecond).min(burst)
            }
        };
        let ways = &mut self.slots[set..set + WAYS];
        let at = ways
            .iter()
            .position(|slot| slot.key == key)
            .unwrap_or_else(|| {
                let fullest = |a: &usize, b: &usize| level(&ways[*a]).total_cmp(&level(&ways[*b]));
                let victim = (0..WAYS).max_by(fullest).unwrap_or(0);
                ways[victim] = Slot {
                    key,
                    tokens: burst,
                    updated: now,
                };
                victim
            });
        let tokens = level(&ways[at]).min(burst);
        let slot = &mut ways[at];
        slot.updated = slot.updated.wrapping_add(elapsed(slot));
        if tokens >= 1.0 {
            slot.tokens = tokens - 1.0;
            return Token::Taken;
        }
        slot.tokens = tokens;
        Token::Wait(Duration::from_secs_f32(
            ((1.0 - tokens) / per_millisecond / 1e3).min(3600.0),
        ))
    }

    /// Whole tokens that `source` has left at `now`, without taking any.
    pub fn left(&self, source: Prefix, now: u64) -> u32 {
        let key = self.keys.hash_one(source).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "time is kept modulo 2^32")]
        let now = now as u32;
        let set = usize::try_from(key % SETS as u64).unwrap_or(0) * WAYS;
        let slot = self.slots[set..set + WAYS]
            .iter()
            .find(|slot| slot.key == key);
        let tokens = slot.map_or(self.burst, |slot| {
            let elapsed = now.wrapping_sub(slot.updated) as f32;
            (slot.tokens + elapsed * self.per_millisecond).min(self.burst)
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a burst is a u32, and no bucket owes any"
        )]
        let whole = tokens as u32;
        whole
    }

    /// True once in `chance` calls on average, at random; never for 0.
    ///
    /// A limiter that answers nothing above the rate lets a spoofer silence its victim; one that
    /// leaks a few answers at random does not (chrony's `ratelimit leak`).
    pub fn leak(&mut self, chance: u32) -> bool {
        // xorshift64: fair enough for a coin that only has to be unpredictable in the small.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        chance != 0 && self.random.is_multiple_of(u64::from(chance))
    }
}

/// With [`WAYS`] slots of 16 bytes each: 8,192 sources in 128 KiB.
const SETS: usize = 1024;
const WAYS: usize = 8;
/// No loop is further behind another, in milliseconds.
const BEHIND_MAX: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(rate: &str, burst: u32) -> Buckets {
        Buckets::new(rate.parse().unwrap(), burst)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut buckets = buckets("10/s", 3);
        let source = Prefix::V4(7);
        let taken = |b: &mut Buckets, now| b.take(source, now) == Token::Taken;
        assert_eq!((0..5).filter(|_| taken(&mut buckets, 1000)).count(), 3);
        assert!(!taken(&mut buckets, 1050));
        assert!(taken(&mut buckets, 1100));
        assert!(!taken(&mut buckets, 1101));
        assert_eq!((0..9).filter(|_| taken(&mut buckets, 999_999)).count(), 3);
    }

    #[test]
    fn a_time_just_before_the_last_gives_no_tokens() {
        let mut buckets = buckets("10/s", 3);
        let source = Prefix::V4(7);
        let taken = |now| buckets.take(source, now) == Token::Taken;
        // Two loops, one of which started 7 ms later.
        let both = (1000..1100).flat_map(|now| [now, now - 7]);
        assert_eq!(both.map(taken).filter(|taken| *taken).count(), 3);
    }

    #[test]
    fn an_empty_bucket_says_when_to_come_back() {
        let mut buckets = buckets("1/s", 1);
        assert_eq!(buckets.take(Prefix::Local, 0), Token::Taken);
        let Token::Wait(wait) = buckets.take(Prefix::Local, 400) else {
            panic!("a token too many")
        };
        assert!((wait.as_secs_f32() - 0.6).abs() < 0.01, "{wait:?}");
    }

    #[test]
    fn one_source_does_not_pay_for_another() {
        let mut buckets = buckets("1/h", 1);
        for source in 0..1000 {
            assert_eq!(buckets.take(Prefix::V4(source), 5), Token::Taken);
        }
    }

    #[test]
    fn a_flood_of_sources_does_not_free_an_abuser() {
        let mut buckets = buckets("1/h", 10);
        let abuser = Prefix::V4(1);
        while buckets.take(abuser, 0) == Token::Taken {}
        for forged in 2..200_000 {
            buckets.take(Prefix::V4(forged), 1);
        }
        assert_ne!(buckets.take(abuser, 2), Token::Taken);
    }

    #[test]
    fn the_leak_is_about_one_in_chance() {
        let mut buckets = buckets("1/s", 1);
        let leaked = (0..40_000).filter(|_| buckets.leak(4)).count();
        assert!((8_000..12_000).contains(&leaked), "{leaked}");
        assert!(!(0..1000).any(|_| buckets.leak(0)));
    }
}
