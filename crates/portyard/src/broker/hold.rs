//! Sockets that a broker holds: stored, retrieved for a program, deleted.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use portyard_core::auth::{Dialect, MinDigest, Prover, read_keys};
use portyard_core::config::{SocketOptions, Span};
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::files::FilePlace;
use portyard_core::holding::{Holder, HoldingError, Retrieved};
use portyard_core::listen::{Bound, Inherited, open};
use portyard_core::wire::hold::{Name, SOCKETS_MAX};

use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// What is asked for.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Open sockets and have the broker hold them under a name.
    ///
    /// Their options are those that a daemon would set. The broker holds them until they are deleted,
    /// or for as long as --expiry says.
    Store {
        /// The name.
        name: Name,
        /// Where to listen: tcp://HOST:PORT, udp://HOST:PORT, `unix:/PATH`, or systemd:NAME for sockets that
        /// were passed to this program.
        #[arg(required = true)]
        endpoints: Vec<Endpoint>,
        /// Unix and passed sockets are for datagrams.
        #[arg(long)]
        datagram: bool,
        /// How long to hold them.
        #[arg(long, value_name = "SPAN", value_parser = super::parse_span)]
        expiry: Option<Span>,
        /// Close what the name stands for.
        #[arg(long)]
        replace: bool,
    },
    /// Run a program with the sockets that are held under a name; without a program, say where they are.
    ///
    /// The program gets them as systemd passes them: from descriptor 3 on, with LISTEN_FDS, LISTEN_PID
    /// and LISTEN_FDNAMES. It takes the place of this one.
    Retrieve {
        /// The name.
        name: Name,
        /// The program and its arguments.
        #[arg(last = true, value_name = "PROGRAM")]
        command: Vec<OsString>,
    },
    /// Have the broker close what is held under a name.
    Delete {
        /// The name.
        name: Name,
    },
}

/// How this program proves who it is, beside its user.
#[derive(Debug, clap::Args)]
pub struct Keys {
    /// The keys, one of which the broker's control listener wants proved (auth = "mutual").
    #[arg(long, value_name = "FILE", global = true)]
    auth_keys: Option<FilePlace>,
    /// Which of the keys. [default: the first]
    #[arg(long, value_name = "NAME", global = true, requires = "auth_keys")]
    auth_key: Option<String>,
}

/// Does what is asked for.
pub fn run(what: &What, socket: &Path, keys: &Keys, as_json: bool, out: &mut Out) -> Outcome {
    let holder = connect(socket, keys)?;
    let failed = |error: HoldingError| Fatal::new(error.exit(), error.to_string());
    match what {
        What::Store {
            name,
            endpoints,
            datagram,
            expiry,
            replace,
        } => {
            let bound = bind(endpoints, *datagram)?;
            let sockets: Vec<BorrowedFd<'_>> =
                bound.iter().map(|bound| bound.socket.as_fd()).collect();
            let expiry = expiry.map(|span| span.0).filter(|span| !span.is_zero());
            holder
                .store(name, &sockets, expiry, *replace)
                .map_err(failed)?;
            for Bound { endpoint, file, .. } in bound {
                // The broker has the socket, and its file stays with it.
                if let Some(file) = file {
                    file.leave();
                }
                told(name, "holds", &endpoint.to_string(), as_json, out)?;
            }
        }
        What::Retrieve { name, command } => match holder.retrieve(name).map_err(failed)? {
            Retrieved::Sockets(sockets) if command.is_empty() => {
                for socket in sockets {
                    let place = place(socket);
                    told(name, "holds", &place, as_json, out)?;
                }
            }
            Retrieved::Sockets(sockets) => return Err(become_program(name, sockets, command)),
            Retrieved::Pool(_) => {
                return Err(Stop::fatal(
                    Exit::Config,
                    format!("{name} is a pool, whose connections go to its workers"),
                ));
            }
        },
        What::Delete { name } => {
            holder.delete(name).map_err(failed)?;
            told(name, "has closed", "", as_json, out)?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn connect(socket: &Path, keys: &Keys) -> Result<Holder, Stop> {
    let holder = Holder::connect_now(socket, PATIENCE)
        .map_err(|error| Fatal::new(error.exit(), error.to_string()))?;
    if let Some(place) = &keys.auth_keys {
        let wrong = |text: String| Fatal::new(Exit::Config, text);
        let all = read_keys(place).map_err(|error| wrong(error.to_string()))?;
        let name = keys.auth_key.as_deref();
        let prover = Prover::new(Dialect::Mutual, &all, name, MinDigest::default())
            .map_err(|error| wrong(error.to_string()))?;
        holder
            .prove(&prover)
            .map_err(|error| Fatal::new(Exit::NoPermission, error.to_string()))?;
    }
    Ok(holder)
}

fn bind(endpoints: &[Endpoint], datagram: bool) -> Result<Vec<Bound>, Stop> {
    let mut inherited = Inherited::from_environment()?;
    let mut all = Vec::new();
    for endpoint in endpoints {
        let transport = match endpoint {
            Endpoint::Tcp(_) => Transport::Stream,
            Endpoint::Udp(_) => Transport::Datagram,
            _ if datagram => Transport::Datagram,
            _ => Transport::Stream,
        };
        let endpoint = endpoint.clone().with_transport(transport);
        let options = SocketOptions::default();
        let bound = open(&endpoint, transport, &options, &mut inherited, 1, None);
        all.extend(bound.map_err(Fatal::from)?);
    }
    if all.len() > SOCKETS_MAX {
        return Err(Stop::fatal(
            Exit::Usage,
            format!("one name stands for at most {SOCKETS_MAX} sockets"),
        ));
    }
    Ok(all)
}

/// Becomes the program, with the sockets; returns only why that failed.
fn become_program(name: &Name, sockets: Vec<OwnedFd>, command: &[OsString]) -> Stop {
    let mut program = Command::new("/proc/self/exe");
    // systemd separates names with colons.
    let label = name.as_str().replace(':', "_");
    let names = vec![label; sockets.len()];
    program
        .arg0("portyard")
        .args(["exec-activated", "--"])
        .args(command)
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    let mappings = (FIRST_DESCRIPTOR..)
        .zip(sockets)
        .map(|(child_fd, parent_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
    // The numbers are consecutive, so none occurs twice.
    let error = match program.fd_mappings(mappings.collect()) {
        Ok(program) => program.exec(),
        Err(error) => std::io::Error::other(error),
    };
    Stop::fatal(
        Exit::from_io(&error),
        format!("cannot run the program: {error}"),
    )
}

fn place(socket: OwnedFd) -> String {
    let socket = socket2::Socket::from(socket);
    let transport = match socket.r#type() {
        Ok(socket2::Type::DGRAM) => Transport::Datagram,
        Ok(socket2::Type::SEQPACKET) => Transport::SeqPacket,
        _ => Transport::Stream,
    };
    let endpoint = portyard_core::listen::local_endpoint(&socket, transport);
    endpoint.map_or_else(|| "an unnamed socket".into(), |it| it.to_string())
}

fn told(name: &Name, what: &str, place: &str, as_json: bool, out: &mut Out) -> Result<(), Stop> {
    if as_json {
        return out.json(&serde_json::json!({ "name": name.as_str(), "endpoint": place }));
    }
    out.line(
        format_args!("the broker {what} {name} {place}")
            .to_string()
            .trim_end(),
    )
}

/// How long the broker has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// SD_LISTEN_FDS_START.
const FIRST_DESCRIPTOR: i32 = 3;
