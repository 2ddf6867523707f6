//! Exit codes: the values of `sysexits.h`, so that a supervisor can tell a bad file from a crash.

use std::process::ExitCode;

/// Why a Portyard program ends. The numbers are those of BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: everything asked for was done.
    Ok = 0,
    /// 1: the question was answered with "no" (used by the client, as `grep` does).
    No = 1,
    /// 64: the command line is wrong.
    Usage = 64,
    /// 65: the peer's answer was not what the protocol says.
    Data = 65,
    /// 68: a host name is not known.
    NoHost = 68,
    /// 69: an address is in use, or a service does not answer.
    Unavailable = 69,
    /// 70: a fault of ours.
    Software = 70,
    /// 71: the kernel refused a resource.
    OsError = 71,
    /// 74: reading or writing failed.
    Io = 74,
    /// 75: no answer in time; trying again later may help.
    TempFail = 75,
    /// 77: permission denied, by the system or because a key or certificate is refused.
    NoPermission = 77,
    /// 78: the configuration is wrong.
    Config = 78,
}

impl Exit {
    /// The code for an operating-system error met while opening or using a socket.
    pub fn from_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match error.kind() {
            K::PermissionDenied => Self::NoPermission,
            K::AddrInUse | K::AddrNotAvailable | K::ConnectionRefused | K::NotFound => {
                Self::Unavailable
            }
            K::TimedOut | K::WouldBlock => Self::TempFail,
            K::OutOfMemory => Self::OsError,
            _ => Self::Io,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends the program: one sentence for the operator, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// The exit code to leave with.
    pub exit: Exit,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Fatal {
    /// An error that leaves with `exit` after printing `message`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}
