//! The header of numpy's `.npy` files (NEP 1): what type the items have, and how many there are.

use std::fmt::Write as _;
use std::str::FromStr;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The type of the items as numpy spells it; for records the list of their fields.
    pub descr: String,
    /// How many items in each direction.
    pub shape: Vec<u64>,
    /// Where the data begins.
    pub offset: u64,
}

/// A type whose items all have the same number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dtype {
    /// With its byte order, as numpy writes it: `<f8`.
    pub text: String,
    /// Bytes of an item.
    pub item: u64,
}

/// A [`Dtype`] and perhaps a shape: `<f8`, `<f8:1000,3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The type.
    pub dtype: Dtype,
    /// How many items in each direction; without it in one direction as many as come.
    pub shape: Option<Vec<u64>>,
}

impl Header {
    /// Reads the header at the front of a file, of which `bytes` are the first [`FRONT_LEN`] or all.
    /// `None` when it is no `.npy` file.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Ok(None);
        };
        let (length, start) = match rest {
            [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
            [2 | 3, _, a, b, c, d, ..] => {
                let length = u32::from_le_bytes([*a, *b, *c, *d]);
                (usize::try_from(length).unwrap_or(usize::MAX), 12)
            }
            [1..=3, ..] | [] => return Err("its header is cut short".into()),
            [version, ..] => return Err(format!("version {version} of .npy is not known here")),
        };
        if length > HEADER_MAX {
            return Err(format!(
                "its header has {length} bytes, and {HEADER_MAX} are allowed"
            ));
        }
        let Some(text) = bytes.get(start..start + length) else {
            return Err("its header is cut short".into());
        };
        let text = std::str::from_utf8(text).map_err(|_| "its header is not text".to_owned())?;
        let (descr, shape) = dictionary(text).ok_or("its header is not the one of numpy")?;
        Ok(Some(Self {
            descr,
            shape,
            offset: (start + length) as u64,
        }))
    }

    /// Bytes of the data, where the type tells; `None` for records.
    pub fn data_len(&self) -> Option<u64> {
        let dtype: Dtype = self.descr.parse().ok()?;
        product(&self.shape)?.checked_mul(dtype.item)
    }

    /// Whether the items are pickles, which mean nothing as bytes.
    pub fn has_objects(&self) -> bool {
        // Within records too; a field that is only called so is refused with them.
        self.descr.trim_start_matches('|') == "O" || self.descr.contains("'|O'")
    }
}

impl Layout {
    /// The shape of `bytes` bytes, or why they have none.
    pub fn shape_of(&self, bytes: u64) -> Result<Vec<u64>, String> {
        let Dtype { text, item } = &self.dtype;
        match &self.shape {
            Some(shape) => {
                let expected = product(shape).and_then(|count| count.checked_mul(*item));
                if expected == Some(bytes) {
                    Ok(shape.clone())
                } else {
                    let shape = tuple(shape);
                    Err(format!(
                        "{bytes} bytes are not what {text} of shape {shape} has"
                    ))
                }
            }
            None if bytes.is_multiple_of(*item) => Ok(vec![bytes / item]),
            None => Err(format!(
                "{bytes} bytes are not a whole number of {text}, which has {item}"
            )),
        }
    }

    /// A header of version 1.0 for an array of this shape. For the same layout it always has the
    /// same length, so that it can be written last.
    pub fn header(&self, shape: &[u64]) -> Vec<u8> {
        let build = |shape: &str| {
            format!(
                "{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}",
                self.dtype.text
            )
        };
        let text = build(&tuple(shape));
        let longest = match &self.shape {
            Some(shape) => build(&tuple(shape)).len(),
            None => build(&tuple(&[u64::MAX])).len(),
        };
        // The line ends with an LF, and the data begins at a multiple of 64.
        let length = (longest + 1 + PREFIX_LEN).next_multiple_of(ALIGNMENT) - PREFIX_LEN;
        let mut header = MAGIC.to_vec();
        header.extend([1, 0]);
        // A layout on a command line is far shorter than 65535 bytes; see `LAYOUT_MAX`.
        header.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
        header.extend(format!("{text:<width$}\n", width = length - 1).bytes());
        header
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no type of numpy that is known here; write one such as <f8, <i4 or |u1"
            )
        };
        let (order, rest) = match text.chars().next() {
            Some(order @ ('<' | '>' | '=' | '|')) => (order, &text[1..]),
            _ => ('=', text),
        };
        let mut chars = rest.chars();
        let kind = chars.next().ok_or_else(wrong)?;
        let digits = chars.as_str();
        // Times say their unit behind: <M8[ns].
        let (digits, unit) = match (kind, digits.split_once('[')) {
            ('m' | 'M', Some((digits, unit))) if is_unit(unit) => (digits, format!("[{unit}")),
            _ => (digits, String::new()),
        };
        let size: u64 = digits.parse().map_err(|_| wrong())?;
        let item = match (kind, size) {
            ('b', 1)
            | ('i' | 'u', 1 | 2 | 4 | 8)
            | ('f', 2 | 4 | 8 | 16)
            | ('c', 8 | 16 | 32)
            | ('m' | 'M', 8)
            | ('S' | 'V', 1..=STRING_MAX) => size,
            ('U', 1..=STRING_MAX) => size * 4,
            _ => return Err(wrong()),
        };
        let order = match (kind, item, order) {
            ('S' | 'V', ..) | (_, 1, _) => '|',
            (_, _, '=' | '|') if cfg!(target_endian = "big") => '>',
            (_, _, '=' | '|') => '<',
            (_, _, order) => order,
        };
        let text = format!("{order}{kind}{size}{unit}");
        Ok(Self { text, item })
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > LAYOUT_MAX {
            return Err(format!(
                "a type and shape have at most {LAYOUT_MAX} characters"
            ));
        }
        let Some((dtype, shape)) = text.split_once(':') else {
            let dtype = text.parse()?;
            return Ok(Self { dtype, shape: None });
        };
        let shape: Option<Vec<u64>> = shape
            .split(',')
            .map(|count| count.trim().parse().ok())
            .collect();
        let shape = shape
            .filter(|shape| product(shape).is_some())
            .ok_or_else(|| format!("'{text}' has no usable shape; write DTYPE:1000,3"))?;
        Ok(Self {
            dtype: dtype.parse()?,
            shape: Some(shape),
        })
    }
}

/// A shape as Python writes it.
pub fn tuple(shape: &[u64]) -> String {
    let mut text = String::from("(");
    for (index, count) in shape.iter().enumerate() {
        let _ = write!(text, "{}{count}", if index > 0 { ", " } else { "" });
    }
    text.push_str(if shape.len() == 1 { ",)" } else { ")" });
    text
}

fn product(shape: &[u64]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1_u64, |product, count| product.checked_mul(*count))
}

fn is_unit(unit: &str) -> bool {
    unit.strip_suffix(']').is_some_and(|unit| {
        (1..=8).contains(&unit.len()) && unit.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// `descr` and `shape` of the dictionary that is the header: the literal of Python with these two
/// keys and `fortran_order`, each once.
fn dictionary(text: &str) -> Option<(String, Vec<u64>)> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, behind) = string(rest)?;
        let behind = behind.trim_start().strip_prefix(':')?.trim_start();
        let (value, behind) = value(behind)?;
        match key {
            "descr" if descr.is_none() => {
                let text = string(value).filter(|(_, behind)| behind.is_empty());
                descr = Some(text.map_or(value, |(text, _)| text).to_owned());
            }
            "fortran_order" if order.is_none() => order = Some(is_true(value)?),
            "shape" if shape.is_none() => shape = Some(counts(value)?),
            _ => return None,
        }
        rest = behind.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(behind) => behind.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    order?;
    Some((descr?, shape?))
}

/// A string in quotes, and what follows.
fn string(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// A string, a bracketed text or a word, and what follows.
fn value(text: &str) -> Option<(&str, &str)> {
    let end = match text.chars().next()? {
        '\'' | '"' => text.len() - string(text)?.1.len(),
        '(' | '[' => bracketed(text)?,
        _ => text.find(',').unwrap_or(text.len()),
    };
    let (value, behind) = text.split_at(end);
    Some((value.trim_end(), behind))
}

/// Where the bracket at the front closes. Quoted brackets do not count.
fn bracketed(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    let mut quote = None;
    for (index, c) in text.char_indices() {
        if let Some(open) = quote {
            quote = (c != open).then_some(open);
            continue;
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' => depth += 1,
            ')' | ']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_true(text: &str) -> Option<bool> {
    match text {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// A tuple of counts; Python 2 puts an L behind long ones.
fn counts(text: &str) -> Option<Vec<u64>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let count = |text: &str| text.trim().trim_end_matches('L').parse().ok();
    inner.split(',').map(count).collect()
}

/// More than a header with its length can have.
pub const FRONT_LEN: u64 = HEADER_MAX as u64 + 12;
const MAGIC: &[u8] = b"\x93NUMPY";
const HEADER_MAX: usize = 64 << 10;
const PREFIX_LEN: usize = 10;
const ALIGNMENT: usize = 64;
const STRING_MAX: u64 = 1 << 30;
const LAYOUT_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 1 with this dictionary.
    fn file(dictionary: &str) -> Vec<u8> {
        let length = u16::try_from(dictionary.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, dictionary.as_bytes()].concat()
    }

    fn parse(dictionary: &str) -> Result<Option<Header>, String> {
        Header::parse(&file(dictionary))
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for text in [
            "",
            "{}",
            "{'descr': '<f8', 'fortran_order': False}",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': 1}",
            "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': [('a', '<f8'], 'fortran_order': False, 'shape': (1,",
            "{'descr': __import__('os'), 'fortran_order': False, 'shape': f()}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let good = file("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }");
        for length in 6..good.len() {
            assert!(Header::parse(&good[..length]).is_err(), "{length}");
        }
        let huge = [MAGIC, b"\x02\0\xff\xff\xff\xff{"].concat();
        assert!(Header::parse(&huge).unwrap_err().contains("65536"));
        assert!(Header::parse(&[MAGIC, &[9, 0, 0, 0]].concat()).is_err());
        assert_eq!(Header::parse(b"no magic"), Ok(None));
    }

    #[test]
    fn headers_of_numpy_are_read() {
        let header = parse("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }  \n");
        let header = header.unwrap().unwrap();
        assert_eq!(
            (header.descr.as_str(), &*header.shape),
            ("<f8", &[3, 4][..])
        );
        assert_eq!(header.data_len(), Some(96));
        let scalar = parse("{'shape': (), 'fortran_order': True, 'descr': '|b1'}");
        assert_eq!(scalar.unwrap().unwrap().data_len(), Some(1));
        let old = parse("{'descr': '>i4', 'fortran_order': False, 'shape': (3L,), }");
        assert_eq!(old.unwrap().unwrap().shape, [3]);
        let records =
            "{'descr': [('a)', '<f8'), ('b', '|O')], 'fortran_order': False, 'shape': (1,)}";
        let records = parse(records).unwrap().unwrap();
        assert!(records.has_objects() && records.data_len().is_none());
    }

    #[test]
    fn a_layout_is_checked_against_the_bytes() {
        let layout = |text: &str| text.parse::<Layout>().unwrap();
        assert_eq!(layout("f8").shape_of(24), Ok(vec![3]));
        assert!(layout("<f8").shape_of(25).is_err());
        assert_eq!(layout("<i2:2,3").shape_of(12), Ok(vec![2, 3]));
        assert!(layout("<i2:2,3").shape_of(14).is_err());
        for text in [
            "",
            "<",
            "f3",
            "O",
            "<f8:",
            "<f8:-1",
            "<f8:x",
            "M8[']",
            "<f8:9999999999,9999999999",
        ] {
            assert!(text.parse::<Layout>().is_err(), "{text}");
        }
        for (text, spelled) in [
            ("u1", "|u1"),
            ("S5", "|S5"),
            (">f4", ">f4"),
            ("M8[ns]", "<M8[ns]"),
        ] {
            assert_eq!(layout(text).dtype.text, spelled);
        }
    }

    #[test]
    fn a_header_is_read_back_and_always_as_long() {
        for (text, shapes) in [
            ("<f8", &[&[0][..], &[u64::MAX / 8]][..]),
            ("<i4:7,1,2", &[&[7, 1, 2]]),
        ] {
            let layout: Layout = text.parse().unwrap();
            for shape in shapes {
                let bytes = layout.header(shape);
                assert_eq!(bytes.len() % 64, 0);
                assert_eq!(bytes.len(), layout.header(shapes[0]).len());
                let header = Header::parse(&bytes).unwrap().unwrap();
                assert_eq!(
                    (header.descr, &*header.shape),
                    (layout.dtype.text.clone(), *shape)
                );
                assert_eq!(header.offset, bytes.len() as u64);
            }
        }
    }
}
