//! Endpoints that set, tell and delete cookies.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderValue, SET_COOKIE};

use crate::http::Response;
use crate::httpbin::Dialect;
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::cookies::{self, Attributes};
use crate::httpbin::echo;
use crate::httpbin::json::Writer;

/// `/cookies`.
pub fn list(asked: &Asked) -> Response {
    let shows_all = asked.dialect == Dialect::Go || asked.argument("show_env").is_some();
    let mut found = BTreeMap::new();
    for (name, value) in asked.cookies() {
        if !shows_all && ANALYTICS.contains(&name.as_str()) {
            continue;
        }
        match asked.dialect {
            // The first of a name counts to werkzeug, the last to Go.
            Dialect::Python => {
                found.entry(name).or_insert(value);
            }
            Dialect::Go => {
                found.insert(name, value);
            }
        }
    }
    let mut w = Writer::indented(asked.dialect);
    w.object(|w| {
        w.name(b"cookies");
        w.object(|w| {
            for (name, value) in &found {
                echo::member(w, name, value);
            }
        });
    });
    answer::json(StatusCode::OK, asked.dialect, w)
}

/// `/cookies/set`.
pub fn set(asked: &Asked) -> Given {
    let mut response = to_list(asked)?;
    match asked.dialect {
        Dialect::Python => {
            let secure = asked.claimed_scheme() == "https";
            for (name, value) in first_of_each(asked) {
                check(&name)?;
                add(&mut response, cookies::set_python(&name, &value, secure))?;
            }
        }
        Dialect::Go => set_go(asked, &mut response, None)?,
    }
    Ok(response)
}

/// `/cookies/set/{name}/{value}`.
pub fn set_one(asked: &Asked) -> Given {
    let mut response = to_list(asked)?;
    let (name, value) = (asked.parameter(0), asked.parameter(1));
    check(name)?;
    let secure = asked.claimed_scheme() == "https";
    add(&mut response, cookies::set_python(name, value, secure))?;
    Ok(response)
}

/// `/cookies/delete`.
pub fn delete(asked: &Asked) -> Given {
    let mut response = to_list(asked)?;
    match asked.dialect {
        Dialect::Python => {
            for (name, _) in first_of_each(asked) {
                check(&name)?;
                add(&mut response, cookies::delete_python(&name))?;
            }
        }
        Dialect::Go => {
            let year = Duration::from_secs(365 * 24 * 60 * 60);
            let date = SystemTime::now()
                .checked_sub(year)
                .map(httpdate::fmt_http_date);
            set_go(asked, &mut response, date)?;
        }
    }
    Ok(response)
}

fn to_list(asked: &Asked) -> Given {
    let location = format!("{}/cookies", asked.prefix());
    answer::redirect(StatusCode::FOUND, &location, asked.dialect)
}

/// The first parameter of each name.
fn first_of_each(asked: &Asked) -> Vec<(String, String)> {
    let mut seen = std::collections::HashSet::new();
    let mut arguments = asked.arguments();
    arguments.retain(|(name, _)| seen.insert(name.clone()));
    arguments
}

fn set_go(asked: &Asked, response: &mut Response, expired: Option<String>) -> Result<(), Refusal> {
    let mut attributes = Attributes {
        path: "/".into(),
        domain: String::new(),
        http_only: true,
        secure: asked.claimed_scheme() == "https",
        same_site: None,
        expired,
    };
    let arguments = first_of_each(asked);
    let attribute = |name: &str| {
        let inner = name.strip_prefix("attr[")?.strip_suffix(']')?;
        Some(inner.to_ascii_lowercase())
    };
    for (name, value) in &arguments {
        let is_yes = value == "1" || value.eq_ignore_ascii_case("true");
        match attribute(name).as_deref() {
            Some("domain") => attributes.domain.clone_from(value),
            Some("path") => attributes.path.clone_from(value),
            Some("httponly") => attributes.http_only = is_yes,
            Some("secure") => attributes.secure = is_yes,
            Some("samesite") => {
                let known = ["Strict", "Lax", "None"].into_iter();
                let mut known = known.filter(|known| known.eq_ignore_ascii_case(value));
                attributes.same_site = known.next().or(attributes.same_site);
            }
            _ => {}
        }
    }
    for (name, value) in &arguments {
        if attribute(name).is_none()
            && let Some(cookie) = cookies::set_go(name, value, &attributes)
        {
            add(response, cookie)?;
        }
    }
    Ok(())
}

/// A name that ends within the field would be something else to clients.
fn check(name: &str) -> Result<(), Refusal> {
    if cookies::is_token(name) {
        return Ok(());
    }
    Err(Refusal::bad(format!("{name:?} is no name of a cookie")))
}

fn add(response: &mut Response, cookie: Vec<u8>) -> Result<(), Refusal> {
    let cookie = HeaderValue::try_from(cookie);
    let cookie = cookie.map_err(|_| Refusal::bad("the cookie has a control character"))?;
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(())
}

/// Cookies that were once set by what counted httpbin's visitors.
const ANALYTICS: &[&str] = &[
    "_gauges_unique",
    "_gauges_unique_year",
    "_gauges_unique_month",
    "_gauges_unique_day",
    "_gauges_unique_hour",
    "__utmz",
    "__utma",
    "__utmb",
];
