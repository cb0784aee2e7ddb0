"""Where the servers' programs are, and getting them with apt-get when we may."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import ServicesError, say

ONLY_HERE = "ORCHESTRATOR_SERVICES_BINARIES"  # folders to search instead of the usual ones; then nothing is installed
PACKAGES = {"postgres": "postgresql", "rabbitmq": "rabbitmq-server"}
PROGRAMS = {"postgres": ("postgres", "initdb"), "rabbitmq": ("rabbitmq-server", "rabbitmqctl")}
APT = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120"]


def folder_of(server: str) -> Path | None:
    """The folder that holds the server's programs, the newest version first; None when it is not installed."""
    return next((place for place in _places(server) if all((place / name).exists() for name in PROGRAMS[server])), None)


def programs_of(server: str) -> Path:
    if (folder := folder_of(server)) is None:
        raise missing([server])
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


def can_install() -> bool:
    return ONLY_HERE not in os.environ and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(servers: list[str]) -> None:
    """Install the servers' packages with apt-get, without their own system services starting, now or at boot."""
    packages = [PACKAGES[server] for server in servers]
    say(f"installing {' and '.join(packages)} with apt-get …")
    command = [*APT, "install", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_system_services(servers):
        outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if outcome.returncode != 0:  # as a rule: no package lists yet, or old ones
            say("updating the package lists …")
            subprocess.run([*APT, "update"], env=environment, capture_output=True, check=False)
            outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise ServicesError(f"{' '.join(command)} failed:\n{outcome.stderr.strip() or outcome.stdout.strip()}")
    if shutil.which("systemctl"):
        for package in packages:
            subprocess.run(["systemctl", "disable", package], capture_output=True, check=False)


@contextmanager
def _no_system_services(servers: list[str]) -> Iterator[None]:
    """While packages are installed: no service starts and PostgreSQL's package makes no cluster of its own."""
    with ExitStack() as files:
        files.enter_context(_temporary(Path("/usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n", 0o755))
        if "postgres" in servers:
            settings = Path("/etc/postgresql-common/createcluster.d/orchestrator.conf")
            files.enter_context(_temporary(settings, "create_main_cluster = false\n", 0o644))
        yield


@contextmanager
def _temporary(path: Path, text: str, mode: int) -> Iterator[None]:
    """A file that exists for a while. One that is there already is somebody's and stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        yield
        return
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        path.chmod(mode)
        yield
    finally:
        path.unlink(missing_ok=True)


def missing(servers: list[str]) -> ServicesError:
    packages = " ".join(PACKAGES[server] for server in servers)
    titles = " and ".join({"postgres": "PostgreSQL", "rabbitmq": "RabbitMQ"}[server] for server in servers)
    lines = [
        f"not installed: {titles}.",
        "Do one of these, then run scripts/services up again:",
        f"  sudo apt-get install --no-install-recommends {packages}     (Debian, Ubuntu; as root this script does it)",
        f"  brew install {packages.replace('rabbitmq-server', 'rabbitmq')}     (macOS)",
        "  start Docker, so that `docker info` answers",
        "  set ORCHESTRATOR_DATABASE_URL and ORCHESTRATOR_AMQP_URL to servers of your own",
    ]
    if only := os.environ.get(ONLY_HERE):
        lines.insert(1, f"({ONLY_HERE}={only} is set: only there was searched.)")
    return ServicesError("\n".join(lines))
