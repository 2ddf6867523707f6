//! A decimal n gets fib(n), worked out on the pool so that nobody else waits for it.

use portyard_core::datagram::{Answer, DatagramService, Guard, Request};
use portyard_core::wire::fib;

use crate::options::Options;

/// The fib service.
pub struct Fib {
    max: u32,
}

impl Fib {
    /// Takes `max_n` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        if options.max_n > fib::MAX_ENCODABLE {
            return Err(format!(
                "options.max_n = {} is more than {}, beyond which an answer fits no datagram",
                options.max_n,
                fib::MAX_ENCODABLE
            ));
        }
        Ok(Self { max: options.max_n })
    }
}

impl DatagramService for Fib {
    fn answer(&self, request: Request<'_>, answer: &mut Vec<u8>) -> Answer {
        match fib::parse(request.payload, self.max) {
            Ok(n) => Answer::Later(Box::new(move || fib::answer(n).into_bytes())),
            Err(error) => {
                answer.extend_from_slice(error.to_string().as_bytes());
                Answer::Buffer
            }
        }
    }

    fn guard(&self) -> Guard {
        Guard::SIGNATURE_AND_MARK
    }
}
