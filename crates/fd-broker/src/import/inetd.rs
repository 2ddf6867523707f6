//! inetd.conf(5), in the spellings of OpenBSD, FreeBSD, inetutils and the netkit of old.

use std::collections::HashMap;
use std::path::Path;

use toml::Value;

use super::draft::{Draft, texts};
use super::ports::Ports;
use super::{Imported, internal};

/// Translates a file.
pub fn import(path: &Path, text: &str, ports: &Ports) -> Imported {
    let mut imported = Imported::default();
    let mut names: HashMap<String, u32> = HashMap::new();
    // OpenBSD: `ADDRESS:` alone is for the lines that follow.
    let mut address = "*".to_owned();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), number + 1);
        let (line, off) = match line.trim().strip_prefix(OFF) {
            Some(line) => (line.trim(), true),
            None => (line.trim(), false),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [only] = words[..]
            && let Some(host) = only.strip_suffix(':')
        {
            host.clone_into(&mut address);
            continue;
        }
        let (mut draft, filled) = match Line::parse(&words, &address) {
            Ok(line) => line.draft(&mut names, ports, off),
            Err(why) => (Draft::new("unknown"), Err(why.to_owned())),
        };
        if let Err(why) = filled {
            // Of a service that was off, nothing is lost.
            if !off {
                imported.warn(&place, &format!("{why}: {line}"));
            }
            draft.comment(line);
            draft.leave_out(&why);
        }
        imported.drafts.push(draft);
    }
    imported
}

/// A line of the file, by its fields.
#[derive(Debug)]
struct Line<'a> {
    hosts: Vec<&'a str>,
    service: &'a str,
    socket_type: &'a str,
    protocol: &'a str,
    wait: &'a str,
    user: &'a str,
    program: &'a str,
    arguments: &'a [&'a str],
}

impl<'a> Line<'a> {
    fn parse(words: &'a [&'a str], address: &'a str) -> Result<Self, &'static str> {
        let [
            service,
            socket_type,
            protocol,
            wait,
            user,
            program,
            arguments @ ..,
        ] = words
        else {
            return Err("a line has six fields at least");
        };
        // An IPv6 address in brackets has colons of its own.
        let (hosts, service) = match service.rsplit_once(':') {
            Some((hosts, service)) if !service.ends_with(']') => (hosts, service),
            _ => (address, *service),
        };
        Ok(Self {
            hosts: hosts.split(',').collect(),
            service,
            socket_type,
            protocol,
            wait,
            user,
            program,
            arguments,
        })
    }

    /// A service of its own name, and whether it could be translated.
    fn draft(
        &self,
        names: &mut HashMap<String, u32>,
        ports: &Ports,
        off: bool,
    ) -> (Draft, Result<(), String>) {
        let name = self.service.trim_start_matches('/').replace('/', "-");
        let datagrams = self.socket_type == "dgram";
        let name = if datagrams {
            format!("{name}-udp")
        } else {
            name
        };
        let count = names.entry(name.clone()).or_insert(0);
        *count += 1;
        let name = if *count == 1 {
            name
        } else {
            format!("{name}-{count}")
        };
        let mut draft = Draft::new(&name);
        if off {
            draft.comment("It was disabled.");
            draft.off = true;
        }
        let filled = self.fill(&mut draft, datagrams, ports);
        (draft, filled)
    }

    fn fill(&self, draft: &mut Draft, datagrams: bool, ports: &Ports) -> Result<(), String> {
        if !datagrams && self.socket_type != "stream" {
            return Err(format!(
                "socket type {} is not offered here",
                self.socket_type
            ));
        }
        let mut options = self.protocol.split(',');
        let protocol = options.next().unwrap_or_default();
        if protocol.starts_with("rpc/")
            || self.service.starts_with("tcpmux/")
            || protocol.contains("/ttcp")
        {
            return Err(format!("{} {protocol} is not offered here", self.service));
        }
        draft.set("listen", texts(self.endpoints(protocol, datagrams, ports)?));
        for option in options {
            match option.split_once('=') {
                Some(("rcvbuf", size)) => draft.set_in("socket", "receive_buffer", buffer(size)?),
                Some(("sndbuf", size)) => draft.set_in("socket", "send_buffer", buffer(size)?),
                _ => {
                    return Err(format!(
                        "the option {option} of {protocol} has no counterpart"
                    ));
                }
            }
        }
        let (wait, numbers) = match self.wait.find(['.', '/', ':']) {
            Some(at) => self.wait.split_at(at),
            None => (self.wait, ""),
        };
        match (wait, datagrams) {
            ("nowait", true) => {
                draft.comment("nowait does not work for datagrams; it is taken as wait.");
            }
            ("wait", true) | ("nowait", false) => {}
            ("wait", false) => draft.set("wait", true),
            _ => return Err(format!("'{}' is neither wait nor nowait", self.wait)),
        }
        let numbers = parse_numbers(numbers)?;
        if !datagrams && wait == "nowait" {
            set_limits(draft, &numbers);
        }
        if self.program == "internal" {
            let command = internal::command(self.service, datagrams)?;
            draft.comment(internal::remark(datagrams));
            draft.set("command", texts(command));
            return Ok(());
        }
        let command = std::iter::once(&self.program).chain(self.arguments.iter().skip(1));
        draft.set("command", texts(command));
        if let Some(name) = self.arguments.first().filter(|name| *name != &self.program) {
            draft.set_in("process", "name", *name);
        }
        self.set_user(draft);
        Ok(())
    }

    fn endpoints(
        &self,
        protocol: &str,
        datagrams: bool,
        ports: &Ports,
    ) -> Result<Vec<String>, String> {
        if self.service.starts_with('/') || protocol == "unix" {
            return Ok(vec![format!("unix:{}", self.service)]);
        }
        let scheme = if datagrams { "udp" } else { "tcp" };
        let is_known = [
            "tcp", "tcp4", "tcp6", "tcp46", "tcp6only", "udp", "udp4", "udp6", "udp46", "udp6only",
        ];
        if !is_known.contains(&protocol) {
            return Err(format!("protocol {protocol} is not offered here"));
        }
        let port = ports.find(self.service, datagrams);
        let port = port.ok_or_else(|| {
            format!(
                "the port of {} is not known; see /etc/services",
                self.service
            )
        })?;
        let mut all = Vec::new();
        for host in &self.hosts {
            let host = host.trim_matches(['[', ']']);
            match (host, protocol.trim_start_matches(['t', 'c', 'p', 'u', 'd'])) {
                ("*" | "", "6" | "6only") => all.push(format!("{scheme}://[::]:{port}")),
                ("*" | "", "46") => {
                    all.push(format!("{scheme}://0.0.0.0:{port}"));
                    all.push(format!("{scheme}://[::]:{port}"));
                }
                ("*" | "", _) => all.push(format!("{scheme}://0.0.0.0:{port}")),
                (host, _) if host.contains(':') => all.push(format!("{scheme}://[{host}]:{port}")),
                (host, _) => all.push(format!("{scheme}://{host}:{port}")),
            }
        }
        Ok(all)
    }

    /// `USER`, `USER:GROUP`, `USER.GROUP`, and a login class behind a slash.
    fn set_user(&self, draft: &mut Draft) {
        let (who, class) = match self.user.split_once('/') {
            Some((who, class)) => (who, Some(class)),
            None => (self.user, None),
        };
        let (user, group) = match who.split_once([':', '.']) {
            Some((user, group)) => (user, Some(group)),
            None => (who, None),
        };
        if let Some(class) = class {
            draft.comment(format!(
                "The login class {class} has no counterpart; see process.limits."
            ));
        }
        if user != "root" {
            draft.set_in("process", "user", user);
        }
        if let Some(group) = group {
            draft.set_in("process", "group", group);
        }
    }
}

/// What stands behind wait or nowait: `.MAX` a minute, or `/CHILDREN[/A_MINUTE[/PER_SOURCE]]`.
#[derive(Debug, Default)]
struct Numbers {
    children: u32,
    a_minute: u32,
    per_source: u32,
}

fn parse_numbers(text: &str) -> Result<Numbers, String> {
    let mut numbers = Numbers::default();
    let parse = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| format!("'{text}' behind wait or nowait is no number"))
    };
    if let Some(rest) = text.strip_prefix('/') {
        let fields = [
            &mut numbers.children,
            &mut numbers.a_minute,
            &mut numbers.per_source,
        ];
        for (field, text) in fields.into_iter().zip(rest.split('/')) {
            *field = parse(text)?;
        }
    } else if let Some(text) = text.strip_prefix(['.', ':']) {
        numbers.a_minute = parse(text)?;
    }
    Ok(numbers)
}

/// 0 is no limit.
fn set_limits(draft: &mut Draft, numbers: &Numbers) {
    if numbers.children > 0 {
        draft.set_in("limits", "connections", i64::from(numbers.children));
    }
    if numbers.per_source > 0 {
        draft.set_in("limits", "per_source", i64::from(numbers.per_source));
    }
    if numbers.a_minute > 0 {
        draft.comment("Too many starts a minute switched the service off; rate slows the source that comes too fast.");
        draft.set_in("limits", "rate", format!("{}/min", numbers.a_minute));
    }
}

/// `16k` as a size.
fn buffer(size: &str) -> Result<Value, String> {
    let digits = size.trim_end_matches(['k', 'K', 'm', 'M']);
    let unit = match &size[digits.len()..] {
        "" => 1,
        "k" | "K" => 1024,
        "m" | "M" => 1024 * 1024,
        _ => 0,
    };
    let bytes = digits.parse::<u32>().ok().filter(|_| unit > 0);
    let bytes = bytes.ok_or_else(|| format!("'{size}' is no size of a buffer"))?;
    Ok(Value::Integer(i64::from(bytes) * unit))
}

/// How Debian's update-inetd writes what it has switched off.
const OFF: &str = "#<off>#";
