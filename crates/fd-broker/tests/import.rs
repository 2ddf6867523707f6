//! `--import`: the configurations of other inetds, and that what they come to gives the same answers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a helper fails the test"
)]

#[path = "../../time-udp/tests/common/launcher.rs"]
mod launcher;

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use std::io::{Read as _, Write as _};

use launcher::{Launcher, ask, connect, datagrams, free_port, user};
use portyard_testkit::{Daemon, Finished, eventually, finish, peer};
use tempfile::TempDir;

const FD_BROKER: &str = env!("CARGO_BIN_EXE_fd-broker");

fn import(path: &Path) -> Finished {
    finish(Command::new(FD_BROKER).arg("--import").arg(path), b"")
}

/// A file of that text in a directory of its own.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    (directory, path)
}

/// What a file comes to; `--check` must accept it.
#[track_caller]
fn accepted(finished: &Finished, code: i32) -> String {
    assert_eq!(
        finished.code,
        Some(code),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
    let (_directory, path) = file("fd-broker.toml", &finished.stdout);
    let check = finish(
        Command::new(FD_BROKER)
            .arg("--check")
            .arg("--config")
            .arg(&path),
        b"",
    );
    let has_service = finished.stdout.lines().any(|line| line == "[[service]]");
    if has_service {
        assert_eq!(check.code, Some(0), "{}\n{}", finished.stdout, check.stderr);
    }
    finished.stdout.clone()
}

/// The files of Debian's package, installed or unpacked.
fn debian() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/etc/xinetd.d");
    let places = [PathBuf::from("/etc/xinetd.d"), unpacked];
    let found = places
        .into_iter()
        .find(|place| place.join("daytime").exists());
    found.expect("xinetd's files are missing: run scripts/install-peers")
}

#[test]
fn debians_own_services_come_over_each_off_as_it_was() {
    let text = format!("defaults\n{{\n}}\nincludedir {}\n", debian().display());
    let (_directory, path) = file("xinetd.conf", &text);
    let toml = accepted(&import(&path), 0);
    let off = toml.lines().filter(|line| *line == "#[[service]]").count();
    assert!(off >= 12, "{toml}");
    assert!(!toml.lines().any(|line| line == "[[service]]"), "{toml}");
}

#[test]
fn debians_own_services_come_over_switched_on_but_for_what_nothing_here_does() {
    let directory = tempfile::tempdir().unwrap();
    let included = directory.path().join("d");
    fs::create_dir(&included).unwrap();
    for name in [
        "echo", "echo-udp", "time", "daytime", "discard", "chargen", "services",
    ] {
        let text = fs::read_to_string(debian().join(name)).unwrap();
        let on: String = text
            .lines()
            .filter(|line| !line.trim().starts_with("disable"))
            .flat_map(|line| [line, "\n"])
            .collect();
        fs::write(included.join(name), on).unwrap();
    }
    // Backups are not read.
    fs::write(included.join("echo.bak"), "nonsense").unwrap();
    let path = directory.path().join("xinetd.conf");
    fs::write(&path, format!("includedir {}\n", included.display())).unwrap();
    let finished = import(&path);
    let toml = accepted(&finished, 1);
    for part in [
        "--inetd=echo\"",
        "--inetd=time\"",
        "--inetd=daytime\"",
        "--inetd=chargen\"",
        "time-udp\"",
    ] {
        assert!(toml.contains(part), "{part}: {toml}");
    }
    assert!(toml.contains("# LEFT OUT: chargen over UDP"), "{toml}");
    let warnings = finished.stderr;
    assert!(
        warnings.contains("d/services:") && warnings.contains("admin endpoint"),
        "{warnings}"
    );
}

#[test]
fn every_attribute_of_xinetd_is_translated_or_told() {
    let directory = tempfile::tempdir().unwrap();
    let banner = directory.path().join("banner");
    fs::write(&banner, "Welcome \"here\".\r\n").unwrap();
    let text = format!(
        "# A comment\ndefaults\n{{\n\tinstances = 60\n\tlog_type = SYSLOG authpriv\n\tcps = 25 30\n\tonly_from = 192.0.2.0/24 localhost.example\n\tpassenv = TZ\n}}\n\
         service ftp {{\n\tid = front-ftp\n\tsocket_type = stream\n\twait = no\n\tuser = nobody\n\tgroup = nogroup\n\tserver = /usr/sbin/in.ftpd\n\
         \tserver_args = -l -a\n\tinstances = 4\n\tper_source = 2\n\tonly_from += 10.0.0.0\n\tno_access = 10.1.{{2,3}}\n\taccess_times = 2:00-8:59 12:00-23:59\n\
         \tnice = 10\n\tumask = 077\n\tenv = A=1 B=two\n\tpassenv += LANG\n\trlimit_as = 8M\n\trlimit_cpu = 20\n\trlimit_files = 64\n\
         \tbanner_success = {0}\n\tbanner_fail = {0}\n\tlog_on_success = PID EXIT TRAFFIC\n\tmax_load = 2.5\n\tflags = NODELAY NAMEINARGS\n\tbind = 127.0.0.1\n}}\n\
         service web\n{{\n\ttype = UNLISTED\n\tport = 8080\n\tsocket_type = stream\n\twait = no\n\tredirect = 192.0.2.9 80\n\tonly_from =\n}}\n\
         service tftp\n{{\n\tsocket_type = dgram\n\tprotocol = udp\n\twait = yes\n\tuser = nobody\n\tserver = /usr/sbin/in.tftpd\n\tserver_args = -s /srv/tftp\n}}\n\
         service rquotad\n{{\n\ttype = RPC\n\tsocket_type = dgram\n\twait = yes\n\tserver = /x\n}}\n",
        banner.display()
    );
    let path = directory.path().join("xinetd.conf");
    fs::write(&path, text).unwrap();
    let finished = import(&path);
    let toml = accepted(&finished, 1);
    let ftp = toml
        .split("[[service]]")
        .find(|part| part.contains("front-ftp"))
        .unwrap();
    for line in [
        "listen = [\"tcp://127.0.0.1:21\"]",
        "command = [\"/usr/sbin/in.ftpd\", \"-a\"]",
        "style = \"xinetd\"",
        "access_times = [\"02:00-09:00\", \"12:00-24:00\"]",
        "count_bytes = true",
        "log = \"both\"",
        "default = \"deny\"",
        "rules = [\"allow 192.0.2.0/24\", \"allow 10.0.0.0/8\", \"deny 10.1.2.0/24\", \"deny 10.1.3.0/24\"]",
        "connections = 4",
        "per_source = 2",
        "rate = \"25/s\"",
        "at_limit = \"banner\"",
        "name = \"-l\"",
        "user = \"nobody\"",
        "group = \"nogroup\"",
        "groups = []",
        "nice = 10",
        "umask = \"0077\"",
        "pass_environment = [\"TZ\", \"LANG\"]",
    ] {
        assert!(
            ftp.lines().any(|found| found == line),
            "{line} is missing in\n{ftp}"
        );
    }
    for part in [
        "A = \"1\"",
        "memory = \"8MiB\"",
        "cpu = \"20s\"",
        "descriptors = 64",
        "Welcome \"here\".",
    ] {
        assert!(ftp.contains(part), "{part} is missing in\n{ftp}");
    }
    let web = toml
        .split("[[service]]")
        .find(|part| part.contains("redirect"))
        .unwrap();
    assert!(web.contains("redirect = \"tcp://192.0.2.9:80\""), "{web}");
    // Nobody at all, as it was.
    assert!(web.contains("default = \"deny\"\nrules = []"), "{web}");
    for told in [
        "localhost.example is a name",
        "max_load has no counterpart",
        "type = RPC",
    ] {
        assert!(
            finished.stderr.contains(told),
            "{told}: {}",
            finished.stderr
        );
        assert!(toml.contains(told), "{told}: {toml}");
    }
    assert!(
        finished.stderr.contains("xinetd.conf:3"),
        "{}",
        finished.stderr
    );
}

#[test]
fn every_spelling_of_inetd_conf_is_translated_or_told() {
    let text = "\
# /etc/inetd.conf:  see inetd(8) for further informations.
#:INTERNAL: Internal services
discard\t\tstream\ttcp6\tnowait\troot\tinternal
discard\t\tdgram\tudp\twait\troot\tinternal
#<off># time\t\tstream\ttcp\tnowait\troot\tinternal
#:BOOT: TFTP service is provided primarily for booting.
tftp\t\tdgram\tudp4\twait\tnobody\t/usr/sbin/tcpd\t/usr/sbin/in.tftpd /srv/tftp
127.0.0.1,[::1]:ftp stream tcp nowait.400 root /usr/sbin/tcpd in.ftpd -l
smtp stream tcp,rcvbuf=16k nowait/10/20/3 nobody:nogroup/daemon /usr/sbin/exim exim -bs
8888 stream tcp46 wait nobody.nogroup /bin/server server
192.0.2.7:
finger stream tcp nowait nobody /usr/sbin/fingerd fingerd
*:
/run/yard/x stream unix nowait root /bin/cat cat
rstatd/1-3 dgram rpc/udp wait root /usr/libexec/rpc.rstatd rpc.rstatd
time dgram udp nowait root /bin/time time
bad line
";
    let (_directory, path) = file("inetd.conf", text);
    let finished = import(&path);
    let toml = accepted(&finished, 1);
    for part in [
        "listen = [\"tcp://[::]:9\"]",
        "name = \"discard-udp\"\nlisten = [\"udp://0.0.0.0:9\"]",
        "#name = \"time\"",
        "command = [\"/usr/sbin/tcpd\", \"/srv/tftp\"]\n[service.process]\nname = \"/usr/sbin/in.tftpd\"\nuser = \"nobody\"",
        "listen = [\"tcp://127.0.0.1:21\", \"tcp://[::1]:21\"]",
        "rate = \"400/min\"",
        "connections = 10\nper_source = 3\nrate = \"20/min\"",
        "receive_buffer = 16384",
        "user = \"nobody\"\ngroup = \"nogroup\"",
        "listen = [\"tcp://0.0.0.0:8888\", \"tcp://[::]:8888\"]\nwait = true",
        "listen = [\"tcp://192.0.2.7:79\"]",
        "listen = [\"unix:/run/yard/x\"]",
        "nowait does not work for datagrams; it is taken as wait",
        "# LEFT OUT: rstatd/1-3 rpc/udp is not offered here",
    ] {
        assert!(toml.contains(part), "{part} is missing in\n{toml}");
    }
    let warnings = finished.stderr;
    assert!(
        warnings.contains("inetd.conf:15: rstatd/1-3 rpc/udp"),
        "{warnings}"
    );
    assert!(
        warnings.contains("inetd.conf:17: a line has six fields"),
        "{warnings}"
    );
    assert!(
        warnings.contains("not all of it was translated (2)"),
        "{warnings}"
    );
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let finished = import(Path::new("/nonexistent.conf"));
    assert_eq!(finished.code, Some(69));
    assert!(
        finished.stderr.contains("/nonexistent.conf cannot be read"),
        "{}",
        finished.stderr
    );
}

/// Services that a configuration offers, by what they do.
struct Ports {
    cat: u16,
    environment: u16,
    echo: u16,
    banner: u16,
    closed: u16,
    upper: u16,
}

impl Ports {
    fn free() -> Self {
        Self {
            cat: free_port(),
            environment: free_port(),
            echo: free_port(),
            banner: free_port(),
            closed: free_port(),
            upper: free_port(),
        }
    }

    /// What comes back from each of them.
    fn answers(&self, with_access: bool) -> Vec<(&'static str, Vec<u8>)> {
        let mut answers = vec![
            ("cat", converse(self.cat, b"hello")),
            ("cat", converse(self.cat, &[7; 100_000])),
            ("environment", sorted(&converse(self.environment, b""))),
            ("echo", converse(self.echo, b"an echo")),
        ];
        if with_access {
            answers.push(("banner", converse(self.banner, b"hello")));
            answers.push(("closed", converse(self.closed, b"hello")));
        }
        let client = datagrams(self.upper);
        for request in [&b"one"[..], b"two", b"three"] {
            answers.push(("upper", ask(&client, request)));
        }
        answers
    }
}

/// Like the launcher's, for peers that may be refused.
fn converse(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The variables that tell of the peer; what else there is differs with whoever starts the inetd.
fn sorted(environment: &[u8]) -> Vec<u8> {
    let mut all: Vec<&[u8]> = environment
        .split(|byte| *byte == 0)
        .filter(|variable| variable.starts_with(b"REMOTE") || variable.starts_with(b"TCP"))
        .collect();
    all.sort_unstable();
    all.join(&b"\n"[..])
}

fn is_free(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
}

/// Runs the broker with what a file comes to.
fn broker(path: &Path) -> Daemon {
    let toml = accepted(&import(path), 0);
    Daemon::build(FD_BROKER).config(&toml).start()
}

/// A program of datagrams in a file, because the words of an inetd are cut at spaces.
fn upper(directory: &Path) -> String {
    let path = directory.join("upper.py");
    let script = "import socket\ns = socket.socket(fileno=0)\ns.settimeout(1)\ntry:\n    while True:\n        data, peer = s.recvfrom(4096)\n        s.sendto(data.upper(), peer)\nexcept OSError:\n    pass\n";
    fs::write(&path, script).unwrap();
    path.display().to_string()
}

fn echo_tcp() -> String {
    let path = PathBuf::from(FD_BROKER).with_file_name("echo-tcp");
    assert!(
        path.exists(),
        "{} is missing: cargo build -p echo-tcp",
        path.display()
    );
    path.display().to_string()
}

#[test]
fn one_configuration_gives_the_same_answers_under_xinetd_and_here() {
    let directory = tempfile::tempdir().unwrap();
    let banner = directory.path().join("banner");
    fs::write(&banner, "Be welcome.\r\n").unwrap();
    let ports = Ports::free();
    let user = user();
    let service = |name: &str, port: u16, more: &str| {
        format!(
            "service {name}\n{{\n type = UNLISTED\n port = {port}\n bind = 127.0.0.1\n user = {user}\n socket_type = stream\n protocol = tcp\n wait = no\n{more}}}\n"
        )
    };
    let python = peer("python3");
    let text = [
        service("cat", ports.cat, " server = /bin/cat\n"),
        service("environment", ports.environment, " server = /usr/bin/tail\n server_args = -c +1 /proc/self/environ\n"),
        service("echo", ports.echo, &format!(" server = {}\n server_args = --inetd=echo\n", echo_tcp())),
        service("banner", ports.banner, &format!(" server = /bin/cat\n banner_success = {}\n", banner.display())),
        service("closed", ports.closed, " server = /bin/cat\n only_from = 192.0.2.0/24\n"),
        format!(
            "service upper\n{{\n type = UNLISTED\n port = {}\n bind = 127.0.0.1\n user = {user}\n socket_type = dgram\n protocol = udp\n wait = yes\n server = {}\n server_args = {}\n}}\n",
            ports.upper, python.display(), upper(directory.path())
        ),
    ]
    .concat();
    let path = directory.path().join("xinetd.conf");
    fs::write(&path, &text).unwrap();
    let theirs = {
        let _xinetd = Launcher::xinetd_with(&text);
        ports.answers(true)
    };
    eventually("xinetd has gone", || is_free(ports.cat));
    let _broker = broker(&path);
    let ours = ports.answers(true);
    assert_eq!(ours, theirs);
    assert_eq!(ours[2].1, b"REMOTE_HOST=127.0.0.1");
    assert_eq!(ours[4].1, b"Be welcome.\r\nhello");
}

#[test]
fn one_configuration_gives_the_same_answers_under_openbsd_inetd_and_here() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let user = user();
    let python = peer("python3");
    let text = format!(
        "127.0.0.1:{} stream tcp nowait {user} /bin/cat cat\n\
         127.0.0.1:{} stream tcp nowait {user} /usr/bin/tail tail -c +1 /proc/self/environ\n\
         127.0.0.1:{} stream tcp nowait.1000 {user} {} echo-tcp --inetd=echo\n\
         127.0.0.1:{} dgram udp wait {user} {} python3 {}\n",
        ports.cat,
        ports.environment,
        ports.echo,
        echo_tcp(),
        ports.upper,
        python.display(),
        upper(directory.path())
    );
    let path = directory.path().join("inetd.conf");
    fs::write(&path, &text).unwrap();
    let theirs = {
        let _inetd = Launcher::inetd_with(&text);
        ports.answers(false)
    };
    eventually("inetd has gone", || is_free(ports.cat));
    let _broker = broker(&path);
    assert_eq!(ports.answers(false), theirs);
}
