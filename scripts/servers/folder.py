"""The folder that remembers a checkout's private servers: their ports, passwords and where their data is.

    .services/
      lock             held by whoever changes something
      settings.json    ports and passwords, only for the owner's eyes
      postgres.log, rabbitmq.log
      postgres/, rabbitmq/     the data, each owned by the user its server runs as

When that user cannot enter the folder (a checkout in root's home, say) the data lives below /var/tmp instead and
settings.json says where. Permissions of folders above are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import secrets
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import ServicesError, say
from .processes import Account, wait_until

LOCK_SECONDS = 300
TIME_WAIT_SECONDS = 90  # Linux keeps a closed connection for 60
DYING_SECONDS = 20  # until the kernel has closed the sockets of a process that was killed
Kind = str  # "processes" or "containers"


@dataclass
class Record:
    """What is remembered of one server."""

    kind: Kind
    data: str
    ports: dict[str, int]
    password: str


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # one folder, one marker, by whatever name it is reached
        # In the command line of every server of this folder, so that they are found again whatever happens to files.
        self.marker = _marker(self.path)
        self.records: dict[str, Record] = {}
        self._changing = threading.RLock()  # both servers start at the same time
        self.why_afresh: str | None = None  # why what the folder says is not to be believed
        self.left_behind: str | None = None  # the marker of servers that were started before the checkout was moved

    @property
    def somebody_elses(self) -> str | None:
        """Why we may not use this folder, in words; None when we may."""
        try:
            owner = self.path.stat().st_uid
        except FileNotFoundError:
            return None
        if os.geteuid() in (0, owner):
            return None
        name = _name(owner)
        return f"{self.path} belongs to {name}: run this as {name}, or choose another with --dir DIR"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, keep others out, and know what is remembered."""
        self._make()
        descriptor = self._take_lock()
        try:
            self.read()
            yield
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        try:
            # As root the servers' users must be able to pass through, though not to look around.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServicesError(f"cannot make {self.path} ({error.strerror}): choose another with --dir DIR") from None
        if self.somebody_elses:
            raise ServicesError(self.somebody_elses)
        if any(self.path.iterdir()) and not (self.path / "lock").exists():
            raise ServicesError(f"{self.path} holds something else: choose another with --dir DIR")

    def _take_lock(self) -> int:
        path = self.path / "lock"
        told = False
        descriptor = -1

        def taken() -> bool:
            nonlocal told, descriptor
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:  # `down --wipe` has just deleted the folder
                self._make()
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # It may have deleted the file after we opened it; then what we hold is not the lock any more.
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return True
            except BlockingIOError:
                if not told:
                    say("waiting for another scripts/services to finish …")
                    told = True
            except FileNotFoundError:
                self._make()
            os.close(descriptor)
            return False

        if not wait_until(taken, LOCK_SECONDS):
            raise ServicesError(f"another scripts/services has held {path} for {LOCK_SECONDS} s")
        self._owned_like_folder(path)
        return descriptor

    # What is remembered

    def read(self) -> None:
        """Read settings.json; forget what belongs to the checkout that this one was copied from."""
        self.records = {}
        if self.somebody_elses:
            return
        try:
            content = json.loads((self.path / "settings.json").read_text())
            before = Path(content["folder"])
            self.records = {name: Record(**record) for name, record in content["servers"].items()}
        except FileNotFoundError:
            return
        except (json.JSONDecodeError, KeyError, TypeError):
            self.why_afresh = f"{self.path}/settings.json is damaged: starting afresh"
            return
        if before == self.path:
            return
        if _is_there(before / "settings.json"):
            self.why_afresh = f"{self.path} is a copy of {before}: starting afresh"
            self.records = {}
        else:
            self.left_behind = _marker(before)
            for record in self.records.values():
                if Path(record.data).parent == before:
                    record.data = str(self.path / Path(record.data).name)

    def remember(self, server: str, record: Record) -> None:
        """Write settings.json anew in one go, so that nobody reads half of it."""
        fresh = self.path / "settings.json.new"
        with self._changing:
            self.records[server] = record
            servers = {name: asdict(known) for name, known in self.records.items()}
            write_private(fresh, json.dumps({"folder": str(self.path), "servers": servers}, indent=2) + "\n")
            self._owned_like_folder(fresh)
            fresh.replace(self.path / "settings.json")

    def _owned_like_folder(self, path: Path) -> None:
        # root may look after a folder of somebody else, who must be able to go on using it
        if os.geteuid() == 0:
            owner = self.path.stat()
            os.chown(path, owner.st_uid, owner.st_gid)

    def log(self, server: str) -> Path:
        path = self.path / f"{server}.log"
        if not path.exists():
            write_private(path, "")
            self._owned_like_folder(path)
        return path

    # Making and deleting servers' places

    def new_record(self, server: str, kind: Kind, ports: tuple[str, ...]) -> Record:
        """Choose a place, ports and a password for a server that this folder does not know yet."""
        owner = self.path.stat().st_uid
        account = Account.for_server(server) if owner == 0 or os.geteuid() != 0 else Account.of(owner)
        data = self.path / server
        if not self._suits(account):
            data = self._below_var_tmp() / server
        if data.exists():
            shutil.rmtree(data)  # settings.json was deleted, so nobody knows its password
        data.mkdir(mode=0o700)
        account.own(data)
        chosen: dict[str, int] = {}
        for name in ports:
            chosen[name] = free_port(self._known_ports() | set(chosen.values()))
        return Record(kind, str(data), chosen, secrets.token_urlsafe(18))

    def _known_ports(self) -> set[int]:
        return {port for record in self.records.values() for port in record.ports.values()}

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

    def _suits(self, account: Account) -> bool:
        # RabbitMQ's shell scripts do not quote paths
        return not any(c.isspace() for c in str(self.path)) and account.can_enter(self.path)

    def _below_var_tmp(self) -> Path:
        place = Path("/var/tmp") / self.marker
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o711)
        found = place.lstat()
        # Anybody can make a folder of this name there: use only one of our own.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ServicesError(f"{place} exists and belongs to {_name(found.st_uid)}: choose another with --dir DIR")
        return place

    def delete(self) -> None:
        """Delete all of ours and nothing else. The lock goes last: the next one in makes a new folder."""
        places = [Path(record.data) for record in self.records.values()]
        for data in (*places, self.path / "postgres", self.path / "rabbitmq"):
            shutil.rmtree(data, ignore_errors=True)
        for name in ("settings.json", "settings.json.new", "postgres.log", "rabbitmq.log", "lock"):
            (self.path / name).unlink(missing_ok=True)
        for folder in {*(data.parent for data in places), self.path}:
            with contextlib.suppress(OSError):  # gone already, or somebody else's new lock is in it
                folder.rmdir()


def _marker(path: Path) -> str:
    return "orchestrator-services-" + hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True  # we may not look, so something is in the way
    except OSError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return Account.of(uid).name
    except KeyError:
        return f"user {uid}"


def write_private(path: Path, text: str) -> None:
    """A file that nobody but its owner can read, from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def is_free(port: int) -> bool:
    """Return whether a server can listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Return whether a program listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for_port(port: int) -> bool:
    """Wait until a port is free; return False when it does not become free in time."""
    wait_until(lambda: is_free(port) or listens(port), TIME_WAIT_SECONDS)
    return wait_until(lambda: is_free(port), DYING_SECONDS)


def free_port(avoid: set[int]) -> int:
    """A free port below the range that outgoing connections are given.

    In that range a client that keeps reconnecting to a stopped server may be given the server's own port and connect
    to itself, and then the server cannot start again.
    """
    try:
        top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        top = 32768
    candidates = [port for port in range(15000, max(top, 16000)) if port not in avoid]
    random.shuffle(candidates)
    for port in candidates:
        if is_free(port):
            return port
    raise ServicesError("no free port on 127.0.0.1")
