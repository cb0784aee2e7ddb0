"""Find the servers' programs, and install them with apt-get as root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import ServicesError, say

ONLY_HERE = "ORCHESTRATOR_SERVICES_BINARIES"  # folders to search instead of the usual ones; then nothing is installed
PACKAGES = {"postgres": "postgresql", "rabbitmq": "rabbitmq-server"}
PROGRAMS = {"postgres": ("postgres", "initdb"), "rabbitmq": ("rabbitmq-server", "rabbitmqctl")}
APT = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120"]


def folder_of(server: str) -> Path | None:
    """Return the folder with the server's programs, the newest version first; None when it is not installed."""
    return next((place for place in _places(server) if all((place / name).exists() for name in PROGRAMS[server])), None)


def programs_of(server: str) -> Path:
    if (folder := folder_of(server)) is None:
        raise _missing([server])
    return folder


def _places(server: str) -> Iterator[Path]:
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


def provide(servers: list[str]) -> None:
    """Install what is absent, without system services that start, now or at boot.

    Raises:
        ServicesError: it cannot be installed from here.
    """
    absent = [server for server in servers if folder_of(server) is None]
    if not absent:
        return
    if ONLY_HERE in os.environ or os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise _missing(absent)
    packages = [PACKAGES[server] for server in absent]
    say(f"installing {' and '.join(packages)} with apt-get …")
    command = [*APT, "install", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_system_services():
        outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if outcome.returncode != 0:  # as a rule: no package lists yet, or old ones
            say("updating the package lists …")
            subprocess.run([*APT, "update"], env=environment, capture_output=True, check=False)
            outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise ServicesError(f"{' '.join(command)} failed:\n{outcome.stderr.strip() or outcome.stdout.strip()}")
    if shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", *packages], capture_output=True, check=False)


@contextmanager
def _no_system_services() -> Iterator[None]:
    """While packages are installed, let no service start and PostgreSQL's package make no cluster of its own."""
    with ExitStack() as files:
        for path, text, mode in (
            ("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755),
            ("/etc/postgresql-common/createcluster.d/orchestrator.conf", "create_main_cluster = false\n", 0o644),
        ):
            file = Path(path)
            if not file.exists():  # one that is there already stays as it is
                file.parent.mkdir(parents=True, exist_ok=True)
                files.callback(file.unlink, missing_ok=True)
                file.write_text(text)
                file.chmod(mode)
        yield


def _missing(servers: list[str]) -> ServicesError:
    titles = " and ".join({"postgres": "PostgreSQL", "rabbitmq": "RabbitMQ"}[server] for server in servers)
    packages = " ".join(PACKAGES[server] for server in servers)
    lines = [
        f"not installed: {titles}.",
        "Do one of these, then run scripts/services up again:",
        f"  sudo apt-get install --no-install-recommends {packages}     (Debian, Ubuntu; as root this script does it)",
        "  set ORCHESTRATOR_DATABASE_URL, ORCHESTRATOR_AMQP_URL and ORCHESTRATOR_MANAGEMENT_URL to servers of your own;",
        "  with Docker, CONTRIBUTING.md has the commands",
    ]
    if only := os.environ.get(ONLY_HERE):
        lines.insert(1, f"({ONLY_HERE}={only} is set: only there was searched.)")
    return ServicesError("\n".join(lines))


def check_platform() -> None:
    """Raise where private servers cannot run: processes are found in /proc."""
    if sys.platform != "linux":
        raise _missing(list(PACKAGES))
