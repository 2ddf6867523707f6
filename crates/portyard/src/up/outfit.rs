//! What each daemon is configured with: its built-in defaults on the sockets that it gets, with an admin
//! endpoint that only we and our children can reach; and rest-api with where those are, so that its
//! service yard shows all of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use toml::{Table, Value};

use super::roster::Listener;
use super::sockets::Berth;

/// The configuration of one daemon, and where its file goes.
#[derive(Debug)]
pub struct Outfit {
    path: PathBuf,
    text: String,
}

impl Outfit {
    /// Those of all daemons, in their order, with files in a directory that others cannot enter.
    pub fn of_all(berths: &[Berth], directory: &Path) -> Result<Vec<Self>, Fatal> {
        let members: Vec<Value> = berths
            .iter()
            .map(|berth| Value::Table(member(berth, directory)))
            .collect();
        berths
            .iter()
            .map(|berth| {
                let mut table = on_its_sockets(berth.defaults.clone());
                let admin = table
                    .entry("admin")
                    .or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(admin) = admin {
                    let listen = admin_endpoint(berth.daemon, directory);
                    admin.insert("listen".into(), listen.to_string().into());
                }
                if berth.daemon == YARD {
                    table.insert("yard".into(), Value::Array(members.clone()));
                }
                let text = toml::to_string(&table).map_err(|error| {
                    let message = format!("cannot write a configuration: {error}");
                    Fatal::new(Exit::Software, message)
                })?;
                let path = directory.join(format!("{}.toml", berth.daemon));
                Ok(Self { path, text })
            })
            .collect()
    }

    /// Writes the file. To be called before every start: what tidies a directory of temporary files
    /// up may have taken it.
    pub fn lay_out(&self) -> io::Result<()> {
        fs::write(&self.path, &self.text).map_err(|error| {
            let message = format!(
                "its configuration {}: {error}; XDG_RUNTIME_DIR, else TMPDIR, names a directory that needs room",
                self.path.display()
            );
            io::Error::new(error.kind(), message)
        })
    }

    /// For `--config`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Each listener takes the sockets that are passed by its name.
fn on_its_sockets(mut table: Table) -> Table {
    let listeners = table.get_mut("listener").and_then(Value::as_array_mut);
    for listener in listeners.into_iter().flatten() {
        let label = listener.clone().try_into::<Listener>();
        if let (Ok(label), Some(listener)) = (label, listener.as_table_mut()) {
            let from = Endpoint::Systemd(Some(label.label().into()));
            let listen = vec![Value::String(from.to_string())];
            listener.insert("listen".into(), Value::Array(listen));
        }
    }
    table
}

/// A `[[yard]]` table of rest-api.
fn member(berth: &Berth, directory: &Path) -> Table {
    let mut table = Table::new();
    table.insert("name".into(), berth.daemon.into());
    let admin = admin_endpoint(berth.daemon, directory);
    table.insert("admin".into(), admin.to_string().into());
    let door = berth
        .sockets
        .iter()
        .find(|passed| berth.daemon == "kv-rpc" && passed.service == "json-rpc");
    if let Some(door) = door {
        table.insert("keys".into(), door.bound.endpoint.to_string().into());
    }
    table
}

/// A socket's path, which a daemon opens itself: while it is down, who asks is refused at once.
fn admin_endpoint(daemon: &str, directory: &Path) -> Endpoint {
    Endpoint::Unix(directory.join(format!("{daemon}-admin")))
}

/// The daemon with service yard.
const YARD: &str = "rest-api";

#[cfg(test)]
mod tests {
    use super::super::roster::Plan;
    use super::super::sockets;
    use super::*;
    use crate::catalog::DAEMONS;

    fn berth(name: &str, defaults: &str) -> Berth {
        let defaults: Table = toml::from_str(defaults).unwrap();
        let printed = defaults.get("listener").cloned();
        let daemon = DAEMONS.iter().find(|daemon| daemon.name == name);
        let plan = Plan {
            daemon: *daemon.unwrap(),
            program: "/bin/true".into(),
            listeners: printed.map_or(Vec::new(), |all| all.try_into().unwrap()),
            defaults,
        };
        sockets::open(plan).unwrap()
    }

    #[test]
    fn rest_api_is_told_of_all_daemons_and_each_of_its_sockets() {
        let berths = [
            berth(
                "kv-rpc",
                "grace = '9s'\n[admin]\nactions = false\n[[listener]]\nservice = 'json-rpc'\n\
                 listen = ['tcp://127.0.0.1:0', 'tcp://127.0.0.1:0']\n[listener.limits]\nidle = '1s'\n\
                 [[listener]]\nservice = 'xml-rpc'\nname = 'doors'\nlisten = ['tcp://127.0.0.1:0']\n",
            ),
            berth("rest-api", ""),
        ];
        let outfits = Outfit::of_all(&berths, Path::new("/run/yard")).unwrap();
        let read = |at: usize| toml::from_str::<Table>(&outfits[at].text).unwrap();
        let kv = read(0);
        assert_eq!(
            kv["admin"]["listen"].as_str(),
            Some("unix:/run/yard/kv-rpc-admin")
        );
        assert_eq!(kv["admin"]["actions"].as_bool(), Some(false));
        assert_eq!(
            kv["listener"][0]["listen"][0].as_str(),
            Some("systemd:json-rpc")
        );
        assert_eq!(kv["listener"][0]["listen"].as_array().unwrap().len(), 1);
        assert_eq!(kv["listener"][0]["limits"]["idle"].as_str(), Some("1s"));
        assert_eq!(
            kv["listener"][1]["listen"][0].as_str(),
            Some("systemd:doors")
        );
        assert!(kv.get("yard").is_none());
        let yard = read(1)["yard"].as_array().unwrap().clone();
        assert_eq!(yard.len(), 2);
        assert_eq!(
            yard[0]["admin"].as_str(),
            Some("unix:/run/yard/kv-rpc-admin")
        );
        let door = berths[0].sockets[0].bound.endpoint.to_string();
        assert_eq!(yard[0]["keys"].as_str(), Some(&*door));
        assert_eq!(yard[1]["name"].as_str(), Some("rest-api"));
        assert!(yard[1].get("keys").is_none());
        assert_eq!(outfits[1].path(), Path::new("/run/yard/rest-api.toml"));
    }
}
