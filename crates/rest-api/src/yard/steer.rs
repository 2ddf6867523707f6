//! Has a daemon do something, by its admin endpoint.

use std::time::Duration;

use hyper::{Method, StatusCode};

use super::ask::ask;
use super::fleet::Member;
use super::view::Done;
use crate::http::{Problem, Request};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// `reload`, `drain` or `resume`.
    pub action: &'static str,
    /// Of an fd-broker: the worker or the pool that it is about, instead of the daemon.
    pub worker: Option<&'a str>,
}

/// Has a daemon do something. Who asked, and what came of it, goes into the log.
pub async fn act(
    member: &Member,
    order: Order<'_>,
    request: &Request,
    by: &str,
) -> Result<Done, Problem> {
    let done = attempt(member, order).await;
    let name = &member.config.name;
    let Order { action, worker } = order;
    let (peer, id) = (request.client.peer, request.id());
    match &done {
        Ok(done) => {
            let said = &done.said;
            tracing::info!(daemon = %name, action, worker, %peer, by, id, said, "an action was taken");
        }
        Err(problem) => {
            let why = &problem.detail;
            tracing::warn!(daemon = %name, action, worker, %peer, by, id, %why, "an action was not taken");
        }
    }
    member.hurry();
    done
}

async fn attempt(member: &Member, order: Order<'_>) -> Result<Done, Problem> {
    let config = &member.config;
    if !config.can_be_steered() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "its admin endpoint is no Unix socket, and takes actions over nothing else",
        ));
    }
    let path = match (order.worker.is_some(), order.action) {
        (false, "reload") => "/reload",
        (false, _) => "/drain",
        (true, "drain") => "/workers/drain",
        (true, _) => "/workers/resume",
    };
    let name = order.worker.unwrap_or_default();
    let requests = [(Method::POST, path, name.to_owned())];
    let [said] = ask(&config.admin, requests, WAIT, SAID_MAX)
        .await
        .map_err(|why| Problem::new(StatusCode::BAD_GATEWAY, why))?;
    let text = String::from_utf8_lossy(&said.body).trim().to_owned();
    match said.status {
        status if status.is_success() => Ok(Done {
            name: config.name.clone(),
            action: order.action.into(),
            worker: order.worker.map(str::to_owned),
            said: text,
        }),
        // It says itself what is wrong and what to do.
        status @ (StatusCode::FORBIDDEN | StatusCode::CONFLICT) => Err(Problem::new(
            status,
            format!("{} says: {text}", config.name),
        )),
        StatusCode::BAD_REQUEST => Err(Problem::new(StatusCode::BAD_REQUEST, text)),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(Problem::new(
            StatusCode::CONFLICT,
            "this daemon, or its version, has no such action",
        )),
        status => Err(Problem::new(
            StatusCode::BAD_GATEWAY,
            format!("it has answered {status}"),
        )),
    }
}

/// A reload reads files.
const WAIT: Duration = Duration::from_secs(35);
const SAID_MAX: usize = 16 << 10;
