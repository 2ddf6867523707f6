//! What stands behind the instructions of a pickle.

use super::PickleError;
use super::opcode as op;
use super::text;

/// A place in a pickle.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pickle: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub fn new(pickle: &'a [u8]) -> Self {
        Self { pickle, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// The length of the whole pickle.
    pub fn len(&self) -> usize {
        self.pickle.len()
    }

    pub fn byte(&mut self) -> Result<u8, PickleError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let array = self.pickle[self.at..].first_chunk();
        let array = *array.ok_or(PickleError::Truncated)?;
        self.at += N;
        Ok(array)
    }

    /// Up to the end of the line, which is passed.
    pub fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = &self.pickle[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n');
        let line = &rest[..len.ok_or(PickleError::Truncated)?];
        self.at += line.len() + 1;
        Ok(line)
    }

    /// Bytes behind their count.
    pub fn counted(&mut self, opcode: u8) -> Result<&'a [u8], PickleError> {
        let len = match opcode {
            op::LONG1 | op::SHORT_BINUNICODE | op::SHORT_BINSTRING | op::SHORT_BINBYTES => {
                self.byte()?.into()
            }
            op::LONG4 | op::BINUNICODE | op::BINSTRING | op::BINBYTES => {
                u32::from_le_bytes(self.array()?).into()
            }
            _ => u64::from_le_bytes(self.array()?),
        };
        let len = usize::try_from(len).ok();
        let bytes = len.and_then(|len| self.pickle[self.at..].get(..len));
        let bytes = bytes.ok_or(PickleError::Truncated)?;
        self.at += bytes.len();
        Ok(bytes)
    }

    /// There must be so many bytes to come.
    pub fn promised(&self, len: u64) -> Result<(), PickleError> {
        if len > (self.pickle.len() - self.at) as u64 {
            return Err(PickleError::Truncated);
        }
        Ok(())
    }

    /// A whole number in any spelling but the line that may be a boolean.
    pub fn int(&mut self, opcode: u8) -> Result<i64, PickleError> {
        match opcode {
            op::BININT => Ok(i32::from_le_bytes(self.array()?).into()),
            op::BININT1 => Ok(self.byte()?.into()),
            op::BININT2 => Ok(u16::from_le_bytes(self.array()?).into()),
            op::LONG => {
                let line = self.line()?;
                self.decimal(line.strip_suffix(b"L").unwrap_or(line))
            }
            _ => {
                let bytes = self.counted(opcode)?;
                let range = PickleError::IntRange { at: self.at };
                twos_complement(bytes).ok_or(range)
            }
        }
    }

    /// A number in digits, in the line that has just been passed.
    pub fn decimal(&self, line: &[u8]) -> Result<i64, PickleError> {
        let digits = line.strip_prefix(b"-").unwrap_or(line);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(self.damaged("a number has digits"));
        }
        let parsed = str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        parsed.ok_or(PickleError::IntRange { at: self.at })
    }

    pub fn float(&mut self, opcode: u8) -> Result<f64, PickleError> {
        if opcode == op::BINFLOAT {
            return Ok(f64::from_be_bytes(self.array()?));
        }
        let line = str::from_utf8(self.line()?).ok();
        let float = line.and_then(|line| line.parse().ok());
        float.ok_or_else(|| self.damaged("a float is a decimal number"))
    }

    /// A line of text.
    pub fn unicode(&mut self) -> Result<String, PickleError> {
        let text = text::unescape_unicode(self.line()?);
        text.ok_or(PickleError::NotText { at: self.at })
    }

    /// A line of bytes in quotes.
    pub fn quoted(&mut self) -> Result<Vec<u8>, PickleError> {
        let bytes = text::unquote(self.line()?);
        bytes.ok_or_else(|| self.damaged("a string is quoted"))
    }

    /// A place in the memo.
    pub fn index(&mut self, opcode: u8) -> Result<usize, PickleError> {
        match opcode {
            op::BINPUT | op::BINGET => Ok(self.byte()?.into()),
            op::LONG_BINPUT | op::LONG_BINGET => Ok(u32::from_le_bytes(self.array()?) as usize),
            _ => {
                let line = self.line()?;
                let index = usize::try_from(self.decimal(line)?);
                index.map_err(|_| self.damaged("the memo has no negative places"))
            }
        }
    }

    /// A name, and the module before it.
    pub fn global(&mut self) -> Result<Option<[&'a str; 2]>, PickleError> {
        let (module, name) = (self.line()?, self.line()?);
        Ok(match (str::from_utf8(module), str::from_utf8(name)) {
            (Ok(module), Ok(name)) => Some([module, name]),
            _ => None,
        })
    }

    pub fn damaged(&self, why: &'static str) -> PickleError {
        PickleError::Damaged { at: self.at, why }
    }
}

/// A number of any length in two's complement, the lowest byte first, if 64 bits can say it.
fn twos_complement(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let sign = if negative { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    let mut int = [sign; 8];
    int[..low.len()].copy_from_slice(low);
    let int = i64::from_le_bytes(int);
    // What is above 64 bits must say no more than the sign does.
    let fits = high.iter().all(|&byte| byte == sign) && (int < 0) == negative;
    fits.then_some(int)
}
