"""The stack in a docker engine of its own: built, started, spoken to from outside, killed, replaced, ended."""

import http.client
import json
import multiprocessing.connection
import os
import pathlib
import shutil
import subprocess
import urllib.request
import xmlrpc.client

from host import PROJECT, Unable, Workplace, need, need_root, run, say
from load import Load, fresh_echo, fresh_http, kept_http
from peers import check, is_now, tcp, udp
from table import Failed, Table, wait_for

IMAGE = "portyard-lab"
# 25 MB is what the image may be.
IMAGE_MAX = 25_000_000
SERVICES = ["echo-tcp", "time-udp", "kv-rpc", "fd-broker", "worker-1", "worker-2", "rest-api"]


def prove(arguments):
    need_root()
    need(dockerd="docker.io", docker_compose="docker-compose", iptables="iptables")
    with Workplace("compose") as place:
        engine = Engine(place)
        image = ["scripts/image", "--tag", IMAGE] + (["--binary", arguments.image_binary] if arguments.image_binary else [])
        say("building the image")
        run(*image, cwd=PROJECT, env=engine.environment)
        # What the compose files name beside them, and nothing else of the project.
        stack = place.path / "stack"
        stack.mkdir()
        for name in ["compose.yaml", "compose.rolling.yaml"]:
            shutil.copy(PROJECT / name, stack)
        shutil.copytree(PROJECT / "configs", stack / "configs")
        # As the daemon in the container, which is another user, must be able to read them.
        for path in [place.path, stack, *stack.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        table = table_of(engine, stack)
        table.run(tell=lambda text: print(text, flush=True), autopsy=lambda: engine.compose(stack, "compose.yaml", "logs", "--no-color", "--tail", "15", check=False))
        return table


class Engine:
    """A docker engine that nobody else uses, with its data in the lab's workplace."""

    def __init__(self, place):
        data = place.path / "docker"
        data.mkdir()
        path = data / "docker.sock"
        self.networks = data / "exec" / "netns"
        self.environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{path}",
            # Debian's client speaks the engine's own version; another may be first in the path.
            "DOCKER": "/usr/bin/docker",
            "PATH": f"/usr/bin:{os.environ['PATH']}",
            "PORTYARD_IMAGE": IMAGE,
            "COMPOSE_PROJECT_NAME": "portyardlab",
        }
        log = open(data / "log", "w")
        command = ["dockerd", "-H", f"unix://{path}", "--data-root", data / "root", "--exec-root", data / "exec", "--pidfile", data / "pid"]
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        place.later(self.stop)
        try:
            wait_for("a docker engine", lambda: self.docker("version", check=False).returncode == 0 or self.process.poll() is not None, 60)
        except Failed as error:
            raise Unable(str(error)) from error
        if self.process.poll() is not None:
            raise Unable(f"dockerd does not run here:\n{(data / 'log').read_text()[-2000:]}")

    def docker(self, *words, check=True):
        done = subprocess.run(["/usr/bin/docker", *words], env=self.environment, capture_output=True, text=True, timeout=300)
        if check and done.returncode != 0:
            raise Failed(f"docker {' '.join(words)}: {done.stderr[-600:]}")
        return done

    def compose(self, stack, file, *words, check=True):
        done = subprocess.run(["docker-compose", "-f", file, *words], cwd=stack, env=self.environment, capture_output=True, text=True, timeout=600)
        if check and done.returncode != 0:
            raise Failed(f"docker-compose {' '.join(words)}: {(done.stdout + done.stderr)[-900:]}")
        return done.stdout

    def stop(self):
        containers = self.docker("ps", "-aq", check=False).stdout.split()
        if containers:
            self.docker("rm", "-fv", *containers, check=False)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # The engine leaves the mounts of its networks.
        for path in self.networks.glob("*"):
            subprocess.run(["umount", path], check=False)


def store():
    return xmlrpc.client.ServerProxy("http://127.0.0.1:15000", allow_none=True)


def is_reached(port):
    try:
        return store().system.listMethods() if port == 15000 else tcp(port, b"x", 1)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return None


def table_of(engine, stack):
    table = Table("compose: the stack in a docker engine")

    def up(*words, file="compose.yaml"):
        return engine.compose(stack, file, "up", "-d", "--no-build", *words)

    def identity(service, file="compose.yaml"):
        return engine.compose(stack, file, "ps", "-q", service).strip()

    def health(service, file="compose.yaml"):
        said = engine.docker("inspect", "-f", "{{.State.Health.Status}}", identity(service, file), check=False)
        return said.stdout.strip()

    @table.proof("image: static, from scratch, not root")
    def _image():
        said = json.loads(engine.docker("image", "inspect", IMAGE).stdout)[0]
        check(said["Size"] <= IMAGE_MAX, f"{said['Size']} bytes, more than {IMAGE_MAX}")
        check(said["Config"]["User"] == "65532:65532", f"user {said['Config']['User']}")
        names = []
        for program in ["echo-tcp", "time-udp", "kv-rpc", "rest-api", "fd-broker", "portyard"]:
            names.append(engine.docker("run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", IMAGE, program, "--version").stdout.split()[0])
        return f"{said['Size'] / 1e6:.1f} MB, {len(said['RootFS']['Layers'])} layers, {len(names)} programs"

    @table.proof("docker-compose up, and every health check is green")
    def _up():
        up()
        for service in SERVICES:
            wait_for(f"{service} healthy", lambda: health(service) == "healthy", 90)
        version = subprocess.run(["docker-compose", "version", "--short"], capture_output=True, text=True).stdout.strip()
        return f"docker-compose {version}, engine {engine.docker('version', '-f', '{{.Server.Version}}').stdout.strip()}: {len(SERVICES)} of {len(SERVICES)} healthy"

    @table.proof("containers: read-only root, no capability, no new privileges")
    def _hardened():
        for service in SERVICES:
            said = json.loads(engine.docker("inspect", identity(service)).stdout)[0]
            config = said["HostConfig"]
            check(config["ReadonlyRootfs"] and config["CapDrop"] == ["ALL"] and "no-new-privileges:true" in config["SecurityOpt"], f"{service}: {config['ReadonlyRootfs']} {config['CapDrop']} {config['SecurityOpt']}")
            status = pathlib.Path(f"/proc/{said['State']['Pid']}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            check(fields["CapEff"].strip("0") == "" and fields["CapBnd"].strip("0") == "", f"{service} has capabilities {fields['CapEff']}")
            check(fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2", f"{service}: NoNewPrivs {fields['NoNewPrivs']}, Seccomp {fields['Seccomp']}")
            check(fields["Uid"].split()[0] == "65532", f"{service} is user {fields['Uid']}")
        return "as the kernel tells of each process: CapEff 0, CapBnd 0, NoNewPrivs, Seccomp"

    @table.proof("echo-tcp and time-udp, from outside")
    def _small():
        check(tcp(7007, b"hello", 5) == b"hello", "echo")
        check(is_now(tcp(7037, b"", 4)), "time over TCP")
        check(udp(3707, b"hello") == b"hello", "echo over UDP")
        check(len(udp(3723, b"\x23" + bytes(47))) == 48, "sntp")
        with multiprocessing.connection.Client(("127.0.0.1", 7020)) as client:
            client.send_bytes(b"unmodified")
            check(client.recv_bytes() == b"unmodified", "message")
        return "sockets, SNTP, multiprocessing.connection"

    @table.proof("kv-rpc, from the host, with portyard")
    def _store():
        store().set("spam", "eggs")
        client = run_client("kv", "tcp://127.0.0.1:15000", "set", "from", "the host")
        check(store().get("from") == "the host", client)
        return "xmlrpc.client, portyard kv set"

    def run_client(*words):
        """The image's own client, in the host's network."""
        return engine.docker("run", "--rm", "--network=host", IMAGE, "portyard", *words).stdout

    @table.proof("rest-api in front: routes, httpbin, the yard's page")
    def _front():
        with urllib.request.urlopen("http://127.0.0.1:18080/keys/spam", timeout=10) as answer:
            check(b"eggs" in answer.read(), "the kv route")
        with urllib.request.urlopen("http://127.0.0.1:18081/get?a=1", timeout=10) as answer:
            check(json.load(answer)["args"] == {"a": "1"}, "httpbin")

        def ready():
            with urllib.request.urlopen("http://127.0.0.1:18082/api/v1/yard", timeout=10) as answer:
                daemons = json.load(answer)["daemons"]
            return len(daemons) == 5 and all(daemon["state"] == "ready" for daemon in daemons)

        wait_for("the yard to see five daemons", ready)
        return "a key over HTTP, /get, five daemons ready"

    @table.proof("fd-broker hands connections to two other containers")
    def _broker():
        with Load() as load:
            load.add("connections", fresh_echo(("127.0.0.1", 17500)), 4)
            wait_for("answers", lambda: load.answers["connections"] > 200)
        said = load.verdict()
        workers = engine.compose(stack, "compose.yaml", "exec", "-T", "fd-broker", "portyard", "broker", "--socket", "/run/fd-broker/control.sock", "--json", "workers")
        taken = [int(worker["taken"]) for pool in json.loads(workers) for worker in pool["workers"]]
        check(len(taken) >= 2 and min(taken) > 0, f"taken by each: {taken}")
        return f"{said}; taken by each loop of both: {taken}"

    @table.proof("kv-rpc killed in a loop of writes")
    def _killed():
        acknowledged = {}
        for turn in range(5):
            for number in range(200):
                try:
                    store().set(f"k{turn}-{number}", number)
                    acknowledged[f"k{turn}-{number}"] = number
                except (OSError, http.client.HTTPException):
                    break
                if number == 60 + 20 * turn:
                    # Behind what is under way, for once; the engine starts no other where a user has killed one.
                    subprocess.Popen(["/usr/bin/docker", "kill", "-s", "KILL", identity("kv-rpc")], env=engine.environment, stdout=subprocess.DEVNULL)
            wait_for("its end", lambda: engine.docker("inspect", "-f", "{{.State.Running}}", identity("kv-rpc")).stdout.strip() == "false" or is_reached(15000))
            up("kv-rpc")
            wait_for("kv-rpc", lambda: is_reached(15000), 60)
        lost = [key for key, value in acknowledged.items() if store().get(key) != value]
        check(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are lost: {lost[:5]}")
        return f"5 times kill -9, {len(acknowledged)} writes acknowledged, 0 lost"

    @table.proof("down, and up again with the named volume")
    def _down():
        engine.compose(stack, "compose.yaml", "down")
        up()
        wait_for("kv-rpc", lambda: is_reached(15000), 60)
        check(store().get("spam") == "eggs", "the data is gone")
        engine.compose(stack, "compose.yaml", "down", "-v")
        left = engine.docker("ps", "-aq").stdout.split() + engine.docker("volume", "ls", "-q").stdout.split()
        check(not left, f"left behind: {left}")
        return "data is there; 'down -v' leaves nothing"

    @table.proof("a rolling restart behind fd-broker, under load")
    def _rolling():
        file = "compose.rolling.yaml"
        up(file=file)
        for service in ["front", "web-a", "web-b"]:
            wait_for(f"{service} healthy", lambda: health(service, file) == "healthy", 90)
        path = "/who?name=lab"
        rounds = 3
        with Load() as load:
            load.add("requests", fresh_http("127.0.0.1", 18090, path), 4)
            load.add("requests kept alive", kept_http("127.0.0.1", 18090, path), 4)
            for _ in range(rounds):
                for service in ["web-a", "web-b"]:
                    before = identity(service, file)
                    up("--force-recreate", "--no-deps", service, file=file)
                    check(identity(service, file) != before, f"{service} is the same container")
                    wait_for(f"{service} healthy", lambda: health(service, file) == "healthy", 60)
        said = load.verdict()
        engine.compose(stack, file, "down", "-v")
        return f"{rounds * 2} containers replaced, {said}"

    return table
