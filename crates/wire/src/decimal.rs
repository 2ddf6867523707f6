//! Whole numbers in decimal digits, for those that are written with every message.

/// Appends a number.
pub fn push(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    push_unsigned(number.unsigned_abs(), out);
}

/// Appends a number.
pub fn push_unsigned(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        // A digit is less than 10.
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_by_the_standard_library() {
        for number in [0, 1, -1, 9, 10, 99, 100, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push(number, &mut out);
            assert_eq!(str::from_utf8(&out).unwrap(), number.to_string());
        }
        let mut out = Vec::new();
        push_unsigned(u64::MAX, &mut out);
        assert_eq!(str::from_utf8(&out).unwrap(), u64::MAX.to_string());
    }
}
