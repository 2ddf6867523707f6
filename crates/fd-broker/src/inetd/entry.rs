//! A `[[service]]` as it runs: checked, looked up, and split into listeners and watches.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portyard_core::access::{AccessConfig, AccessList, Action as Verdict};
use portyard_core::auth::{Dialect, Prover};
use portyard_core::config::{
    AtLimit, ConfigError, ListenerConfig, SocketOptions, Source, Spanned, StreamLimits,
};
use portyard_core::endpoint::{Endpoint, Transport};

use super::config::{Detail, ServiceConfig, SocketType, Style};
use super::times::AccessTimes;
use super::warm::{Recipe, Warm};
use crate::process::{Program, RestartConfig, Stderr};
use crate::settings::Options;

/// What a service does, and how.
#[derive(Debug)]
pub struct Entry {
    /// The name in logs, metrics and status.
    pub name: String,
    /// What is done for a peer.
    pub action: Action,
    /// How a program is told of its peer.
    pub style: Style,
    /// When it may be used.
    pub times: AccessTimes,
    /// What a peer is told before.
    pub banner: Vec<u8>,
    /// What a peer is told that is turned away here; `None`: nothing.
    pub refusal: Option<Vec<u8>>,
    /// What the log tells of each connection.
    pub log: Detail,
    /// Whether the log tells a program's bytes.
    pub count_bytes: bool,
    /// The longest time that a program may take; zero: any.
    pub total: Duration,
    /// Waits before a `wait` program is started again.
    pub restart: RestartConfig,
    /// What its warm processes are made by, and how long a connection waits for one.
    pub recipe: Option<(Recipe, Duration)>,
    /// Its warm processes, once they are kept.
    pub warm: OnceLock<Arc<Warm>>,
}

/// What is done for a peer.
#[derive(Debug)]
pub enum Action {
    /// A program is started.
    Program(Program),
    /// The connection is passed on.
    Redirect(Endpoint),
}

/// A socket that is not accepted from here, but given to a program as a whole.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The service.
    pub entry: Arc<Entry>,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The kind of its socket.
    pub transport: Transport,
    /// The socket's options.
    pub socket: SocketOptions,
    /// Whose datagram may start the program.
    pub access: Arc<AccessList>,
    /// What is proved to a broker.
    pub prover: Option<Prover>,
}

/// What the `[[service]]` tables come to.
#[derive(Debug, Default)]
pub struct Planned {
    /// Listeners for those that take connections.
    pub listeners: Vec<ListenerConfig<StreamLimits, Options>>,
    /// The others.
    pub watches: Vec<Watch>,
    /// Those that have warm processes.
    pub warm: Vec<Arc<Entry>>,
}

impl Planned {
    /// Checks the tables; `access` is the daemon's own list.
    pub fn new(
        services: &[ServiceConfig],
        access: &AccessConfig,
        source: &Source,
    ) -> Result<Self, ConfigError> {
        let mut planned = Self::default();
        for (number, service) in services.iter().enumerate() {
            let wrong = |message: String| {
                let name = service.name.get_ref();
                source.error(&service.name.span(), format!("service {name}: {message}"))
            };
            let twice = |other: &ServiceConfig| other.name == service.name;
            if services[..number].iter().any(twice) {
                return Err(wrong("there are two of this name; rename one".into()));
            }
            let transport = service.transport().map_err(wrong)?;
            let entry = Arc::new(Entry::new(service).map_err(wrong)?);
            if service.waits(transport).map_err(wrong)? {
                service.check_watch(transport, access).map_err(wrong)?;
                let list = service.access.as_ref().unwrap_or(access);
                let list = Arc::new(AccessList::new(list, source)?);
                let prover = Prover::for_broker(service.broker_auth, service.broker_keys.as_ref())
                    .map_err(wrong)?;
                for place in &service.listen {
                    let at = |message: String| source.error(&place.span(), message);
                    let endpoint: Endpoint = place
                        .get_ref()
                        .parse()
                        .map_err(|error| at(format!("{error}")))?;
                    let endpoint = endpoint.with_transport(transport);
                    if endpoint == Endpoint::Inetd || !endpoint.fits(transport) {
                        return Err(at(format!("{endpoint} does not fit this service")));
                    }
                    planned.watches.push(Watch {
                        entry: entry.clone(),
                        endpoint,
                        transport,
                        socket: service.socket.clone(),
                        access: list.clone(),
                        prover: prover.clone(),
                    });
                }
            } else {
                if entry.recipe.is_some() {
                    planned.warm.push(entry.clone());
                }
                planned.listeners.push(service.listener(entry));
            }
        }
        Ok(planned)
    }
}

impl ServiceConfig {
    /// The transport of all its endpoints.
    fn transport(&self) -> Result<Transport, String> {
        if self.listen.is_empty() {
            return Err(
                "listen is empty; name at least one endpoint, such as \"tcp://127.0.0.1:79\""
                    .into(),
            );
        }
        let is_udp = |place: &Spanned<String>| place.get_ref().trim_start().starts_with("udp:");
        let datagrams = self.listen.iter().filter(|place| is_udp(place)).count();
        match self.socket_type {
            Some(SocketType::Datagram) => Ok(Transport::Datagram),
            Some(SocketType::Stream) => Ok(Transport::Stream),
            None if datagrams == 0 => Ok(Transport::Stream),
            None if datagrams == self.listen.len() => Ok(Transport::Datagram),
            None => Err("listen has both streams and datagrams; make two services of it".into()),
        }
    }

    /// Whether one process serves all peers.
    fn waits(&self, transport: Transport) -> Result<bool, String> {
        match (transport, self.wait) {
            (Transport::Datagram, Some(false)) => Err(
                "wait = false cannot be for datagrams: whoever would be started for the second \
                 datagram finds the first still unread, and another is started, and another; take \
                 wait out, and let the program read until nothing comes"
                    .into(),
            ),
            (Transport::Datagram, _) => Ok(true),
            (_, wait) => Ok(wait.unwrap_or(false)),
        }
    }

    /// Refuses what cannot be done for peers that a program takes by itself.
    fn check_watch(&self, transport: Transport, access: &AccessConfig) -> Result<(), String> {
        if self.warm.is_some() {
            return Err(
                "warm is for streams without wait; a program that waits is kept as long as \
                        it likes; take one out"
                    .into(),
            );
        }
        if self.redirect.is_some() {
            return Err("redirect is for streams without wait; use command".into());
        }
        let trusts = self.auth != Dialect::None || self.tls.is_some() || !self.proxy.is_empty();
        if trusts {
            return Err(
                "auth, tls and proxy are for streams without wait: the program of this \
                        service talks to its peers itself; take them out"
                    .into(),
            );
        }
        if self.limits != StreamLimits::default() {
            return Err(
                "limits are for streams without wait: the program of this service takes \
                        its peers itself, one process for all; take them out"
                    .into(),
            );
        }
        if !self.banner.is_empty() || self.count_bytes || self.style != Style::Inetd {
            return Err(
                "banner, count_bytes and style are for streams without wait; take them out".into(),
            );
        }
        let list = self.access.as_ref().unwrap_or(access);
        let is_open = list.rules.is_empty() && list.default == Verdict::Allow;
        if transport == Transport::Stream && !is_open {
            return Err(
                "with wait the program accepts its connections itself, past the access \
                        list; take wait out, or say access = { default = \"allow\" } here if \
                        everybody may use it"
                    .into(),
            );
        }
        Ok(())
    }

    /// What warm processes are made by, if there are to be any.
    fn recipe(&self) -> Result<Option<(Recipe, Duration)>, String> {
        let Some(warm) = &self.warm else {
            return Ok(None);
        };
        let why = if self.redirect.is_some() {
            "warm is for programs; take it out, or redirect"
        } else if self.style == Style::Systemd {
            "style = \"systemd\" is for a process per connection; a warm one gets descriptors by message"
        } else if self.process.stderr == Stderr::Peer {
            "process.stderr = \"peer\" is for a process per connection; a warm one has many peers"
        } else if !self.limits.total.0.is_zero() {
            "limits.total would end a warm process, and with it the connections of others; take it out"
        } else if warm.processes == 0 || warm.each == 0 {
            "warm.processes and warm.each are at least 1"
        } else {
            let recipe = Recipe {
                command: self.command.clone(),
                process: self.process.clone(),
                warm: warm.clone(),
                restart: self.restart.clone(),
            };
            return Ok(Some((recipe, self.limits.queue_timeout.0)));
        };
        Err(why.into())
    }

    /// The listener of a service that takes connections.
    fn listener(&self, entry: Arc<Entry>) -> ListenerConfig<StreamLimits, Options> {
        let row = match entry.action {
            Action::Program(_) => PROGRAM,
            Action::Redirect(_) => REDIRECT,
        };
        let mut limits = self.limits.clone();
        limits.connections = limits.connections.or(DEFAULT_INSTANCES.try_into().ok());
        ListenerConfig {
            service: Spanned::new(self.name.span(), row.into()),
            name: Some(self.name.get_ref().clone()),
            listen: self.listen.clone(),
            broker_auth: self.broker_auth,
            broker_keys: self.broker_keys.clone(),
            auth: self.auth,
            auth_keys: self.auth_keys.clone(),
            min_digest: self.min_digest,
            proxy: self.proxy.clone(),
            tls: self.tls.clone(),
            socket: self.socket.clone(),
            limits,
            access: self.access.clone(),
            options: Options::of_service(entry),
        }
    }
}

impl Entry {
    fn new(service: &ServiceConfig) -> Result<Self, String> {
        let action = match (&service.redirect, service.command.is_empty()) {
            (Some(_), false) => {
                return Err("command and redirect exclude each other; take one out".into());
            }
            (None, true) => {
                return Err(
                    "command is missing; name a program and its arguments, such as \
                     [\"/bin/cat\"], or a place with redirect"
                        .into(),
                );
            }
            (None, false) => Action::Program(Program::new(&service.command, &service.process)?),
            (Some(target), true) => Action::Redirect(target_of(target)?),
        };
        let limits = &service.limits;
        let tells = limits.at_limit == AtLimit::Banner;
        Ok(Self {
            name: service.name.get_ref().clone(),
            action,
            style: service.style,
            times: service.access_times.clone(),
            banner: service.banner.clone().into(),
            refusal: tells.then(|| limits.banner.clone().into()),
            log: service.log,
            count_bytes: service.count_bytes,
            total: limits.total.0,
            restart: service.restart.clone(),
            recipe: service.recipe()?,
            warm: OnceLock::new(),
        })
    }
}

/// A place that a connection can be passed on to.
fn target_of(target: &Endpoint) -> Result<Endpoint, String> {
    let target = target.clone().with_transport(Transport::Stream);
    match target {
        Endpoint::Tcp(_) | Endpoint::Unix(_) | Endpoint::Abstract(_) => Ok(target),
        other => Err(format!(
            "redirect = \"{other}\" is no place to connect to; use tcp:// or unix:"
        )),
    }
}

/// The rows of the table of services that `[[service]]` tables become.
pub const PROGRAM: &str = "program";
/// See [`PROGRAM`].
pub const REDIRECT: &str = "redirect";
/// A program takes more of a machine than a connection does.
const DEFAULT_INSTANCES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Tables {
        service: Vec<ServiceConfig>,
    }

    fn planned(text: &str) -> Result<Planned, ConfigError> {
        let source = Source::from_text(text);
        let tables: Tables = source.parse()?;
        Planned::new(&tables.service, &AccessConfig::default(), &source)
    }

    fn wrong(keys: &str) -> String {
        let text = format!("\n[[service]]\nname = 'x'\n{keys}");
        let error = planned(&text).unwrap_err();
        assert!(error.place.is_some(), "{error}");
        error.to_string()
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_line_and_the_remedy() {
        let cat = "command = ['/bin/cat']";
        for (keys, part) in [
            ("listen = []\ncommand = ['/bin/cat']", "listen is empty"),
            ("listen = ['tcp://127.0.0.1:9']", "command is missing"),
            (
                "listen = ['tcp://127.0.0.1:9']\ncommand = ['/bin/cat']\nredirect = 'tcp://h:1'",
                "exclude",
            ),
            (
                "listen = ['tcp://127.0.0.1:9']\nredirect = 'udp://h:1'",
                "no place to connect to",
            ),
            (
                "listen = ['tcp://127.0.0.1:9', 'udp://127.0.0.1:9']\ncommand = ['/bin/cat']",
                "make two services",
            ),
            (
                &format!("listen = ['udp://127.0.0.1:9']\nwait = false\n{cat}"),
                "finds the first still unread",
            ),
            (
                &format!("listen = ['udp://127.0.0.1:9']\n{cat}\nlimits = {{ per_source = 2 }}"),
                "limits are for streams",
            ),
            (
                &format!(
                    "listen = ['tcp://127.0.0.1:9']\nwait = true\n{cat}\naccess = {{ rules = ['deny 10.0.0.0/8'] }}"
                ),
                "accepts its connections itself",
            ),
            (
                &format!("listen = ['tcp://127.0.0.1:9']\nwait = true\n{cat}\nbanner = 'hello'"),
                "take them out",
            ),
            (
                &format!("listen = ['tcp://127.0.0.1:9']\n{cat}\nprocess = {{ nice = 40 }}"),
                "-20 to 19",
            ),
            (
                &format!("listen = ['tcp://127.0.0.1:9']\n{cat}\naccess_times = ['noon']"),
                "08:00-18:00",
            ),
        ] {
            let said = wrong(keys);
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn two_of_one_name_are_refused() {
        let one =
            "[[service]]\nname = 'x'\nlisten = ['tcp://127.0.0.1:9']\ncommand = ['/bin/cat']\n";
        let error = planned(&format!("{one}{one}")).unwrap_err();
        assert_eq!(error.place.unwrap().0, 6);
    }

    #[test]
    fn streams_become_listeners_and_what_waits_is_watched() {
        let text = "
            [[service]]
            name = 'a'
            listen = ['127.0.0.1:9']
            command = ['/bin/cat']
            [[service]]
            name = 'b'
            listen = ['udp://127.0.0.1:9', 'udp://[::1]:9']
            command = ['/bin/cat']
            [[service]]
            name = 'c'
            listen = ['127.0.0.1:10']
            wait = true
            command = ['/bin/cat']";
        let planned = planned(text).unwrap();
        assert_eq!(planned.listeners.len(), 1);
        assert_eq!(planned.listeners[0].service.get_ref(), PROGRAM);
        assert_eq!(planned.listeners[0].limits.connections.unwrap().get(), 100);
        let kinds: Vec<Transport> = planned
            .watches
            .iter()
            .map(|watch| watch.transport)
            .collect();
        assert_eq!(
            kinds,
            [Transport::Datagram, Transport::Datagram, Transport::Stream]
        );
    }
}
