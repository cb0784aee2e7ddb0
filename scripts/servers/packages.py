"""Find the servers' programs, and install them with apt-get as root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import ServicesError, say

ONLY_HERE = "ORCHESTRATOR_SERVICES_BINARIES"  # folders to search instead of the usual ones; then nothing is installed
PACKAGES = {"postgres": "postgresql", "rabbitmq": "rabbitmq-server"}
FOR_TESTS = ("nginx", "pgbouncer", "chromium")
"""Programs, and their packages, that tests need besides: proxies before the API and the database, and what shows the pages."""
PROGRAMS = {"postgres": ("postgres", "initdb", "pg_isready"), "rabbitmq": ("rabbitmq-server", "rabbitmqctl")}
POLICY = Path("/usr/sbin/policy-rc.d")  # asked by Debian's packages whether a service may start


def programs_of(server: str) -> Path:
    """Return the folder with the server's programs, the newest version first."""
    for place in _places(server):
        if all((place / name).exists() for name in PROGRAMS[server]):
            return place
    raise ServicesError(
        f"{server} is not installed.\n"
        "Do one of these, then run scripts/services up again:\n"
        f"  sudo apt-get install --no-install-recommends {' '.join(PACKAGES.values())}     (Debian, Ubuntu; as root this "
        "script does it)\n"
        "  set ORCHESTRATOR_DATABASE_URL, ORCHESTRATOR_AMQP_URL and ORCHESTRATOR_MANAGEMENT_URL to servers of your own;\n"
        "  with Docker, CONTRIBUTING.md has the commands"
    )


def _places(server: str) -> Iterator[Path]:
    if sys.platform != "linux":
        return  # private servers are found in /proc
    if only := os.environ.get(ONLY_HERE):
        yield from map(Path, only.split(os.pathsep))
        return
    if server == "postgres":
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        yield from sorted(versions, key=lambda place: [int(n) for n in re.findall(r"\d+", str(place))], reverse=True)
    else:
        yield Path("/usr/lib/rabbitmq/bin")  # Debian's wrapper on PATH insists on root and on the system's own server
    if found := shutil.which(PROGRAMS[server][0]):
        yield Path(found).resolve().parent


def provide(servers: Sequence[str]) -> None:
    """Install the servers that are absent, without system services that start, now or at boot.

    Raises:
        ServicesError: a server cannot be installed from here.
    """
    try:
        for server in servers:
            programs_of(server)
    except ServicesError:
        if not _can_install():
            raise
        _install([PACKAGES[server] for server in servers])


def provide_for_tests() -> None:
    """Install what tests need besides the servers; where that cannot be done, that is said and nothing else."""
    absent = [name for name in FOR_TESTS if not (shutil.which(name) or Path("/usr/sbin", name).exists())]
    if not absent:
        return
    try:
        if not _can_install():
            raise ServicesError(f"sudo apt-get install --no-install-recommends {' '.join(absent)}")
        _install(absent)
    except ServicesError as error:
        say(f"{' and '.join(absent)} are not there for the tests that need them: {error}")


def _can_install() -> bool:
    return ONLY_HERE not in os.environ and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install(packages: list[str]) -> None:
    say(f"installing {' and '.join(packages)} with apt-get …")
    forbids = not POLICY.exists()  # one that is there already stays as it is
    if forbids:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        _apt("update")  # where it fails, the lists may do all the same
        outcome = _apt("install", "--no-install-recommends", *packages)
    finally:
        if forbids:
            POLICY.unlink()
    if outcome.returncode != 0:
        raise ServicesError(f"{' '.join(outcome.args)} failed:\n{outcome.stderr.strip() or outcome.stdout.strip()}")
    if shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", *packages], capture_output=True, check=False)


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
