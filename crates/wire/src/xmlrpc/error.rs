//! What is wrong with a document, in our words, in Python's and as a number.

use super::python::{class, python_repr};
use std::fmt;

/// Why a document is no call, or no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// It is not XML. The text is expat's.
    #[error("{what}: line {line}, column {column}")]
    Malformed {
        /// What was met.
        what: Malformed,
        /// Where, from 1 on.
        line: usize,
        /// Characters before it in that line.
        column: usize,
    },
    /// It declares a document type, from which entities would come.
    #[error("document types are refused")]
    Doctype,
    /// It is in an encoding that is not read here, by its name.
    #[error("unknown encoding: {0}")]
    Encoding(String),
    /// It holds more than a cap allows.
    #[error("the document has more than {max} {what}")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// The cap.
        max: usize,
    },
    /// Within a `value` stands an element that is no type. What is named here and below is quoted as
    /// by Python and cut: integers where Python cuts them, others after 1,000 characters.
    #[error("unknown tag {0}")]
    UnknownTag(String),
    /// A `boolean` that is neither 0 nor 1.
    #[error("bad boolean value")]
    Boolean,
    /// No whole number.
    #[error("invalid literal for int() with base 10: {0}")]
    Integer(String),
    /// A whole number with more digits than Python converts.
    #[error(
        "Exceeds the limit (4300 digits) for integer string conversion: value has {0} digits; \
         use sys.set_int_max_str_digits() to increase the limit"
    )]
    Digits(usize),
    /// A whole number of more than 64 bits.
    #[error("int exceeds XML-RPC limits")]
    IntegerRange,
    /// No double.
    #[error("could not convert string to float: {0}")]
    Double(String),
    /// No decimal number.
    #[error("[<class 'decimal.ConversionSyntax'>]")]
    Decimal,
    /// A decimal number that no double has.
    #[error("a bigdecimal is only taken when it is a double without loss")]
    DecimalRange,
    /// Something else than ASCII in base64, and where.
    #[error("'ascii' codec can't encode {}: ordinal not in range(128)", non_ascii(*.first, *.at, *.count))]
    NotAscii {
        /// The first character that is none.
        first: char,
        /// The characters before it.
        at: usize,
        /// How many follow each other.
        count: usize,
    },
    /// The base64 text ends within a byte.
    #[error("Incorrect padding")]
    Padding,
    /// The base64 text ends with one character too many, of that many.
    #[error(
        "Invalid base64-encoded string: number of data characters ({0}) cannot be 1 more than a \
         multiple of 4"
    )]
    Base64Length(usize),
    /// The last member of a struct has a name and no value.
    #[error("list index out of range")]
    NoMember,
    /// A struct has a list, a map, bytes or a date-time for a name; Python's name of that type.
    #[error("unhashable type: '{0}'")]
    Unhashable(&'static str),
    /// A struct has something else than a string for a name, of that kind.
    #[error("dictionary key must be string, not {0}")]
    Name(&'static str),
    /// No `params`, `methodName` or `fault` element: not XML-RPC.
    #[error("ResponseError()")]
    NotXmlRpc,
    /// Parameters, and no method.
    #[error("method \"None\" is not supported")]
    NoMethod,
    /// A fault where a call should be.
    #[error("the document is a fault, not a call")]
    NotACall,
    /// A call, or not one value, where a response should be.
    #[error("the document is not a response with one value")]
    NotAResponse,
    /// A fault without its code or its text.
    #[error("the fault has no integer faultCode or no string faultString")]
    NotAFault,
}

impl XmlError {
    /// What Python's server writes into `faultString`. Where Python would not have refused, it is
    /// our text, under a class that is not far off.
    pub fn python_text(&self) -> String {
        let name = match self {
            Self::Malformed { .. } => "xml.parsers.expat.ExpatError",
            Self::Encoding(_) => "LookupError",
            Self::Boolean | Self::Unhashable(_) | Self::Name(_) => "TypeError",
            Self::Doctype
            | Self::TooMuch { .. }
            | Self::Integer(_)
            | Self::Digits(_)
            | Self::Double(_)
            | Self::DecimalRange => "ValueError",
            Self::IntegerRange => "OverflowError",
            Self::Decimal => "decimal.InvalidOperation",
            Self::NotAscii { .. } => "UnicodeEncodeError",
            Self::Padding | Self::Base64Length(_) => "binascii.Error",
            Self::NoMember => "IndexError",
            Self::UnknownTag(_) => return class("xmlrpc.client.ResponseError", response(self)),
            Self::NotXmlRpc | Self::NotACall | Self::NotAResponse | Self::NotAFault => {
                "xmlrpc.client.ResponseError"
            }
            Self::NoMethod => "Exception",
        };
        class(name, self)
    }

    /// The number that stands for it in Dan Libby's list of fault codes.
    pub const fn interop_code(&self) -> i32 {
        match self {
            Self::Malformed { what, .. } => match what {
                Malformed::EncodingMismatch => -32701,
                Malformed::InvalidByte | Malformed::PartialCharacter => -32702,
                _ => -32700,
            },
            Self::Doctype => -32700,
            Self::Encoding(_) => -32701,
            Self::TooMuch { .. }
            | Self::UnknownTag(_)
            | Self::NotXmlRpc
            | Self::NoMethod
            | Self::NotACall
            | Self::NotAResponse
            | Self::NotAFault => -32600,
            Self::Boolean
            | Self::Integer(_)
            | Self::Digits(_)
            | Self::IntegerRange
            | Self::Double(_)
            | Self::Decimal
            | Self::DecimalRange
            | Self::NotAscii { .. }
            | Self::Padding
            | Self::Base64Length(_)
            | Self::NoMember
            | Self::Unhashable(_)
            | Self::Name(_) => -32602,
        }
    }
}

/// What makes a document no XML. The texts are those of expat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something else than an element at the beginning.
    #[error("syntax error")]
    Syntax,
    /// The end, before the first element or within it.
    #[error("no element found")]
    NoElement,
    /// A character that cannot stand there.
    #[error("not well-formed (invalid token)")]
    InvalidToken,
    /// A byte that is no character of the encoding.
    #[error("not well-formed (invalid token)")]
    InvalidByte,
    /// The end within a tag, a comment or the like.
    #[error("unclosed token")]
    UnclosedToken,
    /// The end within a character.
    #[error("partial character")]
    PartialCharacter,
    /// An end tag of another name than the start tag.
    #[error("mismatched tag")]
    MismatchedTag,
    /// Two attributes of one name.
    #[error("duplicate attribute")]
    DuplicateAttribute,
    /// Something behind the one element of a document.
    #[error("junk after document element")]
    Junk,
    /// `%name;` outside of a document type.
    #[error("illegal parameter entity reference")]
    ParameterEntity,
    /// An entity that is none of the five.
    #[error("undefined entity")]
    UndefinedEntity,
    /// The number of no character that XML allows.
    #[error("reference to invalid character number")]
    CharacterNumber,
    /// `<?xml` elsewhere than at the very beginning.
    #[error("XML or text declaration not at start of entity")]
    MisplacedDeclaration,
    /// The end within a CDATA section.
    #[error("unclosed CDATA section")]
    UnclosedCdata,
    /// `<?xml` with something wrong in it.
    #[error("XML declaration not well-formed")]
    Declaration,
    /// Bytes that declare to be UTF-16.
    #[error("encoding specified in XML declaration is incorrect")]
    EncodingMismatch,
}

/// An exception class of Python's whose `str` is its `repr`.
fn response(error: &XmlError) -> String {
    format!("ResponseError({})", python_repr(&error.to_string()))
}

fn non_ascii(first: char, at: usize, count: usize) -> impl fmt::Display {
    if count > 1 {
        return format!("characters in position {at}-{}", at + count - 1);
    }
    let code = u32::from(first);
    let escape = match code {
        ..0x100 => format!("\\x{code:02x}"),
        0x100..0x10000 => format!("\\u{code:04x}"),
        _ => format!("\\U{code:08x}"),
    };
    format!("character '{escape}' in position {at}")
}
