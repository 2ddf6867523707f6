//! Has a daemon do something, by its admin endpoint.

use std::time::Duration;

use hyper::{Method, StatusCode};

use super::ask::ask;
use super::fleet::Member;
use super::view::Done;
use crate::http::{Problem, Request};

/// Has a daemon do something. Who asked, and what came of it, goes into the log.
pub async fn act(
    member: &Member,
    action: &'static str,
    request: &Request,
    by: Option<String>,
) -> Result<Done, Problem> {
    let done = attempt(member, action).await;
    let (name, by) = (&member.config.name, by.unwrap_or_default());
    let (peer, id) = (
        request.client.peer,
        request.id.as_deref().unwrap_or_default(),
    );
    match &done {
        Ok(done) => {
            let said = &done.said;
            tracing::info!(daemon = %name, action, %peer, by, id, said, "an action was taken");
        }
        Err(problem) => {
            let why = &problem.detail;
            tracing::warn!(daemon = %name, action, %peer, by, id, %why, "an action was not taken");
        }
    }
    member.hurry();
    done
}

async fn attempt(member: &Member, action: &'static str) -> Result<Done, Problem> {
    let config = &member.config;
    if !config.can_be_steered() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "its admin endpoint is no Unix socket, and takes actions over nothing else",
        ));
    }
    let path = match action {
        "reload" => "/reload",
        _ => "/drain",
    };
    let requests = [(Method::POST, path)];
    let [said] = ask(&config.admin, requests, WAIT, SAID_MAX)
        .await
        .map_err(|why| Problem::new(StatusCode::BAD_GATEWAY, why))?;
    let text = String::from_utf8_lossy(&said.body).trim().to_owned();
    match said.status {
        status if status.is_success() => Ok(Done {
            name: config.name.clone(),
            action: action.into(),
            said: text,
        }),
        // It says itself what is wrong and what to do.
        status @ (StatusCode::FORBIDDEN | StatusCode::CONFLICT) => Err(Problem::new(
            status,
            format!("{} says: {text}", config.name),
        )),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(Problem::new(
            StatusCode::CONFLICT,
            "this daemon is of a version that takes no actions",
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
