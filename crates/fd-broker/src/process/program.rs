//! A program as it is started again and again: everything looked up and checked beforehand.

use std::env;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::resource::Resource;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use portyard_core::sandbox::outside;
use portyard_core::sys::{ChildSetup, ChildStep, ChildUser, child_fault, set_up_child};
use tokio::runtime::Handle;

use super::child::Child;
use super::config::{ProcessConfig, Stderr};

/// A command with all that it is given.
#[derive(Debug, Clone)]
pub struct Program {
    setup: ChildSetup,
    stderr: Stderr,
    kill_after: Duration,
}

/// What one process of a program is given beside what all of them are.
#[derive(Debug)]
pub struct Start {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error; absent: as the configuration says, the peer being standard output's place.
    pub stderr: Option<Stdio>,
    /// More descriptors, from 3 on without a gap.
    pub more: Vec<OwnedFd>,
    /// Variables of its own.
    pub environment: Vec<(&'static str, String)>,
    /// A variable that holds its number.
    pub own_number: Option<&'static str>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program itself.
    #[error("{program} cannot be run: {error}{hint}")]
    Program {
        /// Its path.
        program: String,
        /// What the kernel said.
        error: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// Something that it was to be given.
    #[error("{program} cannot be given its {what}: {error}{hint}")]
    Given {
        /// Its path.
        program: String,
        /// What.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// No process could be made for it.
    #[error(
        "no process can be made for {program}: {error}; the machine or the broker is at a limit"
    )]
    Process {
        /// Its path.
        program: String,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Program {
    /// Looks up and checks what a configuration says, or says what is wrong with it. Whether the
    /// program is there is seen when it is started.
    pub fn new(command: &[String], config: &ProcessConfig) -> Result<Self, String> {
        let Some(path) = command.first() else {
            return Err(
                "command is empty; name a program and its arguments, such as [\"/bin/cat\"]".into(),
            );
        };
        if !path.starts_with('/') {
            return Err(format!(
                "command[0] = \"{path}\" is not an absolute path; no directories are searched for it"
            ));
        }
        let (user, named) = user_of(config)?;
        if let Some(nice) = config.nice.filter(|nice| !(-20..=19).contains(nice)) {
            return Err(format!("process.nice = {nice} is not from -20 to 19"));
        }
        let name = config.name.as_ref().unwrap_or(path);
        let words = std::iter::once(name).chain(&command[1..]);
        let arguments = words.map(|word| text(word, "command"));
        let directory = CString::new(config.directory.as_os_str().as_bytes())
            .map_err(|_| "process.directory holds a NUL byte".to_owned())?;
        if !config.directory.is_absolute() {
            return Err(format!(
                "process.directory = \"{}\" is not an absolute path",
                config.directory.display()
            ));
        }
        let setup = ChildSetup {
            limits: limits(config),
            nice: config.nice,
            umask: Some(config.umask.0),
            user,
            directory: Some(directory),
            no_new_privileges: config.no_new_privileges,
            follow: !config.outlive,
            descriptors: FIRST_MORE,
            program: text(path, "command")?,
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: environment(config, named.as_ref())?,
            own_number: None,
        };
        Ok(Self {
            setup,
            stderr: config.stderr,
            kill_after: config.kill_after.0,
        })
    }

    /// The program's path.
    pub fn path(&self) -> String {
        self.setup.program.to_string_lossy().into_owned()
    }

    /// Whether its processes go on when the broker ends.
    pub fn outlives(&self) -> bool {
        !self.setup.follow
    }

    /// Where its standard error goes.
    pub fn stderr(&self) -> Stderr {
        self.stderr
    }

    /// Starts a process. Waits until the program runs, or does not: about a millisecond, so not on
    /// a loop that others wait for. To be called where [`Child`] will be waited for.
    pub fn start(&self, start: Start) -> Result<Child, StartError> {
        let mut setup = self.setup.clone();
        for (name, value) in &start.environment {
            let own = format!("{name}={value}");
            // Of two values a program finds the first, the configuration's. A value of ours holds no
            // NUL; one that did would not be passed on.
            setup.environment.extend(CString::new(own));
        }
        setup.own_number = start.own_number.and_then(|name| CString::new(name).ok());
        let mut command = Command::new(OsStr::from_bytes(setup.program.as_bytes()));
        command.stdin(start.stdin).stdout(start.stdout);
        command.stderr(start.stderr.unwrap_or_else(Stdio::null));
        let mappings: Vec<FdMapping> = (3..)
            .zip(start.more)
            .map(|(child_fd, parent_fd): (RawFd, OwnedFd)| FdMapping {
                parent_fd,
                child_fd,
            })
            .collect();
        setup.descriptors = FIRST_MORE + u32::try_from(mappings.len()).unwrap_or(0);
        if !mappings.is_empty() {
            // Consecutive numbers, so none occurs twice.
            let mapped = command.fd_mappings(mappings).map(|_| ());
            mapped.map_err(|error| self.fault(io::Error::other(error)))?;
        }
        // Behind the descriptors: what it registers last runs last, and becomes the program.
        set_up_child(&mut command, setup);
        let mut command = tokio::process::Command::from(command);
        let loop_of_ours = Handle::current();
        let child = outside::run(move || {
            // What waits for its end is the loop that is to be told.
            let _entered = loop_of_ours.enter();
            command.spawn()
        });
        let child = child.map_err(|error| self.fault(error))?;
        Child::new(child, self.kill_after).ok_or_else(|| self.fault(io::ErrorKind::NotFound.into()))
    }

    fn fault(&self, error: io::Error) -> StartError {
        let program = self.path();
        let (step, error) = child_fault(error);
        let (what, hint) = match step {
            None => return StartError::Process { program, error },
            Some(ChildStep::Program) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "; install it, or correct command[0] (a script's interpreter may be missing, too)"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "; it must be a file that its user may execute, in directories that it may enter"
                    }
                    _ => "",
                };
                return StartError::Program {
                    program,
                    error,
                    hint,
                };
            }
            Some(ChildStep::Session) => ("session", ""),
            Some(ChildStep::Limit) => (
                "limits",
                "; a limit above the broker's own needs root: lower process.limits, or raise the broker's",
            ),
            Some(ChildStep::Nice) => (
                "priority",
                "; below the broker's own it needs root: see process.nice",
            ),
            Some(ChildStep::User) => (
                "user",
                "; only root can become another: run the broker as root, or drop process.user and process.group",
            ),
            Some(ChildStep::Directory) => ("directory", "; see process.directory"),
            Some(ChildStep::Bond) => ("bond to the broker", ""),
        };
        StartError::Given {
            program,
            what,
            error,
            hint,
        }
    }
}

impl Default for Start {
    /// Nothing to read, nowhere to write.
    fn default() -> Self {
        Self {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: None,
            more: Vec::new(),
            environment: Vec::new(),
            own_number: None,
        }
    }
}

/// Whom a program runs as, and that user's entry if one is named.
fn user_of(config: &ProcessConfig) -> Result<(Option<ChildUser>, Option<User>), String> {
    let named = config.user.as_deref().map(find_user).transpose()?;
    let group = config.group.as_deref().map(find_group).transpose()?;
    if named.is_none() && group.is_none() && config.groups.is_none() {
        return Ok((None, None));
    }
    let (uid, gid) = match &named {
        Some(user) => (user.uid, group.unwrap_or(user.gid)),
        None => (geteuid(), group.unwrap_or_else(getegid)),
    };
    let groups = match (&config.groups, &named) {
        (Some(names), _) => names
            .iter()
            .map(|name| find_group(name))
            .collect::<Result<_, _>>()?,
        (None, Some(user)) => {
            let name = text(&user.name, "process.user")?;
            getgrouplist(&name, gid).map_err(|errno| {
                format!("the groups of {} cannot be looked up: {errno}", user.name)
            })?
        }
        (None, None) => getgroups().unwrap_or_default(),
    };
    let user = ChildUser { uid, gid, groups };
    // Nothing changes, and to ask for it would need root.
    let same =
        (uid, gid) == (geteuid(), getegid()) && config.groups.is_none() && !geteuid().is_root();
    Ok(((!same).then_some(user), named))
}

fn find_user(name: &str) -> Result<User, String> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(format!(
            "process.user = \"{name}\" is no user of this machine; add it, or name another"
        )),
        Err(errno) => Err(format!(
            "process.user = \"{name}\" cannot be looked up: {errno}"
        )),
    }
}

fn find_group(name: &str) -> Result<Gid, String> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!(
            "\"{name}\" is no group of this machine; add it, or name another"
        )),
        Err(errno) => Err(format!("the group \"{name}\" cannot be looked up: {errno}")),
    }
}

fn limits(config: &ProcessConfig) -> Vec<(Resource, u64, u64)> {
    let limits = &config.limits;
    let size = |size: Option<portyard_core::config::Size>| size.map(|size| size.0);
    let seconds = limits.cpu.map(|span| span.0.as_secs().max(1));
    let all = [
        (Resource::RLIMIT_NOFILE, limits.descriptors),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_CPU, seconds),
        (Resource::RLIMIT_AS, size(limits.memory)),
        (Resource::RLIMIT_DATA, size(limits.data)),
        (Resource::RLIMIT_STACK, size(limits.stack)),
        (Resource::RLIMIT_FSIZE, size(limits.file_size)),
        (Resource::RLIMIT_CORE, size(limits.core)),
    ];
    all.into_iter()
        .filter_map(|(resource, limit)| limit.map(|limit| (resource, limit, limit)))
        .collect()
}

/// What every process of a program finds in its environment: a path, who it is, what is passed on, and
/// what the configuration adds.
fn environment(config: &ProcessConfig, user: Option<&User>) -> Result<Vec<CString>, String> {
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = vec![(b"PATH".to_vec(), PATH.into())];
    if let Some(user) = user {
        let home = user.dir.as_os_str().as_bytes();
        let shell = user.shell.as_os_str().as_bytes();
        let name = user.name.as_bytes();
        for (variable, value) in [
            ("USER", name),
            ("LOGNAME", name),
            ("HOME", home),
            ("SHELL", shell),
        ] {
            all.push((variable.into(), value.to_vec()));
        }
    }
    for name in &config.pass_environment {
        if let Some(value) = env::var_os(name) {
            all.push((name.clone().into(), value.as_bytes().to_vec()));
        }
    }
    for (name, value) in &config.environment {
        if name.is_empty() || name.contains('=') {
            return Err(format!(
                "process.environment: \"{name}\" is not a name of a variable"
            ));
        }
        all.push((name.clone().into(), value.clone().into()));
    }
    let mut texts = Vec::new();
    for (at, (name, value)) in all.iter().enumerate() {
        // The last of several values is meant.
        if all[at + 1..].iter().any(|(later, _)| later == name) {
            continue;
        }
        let both = [name, &b"="[..], value].concat();
        texts.push(
            CString::new(both).map_err(|_| "process.environment holds a NUL byte".to_owned())?,
        );
    }
    Ok(texts)
}

fn text(word: &str, key: &str) -> Result<CString, String> {
    CString::new(word).map_err(|_| format!("{key} holds a NUL byte"))
}

/// Where a program that searches for others finds those of the system.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The first descriptor behind the standard ones.
const FIRST_MORE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    fn program(command: &[&str], config: &str) -> Result<Program, String> {
        let command: Vec<String> = command.iter().map(|word| (*word).into()).collect();
        Program::new(&command, &toml::from_str(config).unwrap())
    }

    async fn said_by(program: &Program, mut start: Start) -> String {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        start.stdout = OwnedFd::from(theirs).into();
        let mut child = program.start(start).unwrap();
        child.wait().await;
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_key_and_the_remedy() {
        let wrong = |command: &[&str], config| program(command, config).unwrap_err();
        assert!(wrong(&[], "").contains("/bin/cat"));
        assert!(wrong(&["cat"], "").contains("absolute"));
        assert!(wrong(&["/bin/cat"], "nice = 20").contains("-20 to 19"));
        assert!(wrong(&["/bin/cat"], "user = 'no-such-user'").contains("no user of this machine"));
        assert!(wrong(&["/bin/cat"], "group = 'no-such-group'").contains("no group"));
        assert!(wrong(&["/bin/cat"], "directory = 'here'").contains("absolute"));
        assert!(wrong(&["/bin/cat"], "environment = { 'A=B' = 'C' }").contains("A=B"));
        assert!(wrong(&["/bin/cat", "a\0b"], "").contains("NUL"));
    }

    #[tokio::test]
    async fn the_environment_is_clean_but_for_what_is_named() {
        let config = "environment = { PATH = '/bin', MINE = 'a b' }\npass_environment = ['CARGO_MANIFEST_DIR', 'UNSET_HERE']";
        let program = program(&["/usr/bin/env"], config).unwrap();
        let start = Start {
            environment: vec![("REMOTE_HOST", "192.0.2.1".into())],
            ..Start::default()
        };
        let said = said_by(&program, start).await;
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        let passed = format!("CARGO_MANIFEST_DIR={}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(
            lines,
            [
                passed.as_str(),
                "MINE=a b",
                "PATH=/bin",
                "REMOTE_HOST=192.0.2.1"
            ]
        );
    }

    #[tokio::test]
    async fn limits_mask_directory_and_descriptors_are_as_configured() {
        let config = "umask = '0077'\ndirectory = '/usr'\nnice = 5\nlimits = { descriptors = 50, memory = '1GiB', cpu = '7s', core = 0 }";
        let script = "umask; pwd; nice; ulimit -n; ulimit -v; ulimit -t; ulimit -c; ls /proc/self/fd | tr '\\n' ' '";
        let program = program(&["/bin/sh", "-c", script], config).unwrap();
        let more = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let start = Start {
            more: vec![more(), more()],
            ..Start::default()
        };
        let said = said_by(&program, start).await;
        // The last descriptor is the one with which the directory is read.
        assert_eq!(said, "0077\n/usr\n5\n50\n1048576\n7\n0\n0 1 2 3 4 5 ");
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_why_and_what_to_do() {
        let error = |command: &[&str], config| {
            let program = program(command, config).unwrap();
            program.start(Start::default()).unwrap_err().to_string()
        };
        let missing = error(&["/nonexistent/in.ftpd"], "");
        assert!(
            missing.starts_with("/nonexistent/in.ftpd cannot be run: No such file"),
            "{missing}"
        );
        assert!(missing.contains("install it"), "{missing}");
        let unfit = error(&["/etc/passwd"], "");
        assert!(
            unfit.contains("Permission denied") && unfit.contains("execute"),
            "{unfit}"
        );
        let nowhere = error(&["/bin/cat"], "directory = '/nonexistent'");
        assert!(
            nowhere.contains("its directory") && nowhere.contains("process.directory"),
            "{nowhere}"
        );
    }
}
