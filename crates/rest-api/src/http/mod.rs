//! HTTP over a connection of core's: requests in, answers out.
//!
//! [`Server`] runs a connection with hyper, HTTP/1.1 or HTTP/2, but for requests that are answered
//! [`at_once`]; [`io`] is what hyper reads and writes through, which lets only well-formed requests pass; [`head`] holds what both versions share of
//! strictness. A [`Handler`] gets a [`Request`] and gives a [`Response`], or a [`Problem`], which is
//! told in the form that the client accepts ([`negotiate`]).

mod at_once;
mod body;
pub mod conditions;
mod cors;
mod encode;
mod finish;
mod h1;
mod h2;
mod head;
mod io;
mod negotiate;
mod problem;
mod produced;
mod query;
pub mod ranges;
mod record;
mod remains;
mod request;
mod request_body;
mod response;
mod server;
mod spelling;
mod watch;

use std::future::Future;
use std::pin::Pin;

pub use body::{Body, Upgraded};
pub use cors::CorsConfig;
pub use negotiate::{Offer, choose, rank_codings};
pub use problem::{Problem, escape_html};
pub use produced::Sender;
pub use query::{decode, is_text};
pub use request::{Client, Head, Request, User};
pub use request_body::{Progress, RequestBody};
pub use response::{FRAMING, Interim, Response, respond, turn_away, without_body};
pub use server::Server;
pub use spelling::{Spelling, spell};

/// What answers requests. One value answers all of a listener, on all loops.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. The future runs on the connection's loop, and is dropped when the client is
    /// gone.
    fn handle(&self, request: Request) -> Answering;

    /// Whether its answers go out as they are: never compressed, cut to a range or given fields that
    /// are ours. Clients are tested against them.
    fn is_verbatim(&self) -> bool {
        false
    }

    /// Whether it holds bodies to limits of its own, before it reads them.
    fn limits_bodies(&self) -> bool {
        false
    }

    /// The answer that tells of a problem.
    fn tell(&self, problem: Problem, head: &Head) -> Response {
        problem.respond(&head.headers)
    }
}

/// An answer under way.
pub type Answering = Pin<Box<dyn Future<Output = Answer>>>;
/// An answer, or what stood in its way.
pub type Answer = Result<Response, Problem>;

/// An answer that needs no waiting.
pub fn ready(answer: impl Into<Answer>) -> Answering {
    Box::pin(std::future::ready(answer.into()))
}
