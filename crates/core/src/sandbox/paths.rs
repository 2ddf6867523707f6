//! Landlock: which files can be opened, which TCP ports connected to, whom signals reach.

use std::collections::BTreeSet;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::needs::{Grant, Needs, Outside, Right};
use super::{Layer, names};

/// Restricts the calling thread and whatever it starts to the grants and the needs, as far as the
/// kernel can (best effort).
pub fn restrict(needs: &Needs, grants: &BTreeSet<Grant>) -> Result<Layer, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::ConnectTcp)?;
    if !needs.abstract_sockets {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    // Programs are started outside, and must be ended from inside.
    if needs.outside != Outside::Programs {
        ruleset = ruleset.scope(Scope::Signal)?;
    }
    let mut ruleset = ruleset.create()?;
    let always = names::ALWAYS.iter().map(|path| (path.into(), Right::List));
    let named = if needs.names { names::BY_NAME } else { &[] };
    let named = named.iter().map(|path| (path.into(), Right::Read));
    for (path, right) in always.chain(named).chain(grants.iter().cloned()) {
        // What is not there cannot be opened either.
        let Ok(opened) = PathFd::new(&path) else {
            continue;
        };
        let mut access = rights(right);
        if !path.is_dir() {
            access &= AccessFs::from_file(KNOWN);
        }
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    let dns = needs.names.then_some(DNS);
    for port in needs.ports.iter().copied().chain(dns) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Layer::Full,
        RulesetStatus::PartiallyEnforced => Layer::Partial,
        RulesetStatus::NotEnforced => Layer::Missing,
    })
}

fn rights(right: Right) -> BitFlags<AccessFs> {
    match right {
        Right::Read => AccessFs::ReadFile.into(),
        Right::List => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
        // Refer: a file without a name gets one (linkat(2)).
        Right::Store => make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile | Refer
        }),
        Right::Sockets => make_bitflags!(AccessFs::{MakeSock | RemoveFile}),
    }
}

/// The rules that this was written for, of Linux 6.12: kernels with fewer enforce those they have.
const KNOWN: ABI = ABI::V6;

/// Where resolvers listen, for answers that do not fit into a datagram.
const DNS: u16 = 53;
