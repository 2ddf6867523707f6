//! The services of an xinetd.conf(5), attribute by attribute.

use std::collections::HashMap;
use std::path::Path;

use portyard_core::config::Size;

use super::access::prefixes;
use super::draft::{Draft, texts};
use super::ports::Ports;
use super::sections::{Values, apply, parse};
use super::{Imported, internal, read};

/// Translates a file and those that it includes.
pub fn import(path: &Path, text: &str, ports: &Ports) -> Imported {
    let mut imported = Imported::default();
    let mut sections = Vec::new();
    parse(path, text, &mut sections, &mut imported, 0);
    let mut defaults = Values::new();
    for section in sections.iter().filter(|section| section.name.is_empty()) {
        apply(section, &mut defaults);
    }
    let (enabled, disabled) = (defaults.remove("enabled"), defaults.remove("disabled"));
    let mut names: HashMap<String, u32> = HashMap::new();
    for section in sections.iter().filter(|section| !section.name.is_empty()) {
        let mut values = defaults.clone();
        apply(section, &mut values);
        let id = values
            .get("id")
            .and_then(|(id, _)| id.first())
            .unwrap_or(&section.name);
        let is_named = |list: &Option<(Vec<String>, String)>| {
            let (values, _) = list.as_ref()?;
            Some(values.contains(id) || values.contains(&section.name))
        };
        let off = is_named(&enabled) == Some(false) || is_named(&disabled) == Some(true);
        let count = names.entry(id.clone()).or_insert(0);
        *count += 1;
        let name = if *count == 1 {
            id.clone()
        } else {
            format!("{id}-{count}")
        };
        let mut service = Service {
            draft: Draft::new(&name),
            imported: &mut imported,
            place: section.place.clone(),
            values,
            disabled: false,
        };
        service.translate(&section.name, ports, off);
        let draft = service.draft;
        imported.drafts.push(draft);
    }
    imported
}

/// A service while it is translated.
struct Service<'a> {
    draft: Draft,
    imported: &'a mut Imported,
    place: String,
    values: Values,
    /// Whether it was off already.
    disabled: bool,
}

impl Service<'_> {
    fn take(&mut self, name: &str) -> Option<Vec<String>> {
        let (values, place) = self.values.remove(name)?;
        self.place = place;
        Some(values)
    }

    fn one(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|values| values.join(" "))
    }

    /// Something that is not translated, and does no harm by that.
    fn warn(&mut self, what: &str) {
        // Of a service that was off, nothing is lost.
        if !self.disabled {
            let what = format!("service {}: {what}", self.draft.name);
            self.imported.warn(&self.place, &what);
        }
        self.draft.comment(what);
    }

    /// Something without which the service cannot be.
    fn leave_out(&mut self, why: &str) {
        if !self.disabled {
            let what = format!("service {}: {why}", self.draft.name);
            self.imported.warn(&self.place, &what);
        }
        self.draft.leave_out(why);
    }

    fn translate(&mut self, service: &str, ports: &Ports, off: bool) {
        let flags = self.take("flags").unwrap_or_default();
        let kinds = self.take("type").unwrap_or_default();
        let has = |list: &[String], word: &str| list.iter().any(|w| w.eq_ignore_ascii_case(word));
        if off || self.one("disable").as_deref() == Some("yes") || has(&flags, "DISABLE") {
            self.draft.comment("It was disabled.");
            (self.draft.off, self.disabled) = (true, true);
        }
        for kind in ["RPC", "TCPMUX", "TCPMUXPLUS"] {
            if has(&kinds, kind) {
                self.leave_out(&format!("type = {kind} is not offered here"));
            }
        }
        if has(&flags, "SENSOR") {
            self.leave_out("flags = SENSOR is not offered here");
        }
        let socket_type = self.one("socket_type").unwrap_or_else(|| "stream".into());
        let datagrams = socket_type == "dgram";
        if !datagrams && socket_type != "stream" {
            self.leave_out(&format!("socket_type = {socket_type} is not offered here"));
        }
        let wait = self.one("wait").as_deref() == Some("yes");
        self.listen(service, &flags, datagrams, ports);
        if datagrams && !wait {
            self.draft
                .comment("wait = no does not work for datagrams; it is taken as yes.");
        }
        let waits = wait || datagrams;
        if wait && !datagrams {
            self.draft.set("wait", true);
        }
        if has(&kinds, "INTERNAL") {
            match internal::command(service, datagrams) {
                Ok(command) => {
                    self.draft.comment(internal::remark(datagrams));
                    self.draft.set("command", texts(command));
                }
                Err(why) => self.leave_out(why),
            }
        } else {
            self.what_is_done(has(&flags, "NAMEINARGS"), waits);
        }
        self.process();
        self.limits(waits);
        self.access(waits && !datagrams);
        self.times();
        self.banners(waits);
        self.log(waits);
        self.rest(&flags);
    }

    fn listen(&mut self, service: &str, flags: &[String], datagrams: bool, ports: &Ports) {
        let protocol = self.one("protocol").unwrap_or_default();
        let bind = self.one("bind").or_else(|| self.one("interface"));
        self.values.remove("interface");
        let has_v6 =
            flags.iter().any(|flag| flag.eq_ignore_ascii_case("IPv6")) || protocol.ends_with('6');
        let host = match bind {
            Some(host) if host.contains(':') => format!("[{host}]"),
            Some(host) => host,
            None if has_v6 => {
                // xinetd leaves the kernel's default, by which such a socket takes IPv4, too.
                self.draft.set_in("socket", "v6only", false);
                "[::]".into()
            }
            None => "0.0.0.0".into(),
        };
        let asked = self.one("port").unwrap_or_else(|| service.into());
        let Some(port) = ports.find(&asked, datagrams) else {
            self.draft.set("listen", texts([format!("tcp://{host}:0")]));
            return self.leave_out(&format!(
                "the port of {asked} is not known; see /etc/services"
            ));
        };
        let scheme = if datagrams { "udp" } else { "tcp" };
        self.draft
            .set("listen", texts([format!("{scheme}://{host}:{port}")]));
    }

    fn what_is_done(&mut self, name_in_args: bool, waits: bool) {
        let server = self.one("server");
        let mut arguments = self.take("server_args").unwrap_or_default();
        if let Some(target) = self.take("redirect") {
            let [host, port] = &target[..] else {
                return self.leave_out("redirect needs a host and a port");
            };
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            return self.draft.set("redirect", format!("tcp://{host}:{port}"));
        }
        let Some(server) = server else {
            return self.leave_out("it has neither server nor redirect");
        };
        if name_in_args && !arguments.is_empty() {
            let name = arguments.remove(0);
            self.draft.set_in("process", "name", name);
        }
        let command: Vec<String> = std::iter::once(server).chain(arguments).collect();
        self.draft.set("command", texts(command));
        if !waits {
            // It always sets REMOTE_HOST.
            self.draft.set("style", "xinetd");
        }
    }

    fn process(&mut self) {
        let user = self.one("user");
        if let Some(user) = user.filter(|user| user != "root") {
            self.draft.set_in("process", "user", user);
        }
        if let Some(group) = self.one("group") {
            self.draft.set_in("process", "group", group);
        }
        // Without groups = yes there are no supplementary ones.
        match self.one("groups").as_deref() {
            Some("yes") => {}
            _ if self.draft.tables.contains_key("process") => {
                self.draft.set_in("process", "groups", texts::<String>([]));
            }
            _ => {}
        }
        if let Some(nice) = self.one("nice") {
            match nice.parse::<i64>() {
                Ok(nice) => self.draft.set_in("process", "nice", nice.clamp(-20, 19)),
                Err(_) => self.warn(&format!("nice = {nice} is no number")),
            }
        }
        if let Some(mask) = self.one("umask") {
            self.draft.set_in("process", "umask", format!("{mask:0>4}"));
        }
        if let Some(values) = self.take("env") {
            let mut variables = toml::Table::new();
            for value in values {
                if let Some((name, value)) = value.split_once('=') {
                    variables.insert(name.into(), value.into());
                }
            }
            self.draft.set_in("process", "environment", variables);
        }
        if let Some(names) = self.take("passenv") {
            self.draft
                .set_in("process", "pass_environment", texts(names));
        }
        self.resources();
    }

    fn resources(&mut self) {
        let mut limits = toml::Table::new();
        for (theirs, ours) in [
            ("rlimit_as", "memory"),
            ("rlimit_data", "data"),
            ("rlimit_stack", "stack"),
            ("rlimit_files", "descriptors"),
            ("rlimit_cpu", "cpu"),
        ] {
            let Some(value) = self.one(theirs) else {
                continue;
            };
            if value.eq_ignore_ascii_case("UNLIMITED") {
                continue;
            }
            let digits = value.trim_end_matches(['K', 'M', 'k', 'm']);
            let unit: u64 = match value.trim_start_matches(digits) {
                "K" | "k" => 1024,
                "M" | "m" => 1024 * 1024,
                _ => 1,
            };
            let Some(number) = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) else {
                self.warn(&format!("{theirs} = {value} is no number"));
                continue;
            };
            let value = match ours {
                "cpu" => format!("{number}s").into(),
                "descriptors" => i64::try_from(number).unwrap_or(i64::MAX).into(),
                _ => Size(number).to_string().into(),
            };
            limits.insert(ours.into(), value);
        }
        if self.one("rlimit_rss").is_some() {
            self.warn("rlimit_rss has had no effect since Linux 2.4; process.limits has memory");
        }
        if !limits.is_empty() {
            self.draft.set_in("process", "limits", limits);
        }
    }

    fn limits(&mut self, waits: bool) {
        let instances = self.one("instances");
        let per_source = self.one("per_source");
        let cps = self.take("cps");
        if self.one("max_load").is_some() {
            self.warn("max_load has no counterpart; limits.connections holds the load");
        }
        if waits {
            // One process for all peers: xinetd does not apply them to it either.
            return;
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        match instances.as_deref() {
            Some("UNLIMITED") => {
                self.draft
                    .comment("instances = UNLIMITED: max_connections of the daemon holds.");
                self.draft
                    .set_in("limits", "connections", i64::from(u16::MAX));
            }
            Some(text) => match number(text) {
                Some(number) => self
                    .draft
                    .set_in("limits", "connections", i64::from(number)),
                None => self.warn(&format!("instances = {text} is no number")),
            },
            None => {}
        }
        if let Some(number) = per_source.as_deref().and_then(number) {
            self.draft.set_in("limits", "per_source", i64::from(number));
        }
        if let Some(rate) = cps.as_ref().and_then(|cps| number(cps.first()?)) {
            self.draft.comment(
                "cps switched the service off for everybody; rate slows each source, and nobody else.",
            );
            self.draft.set_in("limits", "rate", format!("{rate}/s"));
            self.draft.set_in("limits", "burst", i64::from(rate));
        }
    }

    fn access(&mut self, waits_on_streams: bool) {
        let (only, no) = (self.take("only_from"), self.take("no_access"));
        let is_limited = only.is_some() || no.as_ref().is_some_and(|no| !no.is_empty());
        if !is_limited {
            return;
        }
        if waits_on_streams {
            return self.leave_out(
                "with wait = yes the program accepts by itself, past only_from and no_access; \
                 make it nowait, or take its list out",
            );
        }
        let mut rules = Vec::new();
        let lists = [("allow", only.as_ref()), ("deny", no.as_ref())];
        for (action, words) in lists {
            for word in words.into_iter().flatten() {
                match (prefixes(word), action) {
                    (Some(all), _) => {
                        rules.extend(all.iter().map(|prefix| format!("{action} {prefix}")));
                    }
                    (None, "allow") => self.warn(&format!(
                        "only_from = {word} is a name, which is not looked up: nobody is let in by it; write its address"
                    )),
                    (None, _) => self.leave_out(&format!(
                        "no_access = {word} is a name, which is not looked up: write its address"
                    )),
                }
            }
        }
        if only.is_some() {
            self.draft.set_in("access", "default", "deny");
        }
        self.draft.set_in("access", "rules", texts(rules));
    }

    fn times(&mut self) {
        let Some(spans) = self.take("access_times") else {
            return;
        };
        let mut windows = Vec::new();
        for span in &spans {
            match window(span) {
                Some(window) => windows.push(window),
                None => return self.leave_out(&format!("access_times = {span} is not understood")),
            }
        }
        self.draft.set("access_times", texts(windows));
    }

    fn banners(&mut self, waits: bool) {
        let banner = self.banner("banner");
        let success = self.banner("banner_success").or_else(|| banner.clone());
        let failure = self.banner("banner_fail").or(banner);
        if waits {
            if success.is_some() || failure.is_some() {
                self.warn("banners are for streams without wait");
            }
            return;
        }
        if let Some(text) = success {
            self.draft.set("banner", text);
        }
        if let Some(text) = failure {
            self.draft.set_in("limits", "at_limit", "banner");
            self.draft.set_in("limits", "banner", text);
        }
    }

    /// The text of the file that a banner names.
    fn banner(&mut self, name: &str) -> Option<String> {
        let path = self.one(name)?;
        match read(Path::new(&path)) {
            Ok(text) => Some(text),
            Err(error) => {
                self.warn(&format!("{name} = {path} cannot be read: {error}"));
                None
            }
        }
    }

    fn log(&mut self, waits: bool) {
        let success = self.take("log_on_success").unwrap_or_default();
        self.values.remove("log_on_failure");
        let has = |word: &str| success.iter().any(|w| w.eq_ignore_ascii_case(word));
        if has("PID") && (has("EXIT") || has("DURATION")) {
            self.draft.set("log", "both");
        }
        if has("TRAFFIC") && !waits {
            self.draft.set("count_bytes", true);
        }
        if has("USERID") {
            self.warn(
                "log_on_success = USERID asks peers who they are (RFC 1413); nobody does any more",
            );
        }
        if let Some(kind) = self.one("log_type").filter(|kind| kind.starts_with("FILE")) {
            self.warn(&format!(
                "log_type = {kind}: the daemon has one log, see [log]"
            ));
        }
    }

    /// What has no counterpart, and needs none where it only says how it has always been here.
    fn rest(&mut self, flags: &[String]) {
        for flag in flags {
            let known = [
                "REUSE",
                "IPv4",
                "IPv6",
                "NAMEINARGS",
                "NODELAY",
                "KEEPALIVE",
                "NORETRY",
                "DISABLE",
                "SENSOR",
            ];
            if !known.iter().any(|known| known.eq_ignore_ascii_case(flag)) {
                if flag.eq_ignore_ascii_case("NOLIBWRAP") {
                    continue;
                }
                self.warn(&format!("flags = {flag} has no counterpart"));
            }
        }
        let mut left: Vec<String> = self.values.keys().cloned().collect();
        left.sort();
        for name in left {
            if !["id", "mdns", "port"].contains(&&*name) {
                let value = self.one(&name).unwrap_or_default();
                self.warn(&format!("{name} = {value} has no counterpart"));
            }
        }
    }
}

/// `H:MM-H:MM` with the last minute included, as `HH:MM-HH:MM` without.
fn window(span: &str) -> Option<String> {
    let (from, to) = span.split_once('-')?;
    let minute = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let (from, to) = (minute(from)?, minute(to)? + 1);
    Some(format!(
        "{:02}:{:02}-{:02}:{:02}",
        from / 60,
        from % 60,
        to / 60,
        to % 60
    ))
}
