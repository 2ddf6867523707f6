//! The key that a route demands: as a bearer token, as a password, or as the maker of a signature.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use portyard_core::auth::read_keys;
use portyard_core::listener::source_of;
use portyard_wire::auth::Keys;
use sha2::{Digest as _, Sha256};

use super::config::{KeyConfig, KeyScheme};
use crate::http::{Head, Problem, Request, User};

/// Checks that a request shows one of the keys of a file.
pub struct KeyCheck {
    keys: Keys,
    scheme: KeyScheme,
    challenge: HeaderValue,
}

/// What a request shows.
enum Shown {
    Nothing,
    Wrong,
    /// A key of that name.
    Good(String),
}

impl KeyCheck {
    /// Reads the key file.
    pub fn new(config: &KeyConfig) -> Result<Self, String> {
        let keys = read_keys(&config.file).map_err(|error| format!("key.file: {error}"))?;
        let keys = Keys::new(keys).map_err(|error| format!("key.file: {error}"))?;
        if config.realm.contains(['"', '\\']) {
            return Err("key.realm must not hold quotes or backslashes".into());
        }
        let challenge = match config.scheme {
            KeyScheme::Bearer => format!("Bearer realm=\"{}\"", config.realm),
            KeyScheme::Basic => format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm),
            KeyScheme::Hmac => format!("Signature realm=\"{}\"", config.realm),
        };
        let challenge = HeaderValue::from_str(&challenge);
        Ok(Self {
            keys,
            scheme: config.scheme,
            challenge: challenge.map_err(|_| "key.realm holds what no field can say".to_owned())?,
        })
    }

    /// The name of the key that a request shows, or why it is refused. Who fails too often is refused
    /// unheard for a while, by the listener's penalties.
    pub async fn check(&self, request: &mut Request) -> Result<String, Problem> {
        let client = request.client.clone();
        let source = source_of(client.peer.ip());
        let now = client.home.milliseconds();
        let tariff = client.listener.settings().limits.tariff();
        let is_local = client.peer.ip().is_none();
        if !is_local && client.listener.penalties.refuses(source, now, &tariff) {
            let detail = "too many wrong keys have come from your address; try again later";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
            let wait = tariff.minimum.as_secs().max(1);
            return Err(problem.with(RETRY_AFTER, HeaderValue::from(wait)));
        }
        let shown = match self.scheme {
            KeyScheme::Bearer => self.bearer(request),
            KeyScheme::Basic => self.basic(request),
            KeyScheme::Hmac => self.signed(request).await?,
        };
        if let Shown::Good(name) = shown {
            let scheme = match self.scheme {
                KeyScheme::Bearer => "Bearer",
                KeyScheme::Basic => "Basic",
                KeyScheme::Hmac => "Signature",
            };
            let user = User {
                name: name.clone(),
                scheme,
            };
            // One key is asked for; who has shown another before keeps that.
            let _ = request.head.user.set(user);
            return Ok(name);
        }
        // Who shows nothing has not guessed: browsers ask first.
        if matches!(shown, Shown::Wrong) && !is_local {
            client.listener.penalties.add(source, now, &tariff);
        }
        let detail = match self.scheme {
            KeyScheme::Bearer => "show a key: Authorization: Bearer KEY",
            KeyScheme::Basic => "show the name of a key and the key as user and password",
            KeyScheme::Hmac => {
                "sign the request by RFC 9421 with hmac-sha256: @method, @authority, @path, @query, \
                 content-digest where there is a body; created within five minutes, and keyid"
            }
        };
        let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
        Err(problem.with(WWW_AUTHENTICATE, self.challenge.clone()))
    }

    fn bearer(&self, head: &Head) -> Shown {
        match credentials(head, "bearer") {
            Some(token) => self.key_of(token.as_bytes(), None),
            None => Shown::Nothing,
        }
    }

    fn basic(&self, head: &Head) -> Shown {
        let Some(coded) = credentials(head, "basic") else {
            return Shown::Nothing;
        };
        let pair = STANDARD
            .decode(coded)
            .ok()
            .and_then(|pair| String::from_utf8(pair).ok());
        match pair.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) => self.key_of(password.as_bytes(), Some(user)),
            None => Shown::Wrong,
        }
    }

    /// The key that bytes are, of that name if it matters, as they are or in base64.
    fn key_of(&self, bytes: &[u8], name: Option<&str>) -> Shown {
        let find = |bytes: &[u8]| {
            let key = self.keys.shown(bytes).map(|key| key.name().to_string());
            key.filter(|key| name.is_none_or(|name| key == name))
        };
        let decoded = || STANDARD.decode(bytes).ok().and_then(|bytes| find(&bytes));
        find(bytes)
            .or_else(decoded)
            .map_or(Shown::Wrong, Shown::Good)
    }

    /// RFC 9421, with what must be signed fixed.
    async fn signed(&self, request: &mut Request) -> Result<Shown, Problem> {
        let field = |name| request.header(HeaderName::from_static(name));
        let (Some(input), Some(signature)) = (field("signature-input"), field("signature")) else {
            return Ok(Shown::Nothing);
        };
        let now = request.client.home.clock.now().seconds;
        let has_body = !request.body.is_empty();
        let signer = self.signer(&request.head, input, signature, now, has_body);
        let Some(signer) = signer else {
            return Ok(Shown::Wrong);
        };
        if !has_body {
            return Ok(Shown::Good(signer));
        }
        // What was signed is the digest; the body must have it.
        let digest = field("content-digest").unwrap_or_default().to_owned();
        request.body.keep_coded();
        let body = request.body.collect().await?;
        let expected = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&body)));
        let fits = digest.split(',').any(|item| item.trim() == expected);
        request.body.replace(body, &request.head.headers);
        Ok(if fits {
            Shown::Good(signer)
        } else {
            Shown::Wrong
        })
    }

    /// The name of the key that has signed a request.
    fn signer(
        &self,
        head: &Head,
        input: &str,
        signature: &str,
        now: i64,
        has_body: bool,
    ) -> Option<String> {
        let (Some((label, parameters)), Some((other, value))) =
            (input.split_once('='), signature.split_once('='))
        else {
            return None;
        };
        let proof = value
            .trim()
            .strip_prefix(':')
            .and_then(|value| value.strip_suffix(':'));
        let proof = proof.and_then(|proof| STANDARD.decode(proof).ok());
        let (Some(proof), Some((inner, rest))) = (
            proof,
            parameters
                .trim()
                .strip_prefix('(')
                .and_then(|text| text.split_once(')')),
        ) else {
            return None;
        };
        let parameter = |wanted: &str| {
            let mut all = rest
                .split(';')
                .filter_map(|item| item.trim().split_once('='));
            all.find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.trim_matches('"'))
        };
        let created = parameter("created").and_then(|text| text.parse::<i64>().ok());
        let fresh = created.is_some_and(|created| (now - created).abs() <= FRESH);
        let good_alg = parameter("alg").is_none_or(|alg| alg == "hmac-sha256");
        let is_good = label.trim() == other.trim() && fresh && good_alg;
        let key = parameter("keyid").filter(|_| is_good)?;
        let names: Vec<&str> = inner
            .split_whitespace()
            .map(|name| name.trim_matches('"'))
            .collect();
        let mut owed = vec!["@method", "@authority", "@path", "@query"];
        if has_body {
            owed.push("content-digest");
        }
        if !owed.iter().all(|name| names.contains(name)) {
            return None;
        }
        // Writing into a String does not fail.
        let mut base = String::new();
        for name in names {
            let value = match name {
                "@method" => head.method.to_string(),
                "@authority" => head.host().to_ascii_lowercase(),
                "@path" => head.path().into(),
                "@query" => format!("?{}", head.uri.query().unwrap_or_default()),
                name if name.starts_with('@') => return None,
                name => {
                    let values = head.headers.get_all(name).iter();
                    let texts: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
                    texts.join(", ")
                }
            };
            let _ = writeln!(base, "\"{name}\": {value}");
        }
        let _ = write!(base, "\"@signature-params\": {}", parameters.trim());
        let key = self.keys.signer(key, base.as_bytes(), &proof)?;
        Some(key.name().to_string())
    }
}

/// What follows a scheme in Authorization.
fn credentials<'a>(head: &'a Head, scheme: &str) -> Option<&'a str> {
    let (name, rest) = head.header(AUTHORIZATION)?.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// Seconds by which clocks may differ, and an old signature may be used again.
const FRESH: i64 = 300;
