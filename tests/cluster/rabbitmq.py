"""Three RabbitMQ nodes on this machine: names, ports, cookie and epmd of their own, joined to a cluster when they first start."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from servers.packages import programs_of

from tests.acceptance.waiting import until
from tests.cluster.machine import HOST, Daemon, Machine, run, user_for, write_private

USER, PASSWORD = "chaos", secrets.token_hex(8)
LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
FRUGAL = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
"""Several nodes share few cores: one scheduler each, which does not spin while it waits."""


class Node:
    """One node of the cluster."""

    def __init__(self, machine: Machine, number: int, epmd: int, cookie: str) -> None:
        self.machine = machine
        self.name = f"chaos{number}-{epmd}@localhost"
        self.port = machine.port()
        self.distribution = machine.port()
        self._epmd = epmd
        self._user = user_for("rabbitmq")
        self._place = machine.place(f"rabbitmq-{number}", self._user)
        self._daemon: Daemon | None = None
        write_private(self._place / ".erlang.cookie", cookie, self._user)
        write_private(self._place / "enabled_plugins", "[].\n", self._user)

    def configure(self, nodes: Iterable[Node]) -> None:
        """Write the configuration; all nodes are named in it, and whichever starts first is joined by the others."""
        peers = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node.name}\n" for number, node in enumerate(nodes, 1)
        )
        text = f"""\
listeners.tcp.local = {HOST}:{self.port}
default_user = {USER}
default_pass = {PASSWORD}
cluster_formation.peer_discovery_backend = classic_config
{peers}cluster_partition_handling = pause_minority
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 32000000
log.console = true
log.console.level = info
log.file = false
"""
        write_private(self._place / "rabbitmq.conf", text, self._user)

    def start(self) -> None:
        """Start it; :meth:`wait` waits until it answers."""
        program = programs_of("rabbitmq") / "rabbitmq-server"
        self._daemon = self.machine.daemon(
            self._place.name, [program], place=self._place, user=self._user, variables=self.variables()
        )

    def wait(self) -> None:
        """Wait until it takes connections."""
        self.daemon.wait_for_port(self.port)

    @property
    def daemon(self) -> Daemon:
        """Its processes."""
        assert self._daemon is not None, "not started"
        return self._daemon

    def kill(self) -> None:
        """End it as a crash does."""
        self.daemon.kill()

    def freeze(self) -> None:
        """Stop it without ending it: its connections stay open, and nothing answers."""
        self.daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        self.daemon.signal(signal.SIGCONT)

    def ask(self, *arguments: str) -> str:
        """Run rabbitmqctl on it."""
        command = [str(programs_of("rabbitmq") / "rabbitmqctl"), "--quiet", *arguments]
        return run(command, place=self._place, user=self._user, variables=self.variables())

    def variables(self) -> dict[str, str]:
        """Return what its programs see of the environment: nothing that could lead to another node."""
        return {
            "HOME": str(self._place),
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/erlang/bin",
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self._place / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._place / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._place / "data"),
            "RABBITMQ_LOG_BASE": str(self._place / "log"),
            "RABBITMQ_PID_FILE": str(self._place / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{LOOPBACK_ONLY} {FRUGAL}",
            "RABBITMQ_CTL_ERL_ARGS": f"{LOOPBACK_ONLY} {FRUGAL}",
        }


class Cluster:
    """Three nodes."""

    def __init__(self, machine: Machine) -> None:
        epmd, cookie = machine.port(), secrets.token_hex(20)
        place: Path = machine.place("epmd", user_for("rabbitmq"))
        path = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/erlang/bin"
        program = shutil.which("epmd", path=path)
        assert program is not None, "epmd, a part of Erlang, is not installed"
        # One that Erlang starts by itself would outlive us.
        daemon = machine.daemon(
            "epmd",
            [program, "-address", HOST, "-port", str(epmd)],
            place=place,
            user=user_for("rabbitmq"),
            variables={"PATH": path},
        )
        daemon.wait_for_port(epmd)
        self.nodes = [Node(machine, number, epmd, cookie) for number in (1, 2, 3)]
        for node in self.nodes:
            node.configure(self.nodes)

    def start(self) -> None:
        """Start all nodes. The first alone, so that there is one to join."""
        first, *others = self.nodes
        first.start()
        first.wait()
        for node in others:
            node.start()
        for node in others:
            node.wait()
        until(lambda: self.size() == len(self.nodes), "all nodes are in one cluster", 60, every=1)

    def size(self) -> int:
        """Return how many nodes of the cluster are running."""
        status = json.loads(self.nodes[0].ask("cluster_status", "--formatter", "json"))
        return len(status["running_nodes"])

    @property
    def ports(self) -> list[int]:
        """The nodes' AMQP ports."""
        return [node.port for node in self.nodes]

    def url(self, *ports: int) -> str:
        """Return the URL of nodes, or of what is before them."""
        return f"amqp://{USER}:{PASSWORD}@{','.join(f'{HOST}:{port}' for port in ports)}/"

    def leader_of(self, queue: str) -> Node:
        """Return the node that leads a quorum queue."""
        alive = next(node for node in self.nodes if node.daemon.runs)
        lines = alive.ask("list_queues", "name", "leader", "--no-table-headers").splitlines()
        leaders = dict(line.split("\t")[:2] for line in lines if "\t" in line)
        return next(node for node in self.nodes if node.name == leaders[queue])
