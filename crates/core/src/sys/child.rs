//! A child between its birth and its program.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, chdir, getpid, getppid, setgid, setgroups, setsid, setuid};

/// What a child of ours does between its birth and its program, in the order of the fields.
///
/// Standard descriptors and others that were given to the [`Command`] are in their places before.
#[derive(Debug, Clone, Default)]
pub struct ChildSetup {
    /// Limits of resources, soft and hard.
    pub limits: Vec<(Resource, u64, u64)>,
    /// Its priority, -20 to 19; `None`: ours.
    pub nice: Option<i8>,
    /// The mode bits that its files do not get; `None`: ours.
    pub umask: Option<u32>,
    /// Whom it runs as; `None`: as us.
    pub user: Option<ChildUser>,
    /// Its working directory; `None`: ours.
    pub directory: Option<CString>,
    /// Whether it can never gain privileges, by a set-user-ID program for one.
    pub no_new_privileges: bool,
    /// Whether it gets SIGTERM when the thread that starts it ends, by whatever death.
    pub follow: bool,
    /// The first descriptor that it does not get: this one and all above close as its program starts.
    pub descriptors: u32,
    /// The program's path; no directories are searched for it.
    pub program: CString,
    /// Its arguments, the first of which is its name.
    pub arguments: Vec<CString>,
    /// Its whole environment, each `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// The name of a variable that holds the child's own number, which nobody knows before.
    pub own_number: Option<CString>,
}

/// Whom a child runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildUser {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
    /// The supplementary groups, all of them.
    pub groups: Vec<Gid>,
}

/// A step of a child that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildStep {
    /// A session of its own.
    Session = 1,
    /// A limit.
    Limit,
    /// The priority.
    Nice,
    /// User and groups.
    User,
    /// The working directory.
    Directory,
    /// Giving up what it could gain, or following us.
    Bond,
    /// The program.
    Program,
}

/// Makes `command` start what `setup` says, in a session of its own. The command's own program,
/// arguments and environment are not used; its standard descriptors are.
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let parent = getpid();
    let mut image = Image::new(&setup);
    // SAFETY: between fork and exec only the calling thread exists, and locks and allocator may be
    // in any state. The closure makes system calls on what was prepared before the fork: it
    // allocates and frees nothing, takes no lock, and cannot panic.
    unsafe {
        command.pre_exec(move || match setup.run(&mut image, parent) {
            Ok(never) => match never {},
            // An errno is all that comes back from a child; above its 16 bits there is room for the step.
            Err((step, errno)) => Err(io::Error::from_raw_os_error(
                (step as i32) << STEP_SHIFT | errno as i32,
            )),
        });
    }
}

/// A descriptor of a child that has not been waited for: readable once it has ended, in whatever process
/// (`pidfd_open(2)`). An error before Linux 5.3.
pub fn child_descriptor(child: Pid) -> io::Result<OwnedFd> {
    // SAFETY: a plain call with numbers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let number = RawFd::try_from(opened).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this number for us, close-on-exec, and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes an error of a command that [`set_up_child`] has prepared apart: the step that failed, and why.
/// Without a step there was no child yet.
pub fn child_fault(error: io::Error) -> (Option<ChildStep>, io::Error) {
    let Some(code) = error.raw_os_error() else {
        return (None, error);
    };
    let steps = [
        ChildStep::Session,
        ChildStep::Limit,
        ChildStep::Nice,
        ChildStep::User,
        ChildStep::Directory,
        ChildStep::Bond,
        ChildStep::Program,
    ];
    let step = steps
        .into_iter()
        .find(|step| *step as i32 == code >> STEP_SHIFT);
    let errno = code & ((1 << STEP_SHIFT) - 1);
    (step, io::Error::from_raw_os_error(errno))
}

impl ChildSetup {
    /// The child's side. Returns only when a step fails.
    fn run(&self, image: &mut Image, parent: Pid) -> Result<Infallible, (ChildStep, Errno)> {
        let at = |step| move |errno| (step, errno);
        setsid().map_err(at(ChildStep::Session))?;
        for (resource, soft, hard) in &self.limits {
            setrlimit(*resource, *soft, *hard).map_err(at(ChildStep::Limit))?;
        }
        if let Some(nice) = self.nice {
            // SAFETY: a plain call with numbers; 0 is the calling process.
            let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) };
            Errno::result(set).map_err(at(ChildStep::Nice))?;
        }
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some(user) = &self.user {
            setgroups(&user.groups).map_err(at(ChildStep::User))?;
            setgid(user.gid).map_err(at(ChildStep::User))?;
            setuid(user.uid).map_err(at(ChildStep::User))?;
        }
        if let Some(directory) = &self.directory {
            chdir(directory.as_c_str()).map_err(at(ChildStep::Directory))?;
        }
        if self.no_new_privileges {
            prctl::set_no_new_privs().map_err(at(ChildStep::Bond))?;
        }
        if self.follow {
            // After the change of user, which would take it back (prctl(2), PR_SET_PDEATHSIG).
            prctl::set_pdeathsig(Signal::SIGTERM).map_err(at(ChildStep::Bond))?;
            if getppid() != parent {
                // It ended before it could be followed.
                return Err((ChildStep::Bond, Errno::ESRCH));
            }
        }
        // Whatever was opened without close-on-exec, by a library for one, goes no further. Kernels
        // before 5.11 do not know the flag; all that is ours is close-on-exec by itself.
        // SAFETY: a plain call with numbers; the descriptors stay open until exec.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                self.descriptors,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        image.write_own_number();
        // SAFETY: both lists end with a null pointer and point to texts that end with a NUL, which
        // `self` and `image` own and nobody changes any more.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                image.arguments.0.as_ptr(),
                image.environment.0.as_ptr(),
            );
        }
        Err((ChildStep::Program, Errno::last()))
    }
}

/// Arguments and environment in the form that the kernel takes, made before the fork.
struct Image {
    /// What the pointers point to; never touched again.
    _texts: Vec<CString>,
    arguments: Pointers,
    environment: Pointers,
    /// `NAME=` and room for a number with its NUL, behind the last pointer of the environment.
    own_number: Option<(Vec<u8>, usize)>,
}

/// A list of pointers to texts that ends with null.
struct Pointers(Vec<*const libc::c_char>);

// SAFETY: the texts belong to the same `Image`, whose heap memory does not move with it, and are
// read by the one child that uses them.
unsafe impl Send for Pointers {}
// SAFETY: as above; nothing is changed through the pointers.
unsafe impl Sync for Pointers {}

impl Image {
    fn new(setup: &ChildSetup) -> Self {
        let texts = [&setup.arguments[..], &setup.environment[..]].concat();
        let (arguments, environment) = texts.split_at(setup.arguments.len());
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect();
        let mut arguments: Vec<*const libc::c_char> = pointers(arguments);
        arguments.push(std::ptr::null());
        let mut environment: Vec<*const libc::c_char> = pointers(environment);
        let own_number = setup.own_number.as_ref().map(|name| {
            let mut text = [name.as_bytes(), b"="].concat();
            let at = text.len();
            text.resize(at + NUMBER_ROOM, 0);
            environment.push(text.as_ptr().cast());
            (text, at)
        });
        environment.push(std::ptr::null());
        Self {
            _texts: texts,
            arguments: Pointers(arguments),
            environment: Pointers(environment),
            own_number,
        }
    }

    /// Writes the number of this process into its place.
    fn write_own_number(&mut self) {
        let Some((text, at)) = &mut self.own_number else {
            return;
        };
        let room = text.get_mut(*at..).unwrap_or_default();
        let number = getpid().as_raw().unsigned_abs();
        let mut divisor = 1_000_000_000;
        let mut places = room.iter_mut();
        while divisor > 0 {
            if number >= divisor || divisor == 1 {
                // A digit is below 10.
                let digit = u8::try_from(number / divisor % 10).unwrap_or(0);
                if let Some(place) = places.next() {
                    *place = b'0' + digit;
                }
            }
            divisor /= 10;
        }
    }
}

/// Above the bits of an errno, which is below 4096.
const STEP_SHIFT: u32 = 16;
/// Ten digits and a NUL.
const NUMBER_ROOM: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    fn child(arguments: &[&str]) -> ChildSetup {
        let texts = |all: &[&str]| {
            all.iter()
                .map(|text| CString::new(*text).unwrap())
                .collect()
        };
        ChildSetup {
            program: CString::new(arguments[0]).unwrap(),
            arguments: texts(arguments),
            descriptors: 3,
            ..ChildSetup::default()
        }
    }

    fn said_by(setup: ChildSetup) -> String {
        let mut command = Command::new("unused");
        set_up_child(&mut command, setup);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_child_has_its_own_environment_number_session_and_descriptors_and_nothing_of_ours() {
        let leak = File::open("/dev/null").unwrap();
        fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut setup = child(&[
            "/bin/sh",
            "-c",
            "env; echo self=$$; ls /proc/$$/fd; ulimit -n; umask",
        ]);
        setup.environment = vec![c"A=1".into()];
        setup.own_number = Some(c"LISTEN_PID".into());
        setup.limits = vec![(Resource::RLIMIT_NOFILE, 77, 77)];
        setup.umask = Some(0o27);
        setup.directory = Some(c"/".into());
        let said = said_by(setup);
        let lines: Vec<&str> = said.lines().collect();
        let number = lines
            .iter()
            .find_map(|line| line.strip_prefix("self="))
            .unwrap();
        assert!(
            lines.contains(&"A=1") && lines.contains(&"77") && lines.contains(&"0027"),
            "{said}"
        );
        assert!(lines.contains(&&*format!("LISTEN_PID={number}")), "{said}");
        assert!(!said.contains("CARGO"), "{said}");
        let descriptor = leak.as_raw_fd().to_string();
        assert!(
            !lines.contains(&&*descriptor),
            "{descriptor} leaked: {said}"
        );
    }

    #[test]
    fn a_child_that_cannot_start_says_at_which_step() {
        let fail = |setup| {
            let mut command = Command::new("unused");
            set_up_child(&mut command, setup);
            let (step, error) = child_fault(command.spawn().unwrap_err());
            (step.unwrap(), error.raw_os_error().unwrap())
        };
        let missing = child(&["/nonexistent"]);
        assert_eq!(fail(missing.clone()), (ChildStep::Program, libc::ENOENT));
        let nowhere = ChildSetup {
            directory: Some(c"/nonexistent".into()),
            ..missing.clone()
        };
        assert_eq!(fail(nowhere), (ChildStep::Directory, libc::ENOENT));
        let greedy = ChildSetup {
            limits: vec![(Resource::RLIMIT_NOFILE, 2, 1)],
            ..missing
        };
        assert_eq!(fail(greedy), (ChildStep::Limit, libc::EINVAL));
    }
}
