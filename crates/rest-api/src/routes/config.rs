//! The `[[route]]` table.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use portyard_core::config::{RateLimit, Size, Span};
use portyard_core::endpoint::Endpoint;
use portyard_core::files::FilePlace;
use portyard_core::sandbox::Needs;
use serde::{Deserialize, Serialize};

use super::proxy::place;

/// One route: which requests it is for, who may send them, and the one thing that answers them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The pattern of its paths, such as `/a/{id}/{rest..}`.
    pub path: String,
    /// The name in metrics; absent: the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The methods; empty: those that make sense for what answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The names of the listeners that have it; empty: all of service `http`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Who may use it: what follows `allow` in a rule of `[access]`; empty: whoever may use the
    /// listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// A key that must be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyConfig>,
    /// The largest body; absent: the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Size>,
    /// Requests from one IPv4 address or one IPv6 /64.
    #[serde(default)]
    pub rate: RateLimit,
    /// Requests above the rate that may come at once.
    #[serde(default = "default_burst")]
    pub burst: NonZeroU32,
    /// Requests at a time; more are told to come again.
    #[serde(default = "default_concurrent")]
    pub concurrent: NonZeroU32,
    /// How long an answer may take to begin.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// `Cache-Control` of its answers; absent: none, or what the handler says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// More fields of its answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Answers with text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateConfig>,
    /// Answers with a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileConfig>,
    /// Answers with the files of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryConfig>,
    /// Sends clients elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectConfig>,
    /// Passes requests to another HTTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyConfig>,
    /// Keys and values of a kv-rpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvConfig>,
    /// Runs a program for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgi: Option<CgiConfig>,
    /// Calls a method of a JSON-RPC server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc: Option<RpcConfig>,
}

/// A key that must be shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// How it is shown.
    pub scheme: KeyScheme,
    /// The key file, as `portyard keygen` makes it.
    pub file: FilePlace,
    /// What a browser shows when it asks.
    #[serde(default = "default_realm")]
    pub realm: String,
}

/// How a key is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyScheme {
    /// `Authorization: Bearer` and the key itself, as text or in base64 (RFC 6750).
    Bearer,
    /// A user and a password: a key's name and the key, as text or in base64 (RFC 7617).
    Basic,
    /// A signature of the request by HMAC-SHA256 (RFC 9421).
    Hmac,
}

impl KeyScheme {
    /// The word for it in a configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::Hmac => "hmac",
        }
    }
}

/// Text with values of the request in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateConfig {
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The file with the text, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FilePlace>,
    /// What it is; decides how values are escaped.
    #[serde(default = "default_content_type")]
    pub content_type: String,
    /// The status.
    #[serde(default = "default_status")]
    pub status: u16,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Where it is.
    pub path: PathBuf,
    /// What it is; absent: as its name says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// The files of a directory: the path's last parameter, `{NAME..}`, names one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// Where it is. Nothing outside of it is ever served.
    pub path: PathBuf,
    /// What is served for a directory; empty: nothing.
    #[serde(default = "default_index")]
    pub index: String,
    /// Whether a directory without index shows its names.
    #[serde(default)]
    pub listing: bool,
    /// Whether names that begin with a dot are served.
    #[serde(default)]
    pub hidden: bool,
    /// Whether a client that takes it gets `NAME.zst`, `NAME.br` or `NAME.gz` beside `NAME`.
    #[serde(default)]
    pub precompressed: bool,
}

/// Another place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectConfig {
    /// Where; may hold `{{path.NAME}}` and `{{query.NAME}}`.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "default_redirect")]
    pub status: u16,
    /// Whether the query goes along.
    #[serde(default)]
    pub keep_query: bool,
}

/// Another HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Where it listens: `"http://HOST:PORT"`, `"https://HOST:PORT"` or `"unix:/PATH"`.
    pub to: String,
    /// With https: the certificates of the CAs to believe; absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<FilePlace>,
    /// With https: whom its certificate must be for; absent: the host of `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The path there; may hold `{{path.NAME}}`; absent: the path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How long it may take to accept a connection, TLS included.
    #[serde(default = "default_connect")]
    pub connect: Span,
    /// How long it may be silent within an answer; `"0s"`: for ever.
    #[serde(default = "default_stall")]
    pub stall: Span,
    /// Connections that each loop keeps for the next requests.
    #[serde(default = "default_keep")]
    pub keep: u32,
    /// How long one is kept without a request.
    #[serde(default = "default_idle")]
    pub idle: Span,
    /// Whether it is told the host that the client asked for, instead of its own.
    #[serde(default)]
    pub keep_host: bool,
}

/// The keys of a kv-rpc, by its JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KvConfig {
    /// Where its json-rpc listens.
    pub server: Endpoint,
    /// The key that the path names, such as `"users/{{path.id}}"`; absent: the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The list: only keys that begin so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Whether PUT and DELETE are allowed.
    #[serde(default)]
    pub write: bool,
    /// Whether clients may follow changes (`Accept: text/event-stream`).
    #[serde(default = "default_watch")]
    pub watch: bool,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CgiConfig {
    /// Where it is: an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// More variables of its environment, beside those of RFC 3875.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Where it runs; absent: where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// How long it may run.
    #[serde(default = "default_run")]
    pub run: Span,
    /// How much it may write.
    #[serde(default = "default_output")]
    pub max_output: Size,
}

/// A method of a JSON-RPC server.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RpcConfig {
    /// Where it listens.
    pub server: Endpoint,
    /// The method.
    pub method: String,
    /// Its parameters; strings may hold `{{path.NAME}}` and the like, and `"{{body}}"` is the JSON body of
    /// the request.
    #[serde(default = "no_parameters")]
    pub parameters: toml::Value,
}

impl ProxyConfig {
    fn add_needs(&self, needs: &mut Needs) {
        // What is no place is an error that others report.
        let Ok((server, _, is_secure)) = place(&self.to) else {
            return;
        };
        needs.connect(&server);
        match &self.ca {
            Some(ca) => needs.read_place(ca),
            None if is_secure => needs.authorities(),
            None => {}
        }
    }
}

impl RouteConfig {
    /// The name in metrics.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.path)
    }

    /// Whether there are listeners of service `http` by the names that it says: nobody would find a route on
    /// another.
    pub fn check_listeners(&self, names: &[&str]) -> Result<(), String> {
        let is_there = |name: &&String| names.contains(&name.as_str());
        let Some(missing) = self.listeners.iter().find(|name| !is_there(name)) else {
            return Ok(());
        };
        let known = if names.is_empty() {
            "there is none".into()
        } else {
            format!("there are {}", names.join(", "))
        };
        Err(format!(
            "[[route]] \"{}\": listeners: no listener of service http has the name '{missing}'; {known}",
            self.label()
        ))
    }

    /// What its answers read, connect to or start.
    pub fn add_needs(&self, needs: &mut Needs) {
        let template = self.template.iter().filter_map(|of| of.file.as_ref());
        let key = self.key.iter().map(|key| &key.file);
        template.chain(key).for_each(|file| needs.read_place(file));
        self.file.iter().for_each(|file| needs.read(&file.path));
        let directory = self.directory.iter();
        directory.for_each(|of| needs.list(&of.path));
        let servers = self.kv.iter().map(|kv| &kv.server);
        let servers = servers.chain(self.rpc.iter().map(|rpc| &rpc.server));
        servers.for_each(|server| needs.connect(server));
        self.proxy.iter().for_each(|proxy| proxy.add_needs(needs));
        if self.cgi.is_some() {
            needs.programs();
        }
    }
}

fn default_burst() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(49)
}

fn default_concurrent() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(255)
}

fn default_timeout() -> Span {
    Span::secs(30)
}

fn default_realm() -> String {
    "rest-api".into()
}

fn default_content_type() -> String {
    "text/html; charset=utf-8".into()
}

fn default_status() -> u16 {
    200
}

fn default_index() -> String {
    "index.html".into()
}

fn default_redirect() -> u16 {
    302
}

fn default_connect() -> Span {
    Span::secs(5)
}

fn default_stall() -> Span {
    Span::secs(60)
}

fn default_keep() -> u32 {
    16
}

/// Less than servers wait for another request, most of them.
fn default_idle() -> Span {
    Span::secs(4)
}

fn default_watch() -> bool {
    true
}

fn default_run() -> Span {
    Span::secs(30)
}

fn default_output() -> Size {
    Size(16 << 20)
}

fn no_parameters() -> toml::Value {
    toml::Value::Array(Vec::new())
}
