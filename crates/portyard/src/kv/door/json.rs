//! JSON-RPC, a message on each line.

use portyard_wire::framing::FrameError;
use portyard_wire::jsonrpc::{self, Decoder, Framing, Id, Params, Response, StreamError};

use super::{Call, Nonsense, Reply, caps};
use crate::kv::raised::Raised;

/// The bytes of a call.
pub fn encode(call: &Call, number: u64) -> Result<Vec<u8>, String> {
    let id = Id::from(number);
    let params = Params::Positional(call.params.clone());
    let mut message = Vec::new();
    jsonrpc::encode_request(Some(&id), call.method, &params, &mut message)
        .map_err(|error| error.to_string())?;
    let mut framed = Vec::with_capacity(message.len() + 1);
    // A line has any length.
    let _ = Framing::Lines.frame(&message, &mut framed);
    Ok(framed)
}

/// The replies of a connection.
pub struct Replies {
    decoder: Decoder,
    max: usize,
}

impl Replies {
    pub fn new(max: usize) -> Self {
        Self {
            decoder: Decoder::new(max),
            max,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    pub fn at_boundary(&self) -> bool {
        self.decoder.at_boundary()
    }

    pub fn next(&mut self, number: u64) -> Result<Option<Reply>, Nonsense> {
        let message = self.decoder.next().map_err(|error| match error {
            StreamError::Frame(FrameError::TooLong { .. } | FrameError::NoDelimiter { .. }) => {
                Nonsense::TooLong { max: self.max }
            }
            other => Nonsense::Other(other.to_string()),
        })?;
        let Some(message) = message else {
            return Ok(None);
        };
        let Response { id, outcome } = jsonrpc::decode_response(&message, &caps(self.max))
            .map_err(|error| Nonsense::Other(error.to_string()))?;
        let is_ours = id == Id::from(number) || id == Id::null() && outcome.is_err();
        if !is_ours {
            let why = "the server answers something that was not asked";
            return Err(Nonsense::Other(why.into()));
        }
        Ok(Some(Reply::new(outcome.map_err(Raised::from_json))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_wire::value::Value;

    fn read(text: &str) -> Result<Option<Reply>, Nonsense> {
        let mut replies = Replies::new(100);
        replies.feed(text.as_bytes());
        replies.next(7)
    }

    #[test]
    fn only_the_answer_to_our_question_is_one() {
        let ours = read("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":5}\n").unwrap();
        assert_eq!(ours.unwrap().outcome.unwrap(), Value::Int(5));
        let nameless =
            "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1,\"message\":\"m\"}}\n";
        assert!(read(nameless).unwrap().unwrap().outcome.is_err());
        for other in [
            "{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":5}\n",
            "{}\n",
            "HTTP/1.1 400 \r\n",
        ] {
            assert!(matches!(read(other), Err(Nonsense::Other(_))), "{other}");
        }
        assert_eq!(
            read(&format!("{{{}", " ".repeat(200))).unwrap_err(),
            Nonsense::TooLong { max: 100 }
        );
        assert!(read("{\"jsonrpc\"").unwrap().is_none());
    }
}
