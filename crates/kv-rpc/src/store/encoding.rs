//! How records look on the disk. Format 1:
//!
//! ```text
//! record  crc32c (of the place, 8 bytes, and all that follows)  u32
//!         revision, created, version                             u64 each
//!         0, or 1 and when it ends                               u8, u64
//!         key, value                                             as below
//! value   kind u8; then what the kind needs: nothing, u8, i64, f64, or a length u32 and as many
//!         bytes, values or pairs of values
//! ```
//!
//! All numbers are little-endian. A record says all about itself, and its checksum binds it to its
//! place, so that neither a flipped bit nor a record in another's place goes unseen.

use std::sync::Arc;

use portyard_wire::value::{DEPTH_MAX, Value};

use super::batch::Entry;
use super::index::Record;
use super::key::Key;
use super::persistence::State;

/// The format that is written, and the latest that is read.
pub const FORMAT: u32 = 1;

/// Why bytes are no record.
pub type Fault = &'static str;

/// Writes a record.
pub fn encode(record: &Record) -> Vec<u8> {
    let Entry {
        value,
        revision,
        created,
        version,
        expires,
    } = &record.entry;
    let mut out = vec![0; 4];
    for number in [revision, created, version] {
        out.extend(number.to_le_bytes());
    }
    out.push(u8::from(expires.is_some()));
    if let Some(moment) = expires {
        out.extend(moment.to_le_bytes());
    }
    put_value(&record.key.to_value(), &mut out);
    put_value(value, &mut out);
    let sum = checksum(record.place, &out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Reads a record, all of whose bytes must be used.
pub fn decode(place: u64, bytes: &[u8]) -> Result<Record, Fault> {
    let mut input = Input(bytes);
    let sum = u32::from_le_bytes(input.array()?);
    if checksum(place, input.0) != sum {
        return Err("its checksum does not match");
    }
    let (key, mut entry) = input.front()?;
    entry.value = Arc::new(input.value(DEPTH_MAX)?);
    if !input.0.is_empty() {
        return Err("it has bytes left over");
    }
    Ok(Record::new(key, place, entry))
}

/// The key that a damaged record seems to have, for the message about it.
pub fn guess_key(bytes: &[u8]) -> Option<Key> {
    let mut input = Input(bytes.get(4..)?);
    input.front().ok().map(|(key, _)| key)
}

/// Writes what is true of the whole store.
pub fn encode_state(state: &State) -> Vec<u8> {
    let mut out = vec![0; 4];
    for number in [state.revision, state.last_place, state.count, state.digest] {
        out.extend(number.to_le_bytes());
    }
    let sum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Reads what is true of the whole store.
pub fn decode_state(bytes: &[u8]) -> Result<State, Fault> {
    let mut input = Input(bytes);
    let sum = u32::from_le_bytes(input.array()?);
    if crc32c::crc32c(input.0) != sum {
        return Err("its checksum does not match");
    }
    let state = State {
        revision: input.u64()?,
        last_place: input.u64()?,
        count: input.u64()?,
        digest: input.u64()?,
    };
    if !input.0.is_empty() {
        return Err("it has bytes left over");
    }
    Ok(state)
}

fn checksum(place: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&place.to_le_bytes()), body)
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Nil => out.push(NIL),
        Value::Bool(truth) => out.extend([BOOL, u8::from(*truth)]),
        Value::Int(number) => {
            out.push(INT);
            out.extend(number.to_le_bytes());
        }
        Value::Double(number) => {
            out.push(DOUBLE);
            out.extend(number.to_le_bytes());
        }
        Value::String(text) => put_bytes(STRING, text.as_bytes(), out),
        Value::Bytes(bytes) => put_bytes(BYTES, bytes, out),
        Value::DateTime(text) => put_bytes(DATE_TIME, text.as_bytes(), out),
        Value::List(items) => {
            put_length(LIST, items.len(), out);
            for item in items {
                put_value(item, out);
            }
        }
        Value::Map(pairs) => {
            put_length(MAP, pairs.len(), out);
            for (key, value) in pairs {
                put_value(key, out);
                put_value(value, out);
            }
        }
    }
}

fn put_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    put_length(kind, bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_length(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    // `Limits` lets nothing longer in.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend(length.to_le_bytes());
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All before the value; the entry's value is still nil.
    fn front(&mut self) -> Result<(Key, Entry), Fault> {
        let (revision, created, version) = (self.u64()?, self.u64()?, self.u64()?);
        let expires = match self.u8()? {
            0 => None,
            1 => Some(self.u64()?),
            _ => return Err("it has an end of an unknown kind"),
        };
        let key = Key::try_from(self.value(0)?).map_err(|_| "its key cannot be a key")?;
        let value = Arc::new(Value::Nil);
        let entry = Entry {
            value,
            revision,
            created,
            version,
            expires,
        };
        Ok((key, entry))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        Ok(match self.u8()? {
            NIL => Value::Nil,
            BOOL => Value::Bool(self.u8()? != 0),
            INT => Value::Int(i64::from_le_bytes(self.array()?)),
            DOUBLE => Value::Double(f64::from_le_bytes(self.array()?)),
            STRING => Value::String(self.text()?),
            BYTES => Value::Bytes(self.bytes()?.to_vec()),
            DATE_TIME => Value::DateTime(self.text()?),
            kind @ (LIST | MAP) => {
                let below = depth.checked_sub(1).ok_or("its value is too deep")?;
                let length = u32::from_le_bytes(self.array()?);
                // Grows as items come: a length alone allocates nothing.
                if kind == LIST {
                    let items = (0..length).map(|_| self.value(below));
                    Value::List(items.collect::<Result<_, _>>()?)
                } else {
                    let pairs = (0..length).map(|_| Ok((self.value(below)?, self.value(below)?)));
                    Value::Map(pairs.collect::<Result<_, Fault>>()?)
                }
            }
            _ => return Err("it has a value of an unknown kind"),
        })
    }

    fn text(&mut self) -> Result<String, Fault> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| "its text is not UTF-8")
    }

    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

const SHORT: Fault = "it ends too early";

const NIL: u8 = 0;
const BOOL: u8 = 1;
const INT: u8 = 2;
const DOUBLE: u8 = 3;
const STRING: u8 = 4;
const BYTES: u8 = 5;
const DATE_TIME: u8 = 6;
const LIST: u8 = 7;
const MAP: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let value = Value::Map(vec![
            (
                Value::from("list"),
                Value::List(vec![Value::Nil, Value::Bool(true)]),
            ),
            (Value::Int(-1), Value::Double(1e300)),
            (
                Value::Bytes(vec![0, 255]),
                Value::DateTime("20260101T00:00:00".into()),
            ),
        ]);
        let entry = Entry {
            value: Arc::new(value),
            revision: 9,
            created: 7,
            version: 2,
            expires: Some(123),
        };
        Record::new(Key::from("key"), 5, entry)
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let record = record();
        let bytes = encode(&record);
        assert_eq!(decode(5, &bytes).unwrap(), record);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(5, &damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(5, &bytes[..length]).is_err(), "length {length}");
        }
        assert!(decode(6, &bytes).is_err(), "in another's place");
        assert_eq!(guess_key(&bytes), Some(Key::from("key")));
    }

    #[test]
    fn a_length_alone_allocates_nothing() {
        for kind in [STRING, BYTES, LIST, MAP] {
            let mut bytes = vec![kind];
            bytes.extend(u32::MAX.to_le_bytes());
            assert_eq!(Input(&bytes).value(1), Err(SHORT));
        }
    }

    #[test]
    fn the_state_is_checked_too() {
        let state = State {
            revision: 1,
            last_place: 2,
            count: 3,
            digest: 4,
        };
        let bytes = encode_state(&state);
        assert_eq!(decode_state(&bytes), Ok(state));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_state(&damaged).is_err(), "bit {bit}");
        }
    }
}
