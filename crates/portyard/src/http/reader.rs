//! The body of an answer, decompressed, within its cap.

use hyper::header::CONTENT_ENCODING;
use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use portyard_wire::http::coding::{Coding, DecodeError, Decoder};

use super::answer::Answer;
use super::pace::Pace;

/// Reads a body.
pub struct Reader {
    /// The outermost coding first.
    decoders: Vec<Decoder>,
    cap: Option<u64>,
    given: u64,
    has_begun: bool,
    is_over: bool,
}

impl Reader {
    /// Of an answer, whose codings are undone if `decodes`; it may have `cap` bytes then.
    pub fn new(answer: &Answer, decodes: bool, cap: Option<u64>) -> Result<Self, Fatal> {
        let mut decoders = Vec::new();
        if decodes && answer.body.length() != Some(0) {
            let codings = answer.headers.get_all(CONTENT_ENCODING).iter();
            let codings: Vec<&str> = codings
                .flat_map(|value| value.to_str().unwrap_or("?").split(','))
                .map(str::trim)
                .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
                .collect();
            if codings.len() > CODINGS_MAX {
                return Err(Fatal::new(
                    Exit::Data,
                    "the answer is compressed again and again; --no-compress takes it as it is",
                ));
            }
            for name in codings.into_iter().rev() {
                let coding = Coding::named(name).ok_or_else(|| {
                    let name = escape(name.as_bytes(), 40);
                    let message = format!(
                        "the answer is coded by {name}, which is not known here; --no-compress \
                         takes it as it is"
                    );
                    Fatal::new(Exit::Data, message)
                })?;
                let decoder = Decoder::of_answer(coding).map_err(|error| {
                    Fatal::new(Exit::OsError, format!("cannot decompress: {error}"))
                })?;
                decoders.push(decoder);
            }
        }
        Ok(Self {
            decoders,
            cap,
            given: 0,
            has_begun: false,
            is_over: false,
        })
    }

    /// The next bytes; `None` at the end.
    pub async fn next(
        &mut self,
        answer: &mut Answer,
        pace: &Pace,
    ) -> Result<Option<Vec<u8>>, Fatal> {
        while !self.is_over {
            let out = match answer.body.next(pace).await? {
                Some(bytes) if self.decoders.is_empty() => bytes.to_vec(),
                Some(bytes) => {
                    self.has_begun = true;
                    let mut out = Vec::new();
                    // A little at a time, as a little may become a lot.
                    for slice in bytes.chunks(SLICE) {
                        let room = self.room(out.len());
                        out.extend(self.decode(slice, room)?);
                    }
                    out
                }
                None => {
                    self.is_over = true;
                    if !self.has_begun {
                        // Some servers say how nothing is coded.
                        return Ok(None);
                    }
                    self.finish()?
                }
            };
            self.given += out.len() as u64;
            if self.cap.is_some_and(|cap| self.given > cap) {
                return Err(self.too_large());
            }
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
        Ok(None)
    }

    fn room(&self, pending: usize) -> u64 {
        let taken = self.given + pending as u64;
        let cap = self.cap.map_or(u64::MAX, |cap| cap.saturating_sub(taken));
        cap.min(BURST)
    }

    fn decode(&mut self, bytes: &[u8], room: u64) -> Result<Vec<u8>, Fatal> {
        let mut bytes = bytes.to_vec();
        for at in 0..self.decoders.len() {
            let decoded = self.decoders[at].write(&bytes, room);
            bytes = decoded.map_err(|error| self.failure(error))?;
        }
        Ok(bytes)
    }

    /// What the decoders still hold at the end.
    fn finish(&mut self) -> Result<Vec<u8>, Fatal> {
        let mut carry = Vec::new();
        while !self.decoders.is_empty() {
            let room = self.room(0);
            let mut decoder = self.decoders.remove(0);
            let mut out = Vec::new();
            if !carry.is_empty() {
                let decoded = decoder.write(&carry, room);
                out = decoded.map_err(|error| self.failure(error))?;
            }
            let rest = decoder.finish(room).map_err(|error| self.failure(error))?;
            out.extend(rest);
            carry = out;
        }
        Ok(carry)
    }

    fn failure(&self, error: DecodeError) -> Fatal {
        match error {
            DecodeError::TooLarge if self.cap.is_some() => self.too_large(),
            other => Fatal::new(
                Exit::Data,
                format!(
                    "the answer cannot be decompressed: {other}; --no-compress takes it as it is"
                ),
            ),
        }
    }

    fn too_large(&self) -> Fatal {
        let cap = self.cap.unwrap_or_default();
        Fatal::new(
            Exit::Data,
            format!(
                "the answer is larger than {cap} bytes; allow more with --max-body, or write it to \
                 a file with --output"
            ),
        )
    }
}

/// More than one is hardly ever seen.
const CODINGS_MAX: usize = 3;
const SLICE: usize = 1 << 10;
/// What a slice may become at most.
const BURST: u64 = 64 << 20;
