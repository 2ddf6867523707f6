//! How many descriptors the process may have, and how many connections that allows.

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;

use crate::exit::{Exit, Fatal};

/// Raises the soft descriptor limit to the hard one. The soft default of 1024 protects programs
/// that use `select(2)`, which we do not.
///
/// An error that says what to do when the hard one is below what is `needed`: rather than whichever call fails
/// first.
pub fn raise_descriptor_limit(needed: u64) -> Result<(), Fatal> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    if hard < needed {
        let message = format!(
            "this process may have {hard} descriptors, and needs {needed} at least; raise LimitNOFILE= of its \
             unit, or 'ulimit -n' before it is started"
        );
        return Err(Fatal::new(Exit::OsError, message));
    }
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the descriptor limit stays at its soft value");
    }
    Ok(())
}

/// The directory of our descriptors, open, so that it can be read when `/proc` cannot be any more.
#[derive(Debug)]
pub struct Descriptors(Option<Dir>);

impl Descriptors {
    /// Opens it.
    pub fn open() -> Self {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self(Dir::open("/proc/self/fd", flags, Mode::empty()).ok())
    }

    fn count(mut self) -> u64 {
        let counted = self.0.as_mut().map(|entries| entries.iter().count() as u64);
        counted.unwrap_or(FALLBACK_OPEN)
    }
}

/// The most connections that can exist without running out of descriptors: the limit, less what is
/// open now, less some for logs, directories and the administrator.
pub fn connection_limit(descriptors: Descriptors) -> u32 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(FALLBACK_LIMIT, |(soft, _)| soft);
    let open = descriptors.count();
    let left = limit.saturating_sub(open).saturating_sub(HEADROOM).max(1);
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// With fewer no daemon opens its loops, its listeners and its log.
pub const NEEDED: u64 = 32;
const HEADROOM: u64 = 16;
const FALLBACK_LIMIT: u64 = 1024;
const FALLBACK_OPEN: u64 = 64;
