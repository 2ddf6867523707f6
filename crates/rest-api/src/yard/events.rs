//! What changes, as server-sent events (the HTML standard): a page that shows them needs no timer.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use portyard_core::limits::Gate;
use serde::Serialize;

use super::YardService;
use super::fleet::Latest;
use super::view::Daemon;
use crate::http::{Body, Request, Response, respond};

/// A place among the streams.
struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// All daemons first, then each that has been asked, for as long as the client listens and the listener
/// is open. Who is slow misses what was overtaken meanwhile. `gate` has been entered.
pub fn stream(yard: Arc<YardService>, request: &Request, gate: Arc<Gate>) -> Response {
    let mut receiver = yard.fleet().subscribe();
    let closed = request.client.listener.closed.clone();
    let place = Place(gate);
    let body = Body::produce(None, |mut sender| async move {
        let _place = place;
        let mut known = Latest::default();
        loop {
            let latest = receiver.borrow_and_update().clone();
            let mut text = String::new();
            if is_same(&known, &latest) && !known.members.is_empty() {
                for (old, new) in known.members.iter().zip(&latest.members) {
                    if !Arc::ptr_eq(&old.daemon, &new.daemon) {
                        let daemon = Daemon {
                            history: None,
                            ..Daemon::clone(&new.daemon)
                        };
                        text += &event("daemon", None, &daemon);
                    }
                }
                let last = known.changes.front().map_or(0, |change| change.id);
                for change in latest
                    .changes
                    .iter()
                    .rev()
                    .filter(|change| change.id > last)
                {
                    text += &event("change", Some(change.id), change);
                }
                let last = known.taken.front().map_or(0, |taken| taken.id);
                for taken in latest.taken.iter().rev().filter(|taken| taken.id > last) {
                    text += &event("action", None, taken);
                }
            } else {
                text = event("yard", None, &yard.view(&latest));
            }
            known = latest;
            sender.send(text).await;
            loop {
                tokio::select! {
                    changed = receiver.changed() => match changed {
                        Ok(()) => break,
                        // The daemon ends.
                        Err(_) => return Ok(()),
                    },
                    () = closed.cancelled() => return Ok(()),
                    // Shows a client that is gone, and a balancer that somebody is there.
                    () = tokio::time::sleep(QUIET) => sender.send(":\n\n").await,
                }
            }
        }
    });
    let mut response = respond(StatusCode::OK, "text/event-stream", body);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

fn is_same(old: &Latest, new: &Latest) -> bool {
    old.members.len() == new.members.len()
        && old
            .members
            .iter()
            .zip(&new.members)
            .all(|(old, new)| Arc::ptr_eq(&old.config, &new.config))
}

fn event(name: &str, id: Option<u64>, value: &impl Serialize) -> String {
    // These values have nothing in them that JSON could not say; and JSON has no line breaks in it.
    let data = serde_json::to_string(value).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n")
}

const QUIET: Duration = Duration::from_secs(15);
