//! A configuration that has passed every check that needs no socket.

use std::net::IpAddr;
use std::sync::Arc;

use toml::Spanned;

use super::{ConfigOf, Daemon, Home, ListenerOf, ServiceOf, ServiceRow, SettingsOf, Shared};
use crate::access::AccessList;
use crate::auth::Prover;
use crate::cli::Arguments;
use crate::config::{ConfigError, LogConfig, SocketOptions, Source};
use crate::endpoint::{Endpoint, EndpointError, Transport};
use crate::exit::{Exit, Fatal};
use crate::life::runtime_directory;
use crate::listener::{Flavour, Settings};
use crate::sandbox::{self, Needs};
use crate::serve::Trust;

/// What a daemon is going to do.
pub struct Plan<D: Daemon> {
    pub config: ConfigOf<D>,
    pub settings: SettingsOf<D>,
    pub listeners: Vec<Planned<D>>,
    /// What it does after its start.
    pub needs: Needs,
}

/// One endpoint of one `[[listener]]`.
pub struct Planned<D: Daemon> {
    pub label: String,
    pub service_name: &'static str,
    pub endpoint: Endpoint,
    pub socket: SocketOptions,
    /// The service's.
    pub transport: Transport,
    limits: <D::Flavour as Flavour>::Limits,
    access: Arc<AccessList>,
    service: ServiceOf<D>,
    pub trust: Option<Arc<Trust>>,
    /// What is proved to a broker.
    pub prover: Option<Prover>,
}

/// A configuration of which only the daemon's own tables have been checked.
pub struct Read<D: Daemon> {
    source: Source,
    pub config: ConfigOf<D>,
    pub settings: SettingsOf<D>,
}

impl<D: Daemon> Read<D> {
    /// Reads the file that the arguments name.
    pub fn from_file(arguments: &Arguments) -> Result<Self, ConfigError> {
        let source = match &arguments.config {
            Some(path) => Source::read(path)?,
            None => Source::default(),
        };
        let (config, settings): (_, SettingsOf<D>) = source.parse_apart(D::Shared::TABLES)?;
        D::Shared::check(&settings).map_err(|message| ConfigError {
            path: source.path().map(Into::into),
            place: None,
            message,
        })?;
        Ok(Self {
            source,
            config,
            settings,
        })
    }

    /// What the daemon does after its start with this configuration.
    pub fn needs(&self, arguments: &Arguments) -> Needs {
        let mut needs = D::needs(&self.config, &self.settings);
        if let Some(path) = &arguments.config {
            needs.read(path);
        }
        sandbox::time_zone(&mut needs);
        for listener in &self.config.listeners {
            let keys = [&listener.auth_keys, &listener.broker_keys];
            needs.trust(keys.into_iter().flatten(), listener.tls.as_ref());
            for text in &listener.listen {
                needs.listen_text(text.get_ref());
            }
            listener.access.iter().for_each(|own| needs.access(own));
        }
        needs.access(&self.config.access);
        let admin = &self.config.admin;
        admin.listen.iter().for_each(|at| needs.listen(at));
        admin.actors.iter().for_each(|rule| needs.user_rule(rule));
        if <D::Flavour as Flavour>::TRANSPORT == Transport::Datagram {
            // Which datagrams are our own is told by address; who asks over a Unix socket may have an
            // abstract one.
            needs.netlink.addresses = true;
            needs.abstract_sockets = true;
        }
        needs
    }
}

impl<D: Daemon> Plan<D> {
    /// Checks what the file and the arguments say. `passed` are the names of the sockets that came
    /// with `LISTEN_FDS`; `shared` goes into the services.
    pub fn new(
        read: Read<D>,
        arguments: &Arguments,
        passed: &[String],
        shared: &D::Shared,
    ) -> Result<Self, ConfigError> {
        let mut needs = read.needs(arguments);
        let Read {
            source,
            mut config,
            settings,
        } = read;
        let mut listen = arguments.listen.clone();
        if let Some(service) = &arguments.inetd {
            listen.push(
                service
                    .as_ref()
                    .map_or("inetd".into(), |name| format!("inetd={name}")),
            );
        }
        if !listen.is_empty() {
            config.listeners = listen
                .iter()
                .map(|text| from_command_line::<D>(text, &config.listeners))
                .collect::<Result<_, _>>()?;
        } else if arguments.config.is_none() {
            config.listeners = if passed.is_empty() {
                defaults::<D>()
            } else {
                named::<D>(passed)?
            };
        }
        // Checked even where every listener has a list of its own.
        AccessList::new(&config.access, &source)?;
        let actors = config.admin.actors();
        actors.map_err(|message| ConfigError {
            path: source.path().map(Into::into),
            place: None,
            message,
        })?;
        D::check(&config, &settings, &source)?;
        let mut derived = if listen.is_empty() {
            D::listeners(shared, &settings, &config.access, &source)?
        } else {
            Vec::new()
        };
        if config.listeners.is_empty() && derived.is_empty() && !D::Shared::serves(&settings) {
            return Err(ConfigError {
                path: source.path().map(Into::into),
                place: None,
                message: format!(
                    "has no [[listener]]; add one with service = \"{}\" and listen = [\"…\"]",
                    D::SERVICES[0].name
                ),
            });
        }
        let mut listeners = Vec::new();
        for listener in config.listeners.iter_mut().chain(&mut derived) {
            listeners.extend(plan_listener::<D>(
                listener,
                &config.access,
                &source,
                shared,
            )?);
        }
        for planned in &listeners {
            needs.listen(&planned.endpoint);
        }
        // Where sockets belong that a reload adds.
        needs.sockets(runtime_directory(D::NAME));
        Ok(Self {
            config,
            settings,
            listeners,
            needs,
        })
    }

    /// The log settings, with what the command line changes.
    pub fn log_config(&self, arguments: &Arguments) -> LogConfig {
        let mut log = self.config.log.clone();
        log.level = arguments.log_level.unwrap_or(log.level);
        log
    }

    /// The effective configuration as TOML.
    pub fn print(&self) -> Result<String, Fatal> {
        let print = || {
            let own = toml::to_string(&self.settings)?;
            let text = toml::to_string(&self.config)?;
            // Behind the rest: what comes before the first table belongs to none.
            Ok(if own.is_empty() {
                text
            } else {
                text + "\n" + &own
            })
        };
        print().map_err(|error: toml::ser::Error| {
            Fatal::new(
                Exit::Software,
                format!("cannot print the configuration: {error}"),
            )
        })
    }

    /// A line per listener: whether `address` may use it, and why.
    pub fn explain(&self, address: IpAddr) -> String {
        let line = |planned: &Planned<D>| {
            let why = planned.access.explain(address);
            format!("{} {} {why}\n", planned.label, planned.endpoint)
        };
        self.listeners.iter().map(line).collect()
    }

    /// Whether an inetd started us.
    pub fn is_inetd(&self) -> bool {
        let is_inetd = |planned: &Planned<D>| planned.endpoint == Endpoint::Inetd;
        !self.listeners.is_empty() && self.listeners.iter().all(is_inetd)
    }
}

impl<D: Daemon> Planned<D> {
    /// The settings for a listener that runs by this plan.
    pub fn settings(&self) -> Settings<D::Flavour> {
        Settings {
            limits: self.limits.clone(),
            access: AccessList::clone(&self.access),
            service: self.service.clone(),
            trust: self.trust.clone(),
            prover: self.prover.clone(),
        }
    }
}

fn plan_listener<D: Daemon>(
    listener: &mut ListenerOf<D>,
    access: &crate::access::AccessConfig,
    source: &Source,
    shared: &D::Shared,
) -> Result<Vec<Planned<D>>, ConfigError> {
    let at_service = listener.service.span();
    let row = row::<D>(listener.service.get_ref())
        .map_err(|message| source.error(&at_service, message))?;
    let access = AccessList::new(listener.access.as_ref().unwrap_or(access), source)?;
    let access = Arc::new(access);
    let service = (row.build)(listener, shared.clone())
        .map_err(|message| source.error(&at_service, format!("service {}: {message}", row.name)))?;
    if listener.listen.is_empty() {
        let message =
            "listen is empty; name at least one endpoint, such as \"tcp://127.0.0.1:7007\"";
        return Err(source.error(&at_service, message));
    }
    let transport = <D::Flavour as Flavour>::transport(&service);
    if transport == Transport::Datagram && listener.socket.dscp.is_some() {
        let message = "socket.dscp cannot be set: datagram answers carry a mark of ours there, \
                       which keeps them out of loops";
        return Err(source.error(&at_service, message));
    }
    if let Some(tls) = &mut listener.tls
        && tls.alpn.is_empty()
    {
        tls.alpn = D::ALPN.iter().map(ToString::to_string).collect();
    }
    let trust = Trust::new(listener, &access, source)?.map(Arc::new);
    if transport == Transport::Datagram && (trust.is_some() || access.knows_identities()) {
        let message = "auth, tls, proxy and access rules on users, certificates and keys are for \
                       streams; take them out";
        return Err(source.error(&at_service, message));
    }
    if trust.is_some() && <D::Flavour as Flavour>::takes_sockets(&service) {
        let message = "proxy, tls and auth would use up bytes that the worker is to read: the \
                       connection is handed on untouched; take them out, and let the worker do \
                       what they do";
        return Err(source.error(&at_service, message));
    }
    if transport == Transport::SeqPacket {
        let trust = trust.as_deref();
        if trust.is_some_and(|trust| trust.tls.is_some() || !trust.balancers.is_empty()) {
            let message = "tls and proxy are for byte streams; take them out. Nobody but this \
                           machine reaches a Unix socket, and auth = \"mutual\" proves a key";
            return Err(source.error(&at_service, message));
        }
    }
    let prover = Prover::for_broker(listener.broker_auth, listener.broker_keys.as_ref())
        .map_err(|message| source.error(&at_service, message))?;
    let mut planned = Vec::new();
    for spanned in &mut listener.listen {
        let span = spanned.span();
        let endpoint: Endpoint = spanned
            .get_ref()
            .parse()
            .map_err(|error: EndpointError| source.error(&span, error.to_string()))?;
        let endpoint = endpoint.with_transport(transport);
        if !endpoint.fits(transport) {
            let wanted = match transport {
                Transport::Stream => "tcp:// or unix:",
                Transport::SeqPacket => "unix:, because only a Unix socket keeps messages whole",
                Transport::Datagram => "udp:// or unix:",
            };
            let (what, name) = match transport {
                Transport::SeqPacket => ("service ", row.name),
                _ => ("", D::NAME),
            };
            let message = format!("{endpoint} does not fit {what}{name}; use {wanted}");
            return Err(source.error(&span, message));
        }
        *spanned = Spanned::new(span, endpoint.to_string());
        planned.push(Planned {
            label: listener.name.clone().unwrap_or_else(|| row.name.into()),
            service_name: row.name,
            endpoint,
            transport,
            socket: listener.socket.clone(),
            limits: listener.limits.clone(),
            access: access.clone(),
            service: service.clone(),
            trust: trust.clone(),
            prover: prover.clone(),
        });
    }
    let is_brokers = |planned: &Planned<D>| matches!(planned.endpoint, Endpoint::Broker { .. });
    if prover.is_some() && !planned.iter().any(is_brokers) {
        let message = "broker_keys is proved to the broker of an endpoint such as \
                       broker:/run/fd-broker/control.sock#web, and listen has none; take it out";
        return Err(source.error(&at_service, message));
    }
    Ok(planned)
}

fn row<D: Daemon>(name: &str) -> Result<&'static ServiceRow<D>, String> {
    D::SERVICES
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| {
            let known: Vec<_> = D::SERVICES.iter().map(|row| row.name).collect();
            format!(
                "'{name}' is not a service of {}; use one of {}",
                D::NAME,
                known.join(", ")
            )
        })
}

/// Every service at home.
fn defaults<D: Daemon>() -> Vec<ListenerOf<D>> {
    let endpoint = |row: &ServiceRow<D>| match (row.home, <D::Flavour as Flavour>::TRANSPORT) {
        (Home::Port(port), Transport::Stream | Transport::SeqPacket) => {
            Some(Endpoint::tcp_loopback(port))
        }
        (Home::Port(port), Transport::Datagram) => Some(Endpoint::udp_loopback(port)),
        (Home::Socket(file), _) => Some(Endpoint::Unix(runtime_directory(D::NAME).join(file))),
        (Home::Nowhere, _) => None,
    };
    D::SERVICES
        .iter()
        .filter_map(|row| Some(ListenerOf::<D>::new(row.name, &endpoint(row)?)))
        .collect()
}

/// Passed sockets, each with the service it is named after. A socket without a name of its own
/// (systemd then says `unknown`, `connection` or the unit's name) gets the default service.
fn named<D: Daemon>(passed: &[String]) -> Result<Vec<ListenerOf<D>>, ConfigError> {
    let mut names: Vec<&String> = passed.iter().collect();
    names.sort_unstable();
    names.dedup();
    let listener = |name: &String| {
        let unnamed = ["unknown", "connection"].contains(&name.as_str())
            || name.ends_with(".socket")
            || name.ends_with(".service");
        let service = if unnamed { D::SERVICES[0].name } else { name };
        row::<D>(service).map_err(|message| {
            ConfigError::new(format!("LISTEN_FDNAMES passes a socket: {message}"))
        })?;
        Ok(ListenerOf::<D>::new(
            service,
            &Endpoint::Systemd(Some(name.clone())),
        ))
    };
    names.into_iter().map(listener).collect()
}

/// A `--listen` argument: the settings of the first configured listener with that service, at
/// another place.
fn from_command_line<D: Daemon>(
    text: &str,
    configured: &[ListenerOf<D>],
) -> Result<ListenerOf<D>, ConfigError> {
    let wrong = |message: String| ConfigError::new(format!("--listen {text}: {message}"));
    // A path may hold '='; a service name is known.
    let (place, service) = match text.rsplit_once('=') {
        Some((place, name)) => (place, row::<D>(name).map_err(wrong)?.name),
        None => (text, D::SERVICES[0].name),
    };
    let endpoint: Endpoint = place.parse().map_err(|error| wrong(format!("{error}")))?;
    let mut listener = configured
        .iter()
        .find(|listener| listener.service.get_ref() == service)
        .cloned()
        .unwrap_or_else(|| ListenerOf::<D>::new(service, &endpoint));
    listener.listen = vec![Spanned::new(0..0, endpoint.to_string())];
    if !matches!(endpoint, Endpoint::Broker { .. }) {
        (listener.broker_auth, listener.broker_keys) = (None, None);
    }
    Ok(listener)
}
