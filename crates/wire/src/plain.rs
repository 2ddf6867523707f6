//! Passes bytes that mean nothing, many at a time.

/// How many bytes at the front are neither one of `marks` nor a control character (below a blank)
/// besides those of `controls`.
///
/// It looks at whole blocks as long as nothing is in them. A compiler makes a few wide instructions of
/// one, because there is no branch in it.
#[inline]
pub fn leading<const MARKS: usize, const CONTROLS: usize>(
    bytes: &[u8],
    marks: [u8; MARKS],
    controls: [u8; CONTROLS],
) -> usize {
    let ends = |byte: u8| {
        let among = |set: &[u8]| set.iter().fold(0, |any, one| any | u8::from(byte == *one));
        among(&marks) | (u8::from(byte < b' ') & (among(&controls) ^ 1))
    };
    let mut at = 0;
    for block in bytes.chunks_exact(BLOCK) {
        if block.iter().fold(0, |any, &byte| any | ends(byte)) != 0 {
            break;
        }
        at += BLOCK;
    }
    let rest = bytes[at..].iter();
    at + rest.take_while(|byte| ends(**byte) == 0).count()
}

const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_other_byte_is_found_wherever_it_is() {
        for len in 0..60 {
            let mut bytes = vec![b'a'; len];
            for at in 0..len {
                for (byte, ends) in [
                    (b'<', true),
                    (0xff, true),
                    (0, true),
                    (b'\n', false),
                    (b'~', false),
                ] {
                    bytes[at] = byte;
                    let plain = leading(&bytes, [b'<', 0xff], [b'\n']);
                    assert_eq!(
                        plain,
                        if ends { at } else { len },
                        "{byte} at {at} of {len}"
                    );
                }
                bytes[at] = b'a';
            }
        }
    }
}
