//! The table of services: adding one is one row and one file.

use std::sync::Arc;

use portyard_core::daemon::{
    Build, ConfigOf, Daemon, Home, ListenerOf, NoSettings, ServiceOf, ServiceRow,
};
use portyard_core::listener::Streams;
use portyard_core::sandbox::Needs;

use crate::array_sink::ArraySink;
use crate::array_source::ArraySource;
use crate::chargen::Chargen;
use crate::command::Command;
use crate::daytime::Daytime;
use crate::discard::Discard;
use crate::echo::Echo;
use crate::message::Message;
use crate::options::Options;
use crate::sleep::Sleep;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// The daemon.
pub enum EchoTcp {}

impl Daemon for EchoTcp {
    type Flavour = Streams;
    type Options = Options;
    type Shared = ();

    const NAME: &'static str = "echo-tcp";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Stream services: echo, discard, chargen, daytime, time and more";
    const SERVICES: &'static [ServiceRow<Self>] = &[
        row(
            "echo",
            7007,
            "returns what it is sent (RFC 862)",
            |_, ()| Ok(Arc::new(Echo)),
        ),
        row(
            "discard",
            7009,
            "throws away what it is sent (RFC 863)",
            |_, ()| Ok(Arc::new(Discard)),
        ),
        row(
            "chargen",
            7019,
            "sends characters without end (RFC 864)",
            |_, ()| Ok(Arc::new(Chargen)),
        ),
        row(
            "daytime",
            7013,
            "says the local time as text (RFC 867)",
            |_, ()| Ok(Arc::new(Daytime)),
        ),
        row(
            "time",
            7037,
            "says the time as a number (RFC 868)",
            |_, ()| Ok(Arc::new(Time)),
        ),
        row(
            "timestamp",
            7014,
            "returns each line with the time before it",
            timestamp,
        ),
        row(
            "command",
            7015,
            "answers date, os, ls, ls DIR, help, quit",
            command,
        ),
        row(
            "sleep",
            7016,
            "answers a number of seconds after that long",
            sleep,
        ),
        row(
            "message",
            7020,
            "returns each message of a Python multiprocessing client",
            message,
        ),
        row(
            "array-source",
            7021,
            "sends an array of numbers or a file",
            array_source,
        ),
        row(
            "array-sink",
            7022,
            "takes arrays and answers with their checksums",
            array_sink,
        ),
    ];

    fn needs(config: &ConfigOf<Self>, _: &NoSettings) -> Needs {
        let mut needs = Needs::default();
        for options in config.listeners.iter().map(|listener| &listener.options) {
            options.root.iter().for_each(|root| needs.list(root));
            options.file.iter().for_each(|file| needs.read(file));
            options.directory.iter().for_each(|at| needs.store(at));
        }
        needs
    }
}

const fn row(
    name: &'static str,
    port: u16,
    about: &'static str,
    build: Build<EchoTcp>,
) -> ServiceRow<EchoTcp> {
    ServiceRow {
        name,
        home: Home::Port(port),
        about,
        build,
    }
}

fn timestamp(listener: &ListenerOf<EchoTcp>, (): ()) -> Result<ServiceOf<EchoTcp>, String> {
    Ok(Arc::new(Timestamp::new(&listener.options)?))
}

fn command(listener: &ListenerOf<EchoTcp>, (): ()) -> Result<ServiceOf<EchoTcp>, String> {
    Ok(Arc::new(Command::new(&listener.options)?))
}

fn sleep(listener: &ListenerOf<EchoTcp>, (): ()) -> Result<ServiceOf<EchoTcp>, String> {
    Ok(Arc::new(Sleep::new(&listener.options)?))
}

fn message(listener: &ListenerOf<EchoTcp>, (): ()) -> Result<ServiceOf<EchoTcp>, String> {
    Ok(Arc::new(Message::new(&listener.options)?))
}

fn array_source(listener: &ListenerOf<EchoTcp>, (): ()) -> Result<ServiceOf<EchoTcp>, String> {
    Ok(Arc::new(ArraySource::new(&listener.options)?))
}

fn array_sink(listener: &ListenerOf<EchoTcp>, (): ()) -> Result<ServiceOf<EchoTcp>, String> {
    Ok(Arc::new(ArraySink::new(&listener.options)?))
}
