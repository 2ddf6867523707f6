//! What a client gets back.

use super::json::JsonError;
use super::reader::Reader;
use super::{Caps, Id};
use crate::value::Value;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The id of the request, written as the server saw fit; `null` when it could not make it out.
    pub id: Id,
    /// What came of it.
    pub outcome: Result<Value, ErrorObject>,
}

/// An error, as the server describes it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("error {code}: {message}")]
pub struct ErrorObject {
    /// What kind it is: [`PARSE_ERROR`](super::PARSE_ERROR) and the like, or the server's own.
    pub code: i64,
    /// A sentence, in the server's words.
    pub message: String,
    /// More about it.
    pub data: Option<Value>,
}

/// Reads a response.
pub fn decode_response(message: &[u8], caps: &Caps) -> Result<Response, ResponseError> {
    let mut reader = Reader::new(message, caps)?;
    let response = response(&mut reader)?;
    reader.scanner.end()?;
    Ok(response)
}

/// Reads what answers a batch: responses in any order, or one that refuses it as a whole.
pub fn decode_batch(message: &[u8], caps: &Caps) -> Result<Vec<Response>, ResponseError> {
    let mut reader = Reader::new(message, caps)?;
    let mut responses = Vec::new();
    if reader.scanner.eat(b'[') {
        loop {
            if responses.len() == caps.batch {
                return Err(ResponseError::TooMany { max: caps.batch });
            }
            responses.push(response(&mut reader)?);
            if !reader.scanner.another(b']')? {
                break;
            }
        }
    } else {
        responses.push(response(&mut reader)?);
    }
    reader.scanner.end()?;
    Ok(responses)
}

fn response(reader: &mut Reader<'_>) -> Result<Response, ResponseError> {
    let (mut version, mut id, mut result, mut error) = (None, None, None, None);
    members(reader, |reader, key| {
        Ok(match key {
            "jsonrpc" => {
                let two = reader.scanner.text()?.is_some_and(|text| text == "2.0");
                version.replace(two).is_some()
            }
            "id" => {
                let json = reader.scanner.id()?;
                let wrong = ResponseError::Wrong("its id is no string, number or null");
                id.replace(Id::from_json(json.ok_or(wrong)?)).is_some()
            }
            "result" => result.replace(reader.value()?).is_some(),
            "error" => error.replace(error_object(reader)?).is_some(),
            _ => {
                reader.scanner.skip()?;
                false
            }
        })
    })?;
    if version != Some(true) {
        return Err(ResponseError::Wrong("it does not say \"jsonrpc\": \"2.0\""));
    }
    let outcome = match (result, error) {
        (Some(value), None) => Ok(value),
        (None, Some(error)) => Err(error),
        _ => {
            return Err(ResponseError::Wrong(
                "it has a result and an error, or neither",
            ));
        }
    };
    let id = id.ok_or(ResponseError::Wrong("it has no id"))?;
    Ok(Response { id, outcome })
}

fn error_object(reader: &mut Reader<'_>) -> Result<ErrorObject, ResponseError> {
    let (mut code, mut message, mut data) = (None, None, None);
    members(reader, |reader, key| {
        Ok(match key {
            "code" => match reader.value()? {
                Value::Int(int) => code.replace(int).is_some(),
                _ => return Err(ResponseError::Wrong("its error's code is no whole number")),
            },
            "message" => match reader.value()? {
                Value::String(text) => message.replace(text).is_some(),
                _ => return Err(ResponseError::Wrong("its error's message is no string")),
            },
            "data" => data.replace(reader.value()?).is_some(),
            _ => {
                reader.scanner.skip()?;
                false
            }
        })
    })?;
    match (code, message) {
        (Some(code), Some(message)) => Ok(ErrorObject {
            code,
            message,
            data,
        }),
        _ => Err(ResponseError::Wrong("its error lacks a code or a message")),
    }
}

/// Reads an object. `take` reads the value of each key, and says whether it had that key before.
fn members<'a>(
    reader: &mut Reader<'a>,
    mut take: impl FnMut(&mut Reader<'a>, &str) -> Result<bool, ResponseError>,
) -> Result<(), ResponseError> {
    if !reader.scanner.eat(b'{') {
        reader.scanner.skip()?;
        return Err(ResponseError::Wrong("it is no object"));
    }
    if reader.scanner.eat(b'}') {
        return Ok(());
    }
    loop {
        let key = reader.scanner.key()?;
        if take(reader, &key)? {
            return Err(ResponseError::Wrong("it has a member twice"));
        }
        if !reader.scanner.another(b'}')? {
            return Ok(());
        }
    }
}

/// The server's message is not what answers a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It is no JSON, or more than the caps allow.
    #[error("the response cannot be read: {0}")]
    Json(#[from] JsonError),
    /// It is not what the specification's section 5 describes.
    #[error("the response is none: {0}")]
    Wrong(&'static str),
    /// More responses than the cap.
    #[error("the server sent more than {max} responses in a batch")]
    TooMany {
        /// The cap.
        max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{encode_error, encode_result};

    const CAPS: Caps = Caps {
        size: 2_000,
        batch: 3,
    };

    fn read(text: &str) -> Result<Response, ResponseError> {
        decode_response(text.as_bytes(), &CAPS)
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let twice = ResponseError::Wrong("it has a member twice");
        let either = ResponseError::Wrong("it has a result and an error, or neither");
        for (text, error) in [
            ("5", ResponseError::Wrong("it is no object")),
            ("[]", ResponseError::Wrong("it is no object")),
            (r#"{"jsonrpc":"2.0","id":1}"#, either.clone()),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#,
                either,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":1,"result":1}"#,
                twice.clone(),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"code":1,"message":""}}"#,
                twice,
            ),
            (
                r#"{"jsonrpc":"2.0","result":1}"#,
                ResponseError::Wrong("it has no id"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":[],"result":1}"#,
                ResponseError::Wrong("its id is no string, number or null"),
            ),
            (
                r#"{"id":1,"result":1}"#,
                ResponseError::Wrong("it does not say \"jsonrpc\": \"2.0\""),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.0,"message":""}}"#,
                ResponseError::Wrong("its error's code is no whole number"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":2}}"#,
                ResponseError::Wrong("its error's message is no string"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{}}"#,
                ResponseError::Wrong("its error lacks a code or a message"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":9223372036854775808}"#,
                JsonError::IntRange { at: 33 }.into(),
            ),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }

    #[test]
    fn responses_are_read_as_they_are_written() {
        let (id, value) = (Id::text("a"), Value::List(vec![Value::Nil]));
        let mut text = b"[".to_vec();
        encode_result(&id, &value, &mut text).unwrap();
        text.push(b',');
        encode_error(&id, -5, "no\n", Some(&value), &mut text);
        text.push(b']');
        let error = ErrorObject {
            code: -5,
            message: "no\n".into(),
            data: Some(value.clone()),
        };
        let responses = [Ok(value), Err(error)].map(|outcome| {
            let id = id.clone();
            Response { id, outcome }
        });
        assert_eq!(decode_batch(&text, &CAPS).unwrap(), responses);
    }

    #[test]
    fn a_batch_may_be_refused_as_a_whole_and_has_a_cap() {
        let one = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#;
        let refused = decode_batch(one.as_bytes(), &CAPS).unwrap();
        assert_eq!(refused, [read(one).unwrap()]);
        let four = format!("[{}]", [one; 4].join(","));
        let refused = decode_batch(four.as_bytes(), &CAPS);
        assert_eq!(refused, Err(ResponseError::TooMany { max: 3 }));
    }
}
