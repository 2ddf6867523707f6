//! Base64 as Python's `base64` module writes and reads it (RFC 2045).

use super::XmlError;

/// Appends `bytes` in lines of 76 characters, each with its end.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    for line in bytes.chunks(57) {
        for group in line.chunks(3) {
            let at = |i: usize| group.get(i).copied().unwrap_or(0);
            let bits = u32::from_be_bytes([0, at(0), at(1), at(2)]);
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
                out.push(if i <= group.len() { digit } else { b'=' });
            }
        }
        out.push(b'\n');
    }
}

/// Reads until the padding. What is no digit is skipped, as `binascii.a2b_base64` does.
pub(super) fn read(text: &str) -> Result<Vec<u8>, XmlError> {
    if !text.is_ascii() {
        return Err(not_ascii(text));
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    // What is left of the last digit has at most six bits.
    let (mut left, mut digits, mut pads) = (0_u8, 0, 0);
    for byte in text.bytes() {
        if byte == b'=' {
            if digits >= 2 {
                pads += 1;
                if digits + pads >= 4 {
                    return Ok(bytes);
                }
            }
            continue;
        }
        let Some(digit) = value(byte) else {
            continue;
        };
        pads = 0;
        match digits {
            0 => {}
            1 => bytes.push(left << 2 | digit >> 4),
            2 => bytes.push(left << 4 | digit >> 2),
            _ => bytes.push(left << 6 | digit),
        }
        left = digit;
        digits = (digits + 1) % 4;
    }
    match digits {
        0 => Ok(bytes),
        1 => Err(XmlError::Base64Length(bytes.len() / 3 * 4 + 1)),
        _ => Err(XmlError::Padding),
    }
}

fn value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

fn not_ascii(text: &str) -> XmlError {
    let at = text.chars().take_while(char::is_ascii).count();
    let mut rest = text.chars().skip(at);
    let first = rest.next().unwrap_or_default();
    let count = 1 + rest.take_while(|c| !c.is_ascii()).count();
    XmlError::NotAscii { first, at, count }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_incomplete_group_is_refused_in_pythons_words() {
        assert_eq!(read("Zg"), Err(XmlError::Padding));
        assert_eq!(read("Zg="), Err(XmlError::Padding));
        assert_eq!(read("Z"), Err(XmlError::Base64Length(1)));
        assert_eq!(read("Zm9vY"), Err(XmlError::Base64Length(5)));
    }

    #[test]
    fn other_characters_are_skipped_and_the_padding_ends_it() {
        assert_eq!(read(" Zm\n9v\t!-_ "), Ok(b"foo".to_vec()));
        assert_eq!(read("Zg==Zm9v"), Ok(b"f".to_vec()));
        assert_eq!(read("=Zm9v"), Ok(b"foo".to_vec()));
        assert_eq!(read("Zm=9v"), Ok(b"foo".to_vec()));
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn characters_beyond_ascii_are_counted() {
        let (first, at) = ('é', 1);
        for (text, count) in [("aéb", 1), ("aéüb", 2)] {
            let refused = XmlError::NotAscii { first, at, count };
            assert_eq!(read(text), Err(refused));
        }
    }

    proptest! {
        #[test]
        fn bytes_survive_in_lines_of_76(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut text = Vec::new();
            write(&bytes, &mut text);
            let text = String::from_utf8(text).unwrap();
            prop_assert!(text.lines().all(|line| line.len() <= 76 && line.len() % 4 == 0));
            prop_assert_eq!(read(&text), Ok(bytes));
        }
    }
}
