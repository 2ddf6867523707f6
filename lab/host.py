"""What the labs need of the machine they run on: tools, binaries, a Debian, and an end that cleans up."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")).resolve()
PROGRAMS = ["echo-tcp", "time-udp", "kv-rpc", "rest-api", "fd-broker", "portyard"]
SUITE = "bookworm"
# What the daemons' units and the proofs need in a Debian.
PACKAGES = ["systemd", "systemd-sysv", "dbus", "python3", "procps", "iproute2", "libgcc-s1"]


class Unable(Exception):
    """This machine cannot run the lab; the message says what to do."""


def say(text):
    print(f"lab: {text}", flush=True)


def run(*command, **options):
    """Runs a command that must succeed; its output is shown when it does not."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 1800, **options}
    done = subprocess.run([str(word) for word in command], **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(word) for word in command)}: exit code {done.returncode}\n{(done.stdout or '')[-3000:]}")
    return done.stdout or ""


def need_root():
    if os.geteuid() != 0:
        raise Unable("this lab mounts and boots things: run it as root, for example with sudo")


def need(**tools):
    """Finds each tool, or installs its Debian package; what a package would start stays off."""
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = sorted({package for tool, package in tools.items() if not shutil.which(tool.replace("_", "-"))})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Unable(f"install these: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "-q", "install", "-y", "--no-install-recommends", "--no-remove", *missing]
        try:
            run(*install, env=environment)
        except RuntimeError:
            subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
            run(*install, env=environment)
    except RuntimeError as error:
        raise Unable(f"cannot install {' '.join(missing)}: {error}") from error
    finally:
        if ours:
            policy.unlink()
    for tool, package in tools.items():
        if not shutil.which(tool.replace("_", "-")):
            raise Unable(f"{package} is installed, but there is no {tool.replace('_', '-')}")


def binaries(given, place):
    """A directory with the programs: copies, without symbols, of those in the given one, or of a release build."""
    if given is None:
        say("building the programs (cargo build --release)")
        run("cargo", "build", "--release", "--locked", "--workspace", "--bins", cwd=PROJECT, stdout=None, stderr=None)
        given = TARGET / "release"
    given = pathlib.Path(given).resolve()
    copies = place.path / "bin"
    copies.mkdir()
    for program in [*PROGRAMS, "portyard-manuals"]:
        if not os.access(given / program, os.X_OK):
            raise Unable(f"{given / program} is missing; build it, or leave --binaries out")
        run("strip", "-s", "-o", copies / program, given / program)
    return copies


def mirror():
    """Where this machine's own packages come from."""
    for pattern in ["/etc/apt/sources.list.d/*.sources", "/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list"]:
        for path in sorted(pathlib.Path("/").glob(pattern.lstrip("/"))):
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) > 1 and (words[0] == "URIs:" or words[0] == "deb"):
                    place = next((word for word in words[1:] if word.endswith("/debian") or word.endswith("/debian/")), None)
                    if place:
                        return place
    return "http://deb.debian.org/debian"


def debian():
    """A Debian tree, made once and kept in target/lab. Nobody changes it: copy it."""
    kept = TARGET / "lab" / f"debian-{SUITE}"
    stamp = kept.with_suffix(".packages")
    if stamp.exists() and stamp.read_text().split() == PACKAGES:
        return kept
    need(debootstrap="debootstrap")
    say(f"making a Debian ({SUITE}) with debootstrap, once")
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, kept, mirror())
    run("chroot", kept, "apt-get", "clean")
    stamp.write_text(" ".join(PACKAGES))
    return kept


class Workplace:
    """A directory that goes away with everything that was started in it, last first."""

    def __init__(self, name):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"portyard-lab-{name}-"))
        self.undo = []

    def __enter__(self):
        return self

    def later(self, function, *arguments):
        self.undo.append((function, arguments))

    def __exit__(self, kind, value, trace):
        for function, arguments in reversed(self.undo):
            try:
                function(*arguments)
            except Exception as error:
                print(f"lab: cleaning up: {error}", file=sys.stderr)
        shutil.rmtree(self.path, ignore_errors=True)
