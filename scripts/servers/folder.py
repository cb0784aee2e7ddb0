"""The folder that remembers a checkout's private servers: their ports, their password and their data.

    .services/
      lock                         held by the command that changes something
      settings.json                ports and password, readable for the owner only
      postgres.log, rabbitmq.log
      postgres/, rabbitmq/         the data

The servers of root run as other users, who may not enter every checkout: their data is in /var/lib instead.
A folder that was moved, copied or damaged is not repaired: its servers start anew, with no data.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import ServicesError, say
from .system import choose_ports, write_private

PORTS = ("postgres", "amqp", "management", "distribution", "epmd")


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # one folder, one marker, by whatever name it is reached
        # In the command line of every server of this folder, so that they are found whatever happens to files.
        self.marker = "orchestrator-services-" + hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        self.data = Path("/var/lib", self.marker) if os.geteuid() == 0 else self.path
        self.password, self.ports = "", dict[str, int]()
        self.why_anew: str | None = None  # why settings.json does not count
        self._settings, self._lock = self.path / "settings.json", self.path / "lock"

    def read(self) -> bool:
        """Read settings.json; return whether there are servers. What was written before a move or copy does not count."""
        try:
            content = json.loads(self._settings.read_text())
            if content["folder"] != str(self.path):
                self.why_anew = f"{self.path} was moved or copied from {content['folder']}: its servers start anew"
                return False
            self.password, self.ports = str(content["password"]), {name: int(content["ports"][name]) for name in PORTS}
        except (FileNotFoundError, PermissionError):
            return False
        except (ValueError, LookupError, TypeError):
            self.why_anew = f"{self._settings} is damaged: the servers start anew"
            return False
        self.why_anew = None
        return True

    def renew(self) -> None:
        """Choose ports and a password; data that is there already has another password, and is deleted."""
        self._delete()
        self.password, self.ports = secrets.token_urlsafe(18), dict(zip(PORTS, choose_ports(len(PORTS)), strict=True))
        content = {"folder": str(self.path), "password": self.password, "ports": self.ports}
        fresh = self.path / "settings.json.new"  # nobody reads half of it
        write_private(fresh, json.dumps(content, indent=2) + "\n", os.geteuid())
        fresh.replace(self._settings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other commands away from it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (owner := self.path.stat().st_uid) != os.geteuid():
            raise ServicesError(f"{self.path} belongs to user {owner}: run this as that user, or use --dir DIR")
        if any(self.path.iterdir()) and not (self._lock.exists() or self._settings.exists()):
            raise ServicesError(f"{self.path} holds something else: use --dir DIR")
        if os.geteuid() != 0 and len(str(self.path).split()) > 1:  # RabbitMQ's shell scripts do not quote paths
            raise ServicesError(f"RabbitMQ cannot run in {self.path}, which has a blank in it: use --dir DIR")
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another scripts/services to finish …")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def wipe(self) -> None:
        """Delete everything but the lock, for which another command may be waiting."""
        self._delete()
        for file in self.path.iterdir():
            if file != self._lock:
                file.unlink()

    def _delete(self) -> None:
        for place in (self.path / "postgres", self.path / "rabbitmq", *([self.data] if self.data != self.path else [])):
            if place.exists():
                shutil.rmtree(place)
