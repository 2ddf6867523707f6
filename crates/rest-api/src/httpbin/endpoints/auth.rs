//! Endpoints that ask who is there: Basic (RFC 7617), Bearer (RFC 6750) and Digest (RFC 7616).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE};

use super::{random, status};
use crate::http::Response;
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::digest::{Algorithm, Credentials};
use crate::httpbin::json::Writer;
use crate::httpbin::{Dialect, cookies, echo, text};

/// `/basic-auth/{user}/{password}`.
pub fn basic(asked: &Asked) -> Given {
    let (user, good) = basic_proof(asked);
    match (good, asked.dialect) {
        (true, _) => Ok(authenticated(asked, StatusCode::OK, true, &user)),
        (false, Dialect::Python) => status::with_status(asked, StatusCode::UNAUTHORIZED),
        (false, Dialect::Go) => {
            let mut response = authenticated(asked, StatusCode::UNAUTHORIZED, false, &user);
            let realm = HeaderValue::from_static("Basic realm=\"Fake Realm\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
            Ok(response)
        }
    }
}

/// `/hidden-basic-auth/{user}/{password}`.
pub fn hidden_basic(asked: &Asked) -> Given {
    let (user, good) = basic_proof(asked);
    match (good, asked.dialect) {
        (true, _) => Ok(authenticated(asked, StatusCode::OK, true, &user)),
        (false, Dialect::Python) => status::with_status(asked, StatusCode::NOT_FOUND),
        (false, Dialect::Go) => Err(Refusal::new(StatusCode::NOT_FOUND, "")),
    }
}

/// The user that a client claims to be, and whether the password is the right one.
fn basic_proof(asked: &Asked) -> (String, bool) {
    let field = asked.field(&AUTHORIZATION).unwrap_or_default();
    let (scheme, token) = field.split_once(' ').unwrap_or_default();
    let decoded = STANDARD.decode(token.trim()).unwrap_or_default();
    let pair = String::from_utf8(decoded).unwrap_or_default();
    let Some((user, password)) = pair
        .split_once(':')
        .filter(|_| scheme.eq_ignore_ascii_case("basic"))
    else {
        return (String::new(), false);
    };
    let good = user == asked.parameter(0) && password == asked.parameter(1);
    (user.to_owned(), good)
}

fn authenticated(asked: &Asked, status: StatusCode, good: bool, user: &str) -> Response {
    let mut w = Writer::indented(asked.dialect);
    let yes = if good { "true" } else { "false" };
    w.object(|w| {
        w.name(b"authenticated");
        w.raw(yes);
        echo::member(w, "user", user);
        if asked.dialect == Dialect::Go {
            w.name(b"authorized");
            w.raw(yes);
        }
    });
    answer::json(status, asked.dialect, w)
}

/// `/bearer`.
pub fn bearer(asked: &Asked) -> Response {
    let field = asked.field(&AUTHORIZATION).unwrap_or_default();
    let token = match asked.dialect {
        Dialect::Python => field.strip_prefix("Bearer ").map(ToOwned::to_owned),
        Dialect::Go => {
            let words: Vec<_> = field.split_whitespace().collect();
            match words[..] {
                ["Bearer", token] => Some(token.to_owned()),
                _ => None,
            }
        }
    };
    let Some(token) = token else {
        let mut response = match asked.dialect {
            Dialect::Python => answer::empty(StatusCode::UNAUTHORIZED, asked.dialect),
            Dialect::Go => Refusal::new(StatusCode::UNAUTHORIZED, "").respond(asked.dialect),
        };
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        return response;
    };
    let mut w = Writer::indented(asked.dialect);
    w.object(|w| {
        w.name(b"authenticated");
        w.raw("true");
        echo::member(w, "token", &token);
    });
    answer::json(StatusCode::OK, asked.dialect, w)
}

/// `/digest-auth/{qop}/{user}/{password}[/{algorithm}[/{stale_after}]]`.
pub async fn digest(mut asked: Asked) -> Given {
    let body = asked.read().await?;
    match asked.dialect {
        Dialect::Python => digest_python(&asked, &body),
        Dialect::Go => digest_go(&asked),
    }
}

/// What the cookies of httpbin's dialogue say: a client without cookies does not get through where they
/// are required, and a nonce is good for so many requests, or once more than it was used.
fn digest_python(asked: &Asked, body: &[u8]) -> Given {
    let needs_cookie = asked
        .argument("require-cookie")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let needs_cookie = ["1", "t", "true"].contains(&needs_cookie.as_str());
    let algorithm = Algorithm::named(asked.parameter(3)).unwrap_or(Algorithm::Md5);
    let stale_after = asked.parameters.get(4).map_or("never", String::as_str);
    let field = asked.field(&AUTHORIZATION).unwrap_or_default();
    let challenge = |stale: bool, last: Option<&str>| {
        let mut response = answer::empty(StatusCode::UNAUTHORIZED, asked.dialect);
        answer::set(
            &mut response,
            WWW_AUTHENTICATE,
            &challenge_python(asked, algorithm, stale),
        )?;
        set_cookie(&mut response, "stale_after", stale_after);
        if let Some(last) = last {
            set_cookie(&mut response, "last_nonce", last);
        }
        set_cookie(&mut response, "fake", "fake_value");
        Ok(response)
    };
    let Some(credentials) = Credentials::parse(&field) else {
        return challenge(false, None);
    };
    if needs_cookie && !asked.headers.contains_key(COOKIE) {
        return challenge(false, None);
    }
    let found = asked.cookies();
    let cookie = |name: &str| {
        let found = found.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    };
    if needs_cookie && cookie("fake") != Some("fake_value") {
        let mut w = Writer::indented(asked.dialect);
        w.object(|w| {
            w.name(b"errors");
            w.list(|w| {
                w.item();
                w.text(b"missing cookie set on challenge");
            });
        });
        let mut response = answer::json(StatusCode::FORBIDDEN, asked.dialect, w);
        set_cookie(&mut response, "fake", "fake_value");
        return Ok(response);
    }
    let nonce = credentials.get("nonce").unwrap_or_default();
    let left = cookie("stale_after");
    if cookie("last_nonce") == Some(nonce) || left == Some("0") {
        return challenge(true, Some(nonce));
    }
    let (user, password) = (asked.parameter(1), asked.parameter(2));
    if !proves(asked, &credentials, user, password, body) {
        return challenge(false, Some(nonce));
    }
    let mut response = authenticated(asked, StatusCode::OK, true, user);
    set_cookie(&mut response, "fake", "fake_value");
    if let Some(left) = left.filter(|left| !left.is_empty()) {
        let next = left
            .parse::<i64>()
            .map_or("never".into(), |left| left.saturating_sub(1).to_string());
        set_cookie(&mut response, "stale_after", &next);
    }
    Ok(response)
}

fn challenge_python(asked: &Asked, algorithm: Algorithm, stale: bool) -> String {
    let nonce = algorithm.hash(&random::<16>());
    let opaque = algorithm.hash(&random::<10>());
    let qop = match asked.parameter(0) {
        qop @ ("auth" | "auth-int") => qop,
        _ => "auth, auth-int",
    };
    // httpbin writes Python's words.
    let stale = if stale { "True" } else { "False" };
    let algorithm = algorithm.name();
    format!(
        "Digest realm=\"me@kennethreitz.com\", nonce=\"{nonce}\", opaque=\"{opaque}\", qop=\"{qop}\", \
         algorithm={algorithm}, stale={stale}"
    )
}

fn digest_go(asked: &Asked) -> Given {
    let qop = asked.parameter(0).to_ascii_lowercase();
    if qop != "auth" {
        let why = format!(
            "invalid QOP directive: {} != \"auth\"",
            text::go_quoted(&qop)
        );
        return Err(Refusal::bad(why));
    }
    let name = asked
        .parameters
        .get(3)
        .map_or("MD5".into(), |name| name.to_ascii_uppercase());
    let algorithm = Algorithm::named(&name).filter(|algorithm| *algorithm != Algorithm::Sha512);
    let Some(algorithm) = algorithm else {
        let why = format!("invalid algorithm: {name} must be one of MD5 or SHA-256");
        return Err(Refusal::bad(why));
    };
    let field = asked.field(&AUTHORIZATION).unwrap_or_default();
    let (user, password) = (asked.parameter(1), asked.parameter(2));
    let credentials = Credentials::parse(&field);
    if !credentials.is_some_and(|given| proves(asked, &given, user, password, b"")) {
        let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "").respond(asked.dialect);
        let nonce = Algorithm::Md5.hash(&random::<16>());
        let opaque = Algorithm::Md5.hash(&random::<16>());
        let algorithm = algorithm.name();
        let challenge = format!(
            "Digest qop=auth, realm=\"go-httpbin\", algorithm={algorithm}, nonce={nonce}, \
             opaque={opaque}"
        );
        answer::set(&mut response, WWW_AUTHENTICATE, &challenge)?;
        return Ok(response);
    }
    Ok(authenticated(asked, StatusCode::OK, true, user))
}

/// Whether credentials prove a password for the target, as it came or decoded: clients differ.
fn proves(
    asked: &Asked,
    credentials: &Credentials,
    user: &str,
    password: &str,
    body: &[u8],
) -> bool {
    let decoded = text::unquote(asked.path().as_bytes());
    let query = asked.query().filter(|query| !query.is_empty());
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let decoded = format!(
        "{}{}{query}",
        asked.prefix(),
        String::from_utf8_lossy(&decoded)
    );
    let mut targets = [asked.target(), decoded].into_iter();
    let method = asked.method.as_str();
    targets.any(|target| credentials.prove(user, password, method, &target, body))
}

/// Cookies of the dialogue are for the whole host, as httpbin's.
fn set_cookie(response: &mut Response, name: &str, value: &str) {
    // What is not plain is escaped, so that every value can stand there.
    if let Ok(cookie) = HeaderValue::try_from(cookies::set_python(name, value, false)) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}
