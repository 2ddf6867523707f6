//! The fields of requests and answers that are passed on.

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, IF_RANGE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::{Method, Version};

use crate::http::{Request, conditions};

/// The fields for the server: the client's, but for those of its connection, and what is known of the
/// client.
pub fn onward(request: &Request, host: HeaderValue) -> HeaderMap {
    let mut headers = request.headers.clone();
    strip(&mut headers);
    headers.remove(EXPECT);
    if asks_for_websocket(request) {
        for (name, value) in WEBSOCKET {
            headers.insert(name, value);
        }
    }
    if let Some(cookies) = joined(&headers, &COOKIE) {
        headers.insert(COOKIE, cookies);
    }
    // The server knows its tags without what a coding of ours has added.
    for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE] {
        if let Some(tags) = headers.get(&name).and_then(conditions::uncoded_etags) {
            headers.insert(name, tags);
        }
    }
    headers.insert(HOST, host);
    // Ours is the word that the server can believe: what came is the client's to write.
    for name in FORWARDED {
        headers.remove(*name);
    }
    let peer = match request.client.peer.ip().map(|ip| ip.to_canonical()) {
        Some(std::net::IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        Some(ip) => ip.to_string(),
        None => "unknown".into(),
    };
    let plain = peer.trim_matches(['"', '[', ']']).to_owned();
    let said = format!(
        "for={peer};host=\"{}\";proto={}",
        request.host(),
        request.scheme()
    );
    let fields = [
        (FORWARDED[0], said.as_str()),
        (FORWARDED[1], &plain),
        (FORWARDED[2], request.host()),
        (FORWARDED[3], request.scheme()),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    if let Some(id) = request.id.clone() {
        headers.insert("x-request-id", id);
    }
    via(&mut headers, request.version);
    headers
}

/// Whether an answer's end can be found in one way alone (RFC 9112, 6.3), and is found here so: hyper would read
/// chunks beside a length, and give out what is still in another coding.
pub fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && !headers.contains_key(CONTENT_LENGTH)
        }
        _ => false,
    }
}

/// The fields for the client: the server's, but for those of its connection.
pub fn back(headers: &mut HeaderMap, version: Version) {
    strip(headers);
    via(headers, version);
}

/// Whether a client wants to speak the WebSocket protocol (RFC 6455, 4.2.1) from here on. Nothing else is passed on:
/// with h2c a client would get past all that is checked here.
pub fn asks_for_websocket(request: &Request) -> bool {
    let lists = |name: HeaderName, wanted: &str| {
        let values = request.headers.get_all(name);
        let mut words = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    request.method == Method::GET
        && request.version == Version::HTTP_11
        && request.body.is_empty()
        && lists(UPGRADE, "websocket")
        && lists(CONNECTION, "upgrade")
}

/// The cookies of several fields in one, as HTTP/2 splits them and HTTP/1.1 has them (RFC 9113, 8.2.3).
pub fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let values: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if values.len() < 2 {
        return None;
    }
    HeaderValue::from_bytes(&values.join(&b"; "[..])).ok()
}

/// The fields of an answer after which both ends speak the WebSocket protocol.
pub const WEBSOCKET: [(HeaderName, HeaderValue); 2] = [
    (CONNECTION, HeaderValue::from_static("upgrade")),
    (UPGRADE, HeaderValue::from_static("websocket")),
];

/// Takes out what is for one connection alone (RFC 9110, 7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    let fixed = [
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
    ];
    for name in fixed {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

fn via(headers: &mut HeaderMap, version: Version) {
    let value = match version {
        Version::HTTP_10 => "1.0 rest-api",
        Version::HTTP_2 => "2 rest-api",
        _ => "1.1 rest-api",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

/// RFC 7239, and what came before it.
const FORWARDED: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];
