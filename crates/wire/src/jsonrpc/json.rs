//! Values as JSON (RFC 8259).
//!
//! | value | JSON |
//! |---|---|
//! | whole number | a number without point and exponent; beyond 64 bits it is refused |
//! | double | the shortest number that reads back as it, always with a point or an exponent |
//! | bytes | `{"$bytes": "…"}`, base64 with padding |
//! | date-time | `{"$datetime": "…"}` |
//! | map | an object; its keys are strings |
//! | map that begins with one of these three keys | `{"$map": {…}}`, so that it is not taken for one of them |
//!
//! An object that begins with one of the three keys must have no other, and mean what it says. There is no JSON for infinities, for what is not a number and for keys that are not strings.
//! Text with two equal keys in an object is refused, as no two readers agree on what it says.

use super::Caps;
use super::reader::Reader;
use super::writer::write;
use crate::value::{DEPTH_MAX, Value};

/// Reads a text that is one value.
pub fn decode(text: &[u8], caps: &Caps) -> Result<Value, JsonError> {
    let mut reader = Reader::new(text, caps)?;
    let value = reader.value()?;
    reader.scanner.end()?;
    Ok(value)
}

/// Appends the value, without any whitespace. After an error `out` is as it was.
pub fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let start = out.len();
    write(value, out).inspect_err(|_| out.truncate(start))
}

/// Text or a value that is refused. `at` is a byte of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is no UTF-8.
    #[error("the text is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first byte that is none.
        at: usize,
    },
    /// RFC 8259, section 8.1, forbids to write one.
    #[error("the text begins with a byte order mark")]
    ByteOrderMark,
    /// Not the grammar.
    #[error("{expected} was expected at byte {at}")]
    Syntax {
        /// Where.
        at: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// An escape that is no character.
    #[error("the escape at byte {at} is half a surrogate pair")]
    Surrogate {
        /// Where.
        at: usize,
    },
    /// More brackets than the stack should carry.
    #[error("too many lists and objects lie in each other at byte {at}")]
    Nesting {
        /// Where.
        at: usize,
    },
    /// JSON, but deeper than a value may be.
    #[error("the value at byte {at} is more than {DEPTH_MAX} lists and objects deep")]
    Depth {
        /// Where.
        at: usize,
    },
    /// JSON, but what it means is anybody's guess.
    #[error("two keys are equal in the object at byte {at}")]
    EqualKeys {
        /// Where.
        at: usize,
    },
    /// JSON, but no number of 64 bits.
    #[error("the whole number at byte {at} does not fit into 64 bits")]
    IntRange {
        /// Where.
        at: usize,
    },
    /// JSON, but no double.
    #[error("the number at byte {at} is too large for a double")]
    DoubleRange {
        /// Where.
        at: usize,
    },
    /// JSON, but it begins with one of the special keys and is not of its form.
    #[error(
        "the object at byte {at} is neither {{\"$bytes\": BASE64}}, {{\"$datetime\": TEXT}} nor {{\"$map\": OBJECT}}"
    )]
    Form {
        /// Where.
        at: usize,
    },
    /// JSON, but more than the cap.
    #[error("the values take more than {max} bytes of memory")]
    Size {
        /// The cap.
        max: usize,
    },
    /// A value without JSON: an infinity, or not a number.
    #[error("JSON has no infinity and no NaN")]
    NotFinite,
    /// A value without JSON.
    #[error("JSON knows only strings for keys, and here is one that is of the kind {kind}")]
    Key {
        /// What the key is.
        kind: &'static str,
    },
}

impl JsonError {
    /// Whether the text is no JSON, or cannot be read to its end.
    pub(super) const fn malformed(&self) -> bool {
        matches!(
            self,
            Self::NotUtf8 { .. }
                | Self::ByteOrderMark
                | Self::Syntax { .. }
                | Self::Surrogate { .. }
                | Self::Nesting { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::reader::depth;
    use crate::jsonrpc::scanner::{NESTING_MAX, Scanner};
    use proptest::prelude::*;

    const CAPS: Caps = Caps {
        size: 1 << 20,
        batch: 10,
    };

    fn read(text: &str) -> Result<Value, JsonError> {
        decode(text.as_bytes(), &CAPS)
    }

    fn written(value: &Value) -> String {
        let mut out = Vec::new();
        encode(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
        Value::Map(pairs.map(|(key, value)| (key.into(), value)).into())
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let expected = |at, expected| JsonError::Syntax { at, expected };
        for (text, error) in [
            ("", expected(0, "a value")),
            ("\u{feff}1", JsonError::ByteOrderMark),
            ("1 2", expected(2, "the end of the text")),
            ("[1,]", expected(3, "a value")),
            ("[1", expected(2, "a comma or the end")),
            ("{\"a\" 1}", expected(5, "a colon")),
            ("{1:2}", expected(1, "a string")),
            ("{\"a\":1,}", expected(7, "a string")),
            ("01", expected(1, "no digit behind a leading zero")),
            ("-", expected(1, "a digit")),
            ("1.", expected(2, "a digit")),
            (".5", expected(0, "a value")),
            ("+1", expected(0, "a value")),
            ("1e+", expected(3, "a digit")),
            ("NaN", expected(0, "a value")),
            ("nul", expected(0, "null")),
            ("\"a", expected(2, "the end of the string, or an escape")),
            ("\"\n\"", expected(1, "the end of the string, or an escape")),
            (r#""\x""#, expected(2, "an escape")),
            (r#""\u12g4""#, expected(5, "four hexadecimal digits")),
            (r#""\ud800""#, JsonError::Surrogate { at: 1 }),
            (r#""\udc00""#, JsonError::Surrogate { at: 1 }),
            (r#""a\ud800\ud800""#, JsonError::Surrogate { at: 2 }),
            (r#""\ud800\n""#, JsonError::Surrogate { at: 1 }),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
            assert!(error.malformed());
        }
        assert_eq!(
            decode(b"\"\xff\"", &CAPS),
            Err(JsonError::NotUtf8 { at: 1 })
        );
    }

    #[test]
    fn json_that_is_no_value_is_refused() {
        for (text, error) in [
            ("9223372036854775808", JsonError::IntRange { at: 0 }),
            ("[-9223372036854775809]", JsonError::IntRange { at: 1 }),
            ("1e999", JsonError::DoubleRange { at: 0 }),
            (r#"{"a":1,"b":2,"a":3}"#, JsonError::EqualKeys { at: 0 }),
            (r#"{"a":1,"\u0061":3}"#, JsonError::EqualKeys { at: 0 }),
            (r#"{"$bytes":"?"}"#, JsonError::Form { at: 0 }),
            (r#"{"$bytes":"AA"}"#, JsonError::Form { at: 0 }),
            (r#"{"$bytes":1}"#, JsonError::Form { at: 0 }),
            (r#"{"$bytes":"AA==","a":1}"#, JsonError::Form { at: 0 }),
            (r#"{"$datetime":null}"#, JsonError::Form { at: 0 }),
            (r#"{"$map":[]}"#, JsonError::Form { at: 0 }),
            (r#"{"$map":{},"$map":{}}"#, JsonError::EqualKeys { at: 0 }),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
            assert!(!error.malformed());
        }
    }

    #[test]
    fn equal_keys_are_noticed_among_many() {
        let keys: Vec<_> = (0..100).map(|key| format!("\"{key}\":0")).collect();
        assert!(read(&format!("{{{}}}", keys.join(","))).is_ok());
        let twice = format!("{{{},\"42\":0}}", keys.join(","));
        assert_eq!(read(&twice), Err(JsonError::EqualKeys { at: 0 }));
    }

    #[test]
    fn numbers_keep_their_kind() {
        for (text, value, again) in [
            ("1", Value::Int(1), "1"),
            ("-0", Value::Int(0), "0"),
            (
                "9223372036854775807",
                Value::Int(i64::MAX),
                "9223372036854775807",
            ),
            (
                "-9223372036854775808",
                Value::Int(i64::MIN),
                "-9223372036854775808",
            ),
            ("1.0", Value::Double(1.0), "1.0"),
            ("1E2", Value::Double(100.0), "100.0"),
            ("-0.0", Value::Double(-0.0), "-0.0"),
            ("0.1", Value::Double(0.1), "0.1"),
            ("1e300", Value::Double(1e300), "1e300"),
            ("5e-324", Value::Double(5e-324), "5e-324"),
            ("1e-999", Value::Double(0.0), "0.0"),
        ] {
            assert_eq!(read(text), Ok(value.clone()), "{text}");
            assert_eq!(written(&value), again);
        }
    }

    #[test]
    fn what_json_lacks_has_a_form() {
        let nothing = || Value::Map(Vec::new());
        for (value, text) in [
            (Value::Bytes(vec![0, 255]), r#"{"$bytes":"AP8="}"#),
            (Value::Bytes(Vec::new()), r#"{"$bytes":""}"#),
            (
                Value::DateTime("19980717T14:08:55".into()),
                r#"{"$datetime":"19980717T14:08:55"}"#,
            ),
            (
                map([("$bytes", "AP8=".into())]),
                r#"{"$map":{"$bytes":"AP8="}}"#,
            ),
            (
                map([("$map", nothing()), ("a", nothing())]),
                r#"{"$map":{"$map":{},"a":{}}}"#,
            ),
            (
                map([("$map", map([("$datetime", Value::Nil)]))]),
                r#"{"$map":{"$map":{"$map":{"$datetime":null}}}}"#,
            ),
            (
                map([("a", Value::Nil), ("$map", Value::Nil)]),
                r#"{"a":null,"$map":null}"#,
            ),
        ] {
            assert_eq!(written(&value), text);
            assert_eq!(read(text), Ok(value));
        }
        assert_eq!(read(r#"{"$map":{"a":1}}"#), Ok(map([("a", Value::Int(1))])));
    }

    #[test]
    fn strings_are_escaped_where_they_must_be() {
        let text = Value::from("\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}\u{2028}\u{20ac}\u{1f600}");
        let short =
            "\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0000\\u001f\u{7f}\u{2028}\u{20ac}\u{1f600}\"";
        assert_eq!(written(&text), short);
        let long = r#" "\"\\\/\b\f\n\r\t\u0000\u001F\u007f\u2028\u20ac\ud83d\uDE00" "#;
        assert_eq!(read(long), Ok(text.clone()));
        assert_eq!(read(short), Ok(text));
    }

    #[test]
    fn what_has_no_json_is_refused_and_nothing_is_written() {
        for (value, error) in [
            (Value::Double(f64::NAN), JsonError::NotFinite),
            (Value::Double(f64::INFINITY), JsonError::NotFinite),
            (
                Value::Map(vec![(Value::Int(1), Value::Nil)]),
                JsonError::Key { kind: "integer" },
            ),
        ] {
            let mut out = b"before".to_vec();
            let list = Value::List(vec![Value::Nil, value]);
            assert_eq!(encode(&list, &mut out), Err(error));
            assert_eq!(out, b"before");
        }
    }

    fn nested(n: usize, open: &str, close: &str) -> String {
        [&open.repeat(n)[..], "1", &close.repeat(n)].concat()
    }

    #[test]
    fn values_may_lie_so_deep_and_no_deeper() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"$map\":{\"$map\":", "}}")] {
            let deepest = read(&nested(DEPTH_MAX, open, close)).unwrap();
            assert_eq!(depth(&deepest), DEPTH_MAX);
            assert_eq!(read(&written(&deepest)), Ok(deepest));
        }
        let refused = read(&nested(DEPTH_MAX + 1, "[", "]"));
        assert_eq!(refused, Err(JsonError::Depth { at: 0 }));
        // A million brackets cost neither stack nor time.
        let refused = read(&"[".repeat(1_000_000));
        assert_eq!(refused, Err(JsonError::Nesting { at: NESTING_MAX }));
        let million = vec![b'['; 1_000_000];
        let refused = Scanner::new(&million).unwrap().skip();
        assert_eq!(refused, Err(JsonError::Nesting { at: NESTING_MAX }));
    }

    #[test]
    fn values_are_counted_before_they_are_kept() {
        let text = format!("[{}{{\"key\":1}}]", "\"text\",".repeat(999));
        let value = read(&text).unwrap();
        let exactly = Caps {
            size: value.size(),
            batch: 0,
        };
        assert_eq!(decode(text.as_bytes(), &exactly), Ok(value));
        let max = exactly.size - 1;
        let fewer = Caps {
            size: max,
            batch: 0,
        };
        let refused = decode(text.as_bytes(), &fewer);
        assert_eq!(refused, Err(JsonError::Size { max }));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let key = prop_oneof!["\\$(map|bytes|datetime)", ".{0,3}"];
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Double),
            ".{0,9}".prop_map(Value::String),
            ".{0,9}".prop_map(Value::DateTime),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(5, 64, 10, move |inner| {
            let pairs = prop::collection::btree_map(key.clone(), inner.clone(), 0..10);
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Value::List),
                pairs.prop_map(|pairs| Value::Map(
                    pairs
                        .into_iter()
                        .map(|(k, v)| (Value::String(k), v))
                        .collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_survives(value in any_value()) {
            prop_assert_eq!(read(&written(&value)), Ok(value));
        }

        #[test]
        fn skipping_passes_what_reading_takes(text in "[\\[\\]{}:,\"\\\\ua0-9.e $n-]{0,30}") {
            let skipped = Scanner::new(text.as_bytes())
                .and_then(|mut scanner| scanner.skip().and_then(|_| scanner.end()));
            match read(&text) {
                Ok(_) => prop_assert_eq!(skipped, Ok(())),
                Err(error) if error.malformed() => prop_assert_eq!(skipped, Err(error)),
                Err(_) => {}
            }
        }
    }
}
