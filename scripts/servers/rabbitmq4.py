"""A private RabbitMQ 4 on a Debian or Ubuntu whose own packages are older: a small Debian 13 in a folder, run by chroot.

Only for root. It answers the question whether the engine works with RabbitMQ 4 without Docker and without changing
the system.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli import CHECKOUT
from .errors import ServicesError, say
from .folder import Folder
from .processes import Account, start
from .rabbitmq import Rabbitmq

ROOT = Path("/var/tmp/orchestrator-rabbitmq-4")  # shared by all checkouts; each has its node's folder below srv/


class Rabbitmq4(Rabbitmq):
    """The same node, with its programs inside of ROOT. Paths are the same inside: see `build`."""

    more_settings = "vm_memory_calculation_strategy = allocated\n"  # the other ones look into /proc

    @property
    def programs(self) -> Path:
        return Path("/usr/lib/rabbitmq/bin")

    def _epmd_program(self) -> Path:
        return Path("/usr/bin/epmd")

    def _spawn(self, command: list[str | Path], name: str | None = None) -> subprocess.Popen[bytes]:
        named = ["bash", "-c", 'exec -a "$0" "$@"', name or command[0]]
        return start(
            [*self._inside(), *named, *command],
            account=Account.me(),  # chroot(1) needs root and drops its rights itself
            folder=ROOT,
            environment=self._environment(),
            log=self.folder.log(self.name),
        )

    def control(self, arguments: list[str]) -> int:
        command = [*self._inside(), self.programs / "rabbitmqctl", *arguments]
        return subprocess.run(command, env=self._environment(), check=False).returncode

    def _inside(self) -> list[str | Path]:
        account = self._account()
        return [shutil.which("chroot") or "/usr/sbin/chroot", f"--userspec={account.uid}:{account.gid}", ROOT]


def build() -> None:
    """Make ROOT, once; about a minute."""
    complete = ROOT / "complete"
    if complete.exists() and ROOT.lstat().st_uid == 0:
        return
    if shutil.which("debootstrap") is None:
        raise ServicesError("needs debootstrap: apt-get install debootstrap")
    if ROOT.is_symlink() or ROOT.exists():
        if ROOT.lstat().st_uid != 0:
            raise ServicesError(f"{ROOT} is in the way and does not belong to root")
        shutil.rmtree(ROOT)
    say(f"rabbitmq 4: making a Debian 13 in {ROOT} …")
    _run(["debootstrap", "--variant=minbase", "trixie", str(ROOT)])
    policy = ROOT / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # nothing that is installed there starts by itself
    policy.chmod(0o755)
    say("rabbitmq 4: installing rabbitmq-server there …")
    _run(["chroot", str(ROOT), "apt-get", "install", "-y", "-q", "--no-install-recommends", "rabbitmq-server"])
    # Seen from inside, ROOT is / : so a path below ROOT means the same file inside and outside.
    inside = ROOT / ROOT.relative_to("/")
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.symlink_to("/")
    complete.touch()


def _run(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise ServicesError(f"{' '.join(command)} failed:\n{(outcome.stdout + outcome.stderr).strip()[-2000:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/rabbitmq-4",
        description='A private RabbitMQ 4 for trying the engine against: eval "$(scripts/rabbitmq-4 up)"; scripts/test',
    )
    parser.add_argument("verb", choices=["up", "down", "ctl"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="ctl: for rabbitmqctl")
    options = parser.parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for eval
            variables = _act(options.verb, options.arguments)
    except (ServicesError, OSError) as error:
        print(f"scripts/rabbitmq-4: {error}", file=sys.stderr)
        return 1
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _act(verb: str, arguments: list[str]) -> dict[str, str]:
    if os.geteuid() != 0:
        raise ServicesError("only root can run it; with Docker: docker run rabbitmq:4-management")
    if verb == "up":
        build()
    elif not (ROOT / "complete").exists():
        raise ServicesError("there is none yet: scripts/rabbitmq-4 up")
    folder = Folder(ROOT / "srv" / Folder(CHECKOUT).marker)
    with folder.locked():
        if "rabbitmq" not in folder.records:
            folder.remember("rabbitmq", folder.new_record("rabbitmq", "processes", Rabbitmq4.ports))
        server = Rabbitmq4(folder, folder.records["rabbitmq"])
        if verb == "down":
            server.stop()
            say("rabbitmq 4: stopped")
            return {}
        if verb == "ctl":
            server.control(arguments[1:] if arguments[:1] == ["--"] else arguments)
            return {}
        say(f"rabbitmq 4: {server.start()}")
        return server.environment()
