//! A connection as an attacker uses it, and the truth about who believed what.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use portyard_core::wire::auth::Handshake;
use portyard_core::wire::framing::{Framing, Header, python_message};

/// A connection with a deadline on every read and write.
pub struct Stream(TcpStream);

impl Stream {
    /// Connects; panics when nobody listens.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// The same, or nothing where the server has thrown the connection away before this thread was
    /// told of it.
    pub fn connect_unless_dropped(address: SocketAddr) -> Option<Self> {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            connected => Some(Self::over(
                connected.unwrap_or_else(|error| panic!("{address}: {error}")),
            )),
        }
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // A victim that hung up already makes this an invalid argument.
        let _ = stream.set_nodelay(true);
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// A message as Python frames it.
    pub fn send_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send(&python_message(payload))
    }

    pub fn receive(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The payload of the next frame.
    pub fn receive_frame(&mut self) -> io::Result<Vec<u8>> {
        let header = self.receive(4)?;
        match Header::parse(Framing::Python, 256, &header) {
            Ok(Some(header)) => self.receive(usize::try_from(header.len).unwrap()),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Speaks for `machine` until the dialogue is over.
    pub fn speak(&mut self, machine: &mut dyn Handshake) -> io::Result<()> {
        speak(&mut self.0, machine, ControlFlow::Continue)
    }

    /// The same, with each message as `change` has it; breaking off after one.
    pub fn speak_changed(
        &mut self,
        machine: &mut dyn Handshake,
        change: impl FnMut(Vec<u8>) -> ControlFlow<Vec<u8>, Vec<u8>>,
    ) -> io::Result<()> {
        speak(&mut self.0, machine, change)
    }

    /// Whether the service serves us: a fresh canary comes back. Ends the connection.
    pub fn served(mut self) -> bool {
        let canary = python_message(&random::<16>());
        let _ = self.send(&canary);
        self.end().windows(canary.len()).any(|seen| seen == canary)
    }

    /// Says nothing more, and returns what the victim still says.
    pub fn end(mut self) -> Vec<u8> {
        let _ = self.0.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        // A reset is an end, too; what came before it has been read.
        let _ = (&mut self.0).take(4096).read_to_end(&mut said);
        said
    }

    /// Waits for the victim's end, whatever it says before, without a word of ours.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        let ended = (&mut self.0).take(4096).read_to_end(&mut Vec::new());
        match ended {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies everything back, as an echo service does.
    pub fn echo(mut self) -> io::Result<()> {
        let mut buffer = [0; 256];
        loop {
            match self.0.read(&mut buffer)? {
                0 => return Ok(()),
                len => self.send(&buffer[..len])?,
            }
        }
    }
}

/// Speaks for `machine` over any stream, as [`Stream::speak_changed`] does.
pub fn speak(
    stream: &mut (impl Read + Write),
    machine: &mut dyn Handshake,
    mut change: impl FnMut(Vec<u8>) -> ControlFlow<Vec<u8>, Vec<u8>>,
) -> io::Result<()> {
    loop {
        if let Some(said) = machine.output() {
            match change(said) {
                ControlFlow::Continue(bytes) => stream.write_all(&bytes)?,
                ControlFlow::Break(bytes) => return stream.write_all(&bytes),
            }
        }
        if machine.outcome().is_some() {
            return Ok(());
        }
        let wanted = machine.wanted();
        if wanted == 0 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let mut buffer = [0; MESSAGE_MAX];
        match stream.read(&mut buffer[..wanted.min(MESSAGE_MAX)])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            // An error is final: nothing is wanted after it.
            len => drop(machine.handle(&buffer[..len])),
        }
    }
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut source = File::open("/dev/urandom").unwrap();
    source.read_exact(&mut bytes).unwrap();
    bytes
}

/// Every victim answers or hangs up long before.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest message of any dialogue, with its frame.
const MESSAGE_MAX: usize = 268;
