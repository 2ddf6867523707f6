//! A stream client that never waits for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// A connection to a stream service, whatever carries it. Every call has a deadline of 20 seconds,
/// and panics when it fails, except where it returns a result.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// The peer was so quick to reset that connecting has failed already.
    reset: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed its side in order.
    Fin,
    /// The peer threw the connection away.
    Reset,
}

impl Client {
    /// Connects to an endpoint such as `tcp://127.0.0.1:7`, `unix:/run/x` or `unix:@name`.
    #[track_caller]
    pub fn connect(endpoint: &str) -> Self {
        let client = match endpoint.split_once("://") {
            Some((_, address)) => Self::over(&parse::<SocketAddr>(address).into(), None),
            None => Self::over(&unix(endpoint), None),
        };
        client.unwrap_or_else(|error| panic!("{endpoint}: {error}"))
    }

    /// Connects to an Internet address, or says why that cannot be.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let client = Self::over(&address.into(), None)?;
        if client.reset {
            Err(ErrorKind::ConnectionReset.into())
        } else {
            Ok(client)
        }
    }

    /// Connects from an address of this machine, such as `127.0.0.2`.
    #[track_caller]
    pub fn connect_from(source: &str, address: SocketAddr) -> Self {
        let source: IpAddr = parse(source);
        let client = Self::over(&address.into(), Some(SocketAddr::new(source, 0).into()));
        client.unwrap_or_else(|error| panic!("{address} from {source}: {error}"))
    }

    /// Connects with a receive buffer of so many bytes, so that few fit on the way.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr, bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None);
        let socket = socket.expect("a socket can be made");
        socket
            .set_recv_buffer_size(bytes)
            .expect("a buffer can be small");
        let client = Self::finish_connect(socket, &address.into());
        client.unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    fn over(address: &SockAddr, source: Option<SockAddr>) -> io::Result<Self> {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&source)?;
        }
        Self::finish_connect(socket, address)
    }

    fn finish_connect(socket: Socket, address: &SockAddr) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let connected = socket.connect_timeout(address, PATIENCE).and_then(|()| {
            if address.as_socket().is_some() {
                socket.set_tcp_nodelay(true)
            } else {
                Ok(())
            }
        });
        match connected {
            Ok(()) => Ok(Self {
                socket,
                reset: false,
            }),
            // setsockopt(2) on a connection that is gone is an invalid argument.
            Err(error) if is_reset(&error) || error.kind() == ErrorKind::InvalidInput => Ok(Self {
                socket,
                reset: true,
            }),
            Err(error) => Err(error),
        }
    }

    /// The socket, for what is not offered here.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Our own address.
    #[track_caller]
    pub fn local_address(&self) -> SocketAddr {
        let address = self
            .socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        address.expect("the connection is of the Internet")
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let sent = (&self.socket).write_all(bytes.as_ref());
        sent.unwrap_or_else(|error| panic!("sending failed: {error}"));
    }

    /// Sends what is taken; false when the connection is broken.
    pub fn try_send(&self, bytes: impl AsRef<[u8]>) -> bool {
        !self.reset && (&self.socket).write_all(bytes.as_ref()).is_ok()
    }

    /// Sends as much as is taken at once; 0: the way is full.
    #[track_caller]
    pub fn send_some(&self, bytes: &[u8]) -> usize {
        self.socket
            .set_nonblocking(true)
            .expect("a socket can be non-blocking");
        let sent = (&self.socket).write(bytes);
        self.socket
            .set_nonblocking(false)
            .expect("a socket can be blocking");
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            sent => sent.unwrap_or_else(|error| panic!("sending failed: {error}")),
        }
    }

    /// Ends our side; the peer's stays open.
    #[track_caller]
    pub fn send_end(&self) {
        self.socket
            .shutdown(Shutdown::Write)
            .expect("our side can be ended");
    }

    /// Exactly so many bytes.
    #[track_caller]
    pub fn receive(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = (&self.socket).read_exact(&mut bytes);
        read.unwrap_or_else(|error| panic!("{length} bytes did not come: {error}"));
        bytes
    }

    /// Exactly so many bytes, or `None` when the connection ends before.
    pub fn try_receive(&self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let whole = !self.reset && (&self.socket).read_exact(&mut bytes).is_ok();
        whole.then_some(bytes)
    }

    /// The next line, with its LF.
    #[track_caller]
    pub fn receive_line(&self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            match (&self.socket).read(&mut byte) {
                Ok(1..) => line.extend(byte),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&line)),
            }
        }
        String::from_utf8(line).expect("a line is text")
    }

    /// Everything up to the peer's end, and what that end was.
    #[track_caller]
    pub fn receive_all(&self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        if self.reset {
            return (bytes, End::Reset);
        }
        match (&self.socket).read_to_end(&mut bytes) {
            Ok(_) => (bytes, End::Fin),
            Err(error) if is_reset(&error) => (bytes, End::Reset),
            Err(error) => panic!("the end did not come after {} bytes: {error}", bytes.len()),
        }
    }

    /// The peer's end, before which nothing may come.
    #[track_caller]
    pub fn end(&self) -> End {
        let (bytes, end) = self.receive_all();
        assert!(
            bytes.is_empty(),
            "{:?} came before the end",
            String::from_utf8_lossy(&bytes)
        );
        end
    }

    /// Whether nothing, not even an end, has come within so long. Proves no more than that: use it
    /// only beside something that shows the same.
    #[track_caller]
    pub fn is_silent_for(&self, time: Duration) -> bool {
        self.socket
            .set_read_timeout(Some(time))
            .expect("a socket takes a timeout");
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = self.socket.peek(&mut byte);
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket takes a timeout");
        matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request and our end; everything that comes back, which must end in order.
    #[track_caller]
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(request);
        self.send_end();
        let (answer, end) = self.receive_all();
        assert_eq!(
            end,
            End::Fin,
            "after {:?}",
            String::from_utf8_lossy(&answer)
        );
        answer
    }

    /// Whether an echo service serves this connection at this moment.
    #[track_caller]
    pub fn is_echoed(&self) -> bool {
        let mut back = [0; 4];
        self.try_send("ping")
            && (&self.socket)
                .read_exact(&mut back)
                .is_ok_and(|()| &back == b"ping")
    }

    /// Throws the connection away: the peer gets a reset.
    pub fn reset(self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

#[track_caller]
fn unix(endpoint: &str) -> SockAddr {
    let place = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
    let place = place
        .strip_prefix('@')
        .map_or(place.into(), |name| format!("\0{name}"));
    SockAddr::unix(&place).unwrap_or_else(|error| panic!("{endpoint}: {error}"))
}

#[track_caller]
fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

const PATIENCE: Duration = Duration::from_secs(20);
