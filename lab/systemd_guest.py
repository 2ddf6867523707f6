"""Runs inside of the booted Debian: installs the package, and proves what the units promise."""

import glob
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import xmlrpc.client

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from load import Load, fresh_echo, fresh_http, kept_echo, kept_http  # noqa: E402
from peers import check, is_now, tcp, udp  # noqa: E402
from table import Failed, Table, wait_for  # noqa: E402

LAB = pathlib.Path("/lab")
RESTARTS = int(os.environ.get("LAB_RESTARTS", "60"))
DAEMONS = ["echo-tcp", "time-udp", "kv-rpc", "rest-api", "fd-broker"]
KEY = b"a key of the lab"

os.environ["HOME"] = "/root"
table = Table("systemd: the units in a booted Debian")


def sh(*command, check=True, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
    return done.stdout


def show(unit, name):
    return sh("systemctl", "show", "-P", name, unit).strip()


def write(path, text, mode=0o644):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def drop_in(unit, text):
    write(f"/etc/systemd/system/{unit}.d/lab.conf", text)
    sh("systemctl", "daemon-reload")


def undo_drop_in(unit):
    shutil.rmtree(f"/etc/systemd/system/{unit}.d")
    sh("systemctl", "daemon-reload")


def store():
    return xmlrpc.client.ServerProxy("http://127.0.0.1:15000", allow_none=True)


@table.proof("package installs")
def _install():
    sh("dpkg", "-i", *glob.glob("/lab/old/*.deb"))
    states = sh("systemctl", "list-unit-files", "--no-legend", "echo-tcp*", "time-udp*", "kv-rpc*", "rest-api*", "fd-broker*", "portyard*")
    units = [line.split() for line in states.splitlines()]
    enabled = [unit[0] for unit in units if unit[1] == "enabled"]
    check(units and not enabled, f"enabled without being asked: {enabled}")
    for daemon in DAEMONS:
        sh(daemon, "--config", f"/etc/portyard/{daemon}.toml", "--check")
    return f"{sh('dpkg-query', '-W', '-f', '${Version}', 'portyard')}, {len(units)} units, none enabled"


@table.proof("portyard.target starts every unit")
def _start():
    sh("systemctl", "enable", "--now", "portyard.target")
    units = show("portyard.target", "Wants").split()
    for unit in units:
        wait_for(unit, lambda: show(unit, "ActiveState") == "active")
    return f"{len(units)} units active"


@table.proof("exposure, as systemd sees it live")
def _exposure():
    scores = {}
    for daemon in DAEMONS:
        sh("systemctl", "start", f"{daemon}.service")
        check(show(daemon, "SubState") == "running", f"{daemon} is {show(daemon, 'SubState')}")
        said = sh("systemd-analyze", "security", "--no-pager", f"{daemon}.service")
        scores[daemon] = float(re.search(r"Overall exposure level for [^:]*: ([0-9.]+)", said)[1])
    rivals = {}
    for path in sorted(glob.glob("/lab/rivals/*.service")):
        said = sh("systemd-analyze", "security", "--no-pager", "--offline=true", path)
        rivals[pathlib.Path(path).stem] = float(re.search(r"Overall exposure level for [^:]*: ([0-9.]+)", said)[1])
    for daemon, score in scores.items():
        limit = 0.4 if daemon == "fd-broker" else 0.2
        check(score <= limit, f"{daemon} has {score}, more than {limit}: {scores}")
    return ", ".join(f"{name} {score}" for name, score in [*scores.items(), *rivals.items()])


@table.proof("echo-tcp speaks on ports 7, 9, 13, 19, 37")
def _echo_tcp():
    check(tcp(7, b"hello", 5) == b"hello", "echo")
    check(b"20" in tcp(13, b"", 20), "daytime")
    check(len(tcp(19, b"", 1000)) >= 1000, "chargen")
    check(is_now(tcp(37, b"", 4)), "time")
    with socket.create_connection(("127.0.0.1", 9), 10) as peer:
        peer.sendall(b"x" * 100000)
    return "echo, discard, daytime, chargen, time"


@table.proof("time-udp speaks on ports 7, 13, 37, 123")
def _time_udp():
    check(udp(7, b"hello") == b"hello", "echo")
    check(b"20" in udp(13, b""), "daytime")
    check(is_now(udp(37, b"")), "time")
    answer = udp(123, b"\x23" + bytes(47))
    check(len(answer) == 48 and answer[0] & 7 == 4, f"sntp says {answer[:4]}")
    return "echo, daytime, time, sntp"


@table.proof("kv-rpc speaks XML-RPC, JSON-RPC and Python's connections")
def _kv_rpc():
    store().set("spam", [1, "two", 3.0])
    check(store().get("spam") == [1, "two", 3.0], "xml-rpc")
    said = json.loads(tcp(15001, b'{"jsonrpc":"2.0","id":1,"method":"get","params":["spam"]}\n', 20))
    check(said["result"] == [1, "two", 3.0], f"json-rpc says {said}")
    with multiprocessing.connection.Client(("127.0.0.1", 17000)) as door:
        door.send(json.dumps(["get", ["spam"], {}]))
        door.poll(10)
    sh("portyard", "kv", "--door", "python", "127.0.0.1:17000", "set", "door", "python")
    check(store().get("door") == "python", "python-rpc")
    owner = os.stat("/var/lib/private/kv-rpc").st_mode & 0o777
    check(owner == 0o700, f"/var/lib/private/kv-rpc has mode {owner:o}")
    return "three doors, one store, in /var/lib/private"


@table.proof("rest-api speaks HTTP")
def _rest_api():
    with urllib.request.urlopen("http://127.0.0.1:18080/hello?name=%3Clab%3E", timeout=10) as answer:
        check(b"&lt;lab&gt;" in answer.read(), "hello")
    with urllib.request.urlopen("http://127.0.0.1:18080/localtime.json", timeout=10) as answer:
        check("year" in json.load(answer), "localtime")
    return "hello, localtime"


WORKER = """
import os, sys, socket
from multiprocessing.connection import Client
from multiprocessing.reduction import recv_handle
broker = Client(sys.argv[1], authkey=None)
broker.send(os.getpid())
while True:
    with socket.socket(fileno=recv_handle(broker)) as client:
        while True:
            data = client.recv(65536)
            if not data:
                break
            client.sendall(data)
"""

BROKER = """
[[pool]]
name = "default"

[[worker]]
name = "echo"
count = 2
command = ["/usr/bin/python3", "/lab/worker.py", "/run/fd-broker/python.sock"]

[[listener]]
service = "hand-off"
listen = ["systemd:hand-off"]

[[listener]]
service = "python"
listen = ["unix:/run/fd-broker/python.sock"]

[[listener]]
service = "native"
listen = ["systemd:native"]

[[listener]]
service = "control"
listen = ["systemd:control"]
access = { rules = ["allow uid:0"] }

[holding]
rules = ["allow all * uid:0"]
"""


@table.proof("fd-broker hands connections to another service, in the strictest sandbox")
def _fd_broker_native():
    unit = "[Service]\nDynamicUser=yes\nUser=lab-worker\nType=notify\nExecStart=/usr/bin/echo-tcp --listen broker:/run/portyard/fd-broker/native.sock#default=echo\n"
    write("/etc/systemd/system/lab-worker.service", unit)
    sh("groupadd", "-f", "lab-workers")
    write(
        "/etc/systemd/system/fd-broker-native.socket.d/lab.conf",
        "[Socket]\nSocketGroup=lab-workers\nSocketMode=0660\n",
    )
    write("/etc/systemd/system/lab-worker.service.d/group.conf", "[Service]\nSupplementaryGroups=lab-workers\n")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "stop", "fd-broker.socket", "fd-broker-native.socket", "fd-broker-control.socket", "fd-broker.service")
    sh("rm", "-rf", "/run/portyard/fd-broker")
    sh("systemctl", "start", "fd-broker-native.socket", "fd-broker-control.socket", "fd-broker.socket")
    sh("systemctl", "start", "lab-worker.service")
    check(tcp(17500, b"through the broker", 18) == b"through the broker", "no echo through the worker")
    sh("systemctl", "stop", "lab-worker.service")
    return "echo-tcp of another dynamic user, let in by a group"


@table.proof("fd-broker hands connections to Python's own workers")
def _fd_broker():
    write("/lab/worker.py", WORKER)
    write("/etc/portyard/fd-broker.toml", BROKER)
    write("/etc/default/fd-broker", "OPTIONS=--config /etc/portyard/fd-broker.toml\n")
    # Programs, and workers whose ends only the kernel tells.
    drop_in("fd-broker.service", pathlib.Path("/usr/share/doc/portyard/examples/systemd/broker/open.conf").read_text())
    sh("systemctl", "restart", "fd-broker")
    check(tcp(17500, b"through the broker", 18) == b"through the broker", "no echo through a worker")
    command = ["portyard", "broker", "--socket", "/run/portyard/fd-broker/control.sock", "workers"]
    wait_for("two workers", lambda: sh(*command).count("serving") == 2)
    return "two workers, unmodified recv_handle loops"


@table.proof("reload keeps process and connections, and takes effect")
def _reload():
    write("/etc/default/echo-tcp", "OPTIONS=--config /etc/portyard/echo-tcp.toml\n")
    config = '[[listener]]\nservice = "echo"\nlisten = ["systemd:echo"]\n'
    others = "".join(
        f'[[listener]]\nservice = "{name}"\nlisten = ["systemd:{name}"]\n'
        for name in ["discard", "daytime", "chargen", "time"]
    )
    write("/etc/portyard/echo-tcp.toml", config + others)
    sh("systemctl", "restart", "echo-tcp")
    with socket.create_connection(("127.0.0.1", 7), 10) as before:
        before.sendall(b"a")
        check(before.recv(1) == b"a", "no echo before the reload")
        pid = show("echo-tcp", "MainPID")
        write("/etc/portyard/echo-tcp.toml", config + 'access = { rules = ["deny 127.0.0.3"] }\n' + others)
        sh("systemctl", "reload", "echo-tcp")
        check(show("echo-tcp", "MainPID") == pid, "another process")
        before.sendall(b"b")
        check(before.recv(1) == b"b", "no echo behind the reload")
        with socket.socket() as denied:
            denied.settimeout(10)
            denied.bind(("127.0.0.3", 0))
            try:
                denied.connect(("127.0.0.1", 7))
                denied.sendall(b"x")
                refused = denied.recv(1) == b""
            except ConnectionError:
                refused = True
            check(refused, "127.0.0.3 is served still")
    pids = {daemon: show(daemon, "MainPID") for daemon in DAEMONS}
    for daemon in DAEMONS:
        sh("systemctl", "reload", daemon)
        check(show(daemon, "MainPID") == pids[daemon], f"{daemon}: another process")
        wait_for(f"{daemon} active again", lambda: show(daemon, "ActiveState") == "active")
    # A bad file changes nothing.
    good = pathlib.Path("/etc/portyard/echo-tcp.toml").read_text()
    write("/etc/portyard/echo-tcp.toml", "nonsense = 1\n")
    sh("systemctl", "reload", "echo-tcp")
    check(tcp(7, b"still", 5) == b"still", "a bad file broke the service")
    write("/etc/portyard/echo-tcp.toml", good)
    sh("systemctl", "reload", "echo-tcp")
    return "all five; a denied address is denied, a bad file changes nothing"


@table.proof("the watchdog restarts a daemon that hangs")
def _watchdog():
    drop_in("echo-tcp.service", "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n")
    sh("systemctl", "restart", "echo-tcp")
    pid = show("echo-tcp", "MainPID")
    began = time.monotonic()
    os.kill(int(pid), 19)
    wait_for("another process", lambda: show("echo-tcp", "MainPID") not in (pid, "0"), 30)
    took = time.monotonic() - began
    check(tcp(7, b"again", 5) == b"again", "no echo")
    check("watchdog" in sh("journalctl", "-u", "echo-tcp", "--no-pager").lower(), "not by the watchdog")
    undo_drop_in("echo-tcp.service")
    sh("systemctl", "restart", "echo-tcp")
    return f"stopped process replaced in {took:.1f} s, sockets open meanwhile"


@table.proof("credentials are the service's alone")
def _credentials():
    write("/etc/portyard/keys", f"lab:text:{KEY.decode()}\n", 0o600)
    drop_in("echo-tcp.service", "[Service]\nLoadCredential=keys:/etc/portyard/keys\n")
    config = pathlib.Path("/etc/portyard/echo-tcp.toml").read_text()
    write(
        "/etc/portyard/echo-tcp.toml",
        config + '[[listener]]\nservice = "message"\nlisten = ["systemd:message"]\n'
        'auth = "python"\nauth_keys = "credential:keys"\nmin_digest = "md5"\n',
    )
    write(
        "/etc/systemd/system/echo-tcp-message.socket",
        "[Socket]\nListenStream=127.0.0.1:7020\nFileDescriptorName=message\nService=echo-tcp.service\n",
    )
    sh("systemctl", "daemon-reload")
    sh("systemctl", "stop", "echo-tcp.service")
    sh("systemctl", "start", "echo-tcp-message.socket")
    with multiprocessing.connection.Client(("127.0.0.1", 7020), authkey=KEY) as client:
        client.send_bytes(b"with the key")
        check(client.recv_bytes() == b"with the key", "no message back")
    try:
        multiprocessing.connection.Client(("127.0.0.1", 7020), authkey=b"another")
        raise Failed("another key is accepted")
    except (multiprocessing.AuthenticationError, ConnectionError, EOFError, OSError):
        pass
    path = "/run/credentials/echo-tcp.service/keys"
    check(os.path.exists(path), f"there is no {path}")
    readers = {
        "nobody": ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", path],
        "another dynamic user": ["systemd-run", "-q", "--collect", "--pipe", "--wait", "-p", "DynamicUser=yes", "cat", path],
    }
    for who, command in readers.items():
        said = subprocess.run(command, capture_output=True, timeout=30)
        check(said.returncode != 0 and KEY not in said.stdout, f"{who} reads the key")
    environment = pathlib.Path(f"/proc/{show('echo-tcp', 'MainPID')}/environ").read_bytes()
    check(KEY not in environment, "the key is in the environment")
    return "LoadCredential= serves Python's authkey; nobody and another dynamic user read nothing"


@table.proof("restarts under load: echo-tcp")
def _restart_echo():
    with Load() as load:
        load.add("connections", fresh_echo(("127.0.0.1", 7)), 8)
        # A pause longer than the silence that a drain waits for: an echo has no other way to tell its end.
        load.add("exchanges kept alive", kept_echo(("127.0.0.1", 7), pause=0.4), 8)
        for _ in range(RESTARTS):
            sh("systemctl", "restart", "echo-tcp.service")
    return f"{RESTARTS} restarts, {load.verdict()}"


@table.proof("restarts under load: rest-api")
def _restart_http():
    with Load() as load:
        load.add("requests", fresh_http("127.0.0.1", 18080), 4)
        load.add("requests kept alive", kept_http("127.0.0.1", 18080), 8)
        for _ in range(RESTARTS):
            sh("systemctl", "restart", "rest-api.service")
    return f"{RESTARTS} restarts, {load.verdict()}"


@table.proof("restarts under load: fd-broker, with its workers and its descriptor store")
def _restart_broker():
    with Load() as load:
        load.add("connections", fresh_echo(("127.0.0.1", 17500)), 8)
        for _ in range(RESTARTS):
            sh("systemctl", "restart", "fd-broker.service")
            # Its workers have to start, too: or else all would wait until queue_timeout.
            wait_for("a new answer", lambda seen=load.answers["connections"]: load.answers["connections"] > seen)
    return f"{RESTARTS} restarts, {load.verdict()}"


@table.proof("fd-broker killed: what it holds is in the descriptor store")
def _broker_killed():
    sh("portyard", "broker", "--socket", "/run/portyard/fd-broker/control.sock", "store", "held", "tcp://127.0.0.1:17600")
    stored = int(show("fd-broker", "NFileDescriptorStore"))
    inode = socket_inode(17600)
    sh("systemctl", "kill", "-s", "KILL", "fd-broker.service")
    wait_for("fd-broker", lambda: show("fd-broker", "ActiveState") == "active" and show("fd-broker", "SubState") == "running")
    wait_for("its control socket", lambda: "held" in sh("portyard", "broker", "--socket", "/run/portyard/fd-broker/control.sock", "listeners", check=False))
    check(socket_inode(17600) == inode, "another socket")
    sh("portyard", "broker", "--socket", "/run/portyard/fd-broker/control.sock", "delete", "held")
    return f"{stored} descriptors stored; the held socket is the same after kill -9"


def socket_inode(port):
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
            return fields[9]
    raise Failed(f"nobody listens on {port}")


@table.proof("systemctl stop of kv-rpc in a loop of writes")
def _stop_store():
    acknowledged, asked, stop = {}, {}, threading.Event()

    def writer(number):
        count = 0
        while not stop.is_set():
            key = f"w{number}-{count}"
            asked[key] = count
            try:
                store().set(key, count)
                acknowledged[key] = count
            except (OSError, xmlrpc.client.Error):
                # Not acknowledged: may be there or not.
                time.sleep(0.01)
            count += 1

    writers = [threading.Thread(target=writer, args=(number,), daemon=True) for number in range(8)]
    for thread in writers:
        thread.start()
    stops = max(RESTARTS // 3, 1)
    for _ in range(stops):
        seen = len(acknowledged)
        wait_for("writes", lambda: len(acknowledged) > seen + 50)
        sh("systemctl", "stop", "kv-rpc.service")
    stop.set()
    for thread in writers:
        thread.join(30)
    lost = [key for key, value in acknowledged.items() if store().get(key) != value]
    check(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are lost: {lost[:5]}")
    return f"{stops} stops, {len(acknowledged)} writes acknowledged, {len(asked) - len(acknowledged)} not, 0 lost"


@table.proof("package upgrades under load")
def _upgrade():
    before = {daemon: show(daemon, "MainPID") for daemon in DAEMONS}
    edited = pathlib.Path("/etc/portyard/fd-broker.toml").read_text()
    with Load() as load:
        load.add("connections", fresh_echo(("127.0.0.1", 7)), 4)
        load.add("requests kept alive", kept_http("127.0.0.1", 18080), 4)
        load.add("connections through the broker", fresh_echo(("127.0.0.1", 17500)), 4)
        sh("dpkg", "--force-confold", "-i", *glob.glob("/lab/new/*.deb"))
        for name in list(load.answers):
            wait_for("answers", lambda seen=load.answers[name]: load.answers[name] > seen)
    for daemon in DAEMONS:
        if before[daemon] != "0":
            check(show(daemon, "MainPID") != before[daemon], f"{daemon} runs the old program still")
    check(pathlib.Path("/etc/portyard/fd-broker.toml").read_text() == edited, "an edited configuration is gone")
    return f"{sh('dpkg-query', '-W', '-f', '${Version}', 'portyard')}, {load.verdict()}"


@table.proof("a process for each connection (Accept=yes)")
def _accept():
    sh("systemctl", "stop", "echo-tcp.socket", "echo-tcp.service")
    source = "/usr/share/doc/portyard/examples/systemd/accept/echo-tcp.socket"
    shutil.copy(source, "/etc/systemd/system/echo-tcp.socket")
    shutil.copy("/etc/default/echo-tcp", "/lab/default")
    os.unlink("/etc/default/echo-tcp")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", "echo-tcp.socket")
    peers = [socket.create_connection(("127.0.0.1", 7), 10) for _ in range(5)]
    for peer in peers:
        peer.settimeout(20)
        peer.sendall(b"own process")
        check(peer.recv(11) == b"own process", "no echo")
    running = sh("systemctl", "list-units", "--no-legend", "echo-tcp@*").count("running")
    for peer in peers:
        peer.close()
    check(running == 5, f"{running} processes for 5 connections")
    wait_for("their end", lambda: "echo-tcp@" not in sh("systemctl", "list-units", "--no-legend", "--all", "echo-tcp@*"))
    sh("systemctl", "stop", "echo-tcp.socket")
    os.unlink("/etc/systemd/system/echo-tcp.socket")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", "echo-tcp.socket")
    return "5 connections, 5 sandboxed processes, none left behind"


@table.proof("every daemon has closed its own sandbox, and was denied nothing")
def _sandbox():
    for daemon in DAEMONS:
        said = sh("journalctl", "-q", "-o", "cat", "-u", f"{daemon}.service")
        told = [line for line in said.splitlines() if "landlock" in line or "the sandbox " in line]
        check(told and all(line.startswith("sandbox landlock=full seccomp=full") for line in told), f"{daemon}: {told[:3]}")
    return f"landlock and seccomp, in {len(DAEMONS)} units"


@table.proof("no unit failed, no socket was switched off")
def _health():
    failed = sh("systemctl", "--failed", "--no-legend")
    check(not failed.strip(), failed)
    said = sh("journalctl", "--no-pager", "-p", "err", "-o", "cat", "-u", "echo-tcp*", "-u", "time-udp*", "-u", "rest-api*", "-u", "kv-rpc*")
    lines = [line for line in said.splitlines() if "nonsense" not in line and "atchdog" not in line]
    return f"{len(lines)} lines of priority err in all journals of ours" + (f": {lines[:2]}" if lines else "")


@table.proof("package is removed, and purged")
def _remove():
    sh("dpkg", "-r", "portyard")
    for port in [7, 37, 15000, 18080]:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            raise Failed(f"port {port} is open still")
        except ConnectionRefusedError:
            pass
    check(os.path.exists("/etc/portyard/fd-broker.toml"), "a removal took the configuration")
    check(os.path.exists("/var/lib/private/kv-rpc"), "a removal took the data")
    sh("dpkg", "-P", "portyard")
    left = [path for pattern in ("/usr/bin/*", "/usr/lib/systemd/system/*", "/etc/portyard/*", "/var/lib/private/*", "/usr/share/doc/*", "/usr/share/man/man?/*")
            for path in glob.glob(pattern) if re.search(r"echo-tcp|time-udp|kv-rpc|rest-api|fd-broker|portyard", path)]
    left = [path for path in left if path not in ("/etc/portyard/keys",)]
    check(not left, f"left behind: {left}")
    return "removed with configuration and data left, purged without a trace"


if __name__ == "__main__":
    table.run(
        tell=lambda text: print(text, flush=True),
        autopsy=lambda: sh("journalctl", "--no-pager", "-n", os.environ.get("LAB_JOURNAL", "60"), "-o", "short-monotonic", check=False),
    )
    table.save(LAB / "table.json")
