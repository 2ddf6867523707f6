//! Whom browsers let read answers from other origins (the Fetch standard, "CORS protocol").

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, StatusCode};
use portyard_core::config::Span;
use serde::{Deserialize, Serialize};

use super::head::METHODS;
use super::{Body, Response};

/// The `[listener.options.cors]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    /// The origins whose pages may read answers, such as `"https://app.example"`; `"*"`: any.
    pub origins: Vec<String>,
    /// The methods they may use.
    pub methods: Vec<String>,
    /// The fields they may send.
    pub headers: Vec<String>,
    /// The fields of answers they may read, beside the simple ones.
    pub expose: Vec<String>,
    /// Whether cookies and other credentials go along.
    pub credentials: bool,
    /// How long a browser may remember it.
    pub max_age: Span,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods: ["GET", "HEAD", "POST"].map(String::from).into(),
            headers: vec!["content-type".into()],
            expose: Vec::new(),
            credentials: false,
            max_age: Span::secs(600),
        }
    }
}

/// The rule, ready to be used.
#[derive(Debug)]
pub struct Cors {
    any: bool,
    origins: Vec<String>,
    methods: HeaderValue,
    headers: HeaderValue,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

impl Cors {
    /// Checks the table. `None`: no page of another origin may read anything.
    pub fn new(config: &CorsConfig) -> Result<Option<Self>, String> {
        if config.origins.is_empty() {
            return Ok(None);
        }
        let any = config.origins.iter().any(|origin| origin == "*");
        if any && config.credentials {
            return Err(
                "cors.origins = [\"*\"] with credentials = true would let any page act as its \
                 visitor; name the origins"
                    .into(),
            );
        }
        for origin in config.origins.iter().filter(|origin| *origin != "*") {
            let host = origin.split_once("://").map(|(_, host)| host);
            let is_usual = origin.starts_with("https://") && origin.ends_with(":443")
                || origin.starts_with("http://") && origin.ends_with(":80");
            let is_spelled = !is_usual && !origin.bytes().any(|byte| byte.is_ascii_uppercase());
            if !is_spelled || host.is_none_or(|host| host.is_empty() || host.contains('/')) {
                return Err(format!(
                    "cors.origins: '{origin}' is no origin; write it as browsers do, \
                     \"https://app.example\", in small letters, without a path and without the usual port"
                ));
            }
        }
        if let Some(method) = (config.methods.iter())
            .find(|method| *method != "*" && !METHODS.contains(&method.as_str()))
        {
            return Err(format!(
                "cors.methods: '{method}' is known to nobody here; use some of {}",
                METHODS.join(", ")
            ));
        }
        let list = |key: &str, items: &[String]| {
            let bad = |_| format!("cors.{key} holds what no field can say");
            HeaderValue::from_str(&items.join(", ")).map_err(bad)
        };
        Ok(Some(Self {
            any,
            origins: config.origins.clone(),
            methods: list("methods", &config.methods)?,
            headers: list("headers", &config.headers)?,
            expose: match &config.expose[..] {
                [] => None,
                names => Some(list("expose", names)?),
            },
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age.0.as_secs()),
        }))
    }

    /// The answer to a browser that asks before it sends the request itself.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = *method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        asks.then(|| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            if self.allowed(headers).is_some() {
                let fields = response.headers_mut();
                fields.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
                fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
                fields.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            }
            response
        })
    }

    /// Tells the browser, in an answer to a request with these fields.
    pub fn tell(&self, headers: &HeaderMap, response: &mut HeaderMap) {
        if !self.any {
            response.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = self.allowed(headers) else {
            return;
        };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = &self.expose {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let named = |allowed: &String| allowed.as_bytes() == origin.as_bytes();
        self.origins.iter().any(named).then(|| origin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Result<Option<Cors>, String> {
        Cors::new(&CorsConfig {
            origins: origins.iter().map(ToString::to_string).collect(),
            credentials,
            ..CorsConfig::default()
        })
    }

    #[test]
    fn no_rule_lets_any_origin_use_credentials() {
        assert!(cors(&["*"], true).is_err());
        assert!(cors(&["https://a", "*"], true).is_err());
        for bad in ["https://A", "https://a:443", "http://a:80"] {
            assert!(cors(&[bad], false).is_err(), "{bad}");
        }
        assert!(cors(&["http://a:443", "https://a:8443"], false).is_ok());
        assert!(cors(&["https://a/"], false).is_err() && cors(&["a"], false).is_err());
        assert!(cors(&[], true).unwrap().is_none());
    }

    #[test]
    fn only_named_origins_are_told_that_they_may_read() {
        let cors = cors(&["https://a"], true).unwrap().unwrap();
        let told = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            let mut response = HeaderMap::new();
            cors.tell(&headers, &mut response);
            assert_eq!(response[VARY], "origin");
            response.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(told("https://a").unwrap(), "https://a");
        assert_eq!(told("https://a.evil"), None);
        assert_eq!(told("null"), None);
    }
}
