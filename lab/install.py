"""scripts/install and scripts/uninstall below a directory that stands for the root."""

import subprocess

from host import PROJECT, Workplace, binaries, need, run
from peers import check
from table import Table


def prove(arguments):
    need(strip="binutils")
    with Workplace("install") as place:
        programs = binaries(arguments.binaries, place)
        root = place.path / "root"
        root.mkdir()
        table = table_of(programs, root)
        table.run(tell=lambda text: print(text, flush=True))
        return table


def table_of(programs, root):
    table = Table("install: scripts/install and scripts/uninstall")
    edited = root / "etc/portyard/echo-tcp.toml"

    def install(*more):
        return run("scripts/install", "--destdir", root, "--binaries", programs, *more, cwd=PROJECT)

    def uninstall(*more):
        return run("scripts/uninstall", "--destdir", root, *more, cwd=PROJECT)

    def files():
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())

    @table.proof("a dry run says what it would do, and does nothing")
    def _dry():
        said = install("--dry-run")
        check(not files() and said.count("would install") > 50, f"{files()[:3]}, {said[:200]}")
        return f"{said.count('would install')} files named"

    @table.proof("units name the prefix, programs run, pages and completions are there")
    def _install():
        install("--prefix", "/opt/yard")
        unit = (root / "etc/systemd/system/kv-rpc.service").read_text()
        check("ExecStart=/opt/yard/bin/kv-rpc" in unit and "/usr/bin/" not in unit, unit)
        said = subprocess.run([root / "opt/yard/bin/portyard", "--version"], capture_output=True, text=True).stdout
        for path in ["share/man/man8/kv-rpc.8", "share/bash-completion/completions/portyard", "share/zsh/vendor-completions/_portyard", "share/fish/vendor_completions.d/portyard.fish", "share/doc/portyard/operations.md"]:
            check((root / "opt/yard" / path).is_file(), f"no {path}")
        count = len(files())
        uninstall("--prefix", "/opt/yard")
        check(not files(), f"left behind: {files()[:5]}")
        return f"{said.strip()}: {count} files, all removed again"

    @table.proof("an edited configuration is never overwritten, a new one lies beside it")
    def _edited():
        install()
        edited.write_text("# mine\n")
        said = install()
        check(edited.read_text() == "# mine\n", "it was overwritten")
        check("echo-tcp.toml was edited" in said and (root / "etc/portyard/echo-tcp.toml.new").exists(), said)
        check(not (root / "etc/portyard/kv-rpc.toml.new").exists(), "one that was not edited has a new one, too")
        return "echo-tcp.toml stays, echo-tcp.toml.new is told"

    @table.proof("uninstall leaves what was edited, --purge does not")
    def _uninstall():
        foreign = root / "usr/local/bin/other"
        foreign.write_text("not ours")
        said = uninstall()
        check("was edited and stays" in said, said)
        check(files() == ["etc/portyard/echo-tcp.toml", "usr/local/bin/other"], f"left: {files()}")
        install()
        uninstall("--purge")
        check(files() == ["usr/local/bin/other"], f"left: {files()}")
        return "nothing else is touched"

    return table
