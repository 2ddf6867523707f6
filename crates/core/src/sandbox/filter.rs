//! The seccomp filters, as pure values: which calls are there at all, and which of them are denied.
//!
//! Three filters look at each call, and the strictest answer counts. One is a list of numbers: what is
//! not on it does not exist (`ENOSYS`), so that libc falls back to something older, whatever newer
//! kernels and libraries bring. The kernel remembers the answers of a mere list, so it costs nothing.
//! One denies what is dangerous, of some calls by their arguments, with a signal to the thread, which
//! counts and returns `EPERM`. One denies new processes without a signal: libc blocks all of them
//! while it forks, and a blocked one would end the daemon.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::calls::{self, Number};
use super::needs::{Needs, Outside};

/// The filters of a thread, ready to be installed in this order.
#[derive(Debug, Clone)]
pub struct Filters {
    /// Denies processes.
    pub alone: BpfProgram,
    /// Denies what is dangerous.
    pub denied: BpfProgram,
    /// Lists what is there.
    pub known: BpfProgram,
}

impl Filters {
    /// The filters for a process of this number with these needs.
    pub fn new(needs: &Needs, pid: u32) -> Result<Self, BackendError> {
        let target = TargetArch::try_from(std::env::consts::ARCH)?;
        let (allowed, denied) = (SeccompAction::Allow, SeccompAction::Trap);
        let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        // A call without a rule of its own matches whatever its arguments are.
        let known = allowed_numbers(needs);
        let listed = known.iter().map(|number| (*number, Vec::new())).collect();
        let known_filter = SeccompFilter::new(listed, absent, allowed.clone(), target)?;
        let rules = denials(needs, pid, &known)?;
        let denied_filter = SeccompFilter::new(rules, allowed.clone(), denied, target)?;
        let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let alone_filter = SeccompFilter::new(processes()?, allowed, refused, target)?;
        Ok(Self {
            alone: alone_filter.try_into()?,
            denied: denied_filter.try_into()?,
            known: known_filter.try_into()?,
        })
    }
}

/// All calls that are there.
fn allowed_numbers(needs: &Needs) -> Vec<Number> {
    let mut numbers = calls::COMMON.to_vec();
    if needs.stores() {
        numbers.extend(calls::STORE);
    }
    if needs.memory_file {
        numbers.extend(calls::MEMORY_FILE);
    }
    if needs.outside == Outside::Programs {
        numbers.extend(calls::PROGRAMS);
    }
    numbers
}

type Rules = BTreeMap<Number, Vec<SeccompRule>>;

/// What is denied, in all cases or with certain arguments: any rule of a call denies it.
fn denials(needs: &Needs, pid: u32, known: &[Number]) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for (_, number) in calls::DANGEROUS {
        if !known.contains(number) {
            rules.insert(*number, Vec::new());
        }
    }
    let mut deny = |number: Number, tests: &[Test]| -> Result<(), BackendError> {
        let conditions = tests
            .iter()
            .map(Test::condition)
            .collect::<Result<_, _>>()?;
        rules
            .entry(number)
            .or_default()
            .push(SeccompRule::new(conditions)?);
        Ok(())
    };
    let (write, execute) = (bits(libc::PROT_WRITE), bits(libc::PROT_EXEC));
    if needs.names {
        // A module of the name service is mapped from its file; nothing else can become code.
        deny(libc::SYS_mmap, &[Bits(2, write | execute)])?;
        deny(
            libc::SYS_mmap,
            &[Bits(2, execute), Bits(3, bits(libc::MAP_ANONYMOUS))],
        )?;
    } else {
        deny(libc::SYS_mmap, &[Bits(2, execute)])?;
    }
    // A module's loader maps each part with the rights that it is to have.
    deny(libc::SYS_mprotect, &[Bits(2, execute)])?;
    deny(libc::SYS_pkey_mprotect, &[Bits(2, execute)])?;

    let netlink = bits(libc::AF_NETLINK);
    let mut strange = vec![
        Not(0, bits(libc::AF_UNIX)),
        Not(0, bits(libc::AF_INET)),
        Not(0, bits(libc::AF_INET6)),
    ];
    if needs.netlink.any() {
        strange.push(Not(0, netlink));
        let mut protocols = vec![Is(0, netlink)];
        if needs.netlink.addresses {
            protocols.push(Not(2, bits(libc::NETLINK_ROUTE)));
        }
        if needs.netlink.sockets {
            protocols.push(Not(2, bits(libc::NETLINK_SOCK_DIAG)));
        }
        deny(libc::SYS_socket, &protocols)?;
    }
    deny(libc::SYS_socket, &strange)?;
    // Landlock knows the ports of TCP alone, so no other protocol may stand in for it.
    let plain = [
        Not(0, netlink),
        Not(2, 0),
        Not(2, bits(libc::IPPROTO_TCP)),
        Not(2, bits(libc::IPPROTO_UDP)),
    ];
    deny(libc::SYS_socket, &plain)?;
    deny(
        libc::SYS_socket,
        &[Not(0, netlink), Low4(1, bits(libc::SOCK_RAW))],
    )?;

    let not_us = Not(0, pid.into());
    deny(libc::SYS_tgkill, &[not_us])?;
    if needs.outside != Outside::Programs {
        // Signal 0 asks whether a process is there.
        deny(libc::SYS_kill, &[not_us, Not(1, 0)])?;
    }
    deny(libc::SYS_prlimit64, &[Pointer(2)])?;
    let others = |arg: u8, values: &[u64]| -> Vec<Test> {
        values.iter().map(|value| Not(arg, *value)).collect()
    };
    deny(libc::SYS_prctl, &others(0, PRCTL))?;
    deny(libc::SYS_ioctl, &others(1, IOCTL))?;
    Ok(rules)
}

/// What makes a clone of this thread another process, or puts it into a namespace of its own.
fn processes() -> Result<Rules, BackendError> {
    let namespaces = NAMESPACES.iter().map(|space| Bits(0, bits(*space)));
    let tests = namespaces.chain([Clear(0, bits(libc::CLONE_THREAD))]);
    let rule = |test: Test| SeccompRule::new(vec![test.condition()?]);
    let rules = tests.map(rule).collect::<Result<_, _>>()?;
    Ok(Rules::from([(libc::SYS_clone, rules)]))
}

/// What is asked of an argument, by its number from 0 on. But for [`Pointer`] only the lower half is
/// looked at: that is what the kernel takes of an int.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    /// It is this.
    Is(u8, u64),
    /// It is not this.
    Not(u8, u64),
    /// It has all of these bits.
    Bits(u8, u64),
    /// It has none of these bits.
    Clear(u8, u64),
    /// Its lowest four bits are these.
    Low4(u8, u64),
    /// It is not null.
    Pointer(u8),
}
use Test::{Bits, Clear, Is, Low4, Not, Pointer};

impl Test {
    fn condition(&self) -> Result<SeccompCondition, BackendError> {
        let int = SeccompCmpArgLen::Dword;
        let (arg, length, operator, value) = match *self {
            Is(arg, value) => (arg, int, SeccompCmpOp::Eq, value),
            Not(arg, value) => (arg, int, SeccompCmpOp::Ne, value),
            Bits(arg, mask) => (arg, int, SeccompCmpOp::MaskedEq(mask), mask),
            Clear(arg, mask) => (arg, int, SeccompCmpOp::MaskedEq(mask), 0),
            Low4(arg, value) => (arg, int, SeccompCmpOp::MaskedEq(0xf), value),
            Pointer(arg) => (arg, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0),
        };
        SeccompCondition::new(arg, length, operator, value)
    }
}

/// A constant of libc as the kernel sees it in a register.
fn bits(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Names of threads and of memory, which capabilities the kernel has (as libcap asks when it is
/// loaded), what debuggers may see, and that we gain no privileges.
const PRCTL: &[u64] = &[
    libc::PR_SET_NAME as u64,
    libc::PR_GET_NAME as u64,
    libc::PR_CAPBSET_READ as u64,
    libc::PR_SET_VMA as u64,
    libc::PR_GET_DUMPABLE as u64,
    libc::PR_SET_NO_NEW_PRIVS as u64,
    libc::PR_GET_NO_NEW_PRIVS as u64,
];

/// Whether a descriptor blocks or is passed on, how much waits in it, whether it is a terminal. As
/// numbers (asm-generic/ioctls.h), because their type differs between versions of libc.
const IOCTL: &[u64] = &[
    0x5421, // FIONBIO
    0x5451, // FIOCLEX
    0x541b, // FIONREAD
    0x5411, // TIOCOUTQ
    0x5401, // TCGETS
    0x5413, // TIOCGWINSZ
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_dangerous_is_allowed_by_number() {
        let mut needs = Needs::default();
        needs.store("/var/lib/x");
        let known = allowed_numbers(&needs);
        for (name, number) in calls::DANGEROUS {
            assert!(!known.contains(number), "{name}");
        }
        for (name, number) in calls::DEPENDING {
            assert!(known.contains(number), "{name}");
        }
    }

    #[test]
    fn what_a_daemon_needs_is_not_denied_as_dangerous() {
        let mut needs = Needs::default();
        needs.memory_file = true;
        needs.programs();
        let known = allowed_numbers(&needs);
        let rules = denials(&needs, 1, &known).unwrap();
        for number in [libc::SYS_memfd_create, libc::SYS_pidfd_send_signal] {
            assert!(known.contains(&number) && !rules.contains_key(&number));
        }
        assert!(!rules.contains_key(&libc::SYS_kill));
        assert!(rules.contains_key(&libc::SYS_execve), "even so");
    }

    #[test]
    fn every_profile_makes_filters_that_the_kernel_has_room_for() {
        for names in [false, true] {
            let mut needs = Needs::default();
            needs.names = names;
            needs.netlink.addresses = true;
            let filters = Filters::new(&needs, 7).unwrap();
            for filter in [filters.denied, filters.known] {
                // BPF_MAXINSNS.
                assert!((100..4096).contains(&filter.len()), "{}", filter.len());
            }
        }
    }
}
