//! The machine that a pickle is a program for.
//!
//! It makes objects that refer to each other by number, as the program may put one into many places,
//! and fill it later. What comes of them is decided in [`super::build`].

use super::input::Input;
use super::opcode as op;
use super::{PickleError, text};
use std::borrow::Cow;

/// Runs a pickle, for objects of no more than `max` bytes. Returns them, and the number of the one
/// that it is about.
pub(super) fn run(pickle: &[u8], max: usize) -> Result<(Vec<Object<'_>>, Number), PickleError> {
    let mut machine = Machine {
        input: Input::new(pickle),
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        memorised: 0,
        left: max,
        max,
    };
    loop {
        let opcode = machine.input.byte()?;
        if opcode == op::STOP {
            break;
        }
        machine.step(opcode)?;
    }
    let root = machine.pop()?;
    if !machine.stack.is_empty() || !machine.marks.is_empty() {
        return Err(machine.input.damaged("it ends with more than one object"));
    }
    let at = machine.input.at();
    if at < pickle.len() {
        return Err(PickleError::Trailing { at });
    }
    Ok((machine.objects, root))
}

/// Where an object is among its like.
pub(super) type Number = u32;

#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Tuple(Vec<Number>),
    List(Vec<Number>),
    Dict(Vec<(Number, Number)>),
    Name(Name),
}

/// What a pickle may name, as a part of how bytes are spelt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// `_codecs.encode`
    Encode,
    Bytes,
    Bytearray,
}

impl Name {
    fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("_codecs", "encode") => Some(Self::Encode),
            ("__builtin__" | "builtins", "bytes") => Some(Self::Bytes),
            ("__builtin__" | "builtins", "bytearray") => Some(Self::Bytearray),
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: Input<'a>,
    objects: Vec<Object<'a>>,
    stack: Vec<Number>,
    /// How high the stack was at each open mark.
    marks: Vec<usize>,
    memo: Vec<Option<Number>>,
    memorised: usize,
    left: usize,
    max: usize,
}

impl<'a> Machine<'a> {
    /// Runs one instruction.
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            op::PROTO => self.protocol(),
            // Frames are for those who read from a file; here all of the pickle is at hand.
            op::FRAME => {
                let len = u64::from_le_bytes(self.input.array()?);
                self.input.promised(len)
            }

            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP if self.above(1).is_err() => self.since_mark().map(|_| ()),
            op::POP => self.pop().map(|_| ()),
            op::POP_MARK => self.since_mark().map(|_| ()),
            op::DUP => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            op::MEMOIZE => self.memorise(self.memorised),
            op::PUT | op::BINPUT | op::LONG_BINPUT => {
                let index = self.input.index(opcode)?;
                self.memorise(index)
            }
            op::GET | op::BINGET | op::LONG_BINGET => {
                let index = self.input.index(opcode)?;
                self.recall(index)
            }

            op::APPEND => {
                let item = self.pop()?;
                self.append(&[item])
            }
            op::APPENDS => {
                let items = self.since_mark()?;
                self.append(&items)
            }
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            op::SETITEMS => {
                let items = self.since_mark()?;
                self.set(&items)
            }
            op::DICT => {
                let items = self.since_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.set(&items)
            }
            _ => {
                let object = self.object(opcode)?;
                self.push(object)
            }
        }
    }

    /// Makes an object, of what is in the pickle or on the stack.
    fn object(&mut self, opcode: u8) -> Result<Object<'a>, PickleError> {
        Ok(match opcode {
            op::NONE => Object::None,
            op::NEWTRUE => Object::Bool(true),
            op::NEWFALSE => Object::Bool(false),
            op::INT => match self.input.line()? {
                b"00" => Object::Bool(false),
                b"01" => Object::Bool(true),
                line => Object::Int(self.input.decimal(line)?),
            },
            op::LONG | op::BININT | op::BININT1 | op::BININT2 | op::LONG1 | op::LONG4 => {
                Object::Int(self.input.int(opcode)?)
            }
            op::FLOAT | op::BINFLOAT => Object::Float(self.input.float(opcode)?),
            op::UNICODE => Object::Text(self.input.unicode()?.into()),
            op::SHORT_BINUNICODE | op::BINUNICODE | op::BINUNICODE8 => {
                let bytes = self.input.counted(opcode)?;
                let at = self.input.at();
                let text = str::from_utf8(bytes).map_err(|_| PickleError::NotText { at })?;
                Object::Text(text.into())
            }
            // A `str` of Python 2 is text or bytes; it does not know which.
            op::STRING => match String::from_utf8(self.input.quoted()?) {
                Ok(text) => Object::Text(text.into()),
                Err(error) => Object::Bytes(error.into_bytes().into()),
            },
            op::SHORT_BINSTRING | op::BINSTRING => {
                let bytes = self.input.counted(opcode)?;
                str::from_utf8(bytes).map_or(Object::Bytes(bytes.into()), |text| {
                    Object::Text(text.into())
                })
            }
            op::SHORT_BINBYTES | op::BINBYTES | op::BINBYTES8 | op::BYTEARRAY8 => {
                Object::Bytes(self.input.counted(opcode)?.into())
            }

            op::EMPTY_TUPLE => Object::Tuple(Vec::new()),
            op::TUPLE1 => Object::Tuple(self.last(1)?),
            op::TUPLE2 => Object::Tuple(self.last(2)?),
            op::TUPLE3 => Object::Tuple(self.last(3)?),
            op::TUPLE => Object::Tuple(self.since_mark()?),
            op::EMPTY_LIST => Object::List(Vec::new()),
            op::LIST => Object::List(self.since_mark()?),
            op::EMPTY_DICT => Object::Dict(Vec::new()),

            op::GLOBAL => {
                let name = self.input.global()?;
                let name = name.and_then(|[module, name]| Name::of(module, name));
                Object::Name(name.ok_or(PickleError::Forbidden("GLOBAL"))?)
            }
            op::STACK_GLOBAL => {
                let names = self.last(2)?;
                let name = match self.objects(&names)[..] {
                    [Object::Text(module), Object::Text(name)] => Name::of(module, name),
                    _ => None,
                };
                Object::Name(name.ok_or(PickleError::Forbidden("STACK_GLOBAL"))?)
            }
            op::REDUCE => {
                let call = self.last(2)?;
                let bytes = self.bytes_from(&call);
                Object::Bytes(bytes.ok_or(PickleError::Forbidden("REDUCE"))?)
            }
            op::EMPTY_SET | op::ADDITEMS => return Err(PickleError::NoForm("set")),
            op::FROZENSET => return Err(PickleError::NoForm("frozenset")),
            opcode => {
                let at = self.input.at() - 1;
                let unknown = PickleError::Unknown { opcode, at };
                return Err(op::forbidden(opcode).map_or(unknown, PickleError::Forbidden));
            }
        })
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        let first = self.input.at() == 1;
        let version = self.input.byte()?;
        if version > op::LATEST {
            return Err(PickleError::Protocol { version });
        }
        if first {
            return Ok(());
        }
        Err(self.input.damaged("the protocol stands at the front"))
    }

    /// What a call comes to, if it is one of the few that are no more than a spelling of bytes.
    fn bytes_from(&self, call: &[Number]) -> Option<Cow<'a, [u8]>> {
        let [Object::Name(name), Object::Tuple(arguments)] = self.objects(call)[..] else {
            return None;
        };
        match (name, &self.objects(arguments)[..]) {
            (Name::Bytes | Name::Bytearray, []) => Some(Cow::default()),
            (Name::Bytearray, [Object::Bytes(bytes)]) => Some(bytes.clone()),
            (Name::Encode | Name::Bytearray, [Object::Text(text), Object::Text(encoding)])
                if matches!(&**encoding, "latin1" | "latin-1") =>
            {
                text::latin1(text).map(Into::into)
            }
            _ => None,
        }
    }

    fn append(&mut self, items: &[Number]) -> Result<(), PickleError> {
        let list = self.top()?;
        if let Object::List(list) = &mut self.objects[list as usize] {
            list.extend_from_slice(items);
            return Ok(());
        }
        Err(self.input.damaged("only a list can be appended to"))
    }

    fn set(&mut self, items: &[Number]) -> Result<(), PickleError> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks() else {
            return Err(self.input.damaged("a key has a value"));
        };
        if let Object::Dict(dict) = &mut self.objects[dict as usize] {
            dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            return Ok(());
        }
        Err(self.input.damaged("only a dict has keys"))
    }

    fn memorise(&mut self, index: usize) -> Result<(), PickleError> {
        let top = self.top()?;
        // Python counts from 0 or 1 on, so there are never more places than bytes.
        if index > self.input.len() {
            return Err(self.input.damaged("the memo has gaps"));
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        if self.memo[index].replace(top).is_none() {
            self.memorised += 1;
        }
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), PickleError> {
        let Some(&Some(number)) = self.memo.get(index) else {
            return Err(self.input.damaged("the memo has nothing there"));
        };
        self.stack.push(number);
        Ok(())
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), PickleError> {
        let owned = match &object {
            Object::Text(Cow::Owned(text)) => text.len(),
            Object::Bytes(Cow::Owned(bytes)) => bytes.len(),
            _ => 0,
        };
        let too_much = PickleError::Size { max: self.max };
        let left = self.left.checked_sub(size_of::<Object<'_>>() + owned);
        self.left = left.ok_or(too_much)?;
        let number = Number::try_from(self.objects.len());
        self.stack.push(number.map_err(|_| too_much)?);
        self.objects.push(object);
        Ok(())
    }

    fn top(&self) -> Result<Number, PickleError> {
        self.above(1)?;
        Ok(self.stack[self.stack.len() - 1])
    }

    fn pop(&mut self) -> Result<Number, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn last(&mut self, count: usize) -> Result<Vec<Number>, PickleError> {
        self.above(count)?;
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    /// There must be so many objects above the last mark.
    fn above(&self, wanted: usize) -> Result<(), PickleError> {
        let mark = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() - mark < wanted {
            return Err(self.input.damaged("an object is missing"));
        }
        Ok(())
    }

    fn since_mark(&mut self) -> Result<Vec<Number>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.input.damaged("a mark is missing")),
        }
    }

    fn objects(&self, numbers: &[Number]) -> Vec<&Object<'a>> {
        let objects = numbers.iter().map(|&number| &self.objects[number as usize]);
        objects.collect()
    }
}
