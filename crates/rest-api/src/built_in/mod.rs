//! What a listener of service `http` answers without any configuration.

mod hello;

use crate::http::{Answering, Handler, Problem, Request, ready};

/// The paths that are there without a route.
pub struct BuiltIn;

impl Handler for BuiltIn {
    fn handle(&self, request: Request) -> Answering {
        match request.path() {
            "/hello" => ready(hello::answer(&request)),
            _ => ready(Problem::not_found()),
        }
    }
}
