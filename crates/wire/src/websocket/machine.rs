//! Bytes in, messages out.

use super::close::Code;
use super::deflate::{Agreed, Inflater};
use super::frame::{CONTROL_MAX, Header, Opcode};

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Payload of one frame of a message.
    pub fragment: u64,
    /// A message, of all its fragments, and as it is when it is no longer compressed.
    pub message: u64,
}

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message in full.
    Message {
        /// Whether it is text, which is UTF-8 then.
        is_text: bool,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// A ping, which wants a pong with the same payload.
    Ping(Vec<u8>),
    /// The end. The answer is a close frame with this code, or one without where there is none, and
    /// nothing that comes later counts.
    Close(Option<Code>),
}

/// What a peer did wrong. The connection ends with [`Fault::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A reserved bit is set that no extension that was agreed on has given a meaning.
    #[error("a reserved bit is set")]
    Reserved,
    /// There is no such opcode.
    #[error("unknown opcode")]
    Opcode,
    /// A control frame is not its message's last.
    #[error("a control frame must not be fragmented")]
    ControlFragmented,
    /// A control frame is longer than 125 bytes.
    #[error("a control frame may have 125 bytes")]
    ControlTooLong,
    /// A length is not in its shortest form, or beyond 63 bits.
    #[error("malformed length")]
    Length,
    /// A client's frame is not masked.
    #[error("a client must mask its frames")]
    Unmasked,
    /// A message begins within another.
    #[error("expected a continuation")]
    Interrupted,
    /// A fragment of no message.
    #[error("unexpected continuation")]
    Unbegun,
    /// A text is no UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// A frame is larger than allowed.
    #[error("the frame is too large")]
    FragmentTooLarge,
    /// A message is larger than allowed.
    #[error("the message is too large")]
    MessageTooLarge,
    /// What a compressed message has in it was not compressed as RFC 1951 has it.
    #[error("malformed compression")]
    Deflate,
    /// What was compressed has grown beyond all proportion.
    #[error("the messages grow too much")]
    Bomb,
    /// A close frame of one byte, or with a code that must not be sent.
    #[error("malformed close")]
    Close,
}

/// The server's end of a connection after the opening handshake.
///
/// It holds one message, and no more of it than has come. Text is checked as it comes, so that a fault
/// is told before the message is complete.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    /// The begin of a header that is not complete.
    head: Vec<u8>,
    /// The frame whose payload comes, and how much of it has come.
    frame: Option<(Header, u64)>,
    /// The message whose fragments come.
    message: Option<Message>,
    /// The payload of the control frame that comes.
    control: Vec<u8>,
    /// Where compression was agreed on.
    inflater: Option<Inflater>,
    closed: bool,
}

#[derive(Debug)]
struct Message {
    is_text: bool,
    is_compressed: bool,
    /// Bytes of it that have come, as they came.
    come: u64,
    payload: Vec<u8>,
    /// How much of it has been found to be UTF-8.
    checked: usize,
}

impl Machine {
    /// A machine for a connection on which nothing has come yet, and no extension was agreed on.
    pub fn new(limits: Limits) -> Self {
        Self::with(limits, None)
    }

    /// The same, where compression may have been agreed on.
    pub fn with(limits: Limits, agreed: Option<&Agreed>) -> Self {
        Self {
            limits,
            head: Vec::new(),
            frame: None,
            message: None,
            control: Vec::new(),
            inflater: agreed.map(Inflater::new),
            closed: false,
        }
    }

    /// Takes bytes off the front of `input` up to the next event; `None` when all have been taken.
    /// Behind a close, everything is taken and nothing comes of it.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Fault> {
        if self.closed {
            *input = &[];
        }
        loop {
            let (header, come) = match self.frame {
                Some(frame) => frame,
                None => match self.header(input)? {
                    Some(header) => (header, 0),
                    None => return Ok(None),
                },
            };
            let left = header.length - come;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let (payload, rest) = input.split_at(length);
            *input = rest;
            self.take(header, come, payload)?;
            let come = come + length as u64;
            if come < header.length {
                self.frame = Some((header, come));
                return Ok(None);
            }
            self.frame = None;
            if let Some(event) = self.complete(header)? {
                return Ok(Some(event));
            }
        }
    }

    /// The next frame's header, checked against what may come now.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Fault> {
        let (header, length) = loop {
            if let Some(found) = Header::parse(&self.head)? {
                break found;
            }
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(None);
            };
            // A header has 14 bytes at the most.
            self.head.push(byte);
            *input = rest;
        };
        debug_assert_eq!(length, self.head.len());
        self.head.clear();
        if header.mask.is_none() {
            return Err(Fault::Unmasked);
        }
        let begins = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.is_compressed && !(begins && self.inflater.is_some()) {
            return Err(Fault::Reserved);
        }
        match (header.opcode, &self.message) {
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Fault::Interrupted),
            (Opcode::Continuation, None) => return Err(Fault::Unbegun),
            _ => {}
        }
        if !header.opcode.is_control() {
            let before = self.message.as_ref().map_or(0, |message| message.come);
            if header.length > self.limits.fragment {
                return Err(Fault::FragmentTooLarge);
            }
            if header.length > self.limits.message.saturating_sub(before) {
                return Err(Fault::MessageTooLarge);
            }
        }
        if begins {
            self.message = Some(Message {
                is_text: header.opcode == Opcode::Text,
                is_compressed: header.is_compressed,
                come: 0,
                payload: Vec::new(),
                checked: 0,
            });
        }
        Ok(Some(header))
    }

    /// Takes a piece of a frame's payload, which begins at `come`.
    fn take(&mut self, header: Header, come: u64, payload: &[u8]) -> Result<(), Fault> {
        let mask = header.mask.unwrap_or_default();
        let append = |into: &mut Vec<u8>| {
            let start = into.len();
            into.extend_from_slice(payload);
            unmask(&mut into[start..], mask, come);
        };
        let Some(message) = self
            .message
            .as_mut()
            .filter(|_| !header.opcode.is_control())
        else {
            append(&mut self.control);
            debug_assert!(self.control.len() <= CONTROL_MAX);
            return Ok(());
        };
        message.come += payload.len() as u64;
        match self.inflater.as_mut().filter(|_| message.is_compressed) {
            Some(inflater) => {
                let mut coded = Vec::new();
                append(&mut coded);
                inflater.take(&coded, &mut message.payload, self.limits.message)?;
            }
            None => append(&mut message.payload),
        }
        message.check()
    }

    /// A frame has come in full.
    fn complete(&mut self, header: Header) -> Result<Option<Event>, Fault> {
        match header.opcode {
            Opcode::Pong => {
                self.control.clear();
                Ok(None)
            }
            Opcode::Ping => Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            Opcode::Close => {
                self.closed = true;
                close_code(&std::mem::take(&mut self.control)).map(|code| Some(Event::Close(code)))
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !header.is_last => Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let Some(mut message) = self.message.take() else {
                    return Ok(None);
                };
                if let Some(inflater) = self.inflater.as_mut().filter(|_| message.is_compressed) {
                    inflater.end(&mut message.payload, self.limits.message)?;
                    message.check()?;
                }
                if message.is_text && message.checked < message.payload.len() {
                    return Err(Fault::Utf8);
                }
                Ok(Some(Event::Message {
                    is_text: message.is_text,
                    payload: message.payload,
                }))
            }
        }
    }
}

impl Message {
    /// Checks what has come of a text; a character that is not complete waits.
    fn check(&mut self) -> Result<(), Fault> {
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Fault::Utf8),
        }
        Ok(())
    }
}

impl Fault {
    /// The code that the connection ends with.
    pub fn code(self) -> Code {
        match self {
            Self::Utf8 | Self::Deflate => Code::INVALID,
            Self::FragmentTooLarge | Self::MessageTooLarge | Self::Bomb => Code::TOO_LARGE,
            _ => Code::PROTOCOL,
        }
    }
}

fn close_code(payload: &[u8]) -> Result<Option<Code>, Fault> {
    match payload {
        [] => Ok(None),
        [_] => Err(Fault::Close),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| Fault::Utf8)?;
            let code = Code::received(u16::from_be_bytes([*high, *low]));
            code.map(Some).ok_or(Fault::Close)
        }
    }
}

/// Masks or unmasks bytes that begin so far into their payload.
fn unmask(bytes: &mut [u8], mask: [u8; 4], come: u64) {
    let mut mask = mask;
    // Less than four.
    mask.rotate_left((come % 4) as usize);
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::write;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        fragment: 1000,
        message: 1500,
    };

    /// A frame as a client sends it.
    fn client(is_last: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, is_last, opcode, payload);
        let at = out.len() - payload.len();
        out[1] |= 0x80;
        let mask = [1, 2, 3, 0xff];
        unmask(&mut out[at..], mask, 0);
        out.splice(at..at, mask);
        out
    }

    fn run(bytes: &[u8], step: usize) -> (Vec<Event>, Option<Fault>) {
        let mut machine = Machine::new(LIMITS);
        let mut events = Vec::new();
        for piece in bytes.chunks(step) {
            let mut input = piece;
            loop {
                match machine.receive(&mut input) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(fault) => return (events, Some(fault)),
                }
            }
            assert!(input.is_empty());
        }
        (events, None)
    }

    fn text(payload: &str) -> Event {
        Event::Message {
            is_text: true,
            payload: payload.into(),
        }
    }

    #[test]
    fn fragments_make_a_message_and_control_frames_come_between() {
        let bytes = [
            client(false, Opcode::Text, "h\u{e4}".as_bytes()),
            client(true, Opcode::Ping, b"p"),
            client(false, Opcode::Continuation, b""),
            client(true, Opcode::Pong, b"unasked"),
            client(true, Opcode::Continuation, b"llo"),
            client(true, Opcode::Binary, &[0xff; 300]),
            client(true, Opcode::Close, &[0x03, 0xe8, b'b']),
            client(true, Opcode::Text, b"too late"),
        ]
        .concat();
        let expected = [
            Event::Ping(b"p".to_vec()),
            text("hällo"),
            Event::Message {
                is_text: false,
                payload: vec![0xff; 300],
            },
            Event::Close(Some(Code::NORMAL)),
        ];
        for step in [1, 2, 3, 7, 100, bytes.len()] {
            assert_eq!(run(&bytes, step), (expected.to_vec(), None), "{step}");
        }
    }

    #[test]
    fn what_is_wrong_ends_it_with_its_code() {
        let one = |is_last, opcode, payload: &[u8]| client(is_last, opcode, payload);
        let begun = one(false, Opcode::Text, b"a");
        for (bytes, fault, code) in [
            (vec![0x81, 0x01, b'a'], Fault::Unmasked, 1002),
            (vec![0xc1, 0x80, 1, 2, 3, 4], Fault::Reserved, 1002),
            (one(true, Opcode::Continuation, b""), Fault::Unbegun, 1002),
            (
                [begun.clone(), one(true, Opcode::Text, b"")].concat(),
                Fault::Interrupted,
                1002,
            ),
            (
                one(true, Opcode::Binary, &[0; 1001]),
                Fault::FragmentTooLarge,
                1009,
            ),
            (
                [
                    one(false, Opcode::Binary, &[0; 900]),
                    one(false, Opcode::Continuation, &[0; 601]),
                ]
                .concat(),
                Fault::MessageTooLarge,
                1009,
            ),
            (one(true, Opcode::Text, b"\xff"), Fault::Utf8, 1007),
            (one(true, Opcode::Text, b"\xe2\x82"), Fault::Utf8, 1007),
            // Beyond U+10FFFF; the frame and its message are not complete yet.
            (one(false, Opcode::Text, b"\xf4\x90"), Fault::Utf8, 1007),
            (one(true, Opcode::Close, b"x"), Fault::Close, 1002),
            (
                one(true, Opcode::Close, &1005_u16.to_be_bytes()),
                Fault::Close,
                1002,
            ),
            (
                one(true, Opcode::Close, &[0x03, 0xe8, 0xff]),
                Fault::Utf8,
                1007,
            ),
        ] {
            for step in [1, bytes.len()] {
                assert_eq!(run(&bytes, step).1, Some(fault));
            }
            assert_eq!(fault.code().number(), code);
        }
    }

    #[test]
    fn a_length_that_is_only_announced_takes_no_memory() {
        let mut machine = Machine::new(Limits {
            fragment: u64::MAX,
            message: u64::MAX,
        });
        let mut input = &[
            0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5,
        ][..];
        assert_eq!(machine.receive(&mut input), Ok(None));
        assert!(
            machine
                .message
                .is_some_and(|message| message.payload.capacity() < 64)
        );
    }

    #[test]
    fn codes_that_nobody_may_send_are_refused() {
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert_eq!(Code::received(code), None, "{code}");
        }
        for code in [1000, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert_eq!(Code::received(code).map(Code::number), Some(code));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_cut(bytes: Vec<u8>, step in 1_usize..20) {
            prop_assert_eq!(run(&bytes, step), run(&bytes, bytes.len().max(1)));
        }

        #[test]
        fn any_text_comes_through_in_any_fragments(payload in ".{0,100}", cut in 1_usize..10) {
            let pieces: Vec<_> = payload.as_bytes().chunks(cut).collect();
            let mut bytes = client(pieces.is_empty(), Opcode::Text, b"");
            for (at, piece) in pieces.iter().enumerate() {
                bytes.extend(client(at + 1 == pieces.len(), Opcode::Continuation, piece));
            }
            prop_assert_eq!(run(&bytes, 5), (vec![text(&payload)], None));
        }
    }
}
