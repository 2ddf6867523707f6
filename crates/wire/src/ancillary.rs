//! Control messages beside the bytes of a Unix socket, as Linux lays them out (cmsg(3)).
//!
//! | field | type |
//! |---|---|
//! | length, these three fields included | `size_t` of this machine |
//! | level | `int` |
//! | kind | `int` |
//! | data, filled up to a whole number of `size_t` | |
//!
//! The kernel writes them and is believed in nothing that could be checked. Levels and kinds are
//! numbers of the caller's: they differ between architectures.

/// Walks through the control messages in a buffer. The walk ends at the first that is cut off or
/// malformed, and [`Messages::is_complete`] tells whether that has happened.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    complete: bool,
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The protocol, such as `SOL_SOCKET`.
    pub level: i32,
    /// What it is, such as `SCM_RIGHTS`.
    pub kind: i32,
    /// Its data.
    pub data: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `control`, which is as long as the kernel said.
    pub fn new(control: &'a [u8]) -> Self {
        Self {
            rest: control,
            complete: true,
        }
    }

    /// Whether everything so far was well-formed.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    fn step(&mut self) -> Option<Message<'a>> {
        let (length, rest) = self.rest.split_first_chunk::<WORD>()?;
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::from_ne_bytes(*length).checked_sub(HEADER_LEN)?;
        let data = rest.get(..length)?;
        // The last one need not be filled up.
        self.rest = rest.get(filled(length)..).unwrap_or_default();
        Some(Message {
            level: i32::from_ne_bytes(*level),
            kind: i32::from_ne_bytes(*kind),
            data,
        })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.step();
        if message.is_none() {
            self.complete = false;
            self.rest = &[];
        }
        message
    }
}

impl<'a> Message<'a> {
    /// The data as descriptor numbers; bytes behind the last whole one are left out.
    pub fn numbers(&self) -> impl Iterator<Item = i32> + use<'a> {
        let (numbers, _) = self.data.as_chunks::<4>();
        numbers.iter().map(|number| i32::from_ne_bytes(*number))
    }
}

/// Writes one control message that holds `numbers` to the front of `buffer` and returns how many
/// bytes it takes; `None` when they do not fit.
pub fn write(buffer: &mut [u8], level: i32, kind: i32, numbers: &[i32]) -> Option<usize> {
    let space = space(numbers.len());
    let buffer = buffer.get_mut(..space)?;
    let length = HEADER_LEN + size_of_val(numbers);
    let (head, data) = buffer.split_at_mut(HEADER_LEN);
    head[..WORD].copy_from_slice(&length.to_ne_bytes());
    head[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    head[WORD + 4..].copy_from_slice(&kind.to_ne_bytes());
    data.fill(0);
    for (place, number) in data.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *place = number.to_ne_bytes();
    }
    Some(space)
}

/// How many bytes a control message of so many descriptor numbers takes (`CMSG_SPACE`).
pub const fn space(numbers: usize) -> usize {
    HEADER_LEN + filled(numbers * size_of::<i32>())
}

/// A length filled up to a whole number of `size_t`.
const fn filled(length: usize) -> usize {
    length.saturating_add(WORD - 1) / WORD * WORD
}

const WORD: usize = size_of::<usize>();
const HEADER_LEN: usize = WORD + 2 * size_of::<i32>();

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHTS: i32 = 1;

    fn written(numbers: &[i32]) -> Vec<u8> {
        let mut buffer = vec![0xff; space(numbers.len())];
        assert_eq!(write(&mut buffer, 1, RIGHTS, numbers), Some(buffer.len()));
        buffer
    }

    #[test]
    fn a_length_that_lies_ends_the_walk() {
        let good = written(&[3]);
        for lie in [0, HEADER_LEN - 1, good.len() + 1, usize::MAX] {
            let mut bytes = good.clone();
            bytes[..WORD].copy_from_slice(&lie.to_ne_bytes());
            let mut messages = Messages::new(&bytes);
            assert_eq!(messages.next(), None);
            assert!(!messages.is_complete(), "{lie}");
        }
        for short in 1..HEADER_LEN {
            let mut messages = Messages::new(&good[..short]);
            assert_eq!(messages.next(), None);
            assert!(!messages.is_complete());
        }
        assert!(Messages::new(&[]).is_complete());
    }

    #[test]
    fn several_messages_are_walked_through() {
        let mut bytes = written(&[3, 4, 5]);
        bytes.extend(written(&[]));
        bytes.extend(written(&[-1]));
        let mut messages = Messages::new(&bytes);
        let numbers: Vec<Vec<i32>> = messages.by_ref().map(|m| m.numbers().collect()).collect();
        assert_eq!(numbers, [vec![3, 4, 5], vec![], vec![-1]]);
        assert!(messages.is_complete());
    }

    #[test]
    fn the_last_message_need_not_be_filled_up() {
        let bytes = written(&[7]);
        let unfilled = HEADER_LEN + 4;
        let messages: Vec<_> = Messages::new(&bytes[..unfilled]).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].numbers().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let mut buffer = [0; space(2)];
        assert_eq!(write(&mut buffer, 1, RIGHTS, &[1, 2, 3, 4]), None);
        assert_eq!(write(&mut buffer, 1, RIGHTS, &[1, 2]), Some(space(2)));
    }
}
