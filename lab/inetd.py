"""The shipped examples for inetds, as they are, in a network and a /usr/bin of their own."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

from host import PROJECT, PROGRAMS, Unable, Workplace, binaries, need, need_root, run, say
from peers import PATIENCE, check, is_now, loopback, tcp, udp
from table import Failed, Table, wait_for


def prove(arguments):
    need_root()
    need(strip="binutils", unshare="util-linux", ip="iproute2", systemd_socket_activate="systemd", socat="socat")
    run("scripts/install-peers", cwd=PROJECT)
    with Workplace("inetd") as place:
        # Every user can read it.
        place.path.chmod(0o755)
        copies = binaries(arguments.binaries, place)
        # What follows happens in namespaces: a network with nothing but loopback, /usr/bin with the daemons in
        # it, /etc/portyard with the shipped configurations.
        command = ["unshare", "--mount", "--net", sys.executable, __file__, copies, place.path / "table.json"]
        say("entering a network of its own")
        done = subprocess.run([str(word) for word in command], timeout=600, check=False)
        saved = place.path / "table.json"
        if not saved.exists():
            raise Unable(f"the namespaces cannot be made here (exit code {done.returncode})")
        return Table.load(saved)


def enter(copies):
    """Makes this namespace what the examples expect."""
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    for upper in ["bin", "etc"]:
        for part in ["upper", "work"]:
            os.makedirs(f"/mnt/{upper}/{part}")
        at = {"bin": "/usr/bin", "etc": "/etc"}[upper]
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={at},upperdir=/mnt/{upper}/upper,workdir=/mnt/{upper}/work", at)
    for program in PROGRAMS:
        shutil.copy(copies / program, "/usr/bin")
    os.makedirs("/etc/portyard", exist_ok=True)
    for file in (PROJECT / "configs").glob("*.toml"):
        shutil.copy(file, "/etc/portyard")


def find(program):
    for directory in [PROJECT / "target/peers/usr/sbin", pathlib.Path("/usr/sbin"), pathlib.Path("/usr/bin")]:
        if os.access(directory / program, os.X_OK):
            return str(directory / program)
    raise Failed(f"there is no {program}; scripts/install-peers installs it")


class Running:
    """A program that serves, until the end of the block; then it and its children are gone."""

    def __init__(self, *command, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        # `wait` programs outlive their inetd until they have been idle for long.
        for pid in in_this_network():
            os.kill(pid, signal.SIGTERM)
        wait_for("their end", lambda: not in_this_network())


def in_this_network():
    """The processes in the lab's network, but for this one: all were started by the lab."""
    found = []
    own = os.stat("/proc/self/ns/net").st_ino
    for path in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if os.stat(path).st_ino == own and int(path.parts[2]) != os.getpid():
                found.append(int(path.parts[2]))
        except OSError:
            pass
    return found


def open_port(port, family=socket.AF_INET):
    def reached():
        try:
            with socket.socket(family) as peer:
                peer.settimeout(PATIENCE)
                peer.connect((loopback(family), port))
                return True
        except OSError:
            return False

    return reached


table = Table("inetd: the shipped examples, started and spoken to")


def speak(daytime_family):
    """What both example files offer."""
    wait_for("port 7", open_port(7))
    for _ in range(50):
        check(tcp(7, b"hello", 5) == b"hello", "echo")
    check(b":" in tcp(7014, b"line\n", 10), "timestamp")
    check(is_now(udp(37, b"")), "time over UDP")
    check(b"20" in udp(3737, b"", daytime_family), "ctime, with a configuration")


@table.proof("xinetd with configs/inetd/xinetd.conf")
def _xinetd():
    with Running(find("xinetd"), "-f", str(PROJECT / "configs/inetd/xinetd.conf"), "-dontfork", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        speak(socket.AF_INET)
    return "50 connections nowait; wait streams; wait datagrams; a configuration"


@table.proof("openbsd-inetd with configs/inetd/inetd.conf")
def _openbsd():
    with Running(find("inetd"), "-i", str(PROJECT / "configs/inetd/inetd.conf"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        speak(socket.AF_INET6)
        check(b"20" in tcp(13, b"", 10, socket.AF_INET6), "daytime over IPv6")
    return "50 connections nowait; wait streams; wait datagrams; a configuration"


@table.proof("systemd-socket-activate, one process for all")
def _activate():
    command = ["systemd-socket-activate", "-l", "127.0.0.1:2007", "--fdname=echo", "/usr/bin/echo-tcp"]
    with Running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for("port 2007", open_port(2007))
        for _ in range(50):
            check(tcp(2007, b"hello", 5) == b"hello", "echo")
    return "50 connections"


@table.proof("systemd-socket-activate --accept --inetd, one process each")
def _accept():
    command = ["systemd-socket-activate", "-l", "127.0.0.1:2013", "--accept", "--inetd", "/usr/bin/echo-tcp", "--inetd=daytime"]
    with Running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for("port 2013", open_port(2013))
        for _ in range(20):
            check(b"20" in tcp(2013, b"", 10), "daytime")
    return "20 connections, 20 processes"


@table.proof("fd-broker as the inetd, with what it makes of xinetd.conf")
def _import():
    translated = run("/usr/bin/fd-broker", "--import", PROJECT / "configs/inetd/xinetd.conf", stderr=subprocess.DEVNULL)
    file = pathlib.Path("/etc/portyard/imported.toml")
    file.write_text(translated)
    run("/usr/bin/fd-broker", "--config", file, "--check")
    with Running("/usr/bin/fd-broker", "--config", str(file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        speak(socket.AF_INET)
    return f"{translated.count('[[service]]')} services, spoken to as under xinetd"


if __name__ == "__main__":
    enter(pathlib.Path(sys.argv[1]))
    table.run(tell=lambda text: print(text, flush=True))
    table.save(sys.argv[2])
