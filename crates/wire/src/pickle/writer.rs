//! From values to pickles.

use super::PickleError;
use super::opcode as op;
use crate::value::Value;

/// A protocol to write in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// 2, which every Python since 2.3 reads.
    Two,
    /// 4, which every Python since 3.4 reads: shorter, and quicker to read where there are bytes.
    Four,
}

/// Appends a pickle that every Python which knows the protocol reads: text as `unicode` and bytes
/// as `str` in Python 2, lists as lists, and as tuples where they are keys.
///
/// A date-time and a map as a key have none. After an error `out` is as it was.
pub fn encode(value: &Value, protocol: Protocol, out: &mut Vec<u8>) -> Result<(), PickleError> {
    pickle(protocol, out, |writer| writer.value(value, false))
}

/// A whole pickle around what `write` writes.
pub(super) fn pickle(
    protocol: Protocol,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), PickleError>,
) -> Result<(), PickleError> {
    let start = out.len();
    let version = match protocol {
        Protocol::Two => 2,
        Protocol::Four => 4,
    };
    out.extend([op::PROTO, version]);
    let written = write(&mut Writer { protocol, out });
    written.inspect_err(|_| out.truncate(start))?;
    out.push(op::STOP);
    Ok(())
}

pub(super) struct Writer<'a> {
    pub protocol: Protocol,
    pub out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, key: bool) -> Result<(), PickleError> {
        match value {
            Value::Nil => self.out.push(op::NONE),
            Value::Bool(true) => self.out.push(op::NEWTRUE),
            Value::Bool(false) => self.out.push(op::NEWFALSE),
            Value::Int(int) => self.int(*int),
            Value::Double(double) => {
                self.out.push(op::BINFLOAT);
                self.out.extend(double.to_be_bytes());
            }
            Value::String(text) => self.text(text),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::DateTime(_) => return Err(PickleError::NoForm("date-time")),
            Value::List(items) if key => self.tuple(items, key)?,
            Value::List(items) => {
                self.out.push(op::EMPTY_LIST);
                if !items.is_empty() {
                    self.out.push(op::MARK);
                    items.iter().try_for_each(|item| self.value(item, key))?;
                    self.out.push(op::APPENDS);
                }
            }
            Value::Map(_) if key => return Err(PickleError::Key("map")),
            Value::Map(pairs) => {
                self.out.push(op::EMPTY_DICT);
                if !pairs.is_empty() {
                    self.out.push(op::MARK);
                    for (key, value) in pairs {
                        self.value(key, true)?;
                        self.value(value, false)?;
                    }
                    self.out.push(op::SETITEMS);
                }
            }
        }
        Ok(())
    }

    pub fn tuple(&mut self, items: &[Value], key: bool) -> Result<(), PickleError> {
        if items.len() > 3 {
            self.out.push(op::MARK);
        }
        items.iter().try_for_each(|item| self.value(item, key))?;
        self.out.push(match items.len() {
            0 => op::EMPTY_TUPLE,
            1 => op::TUPLE1,
            2 => op::TUPLE2,
            3 => op::TUPLE3,
            _ => op::TUPLE,
        });
        Ok(())
    }

    fn int(&mut self, int: i64) {
        if let Ok(byte) = u8::try_from(int) {
            self.out.extend([op::BININT1, byte]);
        } else if let Ok(short) = u16::try_from(int) {
            self.out.push(op::BININT2);
            self.out.extend(short.to_le_bytes());
        } else if let Ok(int) = i32::try_from(int) {
            self.out.push(op::BININT);
            self.out.extend(int.to_le_bytes());
        } else if self.protocol == Protocol::Two {
            // As Python 2 writes it, which would read the other spelling as a `long`.
            self.out.push(op::INT);
            self.out.extend(int.to_string().as_bytes());
            self.out.push(b'\n');
        } else {
            self.out.extend([op::LONG1, 8]);
            self.out.extend(int.to_le_bytes());
        }
    }

    pub fn text(&mut self, text: &str) {
        let codes = match self.protocol {
            Protocol::Two => [op::BINUNICODE; 2],
            Protocol::Four => [op::SHORT_BINUNICODE, op::BINUNICODE],
        };
        self.counted(codes, op::BINUNICODE8, text.as_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        match self.protocol {
            Protocol::Four => {
                let codes = [op::SHORT_BINBYTES, op::BINBYTES];
                self.counted(codes, op::BINBYTES8, bytes);
            }
            // What Python 3 writes, since only so both read the same bytes.
            Protocol::Two => {
                self.out.extend(b"c_codecs\nencode\n");
                let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
                self.text(&text);
                self.text("latin1");
                self.out.extend([op::TUPLE2, op::REDUCE]);
            }
        }
    }

    /// Bytes behind their count, which has one byte, four or eight.
    fn counted(&mut self, [short, medium]: [u8; 2], long: u8, bytes: &[u8]) {
        let len = bytes.len();
        match (u8::try_from(len), u32::try_from(len)) {
            (Ok(len), _) if short != medium => self.out.extend([short, len]),
            (_, Ok(len)) => {
                self.out.push(medium);
                self.out.extend(len.to_le_bytes());
            }
            _ => {
                self.out.push(long);
                self.out.extend((len as u64).to_le_bytes());
            }
        }
        self.out.extend_from_slice(bytes);
    }
}
