//! What is percent-encoded in targets and forms.

/// The parameters of a query or a form, decoded (the URL standard's urlencoded parser). What is no
/// UTF-8 is replaced.
pub fn parameters(text: &str) -> Vec<(String, String)> {
    pairs(text)
        .map(|(name, value)| (decode_plus(name), decode_plus(value)))
        .collect()
}

/// The parameters as they stand.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

pub fn decode_plus(text: &str) -> String {
    if text.contains('+') {
        decode(&text.replace('+', " "))
    } else {
        decode(text)
    }
}

/// Undoes percent-encoding. What is no escape stays, what is no UTF-8 is replaced.
pub fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.into();
    }
    let bytes = decode_bytes(text);
    String::from_utf8(bytes).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into())
}

/// Whether nothing is replaced when it is decoded: what differs stays different.
pub fn is_text(text: &str) -> bool {
    !text.contains('%') || std::str::from_utf8(&decode_bytes(text)).is_ok()
}

fn decode_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let digit = |place: usize| {
            bytes
                .get(at + place)
                .and_then(|b| (*b as char).to_digit(16))
        };
        if let (b'%', Some(high), Some(low)) = (byte, digit(1), digit(2)) {
            // Two digits of 16 make a byte.
            out.push(u8::try_from(high * 16 + low).unwrap_or_default());
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_browsers_write_it() {
        let pairs = |text| -> Vec<(String, String)> { parameters(text) };
        let expected = [
            ("a", "b c"),
            ("a", ""),
            ("ä", "&="),
            ("", "x"),
            ("q", "%zz%"),
        ];
        let found = pairs("a=b+c&a&%C3%A4=%26%3D&=x&&q=%zz%");
        let found: Vec<_> = found
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(decode("%ff"), "\u{fffd}");
        assert!(is_text("%C3%A4%zz") && is_text("%EF%BF%BD") && !is_text("%C3"));
    }
}
