//! The spellings of text in protocol 0.

/// A `str` of Python 2 as `repr` writes it.
pub(super) fn unquote(line: &[u8]) -> Option<Vec<u8>> {
    let (&quote, rest) = line.split_first()?;
    let (&end, mut rest) = rest.split_last()?;
    if quote != end || !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == quote {
            return None;
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, behind) = rest.split_first()?;
        rest = behind;
        bytes.push(match escape {
            b'\\' | b'\'' | b'"' => escape,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::try_from(hexadecimal(digits)?).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// Text in the encoding `raw-unicode-escape`: Latin-1, and the rest as `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn unescape_unicode(mut line: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let mut high: Option<u32> = None;
    while let Some((&byte, behind)) = line.split_first() {
        line = behind;
        let mut code = u32::from(byte);
        if byte == b'\\' {
            // Python spells a backslash itself as an escape.
            let (&kind, behind) = line.split_first()?;
            let len = match kind {
                b'u' => 4,
                b'U' => 8,
                _ => return None,
            };
            let (digits, behind) = behind.split_at_checked(len)?;
            line = behind;
            code = hexadecimal(digits)?;
        }
        // Builds of Python 2 with short characters write long ones in halves.
        if let Some(high) = high.take() {
            if !(0xdc00..0xe000).contains(&code) {
                return None;
            }
            code = 0x1_0000 + ((high - 0xd800) << 10) + (code - 0xdc00);
        } else if (0xd800..0xdc00).contains(&code) {
            high = Some(code);
            continue;
        }
        text.push(char::from_u32(code)?);
    }
    high.is_none().then_some(text)
}

/// Text as Latin-1, if it has no other characters.
pub(super) fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|char| u8::try_from(char).ok()).collect()
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let mut code = 0;
    for &digit in digits {
        code = code * 16 + char::from(digit).to_digit(16)?;
    }
    Some(code)
}
