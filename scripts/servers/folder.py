"""The folder that remembers a checkout's private servers: their ports, passwords and where their data is.

    .services/
      settings.json                ports and passwords, readable for the owner only
      postgres.log, rabbitmq.log
      postgres/, rabbitmq/         the data, each owned by the user its server runs as

When that user cannot enter the folder (a checkout in root's home, for example) the data is below /var/tmp instead.
A folder that was moved, copied or damaged is not repaired: its servers start anew, with no data.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import ServicesError, say
from .ports import free_port, is_free, wait_for_port
from .processes import own, switch, user_for


@dataclass
class Record:
    """What is remembered of one server."""

    data: str
    ports: dict[str, int]
    password: str


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # one folder, one marker, by whatever name it is reached
        # In the command line of every server of this folder, so that they are found whatever happens to files.
        self.marker = "orchestrator-services-" + hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        self.records: dict[str, Record] = {}
        self.why_anew: str | None = None  # why the records were not used
        self._changing = threading.Lock()  # both servers start at the same time
        self._settings = self.path / "settings.json"
        self._elsewhere = Path("/var/tmp") / self.marker

    def owner(self) -> int:
        """Return the user that the folder belongs to, or will belong to."""
        return self.path.stat().st_uid if self.path.exists() else os.geteuid()

    def check_owner(self) -> None:
        """Raise when the folder is another user's."""
        if self.owner() != os.geteuid():
            raise ServicesError(f"{self.path} belongs to user {self.owner()}: run this as that user, or use --dir DIR")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, lock it, and read what is remembered."""
        while True:
            self._make()
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    say("waiting for another scripts/services to finish …")
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                # `down --wipe` may have deleted the folder meanwhile; then this lock protects nothing.
                if self.path.exists() and self.path.stat().st_ino == os.fstat(descriptor).st_ino:
                    self.read()
                    if not self._settings.exists():
                        self._write()  # from now on the folder is recognised as one of ours
                    yield
                    return
            finally:
                os.close(descriptor)

    def _make(self) -> None:
        try:
            # The servers of root run as other users, who must be able to pass through.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServicesError(f"cannot create {self.path} ({error.strerror}): use --dir DIR") from None
        self.check_owner()
        if any(self.path.iterdir()) and not self._settings.exists():
            raise ServicesError(f"{self.path} holds something else: use --dir DIR")

    def read(self) -> None:
        """Read settings.json. What another folder has written, before a move or copy, does not count."""
        self.records = {}
        if self.owner() != os.geteuid():
            return
        try:
            content = json.loads(self._settings.read_text())
            if content["folder"] != str(self.path):
                self.why_anew = f"{self.path} was moved or copied from {content['folder']}: its servers start anew"
                return
            self.records = {
                name: Record(record["data"], record["ports"], record["password"])
                for name, record in content["servers"].items()
            }
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError, AttributeError):
            self.why_anew = f"{self._settings} is damaged: the servers start anew"

    def remember(self, server: str, record: Record) -> None:
        with self._changing:
            self.records[server] = record
            self._write()

    def _write(self) -> None:
        """Write settings.json in one go, so that nobody reads half of it."""
        fresh = self.path / "settings.json.new"
        servers = {name: asdict(record) for name, record in self.records.items()}
        write_private(fresh, json.dumps({"folder": str(self.path), "servers": servers}, indent=2) + "\n")
        fresh.replace(self._settings)

    def log(self, server: str) -> Path:
        return self.path / f"{server}.log"

    def last_lines(self, server: str) -> str:
        """Return the end of a server's log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log(server).read_text(errors="replace").splitlines()[-15:])
        return "(no log)"

    def new_record(self, server: str, ports: tuple[str, ...]) -> Record:
        """Choose a place, ports and a password for a server that this folder does not know yet."""
        user = user_for(server)
        # RabbitMQ's shell scripts do not quote paths.
        suits = not any(c.isspace() for c in str(self.path)) and can_enter(user, self.path)
        data = (self.path if suits else self._make_elsewhere()) / server
        if data.exists():
            shutil.rmtree(data)  # nobody knows its password
        data.mkdir(mode=0o700)
        own(data, user)
        chosen: dict[str, int] = {}
        known = {port for record in self.records.values() for port in record.ports.values()}
        for name in ports:
            chosen[name] = free_port(known | set(chosen.values()))
        return Record(str(data), chosen, secrets.token_urlsafe(18))

    def _make_elsewhere(self) -> Path:
        with contextlib.suppress(FileExistsError):
            self._elsewhere.mkdir(mode=0o711)
        found = self._elsewhere.lstat()
        # Anybody can make a folder of this name there: use only one of our own.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ServicesError(f"{self._elsewhere} belongs to user {found.st_uid}: use --dir DIR")
        return self._elsewhere

    def wait_for_ports(self, server: str) -> None:
        """Wait until the server can listen on its ports, which it keeps for good: programs know them by URL.

        A port is not free at once when the server has just ended: a dying process closes its sockets late, and closed
        connections may hold the port for a while (TIME_WAIT).

        Raises:
            ServicesError: another program listens there, or holds the port otherwise.
        """
        for port in self.records[server].ports.values():
            if not is_free(port):
                say(f"{server}: waiting for port {port} …")
                if not wait_for_port(port):
                    raise ServicesError(
                        f"{server}: port {port} is in use by another program. End that program, "
                        "or get servers with other ports and no data: scripts/services down --wipe, then up"
                    )

    def delete(self) -> None:
        """Delete the folder and the data."""
        for place in (self._elsewhere, self.path):
            if place.is_dir() and not place.is_symlink() and place.stat().st_uid == os.geteuid():
                shutil.rmtree(place)


def can_enter(user: int, folder: Path) -> bool:
    """Return whether a user may pass through a folder and those above it."""
    return subprocess.run(["test", "-x", folder], cwd="/", check=False, **switch(user)).returncode == 0


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
