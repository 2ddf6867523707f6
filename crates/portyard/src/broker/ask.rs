//! The question to a broker, and its answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portyard_core::exit::{Exit, Fatal};
use portyard_core::holding::{Holder, PacketError, Packets};
use portyard_core::wire::escape::escape;
use portyard_core::wire::operate::{MESSAGE_MAX, Reply, Request};
use serde_json::Value;
use socket2::Socket;

use crate::stop::Stop;

/// A broker that answers.
pub struct Broker {
    packets: Packets<Socket>,
    path: PathBuf,
}

impl Broker {
    /// Connects to its control socket.
    pub fn connect(path: &Path) -> Result<Self, Stop> {
        let holder = Holder::connect_now(path, PATIENCE)
            .map_err(|error| Fatal::new(error.exit(), error.to_string()))?;
        Ok(Self {
            packets: Packets::new(holder.into_channel(), PATIENCE),
            path: path.into(),
        })
    }

    /// The state of everything.
    pub fn status(&self) -> Result<Value, Stop> {
        self.send(Request::Status)?;
        let mut document = Vec::new();
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            match self.receive(&mut buffer)? {
                Reply::Part { more, bytes } => {
                    document.extend_from_slice(bytes);
                    if document.len() > DOCUMENT_MAX {
                        return Err(self.nonsense("a status without end"));
                    }
                    if !more {
                        break;
                    }
                }
                other => return Err(self.refused(other)),
            }
        }
        serde_json::from_slice(&document).map_err(|error| self.nonsense(&error.to_string()))
    }

    /// Asks for something to be done with workers; how many there were.
    pub fn tell(&self, request: Request<'_>) -> Result<u32, Stop> {
        self.send(request)?;
        let mut buffer = vec![0; MESSAGE_MAX];
        match self.receive(&mut buffer)? {
            Reply::Done(count) => Ok(count),
            other => Err(self.refused(other)),
        }
    }

    fn send(&self, request: Request<'_>) -> Result<(), Stop> {
        let sent = self.packets.send(&request.encode(), &[]);
        sent.map_err(|error| self.failed(&error))
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Reply<'b>, Stop> {
        let message = self.packets.receive(buffer);
        let message = message.map_err(|error| self.failed(&error))?;
        let packet = &buffer[..message.length];
        Reply::decode(packet, message.descriptors.len())
            .map_err(|error| self.nonsense(&error.to_string()))
    }

    fn failed(&self, error: &PacketError) -> Stop {
        let exit = match error {
            PacketError::Silent(_) => Exit::TempFail,
            PacketError::Closed => Exit::NoPermission,
            PacketError::Lost(_) | PacketError::Io(_) => Exit::Io,
        };
        let hint = match error {
            PacketError::Closed => "; its access rules may not let this user in",
            _ => "",
        };
        Stop::fatal(exit, format!("{}: {error}{hint}", self.path.display()))
    }

    fn refused(&self, reply: Reply<'_>) -> Stop {
        match reply {
            Reply::Refused(text) => Stop::fatal(
                Exit::NoPermission,
                format!(
                    "the broker refuses: {}",
                    escape(text.as_bytes(), TEXT_SHOWN)
                ),
            ),
            Reply::Part { .. } | Reply::Done(_) => self.nonsense("an answer to another question"),
        }
    }

    fn nonsense(&self, why: &str) -> Stop {
        let path = self.path.display();
        Stop::fatal(
            Exit::Data,
            format!(
                "{path}: the answer is not understood: {why}; are broker and client of one version?"
            ),
        )
    }
}

/// A broker answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tens of thousands of workers and connections that wait.
const DOCUMENT_MAX: usize = 64 << 20;
const TEXT_SHOWN: usize = 600;
