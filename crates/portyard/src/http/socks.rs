//! What is said to a SOCKS proxy, version 5, before it carries bytes (RFC 1928), and who we are to it (RFC 1929).

use std::io;
use std::net::IpAddr;

use portyard_core::endpoint::{Host, HostPort};
use portyard_core::exit::{Exit, Fatal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::trust::Stream;

/// A name and a password, each of 255 bytes at most.
pub struct User {
    name: String,
    password: Zeroizing<String>,
}

/// Why it does not carry bytes.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The connection to it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error("it does not answer as a SOCKS 5 proxy does; is it one?")]
    Strange,
    /// It wants to know who we are, or somebody else.
    #[error("it wants to know who you are: --proxy socks5h://USER:PASSWORD@HOST:PORT")]
    Who,
    /// It does not know this name and password.
    #[error("it does not accept this USER:PASSWORD")]
    Wrong,
    /// It cannot reach what it shall reach, or may not.
    #[error("it says: {}", reason(*.0))]
    Code(u8),
}

impl User {
    /// `None`: one of them is too long, or there is no name.
    pub fn new(name: String, password: Zeroizing<String>) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= TEXT_MAX && password.len() <= TEXT_MAX;
        fits.then_some(Self { name, password })
    }
}

impl Refusal {
    /// Whether another address of the same host may do.
    pub fn is_of_address(&self) -> bool {
        matches!(self, Self::Code(1 | 3..=6 | 8))
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Io(error) => Exit::from_io(error),
            Self::Strange | Self::Code(7..) => Exit::Data,
            Self::Who | Self::Wrong | Self::Code(2) => Exit::NoPermission,
            Self::Code(_) => Exit::Unavailable,
        }
    }
}

/// Has the proxy at the other end of a stream carry bytes to `to` from here on.
pub async fn ask(
    stream: &mut Box<dyn Stream>,
    to: &HostPort,
    user: Option<&User>,
) -> Result<(), Refusal> {
    let ways: &[u8] = match user {
        None => &[VERSION, 1, NOBODY],
        Some(_) => &[VERSION, 2, NOBODY, PASSWORD],
    };
    stream.write_all(ways).await?;
    stream.flush().await?;
    match (read::<2>(stream).await?, user) {
        ([VERSION, NOBODY], _) => {}
        ([VERSION, PASSWORD], Some(user)) => {
            let mut said = Zeroizing::new(vec![1]);
            text(&mut said, &user.name);
            text(&mut said, &user.password);
            stream.write_all(&said).await?;
            stream.flush().await?;
            match read::<2>(stream).await? {
                [1, 0] => {}
                [1, _] => return Err(Refusal::Wrong),
                _ => return Err(Refusal::Strange),
            }
        }
        ([VERSION, _], _) => return Err(Refusal::Who),
        _ => return Err(Refusal::Strange),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match &to.host {
        Host::Ip(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        Host::Name(name) => {
            request.push(NAME);
            text(&mut request, name);
        }
    }
    request.extend(to.port.to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let [version, code, _, kind] = read::<4>(stream).await?;
    if version != VERSION {
        return Err(Refusal::Strange);
    }
    if code != 0 {
        return Err(Refusal::Code(code));
    }
    // Where it is connected from, which tells us nothing.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(stream.read_u8().await?),
        _ => return Err(Refusal::Strange),
    };
    let mut rest = [0; TEXT_MAX + 2];
    stream.read_exact(&mut rest[..length + 2]).await?;
    Ok(())
}

/// As many bytes; a connection that ends before was none to such a proxy.
async fn read<const N: usize>(stream: &mut Box<dyn Stream>) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    match stream.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Refusal::Strange),
        Err(error) => Err(error.into()),
    }
}

/// Its length and it.
fn text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(TEXT_MAX)];
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

fn reason(code: u8) -> &'static str {
    match code {
        2 => "not allowed",
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "nothing listens there",
        6 => "it was too far",
        7 => "no such command",
        8 => "no such kind of address",
        _ => "it failed",
    }
}

/// Checks a name that a proxy is to look up.
pub fn check(host: &Host) -> Result<(), Fatal> {
    match host {
        Host::Name(name) if name.len() > TEXT_MAX => {
            let message = "the host's name is longer than 255 bytes, which SOCKS has no place for";
            Err(Fatal::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

const VERSION: u8 = 5;
const NOBODY: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const TEXT_MAX: usize = 255;
