"""The process that a consumer forks for its children: ``python -m consumers.forks``, started by :mod:`consumers.nursery`.

It imports the workflows once. Then it only forks, and reports the ends of its forks. It runs no step and has no event loop.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import stat
import sys
import threading

from consumers import isolated
from consumers.pipe import Exited, Forked, Imported, NotForked, encode_line
from orchestrator.settings import Settings
from orchestrator.streams import find_lines

_STANDARD_STREAMS = {0, 1, 2}


class Forks:
    """Forks on the consumer's requests.

    Args:
        control: the socket on which each message has the connection of a new child; it is closed with the consumer.
        reports: the socket for reports.
    """

    def __init__(self, control: socket.socket, reports: socket.socket) -> None:
        self._control = control
        self._reports = reports
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    def serve(self) -> socket.socket:
        """Fork until the consumer ends; return in each fork, with its connection."""
        signal.signal(signal.SIGCHLD, isolated.ignore)
        signal.set_wakeup_fd(self._wake)
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._report_ends()
            if self._control.fileno() in ready and (connection := self._take()) is not None:
                return connection

    def _take(self) -> socket.socket | None:
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not message:
            os._exit(0)
        with socket.socket(fileno=descriptors[0]) as connection:
            try:
                pid = os.fork()
            except OSError as error:
                report(self._reports, NotForked(error=str(error)))
                return None
            if not pid:
                self._forget()
                return connection.dup()
            report(self._reports, Forked(pid=pid))
        return None

    def _forget(self) -> None:
        """Close in a fork the sockets of the process that was forked."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._woken, self._wake):
            os.close(descriptor)
        self._control.close()
        self._reports.close()

    def _report_ends(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            report(self._reports, Exited(pid=pid, code=os.waitstatus_to_exitcode(status)))


def report(reports: socket.socket, line: Imported | Forked | NotForked | Exited) -> None:
    """Send a report to the consumer; end this process if the consumer has ended."""
    try:
        reports.sendall(encode_line(line))
    except OSError:
        os._exit(0)


def can_fork(known: set[int]) -> bool:
    """Return whether a fork of this process would work: it has one thread, and only the known connections."""
    if threading.active_count() > 1:
        return False
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            if int(name) not in known and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                return False
        except OSError:
            continue  # the descriptor of the listing itself
    return True


def main() -> None:
    """Import the workflows, and fork until the consumer ends."""
    isolated.ignore_signals()
    control, reports = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for one in (control, reports):
        one.set_inheritable(False)
    settings: Settings = isolated.prepare()
    known = {control.fileno(), reports.fileno()} | _STANDARD_STREAMS
    for lines in find_lines():
        lines.end_thread()  # a fork would not have it
    report(reports, Imported(can_fork=can_fork(known)))
    # The imported objects live as long as the forks. The collector must not touch them, or their memory would be copied.
    gc.collect()
    gc.freeze()
    isolated.serve(Forks(control, reports).serve(), settings)


if __name__ == "__main__":
    main()
