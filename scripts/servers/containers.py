"""The same two servers as Docker containers, where their programs are not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass

from .errors import ServicesError, say
from .folder import Folder, Record
from .postgres import Postgres
from .processes import wait_until
from .rabbitmq import Rabbitmq
from .server import Server

START_SECONDS = 180


@dataclass(frozen=True)
class Image:
    name: str
    inner_ports: dict[str, int]
    variables: tuple[str, ...]
    password_variable: str


IMAGES = {
    "postgres": Image(
        "postgres:17",
        {"postgres": 5432},
        ("POSTGRES_USER=orchestrator", "POSTGRES_DB=orchestrator"),
        "POSTGRES_PASSWORD",
    ),
    "rabbitmq": Image(
        "rabbitmq:4-management",
        {"amqp": 5672, "management": 15672},
        ("RABBITMQ_DEFAULT_USER=orchestrator", "RABBITMQ_NODENAME=orchestrator@localhost"),
        "RABBITMQ_DEFAULT_PASS",
    ),
}


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class Container(Server):
    def __init__(self, folder: Folder, record: Record, name: str) -> None:
        self.folder = folder
        self.record = record
        self.name = name
        self.image = IMAGES[name]
        self.container = f"{folder.marker}-{name}"
        # Ports, user and password are those of a private server; only what runs behind them differs.
        self._like: Server = (Postgres if name == "postgres" else Rabbitmq)(folder, record)

    def environment(self) -> dict[str, str]:
        return self._like.environment()

    def pid(self) -> int | None:
        outcome = self._docker("inspect", "--format", "{{.State.Pid}}", self.container, check=False)
        return int(outcome.stdout) or None if outcome.returncode == 0 else None

    def ready(self) -> bool:
        return self._like.ready()

    def status(self) -> str | None:
        if self.pid() is None or not self.ready():
            return None
        return f"container {self.container}, port {next(iter(self.record.ports.values()))}"

    def start(self) -> str:
        began = time.monotonic()
        if self.pid() is not None and (where := self.status()) is not None:
            return f"runs already, {where}"
        if self._docker("inspect", self.container, check=False).returncode == 0:
            self._docker("start", self.container)
        else:
            say(f"{self.name}: starting a container of {self.image.name} …")
            ports = [f"--publish=127.0.0.1:{self.record.ports[name]}:{port}" for name, port in self._ports()]
            variables = [f"--env={variable}" for variable in (*self.image.variables, self.image.password_variable)]
            self._docker("run", "--detach", f"--name={self.container}", *ports, *variables, self.image.name)
        if not wait_until(lambda: self.pid() is None or self.ready(), START_SECONDS) or self.pid() is None:
            log = self._docker("logs", "--tail=15", self.container, check=False)
            raise ServicesError(f"{self.name} did not start; its log ends with\n{log.stdout}{log.stderr}")
        return f"started in {time.monotonic() - began:.1f} s, {self.status()}"

    def _ports(self) -> list[tuple[str, int]]:
        return list(self.image.inner_ports.items())

    def stop(self, *, at_once: bool = False) -> None:
        self._docker("kill" if at_once else "stop", self.container, check=False)

    def kill(self) -> None:
        self._docker("kill", self.container, check=False)

    def wipe(self) -> None:
        self._docker("rm", "--force", "--volumes", self.container, check=False)

    def control(self, arguments: list[str]) -> int:
        return subprocess.run(["docker", "exec", self.container, "rabbitmqctl", *arguments], check=False).returncode

    def _docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # `--env=NAME` takes the value from our environment, which keeps the password out of the process list
        environment = {**os.environ, self.image.password_variable: self.record.password}
        outcome = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True, check=False)
        if check and outcome.returncode != 0:
            raise ServicesError(f"docker {arguments[0]} {self.container} failed:\n{outcome.stderr.strip()}")
        return outcome
