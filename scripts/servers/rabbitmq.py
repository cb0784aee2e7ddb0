"""A private RabbitMQ node from installed programs: own user, cookie, node name, ports and epmd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from . import ServicesError, say
from .server import Private
from .system import as_user, listens, wait_until, write_private

LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"

ELECTION_SECONDS = 5.0
"""A node that has restarted is the leader of its queues within a second."""

ELECT = "[ra:trigger_election({Name, node()}) || {Name, _} <- ra_directory:list_registered(quorum_queues)]."
"""Makes each quorum queue that has no leader elect one."""


def count_leaderless(log: str) -> int:
    """Return how many of the quorum queues that a node has recovered have not elected a leader, by its log since the start.

    Those that a program has declared meanwhile do not count: each elects its first leader in term 1.
    """
    recovered = re.findall(r"Recovering (\d+) queues of type rabbit_quorum_queue took", log)
    elections = re.findall(r"(?:queue ('.+?') in vhost '.*?'|{('.+?'),.+?}): candidate -> leader in term: (\d+)", log)
    elected = {name or short for name, short, term in elections if int(term) > 1}
    return max(0, sum(map(int, recovered)) - len(elected))


class Rabbitmq(Private):
    name = "rabbitmq"
    ports = ("amqp", "management", "distribution", "epmd")
    ending = (signal.SIGTERM, signal.SIGKILL)
    main_process = r"^\S*/beam\S* .*"
    # The shell script around the node and the node's helpers end by themselves when it is gone.
    every_process = r"^(\S*/beam\S* .*|epmd-)"

    _log_before = 0

    def environment(self) -> dict[str, str]:
        login = f"orchestrator:{self.folder.password}@127.0.0.1:{self.folder.ports['amqp']}"
        management = f"http://127.0.0.1:{self.folder.ports['management']}"
        return {"ORCHESTRATOR_AMQP_URL": f"amqp://{login}/", "ORCHESTRATOR_MANAGEMENT_URL": management}

    def variables(self) -> dict[str, str]:
        """Return nothing of the caller's environment but PATH: a RABBITMQ_… in it could lead to another node."""
        return {
            "HOME": str(self.place),  # where Erlang makes its cookie
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/erlang/bin",
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.folder.ports["epmd"]),
            "RABBITMQ_NODENAME": "orchestrator@localhost",
            "RABBITMQ_DIST_PORT": str(self.folder.ports["distribution"]),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.place / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.place / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(self.place / "log"),
            "RABBITMQ_PID_FILE": str(self.place / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": LOOPBACK_ONLY,
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK_ONLY,
        }

    def answers(self) -> bool:
        # For AMQP it listens last, when its user exists.
        return all(listens("127.0.0.1", self.folder.ports[name]) for name in ("amqp", "management"))

    def launch(self) -> subprocess.Popen[bytes]:
        ports = self.folder.ports
        configuration = f"""\
listeners.tcp.local = 127.0.0.1:{ports["amqp"]}
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports["management"]}
default_user = orchestrator
default_pass = {self.folder.password}
default_user_tags.administrator = true
disk_free_limit.absolute = 50MB
collect_statistics_interval = 1000
log.console = true
log.console.level = info
log.file = false
"""
        write_private(self.place / "rabbitmq.conf", configuration, self.user)
        write_private(self.place / "enabled_plugins", "[rabbitmq_management].\n", self.user)
        # Started by us, an epmd has our marker; one that Erlang starts by itself would look like any other.
        epmd = shutil.which("epmd", path=self.variables()["PATH"])
        if epmd is None:
            raise ServicesError("epmd, a part of Erlang, is not on PATH")
        self.spawn([epmd, "-address", "127.0.0.1", "-port", str(ports["epmd"])], name=f"epmd-{self.folder.marker}")
        self._log_before = self.log.stat().st_size
        say("rabbitmq: booting (about 10 s) …")
        return self.spawn([self.programs / "rabbitmq-server", "-services", self.folder.marker])

    def wait(self) -> str:
        """Wait until it answers and, after a restart, until its queues do."""
        what = super().wait()
        if self._child is not None and not wait_until(self._has_leaders, ELECTION_SECONDS):
            # A known defect (rabbitmq-server#10070): one that was declared shortly before a crash may have none for ever.
            say("rabbitmq: a queue has no leader after the restart; electing one …")
            self.control(["--quiet", "eval", ELECT])
        return what

    def _has_leaders(self) -> bool:
        """Return whether each quorum queue that was recovered at the start has a leader, by what the node's log says."""
        with self.log.open("rb") as log:
            log.seek(self._log_before)
            return count_leaderless(log.read().decode(errors="replace")) == 0

    def control(self, arguments: list[str]) -> int:
        """Run rabbitmqctl on the node; return its exit code."""
        command: list[str | Path] = [self.programs / "rabbitmqctl", *arguments]
        who = as_user(self.user)
        return subprocess.run(command, cwd=self.place, env=self.variables(), check=False, **who).returncode
