//! Which handler answers a request.

use std::rc::Rc;
use std::sync::Arc;

use crate::built_in::BuiltIn;
use crate::http::{Answering, Handler, Problem, Request, ready};
use crate::state::State;

/// Answers the requests of a listener by the routes of the configuration, else by what is built in.
pub struct Router {
    state: State,
    listener: String,
    built_in: BuiltIn,
}

impl Router {
    /// For the listener of that name.
    pub fn new(state: State, listener: &str) -> Self {
        let built_in = BuiltIn::new(state.metrics());
        Self {
            state,
            listener: listener.into(),
            built_in,
        }
    }
}

impl Handler for Router {
    fn handle(&self, request: Request) -> Answering {
        match self.built_in.answer(&request) {
            Some(answer) => ready(answer),
            None => ready(Problem::not_found()),
        }
    }
}
