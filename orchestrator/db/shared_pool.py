"""SQLAlchemy's pool, with its connections shared among step queues."""

from __future__ import annotations

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from orchestrator.activity import Activity, current_activity
from orchestrator.db.thread_session import BridgedPool
from orchestrator.shares import Shares, working_for


class SharedPool(BridgedPool):
    """A pool whose connections may be shared: each belongs to the step queue for which it was taken until it comes back.

    Attributes:
        shares: as many units as there are connections; without it whoever comes first takes what there is.
    """

    shares: Shares | None = None

    def recreate(self) -> SharedPool:
        """Return an empty pool like this one."""
        pool = super().recreate()
        assert isinstance(pool, SharedPool)  # noqa: S101 - tells the type checker what was just built
        pool.shares = self.shares
        return pool

    def _do_get(self) -> ConnectionPoolEntry:
        activity = current_activity()
        if activity is not None:
            activity.begin_wait()
        try:
            record = self._get()
        finally:
            if activity is not None:
                activity.end_wait()
        if activity is not None:
            activity.connections += 1
            self._takers[record] = activity
        return record

    def _get(self) -> ConnectionPoolEntry:
        shares = self.shares
        if shares is None:
            return super()._do_get()
        queue = working_for.get()
        await_only(shares.acquire(queue))
        try:
            record = super()._do_get()
        except BaseException:
            shares.release(queue)
            raise
        self._holders[record] = (shares, queue)
        return record

    def _put_back(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._put_back(record)
        finally:
            if (taker := self._takers.pop(record, None)) is not None:
                taker.connections -= 1
            if (holder := self._holders.pop(record, None)) is not None:
                shares, queue = holder
                shares.release(queue)

    @property
    def _holders(self) -> dict[ConnectionPoolEntry, tuple[Shares, str | None]]:
        found: dict[ConnectionPoolEntry, tuple[Shares, str | None]] = self.__dict__.setdefault("_held_by", {})
        return found

    @property
    def _takers(self) -> dict[ConnectionPoolEntry, Activity]:
        found: dict[ConnectionPoolEntry, Activity] = self.__dict__.setdefault("_taken_by", {})
        return found
