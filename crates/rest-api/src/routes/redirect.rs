//! Sends clients elsewhere.

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};

use super::config::RedirectConfig;
use super::pattern::{Captures, Pattern};
use super::template::{Escape, Template};
use super::values::{fill, template};
use crate::http::{Answer, Problem, Request, respond};

/// The handler.
pub struct Redirect {
    to: Template,
    keep_query: bool,
    status: StatusCode,
}

impl Redirect {
    /// Reads where to.
    pub fn new(config: &RedirectConfig, pattern: &Pattern) -> Result<Self, String> {
        let to = &config.to;
        // The authority must not be the client's to choose.
        let authority = to
            .split_once("://")
            .map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
        let is_path = to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/{{");
        let is_whole = ["http://", "https://"]
            .iter()
            .any(|scheme| to.starts_with(scheme));
        if !is_path && (!is_whole || authority.is_empty() || authority.contains("{{")) {
            return Err(format!(
                "redirect.to = \"{to}\" must be a path, or begin with http:// or https:// and a host; \
                 what a client chooses may only come behind the first segment or the host"
            ));
        }
        let status = StatusCode::from_u16(config.status).ok();
        let status = status.filter(|_| matches!(config.status, 301 | 302 | 303 | 307 | 308));
        Ok(Self {
            to: template(to, pattern).map_err(|why| format!("redirect.to: {why}"))?,
            keep_query: config.keep_query,
            status: status.ok_or("redirect.status must be 301, 302, 303, 307 or 308")?,
        })
    }

    /// Answers.
    pub fn answer(&self, request: &Request, captures: &Captures) -> Answer {
        let mut to = fill(&self.to, Escape::Url, request, captures);
        if self.keep_query
            && let Some(query) = request.uri.query()
        {
            let behind = to.find('#').map_or(String::new(), |at| to.split_off(at));
            to.push(if to.contains('?') { '&' } else { '?' });
            to.push_str(query);
            to.push_str(&behind);
        }
        let location = HeaderValue::from_str(&to);
        let location = location.map_err(|_| Problem::internal("the redirection has no address"))?;
        let mut response = respond(self.status, "text/plain; charset=utf-8", format!("{to}\n"));
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }
}
