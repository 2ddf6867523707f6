//! Passes bytes that mean nothing, many at a time.

/// How many bytes at the front are `plain`. It looks at whole blocks, for which a compiler has wide
/// instructions, as long as all of a block is.
#[inline]
pub fn leading(bytes: &[u8], plain: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    for block in bytes.chunks_exact(BLOCK) {
        // No early end, which would keep it from being one step.
        if !block.iter().fold(true, |all, &byte| all & plain(byte)) {
            break;
        }
        at += BLOCK;
    }
    let rest = bytes[at..].iter();
    at + rest.take_while(|byte| plain(**byte)).count()
}

const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_other_byte_is_found_wherever_it_is() {
        for len in 0..100 {
            let mut bytes = vec![b'a'; len];
            assert_eq!(leading(&bytes, |byte| byte == b'a'), len);
            for at in 0..len {
                bytes[at] = b'b';
                assert_eq!(leading(&bytes, |byte| byte == b'a'), at);
                bytes[at] = b'a';
            }
        }
    }
}
