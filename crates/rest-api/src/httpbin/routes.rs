//! The table of endpoints.

use std::borrow::Cow;
use std::future::{Future, ready};
use std::pin::Pin;

use hyper::Method;

use super::answer::Given;
use super::asked::Asked;
use super::endpoints::{
    auth, bytes, caching, cookies, documents, events, inspect, redirects, slow, status, websocket,
};
use super::{Dialect, text};

/// An endpoint.
pub struct Route {
    /// The path. `{}` is any part of it, `{n}` one that is a number in Python's dialect, and `{*}` is
    /// all that follows.
    path: &'static str,
    /// The methods in Python's dialect.
    python: Methods,
    /// The methods in Go's dialect.
    go: Methods,
    /// What it does.
    pub run: Run,
}

/// What an endpoint does.
pub type Run = fn(Asked) -> Pin<Box<dyn Future<Output = Given>>>;

/// Methods that an endpoint knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Methods {
    /// It is not there at all.
    None,
    /// Every one.
    Any,
    /// These; HEAD goes with GET.
    Only(&'static [&'static str]),
}

/// What is at a path.
pub enum Found {
    /// The place of an endpoint in the table, and the open parts of the path.
    Route(usize, Vec<String>),
    /// Endpoints that know other methods.
    Method(String),
    /// Go leads to the path without its `//` and `..`.
    Clean(String),
    /// Nothing.
    Nothing,
}

impl Route {
    fn methods(&self, dialect: Dialect) -> Methods {
        match dialect {
            Dialect::Python => self.python,
            Dialect::Go => self.go,
        }
    }

    /// The methods that it knows, as a list for `Allow`.
    pub fn allow(&self, dialect: Dialect) -> String {
        let mut all = match self.methods(dialect) {
            Methods::None => Vec::new(),
            Methods::Any => EVERY.to_vec(),
            Methods::Only(methods) => methods.to_vec(),
        };
        if all.contains(&"GET") && !all.contains(&"HEAD") {
            all.push("HEAD");
        }
        if dialect == Dialect::Python {
            all.push("OPTIONS");
        }
        all.join(", ")
    }

    fn knows(&self, method: &Method, dialect: Dialect) -> bool {
        match self.methods(dialect) {
            Methods::None => false,
            Methods::Any => true,
            Methods::Only(methods) => {
                methods.contains(&method.as_str())
                    || (method == Method::HEAD && methods.contains(&"GET"))
                    || (method == Method::OPTIONS && dialect == Dialect::Python)
            }
        }
    }

    /// The open parts of a path that it matches.
    fn matches(&self, parts: &[Cow<'_, str>], dialect: Dialect) -> Option<Vec<String>> {
        let mut open = Vec::new();
        let mut rest = parts;
        for pattern in self.path[1..].split('/') {
            if pattern == "{*}" {
                // What follows must be something to Python's.
                let is_none = rest.is_empty() || (dialect == Dialect::Python && rest == [""]);
                return (!is_none).then_some(open);
            }
            let (part, behind) = rest.split_first()?;
            rest = behind;
            let good = match pattern {
                "{n}" if dialect == Dialect::Python => {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
                }
                "{}" | "{n}" => !part.is_empty(),
                literal => literal == part,
            };
            if !good {
                return None;
            }
            if pattern.starts_with('{') {
                open.push(part.clone().into_owned());
            }
        }
        rest.is_empty().then_some(open)
    }
}

/// Finds what a request asks for.
pub fn find(asked: &Asked) -> Found {
    let dialect = asked.dialect;
    let path = asked.path();
    if dialect == Dialect::Go
        && let Some(clean) = cleaned(path)
    {
        let query = asked.query().map(|query| format!("?{query}"));
        let query = query.unwrap_or_default();
        return Found::Clean(format!("{}{clean}{query}", asked.prefix()));
    }
    let whole;
    let parts: Vec<Cow<'_, str>> = match dialect {
        // WSGI decodes the path before anybody cuts it.
        Dialect::Python => {
            whole = decoded(path);
            let inner = whole.trim_start_matches('/');
            inner.split('/').map(Cow::from).collect()
        }
        Dialect::Go => path[1..].split('/').map(decoded).collect(),
    };
    let mut known: Option<&'static Route> = None;
    for (place, route) in ROUTES.iter().enumerate() {
        if route.methods(dialect) == Methods::None {
            continue;
        }
        if let Some(open) = route.matches(&parts, dialect) {
            if route.knows(&asked.method, dialect) {
                return Found::Route(place, open);
            }
            known = known.or(Some(route));
        }
    }
    known.map_or(Found::Nothing, |route| Found::Method(route.allow(dialect)))
}

/// A path, or a part of one, without escapes.
fn decoded(part: &str) -> Cow<'_, str> {
    match text::unquote(part.as_bytes()) {
        Cow::Borrowed(_) => part.into(),
        Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
    }
}

/// How metrics call an endpoint.
pub fn name(place: usize) -> String {
    format!("httpbin{}", ROUTES[place].path)
}

/// The path without empty parts, `.` and `..`; `None` where it has none.
fn cleaned(path: &str) -> Option<String> {
    let inner = &path[1..];
    let last_is_empty = inner.ends_with('/');
    let parts = inner.strip_suffix('/').unwrap_or(inner);
    let is_odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if parts.is_empty() || !parts.split('/').any(is_odd) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for part in parts.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    let end = if last_is_empty && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{end}", kept.join("/")))
}

const fn route(path: &'static str, python: Methods, go: Methods, run: Run) -> Route {
    Route {
        path,
        python,
        go,
        run,
    }
}

/// An endpoint that needs no waiting and refuses nothing.
macro_rules! always {
    ($endpoint:path) => {
        |asked| Box::pin(ready(Ok($endpoint(&asked))))
    };
}

/// An endpoint that needs no waiting.
macro_rules! at_once {
    ($endpoint:path) => {
        |asked| Box::pin(ready($endpoint(&asked)))
    };
}

/// One that waits: for the body, or because it is asked to.
macro_rules! in_time {
    ($endpoint:path) => {
        |asked| Box::pin($endpoint(asked))
    };
}

const EVERY: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"];
const GET: Methods = Methods::Only(&["GET"]);
const WRITES: Methods = Methods::Only(&["POST", "PUT", "PATCH"]);
/// What httpbin's own endpoints for all methods know.
const ALL: Methods = Methods::Only(&["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"]);
const ANY: Methods = Methods::Any;

/// The endpoints of both, and those of ours. What one original lacks, its dialect has all the same,
/// unless it says that it is not there.
pub static ROUTES: &[Route] = &[
    route("/get", GET, GET, always!(inspect::get)),
    route(
        "/head",
        Methods::Only(&["HEAD"]),
        Methods::Only(&["HEAD"]),
        always!(inspect::get),
    ),
    route(
        "/post",
        Methods::Only(&["POST"]),
        Methods::Only(&["POST"]),
        in_time!(inspect::body),
    ),
    route(
        "/put",
        Methods::Only(&["PUT"]),
        Methods::Only(&["PUT"]),
        in_time!(inspect::body),
    ),
    route(
        "/patch",
        Methods::Only(&["PATCH"]),
        Methods::Only(&["PATCH"]),
        in_time!(inspect::body),
    ),
    route(
        "/delete",
        Methods::Only(&["DELETE"]),
        Methods::Only(&["DELETE"]),
        in_time!(inspect::body),
    ),
    route("/anything", ALL, ANY, in_time!(inspect::anything)),
    route("/anything/{*}", ALL, ANY, in_time!(inspect::anything)),
    route("/headers", GET, ANY, always!(inspect::headers)),
    route("/ip", GET, ANY, always!(inspect::ip)),
    route("/user-agent", GET, ANY, always!(inspect::user_agent)),
    route("/uuid", GET, ANY, always!(inspect::uuid)),
    route("/dump/request", ALL, ANY, in_time!(inspect::dump)),
    route("/env", GET, ANY, always!(inspect::environment)),
    route("/hostname", GET, ANY, always!(inspect::hostname)),
    route("/version", GET, ANY, always!(inspect::version)),
    route("/upload", WRITES, WRITES, in_time!(inspect::upload)),
    route("/status/{}", ALL, ANY, at_once!(status::status)),
    route("/unstable", GET, ANY, at_once!(status::unstable)),
    route(
        "/response-headers",
        Methods::Only(&["GET", "POST"]),
        ANY,
        at_once!(status::response_headers),
    ),
    route("/redirect/{n}", GET, ANY, at_once!(redirects::redirect)),
    route(
        "/relative-redirect/{n}",
        GET,
        ANY,
        at_once!(redirects::relative),
    ),
    route(
        "/absolute-redirect/{n}",
        GET,
        ANY,
        at_once!(redirects::absolute),
    ),
    route("/redirect-to", ALL, ANY, at_once!(redirects::to)),
    route("/cookies", GET, ANY, always!(cookies::list)),
    route("/cookies/set", GET, ANY, at_once!(cookies::set)),
    route(
        "/cookies/set/{}/{}",
        GET,
        Methods::None,
        at_once!(cookies::set_one),
    ),
    route("/cookies/delete", GET, ANY, at_once!(cookies::delete)),
    route("/basic-auth/{}/{}", GET, ANY, at_once!(auth::basic)),
    route(
        "/hidden-basic-auth/{}/{}",
        GET,
        ANY,
        at_once!(auth::hidden_basic),
    ),
    route("/bearer", GET, ANY, always!(auth::bearer)),
    route("/digest-auth/{}/{}/{}", GET, ANY, in_time!(auth::digest)),
    route("/digest-auth/{}/{}/{}/{}", GET, ANY, in_time!(auth::digest)),
    route(
        "/digest-auth/{}/{}/{}/{}/{}",
        GET,
        Methods::None,
        in_time!(auth::digest),
    ),
    route("/cache", GET, ANY, at_once!(caching::cache)),
    route("/cache/{n}", GET, ANY, at_once!(caching::cache_control)),
    route("/etag/{}", GET, ANY, at_once!(caching::etag)),
    route("/gzip", GET, ANY, at_once!(documents::gzip)),
    route("/deflate", GET, ANY, at_once!(documents::deflate)),
    route("/brotli", GET, ANY, at_once!(documents::brotli)),
    route("/zstd", GET, ANY, at_once!(documents::zstd)),
    route("/delay/{}", ALL, ANY, in_time!(slow::delay)),
    route("/drip", GET, ANY, in_time!(slow::drip)),
    route("/stream/{n}", GET, ANY, at_once!(events::stream)),
    route("/jsonl", GET, ANY, in_time!(events::jsonl)),
    route("/sse", GET, ANY, in_time!(events::sse)),
    route("/trailers", GET, ANY, in_time!(events::trailers)),
    route("/bytes/{n}", GET, ANY, at_once!(bytes::bytes)),
    route("/stream-bytes/{n}", GET, ANY, at_once!(bytes::stream)),
    route("/range/{n}", GET, ANY, in_time!(bytes::range)),
    route("/links/{n}", GET, ANY, at_once!(documents::links)),
    route("/links/{n}/{n}", GET, ANY, at_once!(documents::links)),
    route("/base64/{}", GET, ANY, at_once!(documents::base64)),
    route("/base64/{}/{}", GET, ANY, at_once!(documents::base64)),
    route("/image", GET, ANY, at_once!(documents::any_image)),
    route("/image/{}", GET, ANY, at_once!(documents::image)),
    route("/", GET, GET, always!(documents::index)),
    route("/html", GET, ANY, always!(documents::html)),
    route("/xml", GET, ANY, always!(documents::xml)),
    route("/json", GET, ANY, always!(documents::json)),
    route("/robots.txt", GET, ANY, always!(documents::robots)),
    route("/deny", GET, ANY, always!(documents::deny)),
    route("/encoding/utf8", GET, GET, always!(documents::utf8)),
    route("/forms/post", GET, GET, always!(documents::form)),
    route("/websocket/echo", GET, GET, at_once!(websocket::echo)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn open(pattern: &'static str, path: &str, dialect: Dialect) -> Option<Vec<String>> {
        let parts: Vec<_> = path[1..].split('/').map(Cow::from).collect();
        route(pattern, GET, GET, always!(inspect::get)).matches(&parts, dialect)
    }

    #[test]
    fn a_pattern_matches_part_by_part() {
        let (python, go) = (Dialect::Python, Dialect::Go);
        for (pattern, path, dialect, expected) in [
            ("/get", "/get", python, Some(&[][..])),
            ("/get", "/get/", python, None),
            ("/a/{}/b", "/a/x/b", python, Some(&["x"])),
            ("/a/{}/b", "/a//b", python, None),
            ("/r/{n}", "/r/12", python, Some(&["12"])),
            ("/r/{n}", "/r/-1", python, None),
            ("/r/{n}", "/r/x", go, Some(&["x"])),
            ("/any/{*}", "/any/", python, None),
            ("/any/{*}", "/any/", Dialect::Go, Some(&[])),
            ("/any/{*}", "/any/a/b", python, Some(&[])),
            ("/any/{*}", "/any", python, None),
            ("/", "/", python, Some(&[])),
        ] {
            let found = open(pattern, path, dialect);
            let found = found
                .as_ref()
                .map(|open| open.iter().map(String::as_str).collect());
            assert_eq!(found, expected.map(<[&str]>::to_vec), "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_is_cleaned_of_what_does_not_count() {
        for (path, expected) in [
            ("/a/b", None),
            ("/", None),
            ("/a/", None),
            ("/a//b", Some("/a/b")),
            ("//a/./b/../c/", Some("/a/c/")),
            ("/../..", Some("/")),
        ] {
            assert_eq!(cleaned(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_methods_that_are_known_are_listed_with_head() {
        let get = route("/", GET, ANY, always!(inspect::get));
        assert_eq!(get.allow(Dialect::Python), "GET, HEAD, OPTIONS");
        assert_eq!(
            route("/", GET, GET, get.run).allow(Dialect::Go),
            "GET, HEAD"
        );
    }
}
