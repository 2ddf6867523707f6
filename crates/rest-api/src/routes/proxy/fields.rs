//! The fields of requests and answers that are passed on.

use hyper::Version;
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

use crate::http::Request;

/// The fields for the server: the client's, but for those of its connection, and what is known of the
/// client.
pub fn onward(request: &Request, host: HeaderValue) -> HeaderMap {
    let mut headers = request.headers.clone();
    strip(&mut headers);
    headers.remove(EXPECT);
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

/// The fields for the client: the server's, but for those of its connection.
pub fn back(headers: &mut HeaderMap, version: Version) {
    strip(headers);
    via(headers, version);
}

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
