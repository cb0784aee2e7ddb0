"""Track the commands that this consumer holds unclaimed, and the newest one that it has received from each queue.

A queue is in order. So a coordinator learns from the reports of all consumers which commands have left the queue without being
held or claimed: these were lost.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from orchestrator.broker.deliveries import DeclinedError, Handler, RequeueError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import SINCE
from orchestrator.db.consumers import Received

LINGER = 60.0
"""Seconds for which a command counts as held after its handler has failed: it is kept and tried again."""


class Inbox:
    """The commands that this consumer has received. :meth:`report` may be called from any thread."""

    def __init__(self) -> None:
        self._newest: dict[str, datetime] = {}
        self._held: dict[object, UUID] = {}
        self._failed: dict[UUID, float] = {}

    def watch(self, queue: str, handler: Handler) -> Handler:
        """Return a handler for a step queue that counts commands as held while it runs."""

        async def watched(delivery: Delivery) -> None:
            process_id = _read_process_id(delivery)
            if process_id is None:
                await handler(delivery)
                return
            since = _read_since(delivery)
            if since is not None:
                self._newest[queue] = max(since, self._newest.get(queue, since))
            token = object()
            self._held[token] = process_id
            self._failed.pop(process_id, None)
            try:
                await handler(delivery)
            except (RequeueError, DeclinedError):
                raise
            except Exception:
                now = time.monotonic()
                self._failed = {one: until for one, until in self._failed.items() if until > now}
                self._failed[process_id] = now + LINGER
                raise
            finally:
                del self._held[token]

        return watched

    def report(self) -> Received:
        """Return the newest received command of each queue and the held commands."""
        now = time.monotonic()
        # Copying a dict is atomic, while the event loop goes on in its thread.
        failed = {process_id for process_id, until in self._failed.copy().items() if until > now}
        return Received(self._newest.copy(), frozenset(self._held.copy().values()) | failed)


def _read_process_id(delivery: Delivery) -> UUID | None:
    with suppress(ValueError, TypeError):
        return UUID(delivery.correlation_id)
    return None


def _read_since(delivery: Delivery) -> datetime | None:
    headers = delivery.properties.get("headers")
    since = headers.get(SINCE) if isinstance(headers, dict) else None
    with suppress(ValueError, TypeError):
        found = datetime.fromisoformat(since)  # type: ignore[arg-type]
        return found if found.tzinfo is not None else None
    return None
