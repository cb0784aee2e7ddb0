"""A private RabbitMQ node from installed programs: own user, cookie, node name, ports and epmd."""

from __future__ import annotations

import base64
import http.client
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .errors import ServicesError, say
from .folder import Folder, Record, write_private
from .packages import programs_of
from .processes import Account, Process, end, find, last_lines, send, start, wait_until
from .server import Server, amqp_answers

START_SECONDS = 180
STOP_SECONDS = 60
LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"


class Rabbitmq(Server):
    name = "rabbitmq"
    ports = ("amqp", "management", "distribution", "epmd")
    more_settings = ""

    def __init__(self, folder: Folder, record: Record) -> None:
        self.folder = folder
        self.record = record
        self.place = Path(record.data)

    @property
    def programs(self) -> Path:
        return programs_of(self.name)

    def status(self) -> str | None:
        pid = self.pid()
        if pid is None or not amqp_answers(self.record.ports["amqp"]):
            return None
        return f"pid {pid}, port {self.record.ports['amqp']}, management UI on {self._management_url()}"

    def environment(self) -> dict[str, str]:
        login = f"orchestrator:{self.record.password}@127.0.0.1:{self.record.ports['amqp']}"
        return {"ORCHESTRATOR_AMQP_URL": f"amqp://{login}/", "ORCHESTRATOR_MANAGEMENT_URL": self._management_url()}

    def _management_url(self) -> str:
        return f"http://127.0.0.1:{self.record.ports['management']}"

    def pid(self) -> int | None:
        return min((process.pid for process in self._node()), default=None)

    def _node(self) -> list[Process]:
        return find(re.compile(rf"^\S*/beam\S* .*{self.folder.marker}\b"))

    def _all(self, marker: str) -> list[Process]:
        return find(re.compile(rf"^(\S*/beam\S* .*{marker}|epmd-{marker})\b"))

    def start(self) -> str:
        began = time.monotonic()
        self._stop_left_behind()
        if self.pid() is None:
            self.kill()  # an epmd of its own may be left
            self.folder.wait_for_ports(self.name)
            self._configure()
            self._launch()
            say("rabbitmq: booting (about 10 s) …")
        elif self.ready():
            return f"runs already, {self.status()}"
        if not wait_until(lambda: self.pid() is None or self.ready(), START_SECONDS) or self.pid() is None:
            raise ServicesError(f"rabbitmq did not start; its log ends with\n{last_lines(self.folder.log(self.name))}")
        return f"started in {time.monotonic() - began:.1f} s, {self.status()}"

    def ready(self) -> bool:
        """It speaks AMQP, and its management plugin knows our user."""
        if not amqp_answers(self.record.ports["amqp"]):
            return False
        login = base64.b64encode(f"orchestrator:{self.record.password}".encode()).decode()
        api = http.client.HTTPConnection("127.0.0.1", self.record.ports["management"], timeout=5)
        try:
            api.request("GET", "/api/whoami", headers={"Authorization": f"Basic {login}"})
            status = api.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            api.close()
        if status == http.HTTPStatus.UNAUTHORIZED:
            raise ServicesError("rabbitmq does not know our password: scripts/services wipe rabbitmq")
        return status == http.HTTPStatus.OK

    def _configure(self) -> None:
        ports = self.record.ports
        files = {
            "rabbitmq.conf": f"""\
listeners.tcp.local = 127.0.0.1:{ports["amqp"]}
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports["management"]}
default_user = orchestrator
default_pass = {self.record.password}
default_user_tags.administrator = true
disk_free_limit.absolute = 50MB
collect_statistics_interval = 1000
log.console = true
log.console.level = info
log.file = false
{self.more_settings}""",
            "enabled_plugins": "[rabbitmq_management].\n",
        }
        cookie = self.place / ".erlang.cookie"
        if not cookie.exists():
            files[cookie.name] = secrets.token_hex(20)
        account = self._account()
        for name, text in files.items():
            write_private(self.place / name, text)
            account.own(self.place / name)

    def _launch(self) -> None:
        # Started by us, an epmd has our marker; one that Erlang starts by itself would look like any other.
        epmd: list[str | Path] = [
            self._epmd_program(),
            "-address",
            "127.0.0.1",
            "-port",
            str(self.record.ports["epmd"]),
        ]
        self._spawn(epmd, name=f"epmd-{self.folder.marker}")
        node = self._spawn([self.programs / "rabbitmq-server", "-services", self.folder.marker])
        wait_until(lambda: self.pid() is not None or node.poll() is not None, 10)

    def _spawn(self, command: list[str | Path], name: str | None = None) -> subprocess.Popen[bytes]:
        return start(
            command,
            name=name,
            account=self._account(),
            folder=self.place,
            environment=self._environment(),
            log=self.folder.log(self.name),
        )

    def _epmd_program(self) -> Path:
        found = shutil.which("epmd", path=self._environment()["PATH"])
        if found is None:
            raise ServicesError("epmd, a part of Erlang, is not on PATH")
        return Path(found)

    def _environment(self) -> dict[str, str]:
        """Nothing of the caller's environment but PATH: a stray RABBITMQ_… must not lead us to another node."""
        return {
            "HOME": str(self.place),  # where the cookie is
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/erlang/bin",
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.record.ports["epmd"]),
            "RABBITMQ_NODENAME": "orchestrator@localhost",
            "RABBITMQ_DIST_PORT": str(self.record.ports["distribution"]),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.place / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.place / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.place / "data"),
            "RABBITMQ_LOG_BASE": str(self.place / "log"),
            "RABBITMQ_PID_FILE": str(self.place / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": LOOPBACK_ONLY,
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK_ONLY,
        }

    def _account(self) -> Account:
        return Account.of(self.place.stat().st_uid)

    def _stop_left_behind(self) -> None:
        if marker := self.folder.left_behind:
            end(lambda: self._all(marker))

    def stop(self, *, at_once: bool = False) -> None:
        if not at_once:
            send(self._node(), signal.SIGTERM)
            wait_until(lambda: not self._node(), STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        # The shell script around the node and the node's helpers end by themselves when it is gone.
        end(lambda: self._all(self.folder.marker))

    def wipe(self) -> None:
        self.stop(at_once=True)
        shutil.rmtree(self.place / "data", ignore_errors=True)

    def control(self, arguments: list[str]) -> int:
        return subprocess.run(
            [self.programs / "rabbitmqctl", *arguments],
            cwd=self.place,
            env=self._environment(),
            check=False,
            **self._account().switch(),
        ).returncode
