//! The table of doors.

use std::sync::Arc;

use portyard_core::daemon::{Build, ConfigOf, Daemon, Home, ServiceRow};
use portyard_core::listener::Streams;
use portyard_core::sandbox::Needs;

use crate::doors::json_rpc::JsonRpc;
use crate::doors::python_rpc::PythonRpc;
use crate::doors::xml_rpc::XmlRpc;
use crate::settings::{Engine, Options, Tables};
use crate::state::State;

/// The daemon.
pub enum KvRpc {}

impl Daemon for KvRpc {
    type Flavour = Streams;
    type Options = Options;
    type Shared = State;

    const NAME: &'static str = "kv-rpc";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "A durable key/value store behind XML-RPC, JSON-RPC and Python's connections";
    const SERVICES: &'static [ServiceRow<Self>] = &[
        row(
            "xml-rpc",
            15000,
            "as Python's SimpleXMLRPCServer speaks it",
            |listener, state| {
                listener.options.check("xml-rpc")?;
                Ok(Arc::new(XmlRpc::new(state, &listener.options)))
            },
        ),
        row(
            "json-rpc",
            15001,
            "JSON-RPC 2.0 over HTTP and framed",
            |listener, state| {
                listener.options.check("json-rpc")?;
                Ok(Arc::new(JsonRpc::new(state, &listener.options)))
            },
        ),
        row(
            "python-rpc",
            17000,
            "calls over multiprocessing.connection",
            |listener, state| {
                listener.options.check("python-rpc")?;
                Ok(Arc::new(PythonRpc::new(state, &listener.options)))
            },
        ),
    ];

    fn needs(_: &ConfigOf<Self>, tables: &Tables) -> Needs {
        let mut needs = Needs::default();
        if tables.store.engine == Engine::Redb {
            // Without a directory there is no start.
            tables
                .store
                .directory()
                .into_iter()
                .for_each(|at| needs.store(at));
        }
        needs
    }
}

const fn row(
    name: &'static str,
    port: u16,
    about: &'static str,
    build: Build<KvRpc>,
) -> ServiceRow<KvRpc> {
    ServiceRow {
        name,
        home: Home::Port(port),
        about,
        build,
    }
}
