use super::*;
use proptest::prelude::*;

const CAPS: Caps = Caps { size: 100_000 };

fn read(pickle: &[u8]) -> Result<Value, PickleError> {
    decode(pickle, &CAPS)
}

fn written(value: &Value, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, protocol, &mut out).unwrap();
    out
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.into())
}

fn list<const N: usize>(items: [Value; N]) -> Value {
    Value::List(items.into())
}

/// Written by `pickle.dumps` of Python 2.7.18, 3.6.15 and 3.13.0.
fn from_python() -> Vec<(&'static [u8], Value)> {
    let text = || Value::from("\u{20ac}\u{1f600}\\n\n");
    vec![
        (b"N.", Value::Nil),
        (b"I01\n.", Value::Bool(true)),
        (b"I00\n.", Value::Bool(false)),
        (b"\x80\x02\x88.", Value::Bool(true)),
        (b"\x80\x04K\x07.", Value::Int(7)),
        (b"\x80\x04\x95\x04\0\0\0\0\0\0\0M\xe1\x10.", Value::Int(4321)),
        (b"\x80\x03J\x40\xe2\x01\0.", Value::Int(123_456)),
        (b"\x80\x02J\xff\xff\xff\xff.", Value::Int(-1)),
        (b"I1099511627776\n.", Value::Int(1 << 40)),
        (b"L1099511627776L\n.", Value::Int(1 << 40)),
        (b"\x80\x02\x8a\x06\0\0\0\0\0\x01.", Value::Int(1 << 40)),
        (b"\x80\x02\x8a\0.", Value::Int(0)),
        (b"F1.5\n.", Value::Double(1.5)),
        (b"F1e+300\n.", Value::Double(1e300)),
        (b"F-inf\n.", Value::Double(f64::NEG_INFINITY)),
        (b"\x80\x02G?\xf8\0\0\0\0\0\0.", Value::Double(1.5)),
        // Text.
        (b"V\\u20ac\\U0001f600\\u005cn\\u000a\np0\n.", text()),
        (b"V\\ud83d\\ude00\xe9\np0\n.", "\u{1f600}\u{e9}".into()),
        (
            b"X\n\0\0\0\xe2\x82\xac\xf0\x9f\x98\x80\\n\nq\0.",
            text(),
        ),
        (
            b"\x80\x04\x95\x0e\0\0\0\0\0\0\0\x8c\n\xe2\x82\xac\xf0\x9f\x98\x80\\n\n\x94.",
            text(),
        ),
        // Python 2's `str`.
        (b"S'a\\'\"\\\\\\n\\r\\t\\x00'\np0\n.", "a'\"\\\n\r\t\0".into()),
        (b"S\"'\"\np0\n.", "'".into()),
        (b"S'\\xff'\np0\n.", bytes(&[0xff])),
        (b"\x80\x02U\x01\xffq\0.", bytes(&[0xff])),
        (b"\x80\x02U\x02\xc3\xa9q\0.", "\u{e9}".into()),
        // Python 3's `bytes`.
        (b"c_codecs\nencode\np0\n(V\xff\np1\nVlatin1\np2\ntp3\nRp4\n.", bytes(&[0xff])),
        (
            b"\x80\x02c_codecs\nencode\nq\0X\x02\0\0\0\xc3\xbfq\x01X\x06\0\0\0latin1q\x02\x86q\x03Rq\x04.",
            bytes(&[0xff]),
        ),
        (b"c__builtin__\nbytes\np0\n(tRp1\n.", bytes(&[])),
        (b"\x80\x02c__builtin__\nbytes\nq\0)Rq\x01.", bytes(&[])),
        (b"\x80\x03C\x01\xffq\0.", bytes(&[0xff])),
        // `bytearray`.
        (b"c__builtin__\nbytearray\np0\n(Vab\np1\nS'latin-1'\np2\ntp3\nRp4\n.", bytes(b"ab")),
        (
            b"\x80\x02c__builtin__\nbytearray\nq\0c_codecs\nencode\nq\x01X\x02\0\0\0abq\x02X\x06\0\0\0latin1q\x03\x86q\x04Rq\x05\x85q\x06Rq\x07.",
            bytes(b"ab"),
        ),
        (b"\x80\x03cbuiltins\nbytearray\nq\0C\x02abq\x01\x85q\x02Rq\x03.", bytes(b"ab")),
        (
            b"\x80\x04\x95#\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\tbytearray\x94\x93\x94C\x02ab\x94\x85\x94R\x94.",
            bytes(b"ab"),
        ),
        (b"\x80\x05\x95\r\0\0\0\0\0\0\0\x96\x02\0\0\0\0\0\0\0ab\x94.", bytes(b"ab")),
        (b"\x80\x03cbuiltins\nbytearray\nq\0)Rq\x01.", bytes(&[])),
        // Nested: `(3, 4321)`, `[[], [1]]`, `{'a': (), 1: [None]}`.
        (
            b"\x80\x04\x95\x08\0\0\0\0\0\0\0K\x03M\xe1\x10\x86\x94.",
            list([Value::Int(3), Value::Int(4321)]),
        ),
        (
            b"(lp0\n(lp1\na(lp2\nI1\naa.",
            list([list([]), list([Value::Int(1)])]),
        ),
        (
            b"\x80\x02}q\0(U\x01aq\x01)K\x01]q\x02Nau.",
            Value::Map(vec![
                ("a".into(), list([])),
                (Value::Int(1), list([Value::Nil])),
            ]),
        ),
        (
            b"(dp0\nS'a'\np1\n(tsI1\n(lp2\nNas.",
            Value::Map(vec![
                ("a".into(), list([])),
                (Value::Int(1), list([Value::Nil])),
            ]),
        ),
        // A shared object is a copy in each place: `x = [1]; [x, x]`.
        (
            b"\x80\x02]q\0(]q\x01K\x01ah\x01e.",
            list([list([Value::Int(1)]), list([Value::Int(1)])]),
        ),
    ]
}

#[test]
fn what_python_writes_is_read() {
    for (pickle, value) in from_python() {
        assert_eq!(read(pickle), Ok(value), "{}", pickle.escape_ascii());
    }
}

#[test]
fn a_pickle_is_read_to_its_end_and_no_further() {
    for (pickle, _) in from_python() {
        for len in 0..pickle.len() {
            assert!(read(&pickle[..len]).is_err(), "{}", pickle.escape_ascii());
        }
        let longer = [pickle, b"."].concat();
        let at = pickle.len();
        assert_eq!(read(&longer), Err(PickleError::Trailing { at }));
    }
}

#[test]
fn programs_are_refused_by_name() {
    for (pickle, name) in [
        (&b"cos\nsystem\n(S'true'\ntR."[..], "GLOBAL"),
        (b"c__builtin__\neval\n.", "GLOBAL"),
        (
            b"c_codecs\ndecode\n(X\x01\0\0\0aX\x06\0\0\0latin1tR.",
            "GLOBAL",
        ),
        (b"cbuiltins\n\xff\n.", "GLOBAL"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"\x80\x04NN\x93.", "STACK_GLOBAL"),
        // A name by itself is no value, wherever it lies.
        (b"c_codecs\nencode\n.", "GLOBAL"),
        (b"(lc_codecs\nencode\na.", "GLOBAL"),
        // The names that are known do nothing but spell bytes.
        (
            b"c_codecs\nencode\n(X\x01\0\0\0aX\x05\0\0\0rot13tR.",
            "REDUCE",
        ),
        (
            b"c_codecs\nencode\n(X\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1tR.",
            "REDUCE",
        ),
        (b"c_codecs\nencode\n(X\x01\0\0\0atR.", "REDUCE"),
        (b"c_codecs\nencode\n)R.", "REDUCE"),
        (b"c__builtin__\nbytes\n(I1000000000\ntR.", "REDUCE"),
        (b"c__builtin__\nbytearray\n(I1000000000\ntR.", "REDUCE"),
        (b"c__builtin__\nbytes\n]R.", "REDUCE"),
        (b"NNR.", "REDUCE"),
        (b"P1\n.", "PERSID"),
        (b"NQ.", "BINPERSID"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(No.", "OBJ"),
        (b"NNb.", "BUILD"),
        (b"\x80\x02N)\x81.", "NEWOBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\0.", "EXT2"),
        (b"\x80\x02\x84\x01\0\0\0.", "EXT4"),
        (b"\x80\x04N)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x05N\x98.", "READONLY_BUFFER"),
    ] {
        let refused = Err(PickleError::Forbidden(name));
        assert_eq!(read(pickle), refused, "{}", pickle.escape_ascii());
    }
}

#[test]
fn every_other_byte_is_no_instruction() {
    let known = (0..=255).filter(|&opcode| {
        let refused = read(&[b'N', opcode]);
        refused != Err(PickleError::Unknown { opcode, at: 1 })
    });
    // As many as `pickletools.opcodes` of Python 3.8 and later.
    assert_eq!(known.count(), 68);
}

#[test]
fn what_no_value_can_be_is_refused() {
    let range = |at| PickleError::IntRange { at };
    for (pickle, error) in [
        (&b"I9223372036854775808\n."[..], range(21)),
        (b"L-9223372036854775809L\n.", range(23)),
        (b"\x8a\x09\0\0\0\0\0\0\0\x80\0.", range(11)),
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff.", range(11)),
        (b"\x8b\x09\0\0\0\0\0\0\0\0\0\0\0\x01.", range(14)),
        (b"\x8f.", PickleError::NoForm("set")),
        (b"(\x91.", PickleError::NoForm("frozenset")),
        // Lone surrogates, as Python 3 writes them in either way.
        (b"X\x03\0\0\0\xed\xa0\x80.", PickleError::NotText { at: 8 }),
        (b"V\\ud800\n.", PickleError::NotText { at: 8 }),
        (b"V\\udc00\n.", PickleError::NotText { at: 8 }),
        (b"V\\ud800a\n.", PickleError::NotText { at: 9 }),
        (b"V\\U00110000\n.", PickleError::NotText { at: 12 }),
        (b"}(K\x01NK\x01Nu.", PickleError::EqualKeys),
        (
            b"}(G\0\0\0\0\0\0\0\0NG\x80\0\0\0\0\0\0\0Nu.",
            PickleError::EqualKeys,
        ),
        (b"}]Ns.", PickleError::Key("list")),
        (b"}]\x85Ns.", PickleError::Key("list")),
        (b"}}Ns.", PickleError::Key("dict")),
        (b"\x80\x06N.", PickleError::Protocol { version: 6 }),
    ] {
        assert_eq!(read(pickle), Err(error), "{}", pickle.escape_ascii());
    }
    let edges = [
        (&b"\x8a\x08\0\0\0\0\0\0\0\x80."[..], i64::MIN),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", i64::MAX),
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\0.", i64::MAX),
        (b"L-9223372036854775808L\n.", i64::MIN),
    ];
    for (pickle, int) in edges {
        assert_eq!(read(pickle), Ok(Value::Int(int)));
    }
}

#[test]
fn a_program_for_another_machine_is_damaged() {
    for pickle in [
        &b"."[..],
        b"NN.",
        b"(N.",
        b"a.",
        b"N(a.",
        b"](.",
        b"(](Na.",
        b"](Na1.",
        b"NNa.",
        b"Nu.",
        b"}(Nu.",
        b"(Nd.",
        b"(NNu.",
        b"\x86.",
        b"N(\x85.",
        b"N\x80\x02.",
        b"t.",
        b"1.",
        b"h\0.",
        b"Np-1\n.",
        b"Np\n.",
        b"I\n.",
        b"I-\n.",
        b"I1_0\n.",
        b"I+1\n.",
        b"F\n.",
        b"Sa\n.",
        b"S'\n.",
        b"S'a\"\n.",
        b"S'''\n.",
        b"S'\\'\n.",
        b"S'\\q'\n.",
        b"S'\\x0'\n.",
        // The memo would have a billion empty places.
        b"Nr\xff\xff\xff\x3f.",
    ] {
        let refused = read(pickle);
        let damaged = matches!(refused, Err(PickleError::Damaged { .. }));
        assert!(damaged, "{} is {refused:?}", pickle.escape_ascii());
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    for pickle in [
        &b"X\xff\xff\xff\xff"[..],
        b"T\xff\xff\xff\xff",
        b"B\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\xff",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
    ] {
        assert_eq!(read(pickle), Err(PickleError::Truncated));
    }
}

#[test]
fn an_object_that_holds_itself_is_refused() {
    for pickle in [
        &b"]q\0h\0a."[..],
        b"}q\0Nh\0s.",
        // `x = []; y = (x,); x.append(y)`, as Python 3 writes `x` and `y`, the latter in two ways.
        b"]q\0h\0\x85q\x01a.",
        b"]q\0h\0\x85q\x01a0h\x01.",
        b"((lp0\n(g0\ntp1\na00g1\n.",
    ] {
        assert_eq!(read(pickle), Err(PickleError::Cycle));
    }
}

/// Each list holds the one before twice: 2^60 lists in 400 bytes.
#[test]
fn copies_are_counted() {
    let mut bomb = b"(]q\0".to_vec();
    for level in 1..60 {
        let below = level - 1;
        bomb.extend([b']', b'q', level, b'(', b'h', below, b'h', below, b'e']);
    }
    // Only the last is kept.
    bomb.extend(b"1h\x3b.");
    let max = CAPS.size;
    assert_eq!(read(&bomb), Err(PickleError::Size { max }));
    // As many copies of one text, which is long.
    let text = [&b"X\0\x40\0\0"[..], &[b'a'; 0x4000], b"q\0"].concat();
    let copies = [&b"(("[..], &text, b"h\0h\0h\0h\0h\0h\0tt."].concat();
    assert_eq!(read(&copies), Err(PickleError::Size { max }));
}

#[test]
fn objects_are_counted_before_they_are_kept() {
    let max = 1_000;
    let pickle = [&b"("[..], &[b'N'; 100], b"1N."].concat();
    let refused = decode(&pickle, &Caps { size: max });
    assert_eq!(refused, Err(PickleError::Size { max }));
    let escaped = [&b"(V"[..], &[b'a'; 1_000], b"\n1N."].concat();
    let refused = decode(&escaped, &Caps { size: max });
    assert_eq!(refused, Err(PickleError::Size { max }));
}

#[test]
fn values_may_lie_so_deep_and_no_deeper() {
    let nested = |n| [&b"]".repeat(n)[..], &b"a".repeat(n - 1), b"."].concat();
    let deepest = read(&nested(DEPTH_MAX)).unwrap();
    for protocol in [Protocol::Two, Protocol::Four] {
        assert_eq!(read(&written(&deepest, protocol)).as_ref(), Ok(&deepest));
    }
    assert_eq!(read(&nested(DEPTH_MAX + 1)), Err(PickleError::Depth));
    assert_eq!(read(&nested(1_000)), Err(PickleError::Depth));
    let dicts = |n| [&b"}N".repeat(n - 1)[..], b"}", &b"s".repeat(n - 1), b"."].concat();
    assert!(read(&dicts(DEPTH_MAX)).is_ok());
    assert_eq!(read(&dicts(DEPTH_MAX + 1)), Err(PickleError::Depth));
}

#[test]
fn what_has_no_pickle_is_refused_and_nothing_is_written() {
    let date_time = || Value::DateTime("19980717T14:08:55".into());
    let map = || Value::Map(Vec::new());
    for (value, error) in [
        (date_time(), PickleError::NoForm("date-time")),
        (
            Value::Map(vec![(map(), Value::Nil)]),
            PickleError::Key("map"),
        ),
        (
            Value::Map(vec![(list([map()]), Value::Nil)]),
            PickleError::Key("map"),
        ),
    ] {
        let mut out = b"before".to_vec();
        let refused = encode(&list([Value::Nil, value]), Protocol::Four, &mut out);
        assert_eq!((refused, &out[..]), (Err(error), &b"before"[..]));
    }
    let mut out = b"before".to_vec();
    let class = BuiltinException::KeyError;
    let refused = encode_exception(class, &[date_time()], Protocol::Two, &mut out);
    assert_eq!(refused, Err(PickleError::NoForm("date-time")));
    assert_eq!(out, b"before");
}

#[test]
fn an_exception_is_no_data() {
    for (protocol, opcode) in [(Protocol::Two, "GLOBAL"), (Protocol::Four, "STACK_GLOBAL")] {
        let mut out = Vec::new();
        encode_exception(BuiltinException::KeyError, &[], protocol, &mut out).unwrap();
        assert_eq!(read(&out), Err(PickleError::Forbidden(opcode)));
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        ".{0,3}".prop_map(Value::String),
        any::<i64>().prop_map(Value::Int),
        prop::collection::vec(any::<i8>().prop_map(|int| Value::Int(int.into())), 0..5)
            .prop_map(Value::List),
        prop::collection::vec(any::<u8>(), 1..3).prop_map(Value::Bytes),
    ];
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i16>().prop_map(|int| Value::Int(int.into())),
        any::<f64>()
            .prop_filter("equal to itself", |double| !double.is_nan())
            .prop_map(Value::Double),
        ".{0,9}".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 64, 10, move |inner| {
        let pairs = prop::collection::vec((key.clone(), inner.clone()), 0..20);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::List),
            pairs.prop_map(|mut pairs| {
                let mut seen = Vec::new();
                pairs.retain(|(key, _)| {
                    let new = !seen.contains(key);
                    seen.push(key.clone());
                    new
                });
                Value::Map(pairs)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_survives(value in any_value()) {
        for protocol in [Protocol::Two, Protocol::Four] {
            let again = read(&written(&value, protocol));
            prop_assert_eq!(again.as_ref(), Ok(&value));
        }
    }

    #[test]
    fn nothing_makes_it_panic(pickle in prop::collection::vec(
        prop::sample::select(&b"(.012FILNRSVacdglpst]})ehjqruGXUTKMJ\x80\x85\x86\x88\x8a\x8b\x94\n'aNN((\0\x01\x02"[..]),
        0..40,
    )) {
        let _ = read(&pickle);
    }
}
