"""A private RabbitMQ node from installed programs: own user, cookie, node name, ports and epmd."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from .errors import ServicesError, say
from .folder import write_private
from .ports import listens
from .processes import own, start, switch
from .server import Private

LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"


class Rabbitmq(Private):
    name = "rabbitmq"
    ports = ("amqp", "management", "distribution", "epmd")
    ending = (signal.SIGTERM, signal.SIGKILL)

    def environment(self) -> dict[str, str]:
        login = f"orchestrator:{self.record.password}@127.0.0.1:{self.record.ports['amqp']}"
        return {"ORCHESTRATOR_AMQP_URL": f"amqp://{login}/", "ORCHESTRATOR_MANAGEMENT_URL": self._management_url()}

    def _management_url(self) -> str:
        return f"http://127.0.0.1:{self.record.ports['management']}"

    def describe(self) -> str:
        return f"port {self.record.ports['amqp']}, management UI on {self._management_url()}"

    def answers(self) -> bool:
        """Return whether it listens for AMQP, the last thing it does when it boots, and its management API knows our user."""
        if not listens(self.record.ports["amqp"]):
            return False
        login = base64.b64encode(f"orchestrator:{self.record.password}".encode()).decode()
        api = http.client.HTTPConnection("127.0.0.1", self.record.ports["management"], timeout=5)
        try:
            api.request("GET", "/api/whoami", headers={"Authorization": f"Basic {login}"})
            return api.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            api.close()

    def main_process(self) -> str:
        return rf"^\S*/beam\S* .*{self.folder.marker}\b"

    # The shell script around the node and the node's helpers end by themselves when it is gone.
    def every_process(self) -> str:
        return rf"^(\S*/beam\S* .*{self.folder.marker}|epmd-{self.folder.marker})\b"

    def launch(self) -> subprocess.Popen[bytes]:
        self._configure()
        # Started by us, an epmd has our marker; one that Erlang starts by itself would look like any other.
        epmd = shutil.which("epmd", path=self._variables()["PATH"])
        if epmd is None:
            raise ServicesError("epmd, a part of Erlang, is not on PATH")
        port = str(self.record.ports["epmd"])
        self._start([epmd, "-address", "127.0.0.1", "-port", port], name=f"epmd-{self.folder.marker}")
        say("rabbitmq: booting (about 10 s) …")
        return self._start([self.programs / "rabbitmq-server", "-services", self.folder.marker])

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
""",
            "enabled_plugins": "[rabbitmq_management].\n",
        }
        cookie = self.place / ".erlang.cookie"
        if not cookie.exists():
            files[cookie.name] = secrets.token_hex(20)
        for name, text in files.items():
            write_private(self.place / name, text)
            own(self.place / name, self.user)

    def _start(self, command: list[str | Path], name: str | None = None) -> subprocess.Popen[bytes]:
        return start(
            command,
            name=name,
            user=self.user,
            folder=self.place,
            environment=self._variables(),
            log=self.folder.log(self.name),
        )

    def _variables(self) -> dict[str, str]:
        """Return nothing of the caller's environment but PATH: a RABBITMQ_… in it could lead to another node."""
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
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(self.place / "log"),
            "RABBITMQ_PID_FILE": str(self.place / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": LOOPBACK_ONLY,
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK_ONLY,
        }

    def control(self, arguments: list[str]) -> int:
        """Run rabbitmqctl on the node; return its exit code."""
        command = [str(self.programs / "rabbitmqctl"), *arguments]
        options = {"cwd": self.place, "env": self._variables(), **switch(self.user)}
        return subprocess.run(command, check=False, **options).returncode
