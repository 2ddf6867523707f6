"""The package in a Debian that is booted for it, with its own systemd, in a container without network."""

import shutil
import subprocess

from host import PROJECT, Unable, Workplace, binaries, debian, need, need_root, run, say
from table import Table

# Whose units the exposure scores are compared with.
RIVALS = {"redis-server": "redis-server", "nginx-common": "nginx", "haproxy": "haproxy", "chrony": "chrony"}
PATIENCE = 1200
# A machine has these calls; nspawn keeps them from its containers before systemd 255.
LANDLOCK = "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"


def prove(arguments):
    need_root()
    need(systemd_nspawn="systemd-container", dpkg_deb="dpkg", objdump="binutils")
    with Workplace("systemd") as place:
        programs = binaries(arguments.binaries, place)
        root = place.path / "root"
        run("cp", "-a", debian(), root)
        lab = root / "lab"
        lab.mkdir()
        say("packing the programs, as an old version and a new one")
        for version in ["old", "new"]:
            revision = {"old": "~before", "new": ""}[version]
            run(PROJECT / "scripts/package", "--fast", "--revision", revision, "--binaries", programs, "--out", lab / version, "deb")
        for script in ["systemd_guest.py", "load.py", "peers.py", "table.py"]:
            shutil.copy(PROJECT / "lab" / script, lab)
        rivals(place.path / "rivals", lab / "rivals")
        unit = root / "etc/systemd/system/lab.service"
        unit.write_text(
            "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\n"
            f"Environment=LAB_RESTARTS={arguments.restarts} LAB_JOURNAL={arguments.journal}\n"
            "ExecStart=/usr/bin/python3 /lab/systemd_guest.py\nExecStopPost=/bin/systemctl poweroff --no-block\n"
            "StandardOutput=append:/lab/said\nStandardError=append:/lab/said\n"
        )
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "lab.service").symlink_to("/etc/systemd/system/lab.service")
        say("booting")
        console = place.path / "console"
        with open(console, "w") as output:
            try:
                subprocess.run(
                    ["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--private-network", "-b", "--console=pipe", LANDLOCK],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE, check=False,
                )
            except subprocess.TimeoutExpired:
                say(f"not done within {PATIENCE} s")
        said = lab / "said"
        if said.exists():
            print(said.read_text(), flush=True)
        saved = lab / "table.json"
        if not saved.exists():
            raise Unable(f"the Debian did not boot, or its proofs did not end; its console said:\n{console.read_text()[-3000:]}")
        return Table.load(saved)


def rivals(downloads, into):
    """Unpacks the units that Debian ships for others."""
    downloads.mkdir()
    downloads.chmod(0o777)
    into.mkdir()
    for package, unit in RIVALS.items():
        try:
            run("apt-get", "-q", "download", package, cwd=downloads)
            archive = next(downloads.glob(f"{package}_*.deb"))
            run("dpkg-deb", "-x", archive, downloads / package)
            shutil.copy(next((downloads / package).glob(f"**/{unit}.service")), into / f"{unit}.service")
        except (RuntimeError, StopIteration) as error:
            say(f"no unit of {package} to compare with: {error}")
