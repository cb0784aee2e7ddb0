"""What every kind of server has in common, and the ones that somebody else runs."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from urllib.parse import urlsplit

from .errors import ServicesError


class Server(ABC):
    """One server, whoever runs it. `start`, `stop` and `kill` may be called in any state."""

    name: str

    @abstractmethod
    def status(self) -> str | None:
        """Where it answers, in words; None when it does not."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers as a server that can be used does."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables by which the engine finds it."""

    def pid(self) -> int | None:
        """The process to kill to make it crash."""
        return None

    def start(self) -> str:
        """Make it run and wait until it answers; what happened, in words."""
        raise self._not_ours()

    def stop(self, *, at_once: bool = False) -> None:
        """End it in an orderly way, or quickly when its data is to be deleted anyway."""
        raise self._not_ours()

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        raise self._not_ours()

    def wipe(self) -> None:
        """Stop it and delete its data; its ports, user and password stay."""
        raise self._not_ours()

    def control(self, arguments: list[str]) -> int:
        """Run the server's own control program; its exit code."""
        raise self._not_ours()

    def _not_ours(self) -> ServicesError:
        return ServicesError(f"{self.name} is not run by scripts/services")


DEFAULT_PORTS = {"postgresql": 5432, "amqp": 5672, "amqps": 5671}


class Given(Server):
    """A server that somebody else runs: known by its URL, never touched."""

    def __init__(self, name: str, variable: str, url: str, others: dict[str, str] | None = None) -> None:
        self.name = name
        self.variable = variable
        self.url = url
        self.others = others or {}

    def start(self) -> str:
        if (where := self.status()) is None:
            raise ServicesError(
                f"{self.name}: nothing answers at {self._address()}, which {self.variable} names. "
                f"Start that server, or unset {self.variable} to get a private one."
            )
        return where

    def stop(self, *, at_once: bool = False) -> None:
        """Somebody else's: left alone."""

    def ready(self) -> bool:
        try:
            socket.create_connection(self._target(), timeout=5).close()
        except OSError:
            return False
        return True

    def status(self) -> str | None:
        return f"given by {self.variable}, answers at {self._address()}" if self.ready() else None

    def environment(self) -> dict[str, str]:
        return {self.variable: self.url, **self.others}

    def _target(self) -> tuple[str, int]:
        try:
            parts = urlsplit(self.url)
            port = parts.port or DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
        except ValueError:
            parts, port = urlsplit(""), None
        if not parts.hostname or not port:
            raise ServicesError(f"{self.variable} is not a URL with a host that I understand")
        return parts.hostname, port

    def _address(self) -> str:
        host, port = self._target()
        return f"{host}:{port}"  # never the whole URL: it has the password in it


def answers(port: int, greeting: bytes, expected: bytes) -> bool:
    """Whether a server on this port of 127.0.0.1 answers `greeting` with something that begins with `expected`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(greeting)
            return connection.recv(len(expected)) == expected
    except OSError:
        return False


def postgres_answers(port: int) -> bool:
    """PostgreSQL is ready: it asks our user for a password ('R'), and does not say that it is starting up ('E')."""
    body = b"\0\x03\0\0user\0orchestrator\0database\0orchestrator\0\0"
    return answers(port, (len(body) + 4).to_bytes(4, "big") + body, b"R")


def amqp_answers(port: int) -> bool:
    """RabbitMQ speaks AMQP 0-9-1: its first frame is a method frame."""
    return answers(port, b"AMQP\0\0\x09\x01", b"\x01")
