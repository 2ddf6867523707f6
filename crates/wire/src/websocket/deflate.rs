//! permessage-deflate (RFC 7692): what is agreed on, and messages compressed and back.
//!
//! A window is as large as both ends can take, and is kept from message to message unless one of them does
//! not want that. What comes grows no further than its message may be, and over a connection no more than
//! in proportion: bytes cost their sender something.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::machine::Fault;

/// What both ends have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The window in which the server compresses: 9 to 15, of two the power; whether it was asked for.
    server_bits: Option<u8>,
    /// The server begins each message anew.
    server_forgets: bool,
    /// The client does.
    client_forgets: bool,
}

impl Agreed {
    /// The first of a client's offers that can be met (RFC 7692, 5.1): `offers` is the value of its
    /// `Sec-WebSocket-Extensions`, several joined with commas.
    pub fn to(offers: &str) -> Option<Self> {
        split(offers, b',').find_map(|offer| Self::to_one(&offer))
    }

    fn to_one(offer: &str) -> Option<Self> {
        let mut words = split(offer, b';');
        if words.next()?.trim() != NAME {
            return None;
        }
        let mut agreed = Self {
            server_bits: None,
            server_forgets: false,
            client_forgets: false,
        };
        let mut knows_client_bits = false;
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
                None => (word.trim(), None),
            };
            // Twice the same, or what nobody knows, makes an offer that cannot be met.
            let is_new = match (name, value) {
                ("server_no_context_takeover", None) => {
                    !std::mem::replace(&mut agreed.server_forgets, true)
                }
                ("client_no_context_takeover", None) => {
                    !std::mem::replace(&mut agreed.client_forgets, true)
                }
                ("server_max_window_bits", Some(value)) => {
                    // zlib has no window of 8 bits for this.
                    let bits = bits(value).filter(|bits| *bits > 8)?;
                    agreed.server_bits.replace(bits).is_none()
                }
                // Whatever it is, we can read it.
                ("client_max_window_bits", value) => {
                    value.is_none_or(|value| bits(value).is_some())
                        && !std::mem::replace(&mut knows_client_bits, true)
                }
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(agreed)
    }
}

/// The value of the server's `Sec-WebSocket-Extensions`.
impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_forgets {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_forgets {
            f.write_str("; client_no_context_takeover")?;
        }
        match self.server_bits {
            Some(bits) => write!(f, "; server_max_window_bits={bits}"),
            None => Ok(()),
        }
    }
}

/// Makes messages of what a client has compressed.
pub struct Inflater {
    inner: Decompress,
    forgets: bool,
    /// Of all messages so far, as they came and as they were.
    come: u64,
    made: u64,
}

impl Inflater {
    /// For a connection on which nothing has come yet.
    pub fn new(agreed: &Agreed) -> Self {
        Self {
            inner: Decompress::new(false),
            forgets: agreed.client_forgets,
            come: 0,
            made: 0,
        }
    }

    /// Takes a piece of a message, and appends what it stands for: no more than `max` bytes in all.
    pub fn take(&mut self, mut coded: &[u8], out: &mut Vec<u8>, max: u64) -> Result<(), Fault> {
        self.come = self.come.saturating_add(coded.len() as u64);
        let mut piece = [0; PIECE];
        loop {
            let (read, written) = (self.inner.total_in(), self.inner.total_out());
            let status = self
                .inner
                .decompress(coded, &mut piece, FlushDecompress::Sync)
                .map_err(|_| Fault::Deflate)?;
            // Both are within their slices.
            let at = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
            coded = &coded[at(self.inner.total_in(), read)..];
            let made = at(self.inner.total_out(), written);
            self.made = self.made.saturating_add(made as u64);
            if out.len().saturating_add(made) as u64 > max {
                return Err(Fault::MessageTooLarge);
            }
            if self.made > self.come.saturating_mul(RATIO).saturating_add(GRACE) {
                return Err(Fault::Bomb);
            }
            out.extend_from_slice(&piece[..made]);
            if status == Status::StreamEnd {
                // A message may end with a last block, behind which another begins (7.2.3.4).
                self.inner.reset(false);
            } else if coded.is_empty() && made < PIECE {
                return Ok(());
            }
            if coded.is_empty() && status == Status::StreamEnd {
                return Ok(());
            }
        }
    }

    /// A message has come in full.
    pub fn end(&mut self, out: &mut Vec<u8>, max: u64) -> Result<(), Fault> {
        self.take(TAIL, out, max)?;
        if self.forgets {
            self.inner.reset(false);
        }
        Ok(())
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("come", &self.come)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

/// Compresses messages.
pub struct Deflater {
    inner: Compress,
    forgets: bool,
}

impl Deflater {
    /// For a connection on which nothing has been sent yet.
    pub fn new(agreed: &Agreed) -> Self {
        let bits = agreed.server_bits.unwrap_or(BITS);
        Self {
            inner: Compress::new_with_window_bits(Compression::new(LEVEL), false, bits),
            forgets: agreed.server_forgets,
        }
    }

    /// The payload of a message.
    pub fn message(&mut self, mut payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() / 2 + 64);
        loop {
            let read = self.inner.total_in();
            // It fails only when it is asked for something after its end, which is not asked for.
            let _ = self
                .inner
                .compress_vec(payload, &mut out, FlushCompress::Sync);
            let taken = usize::try_from(self.inner.total_in() - read).unwrap_or(usize::MAX);
            payload = &payload[taken.min(payload.len())..];
            // What is flushed is complete when there is room left behind it.
            if payload.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(PIECE);
        }
        if out.ends_with(TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        // Nothing at all would be no block.
        if out.is_empty() {
            out.push(0);
        }
        if self.forgets {
            self.inner.reset();
        }
        out
    }
}

/// From 8 to 15, in digits without a zero before them.
fn bits(text: &str) -> Option<u8> {
    let bits = text.parse().ok()?;
    let is_plain = matches!(text.as_bytes(), [b'8' | b'9'] | [b'1', b'0'..=b'5']);
    is_plain.then_some(bits)
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

/// The parts between separators that stand in no quotes. Parameters here have no quotes escaped.
fn split(text: &str, separator: u8) -> impl Iterator<Item = String> {
    let mut is_quoted = false;
    text.split(move |byte: char| {
        is_quoted ^= byte == '"';
        !is_quoted && byte == char::from(separator)
    })
    .map(str::to_owned)
    .collect::<Vec<_>>()
    .into_iter()
}

const NAME: &str = "permessage-deflate";
/// What a sender leaves out at the end of each message (RFC 7692, 7.2.1).
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// The largest window, 32 KiB, where no smaller one was asked for.
const BITS: u8 = 15;
const PIECE: usize = 16 << 10;
/// Fast, and not far from the best.
const LEVEL: u32 = 4;
/// What comes may stand for so many times more, over a connection, and so many bytes besides. RFC 1951 goes
/// up to a thousand.
const RATIO: u64 = 200;
const GRACE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_offer_that_can_be_met_is_met() {
        for (offers, answer) in [
            ("permessage-deflate", Some("permessage-deflate")),
            (
                "permessage-deflate; client_max_window_bits",
                Some("permessage-deflate"),
            ),
            (
                "permessage-deflate;server_no_context_takeover ; client_no_context_takeover",
                Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            ),
            (
                "x; y=\"a,b;c\", permessage-deflate; server_max_window_bits=\"10\"; client_max_window_bits=15",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                Some("permessage-deflate"),
            ),
            ("", None),
            ("deflate-frame", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=08", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            (
                "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
                None,
            ),
            ("permessage-deflate; else", None),
        ] {
            let agreed = Agreed::to(offers).map(|agreed| agreed.to_string());
            assert_eq!(agreed.as_deref(), answer, "{offers}");
        }
    }

    fn agreed(offer: &str) -> Agreed {
        Agreed::to(&format!("permessage-deflate{offer}")).unwrap()
    }

    fn inflate(inflater: &mut Inflater, coded: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        for piece in coded.chunks(7) {
            inflater.take(piece, &mut out, 1 << 20)?;
        }
        inflater.end(&mut out, 1 << 20)?;
        Ok(out)
    }

    /// RFC 7692, 7.2.3: one block, the window shared, no compression, a last block, two blocks.
    #[test]
    fn the_rfcs_examples_are_read() {
        let mut inflater = Inflater::new(&agreed(""));
        for coded in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
        ] {
            assert_eq!(
                inflate(&mut inflater, coded).unwrap(),
                b"Hello",
                "{coded:x?}"
            );
        }
        let mut anew = Inflater::new(&agreed("; client_no_context_takeover"));
        inflate(&mut anew, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).unwrap();
        // It leads into a window that is not there.
        let lost = inflate(&mut anew, &[0xf2, 0x00, 0x11, 0x00, 0x00]);
        assert_eq!(lost, Err(Fault::Deflate));
    }

    #[test]
    fn what_grows_too_much_ends_before_it_has_grown() {
        let bomb = Deflater::new(&agreed("")).message(&vec![0; 64 << 20]);
        assert!(bomb.len() < 400_000, "{}", bomb.len());
        let mut out = Vec::new();
        let told = Inflater::new(&agreed("")).take(&bomb, &mut out, 1 << 20);
        assert_eq!(told, Err(Fault::MessageTooLarge));
        assert!(out.len() <= 1 << 20);
        // Also in messages of which each is small enough.
        let (mut inflater, mut deflater) = (Inflater::new(&agreed("")), Deflater::new(&agreed("")));
        let many = (0..100).find_map(|_| {
            let message = deflater.message(&vec![0; 1 << 20]);
            inflate(&mut inflater, &message).err()
        });
        assert_eq!(many, Some(Fault::Bomb));
    }

    #[test]
    fn a_small_window_is_kept_to() {
        // What repeats itself beyond the window cannot be told by it.
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .take(2000)
        .collect();
        let twice = [&noise[..], &noise[..]].concat();
        let large = Deflater::new(&agreed("")).message(&twice).len();
        let small = Deflater::new(&agreed("; server_max_window_bits=9"));
        let small = { small }.message(&twice).len();
        assert!(large < 2500 && small > 3900, "{large} {small}");
    }

    proptest! {
        #[test]
        fn messages_come_back(
            messages in prop::collection::vec(prop::collection::vec(0_u8..4, 0..3000), 1..6),
            offer in prop::sample::select(vec!["", "; server_no_context_takeover", "; server_max_window_bits=9"]),
        ) {
            let mut deflater = Deflater::new(&agreed(offer));
            // What one end forgets, the other may too.
            let reader = if offer.contains("no_context") { "; client_no_context_takeover" } else { "" };
            let mut inflater = Inflater::new(&agreed(reader));
            for message in messages {
                let coded = deflater.message(&message);
                prop_assert_eq!(inflate(&mut inflater, &coded).unwrap(), message);
            }
        }
    }
}
