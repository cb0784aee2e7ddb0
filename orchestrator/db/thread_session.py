"""Synchronous sessions for plain functions, over the one connection of an async session; see :mod:`orchestrator.bridge`.

A plain function uses ``AsyncSession.sync_session`` in its thread. SQLAlchemy hands what it awaits to the bridge, but touches the
event loop in other ways as well when it connects, closes a connection and gives one back: the pool here does these on the
loop as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import asyncpg
from sqlalchemy.engine.interfaces import AdaptedConnection, DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncSession, async_session
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from orchestrator.bridge import current_bridge, wait_for

GOODBYE = 2.0
"""Seconds in which the server has to answer that a connection ends, and that the statement that runs on it was cancelled."""

_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)


class BridgedPool(AsyncAdaptedQueuePool):
    """A pool of asyncio connections that plain functions may use from their threads."""

    def connect(self) -> PoolProxiedConnection:
        """Take a connection out of the pool; see :meth:`Pool.connect`."""
        # The first connections are made under an asyncio.Lock, which is released without being awaited.
        bridge = current_bridge()
        if bridge is not None:
            return bridge.wait(greenlet_spawn(self.connect))
        self.__dict__["_loop"] = asyncio.get_running_loop()
        return super().connect()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        # asyncio.Queue.put_nowait(): from a thread, it does not wake those who wait.
        self._on_loop(self._put_back, record)

    def _put_back(self, record: ConnectionPoolEntry) -> None:
        """Give a connection back, on the loop."""
        super()._do_return_conn(record)

    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:
        if terminate:
            self._on_loop(_end, connection)
        else:
            self._on_loop(super()._close_connection, connection)

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call on the loop what gives something back, and what would be lost otherwise."""
        bridge = current_bridge()
        loop: asyncio.AbstractEventLoop | None = self.__dict__.get("_loop")
        if bridge is not None:
            bridge.wait(greenlet_spawn(call, *arguments), always=True)
        elif loop is None or not loop.is_running() or _is_here(loop):
            call(*arguments)
        else:
            # Python's garbage collection has found a connection that was forgotten, in a thread where nothing can be awaited.
            loop.call_soon_threadsafe(call, *arguments)


_ending: set[asyncio.Task[None]] = set()


def _end(connection: DBAPIConnection) -> None:
    """End a connection that is not to be used any more, in a task of its own.

    SQLAlchemy would wait for the server here. Meanwhile another task may give the place in the pool back, and when
    the wait is over, the next holder's connection would be taken out of it.
    """
    driver = cast("AdaptedConnection", connection).driver_connection
    try:
        task = asyncio.get_running_loop().create_task(_say_goodbye(driver))
    except RuntimeError:
        driver.terminate()  # no loop runs: it was forgotten, and the garbage collection has found it
        return
    _ending.add(task)
    task.add_done_callback(_ending.discard)


async def _say_goodbye(driver: Any) -> None:
    try:
        with contextlib.suppress(*_LOST):
            await driver.close(timeout=GOODBYE)
    finally:
        driver.terminate()


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class Either(Protocol[P, T_co]):
    """A function that is awaited with an async session, and returns its result with a synchronous one."""

    @overload
    def __call__(self, session: AsyncSession, *arguments: P.args, **options: P.kwargs) -> Coroutine[Any, Any, T_co]: ...
    @overload
    def __call__(self, session: Session, *arguments: P.args, **options: P.kwargs) -> T_co: ...


class EitherMethod(Protocol[S_contra, P, T_co]):
    """A method that is awaited with an async session, and returns its result with a synchronous one."""

    @overload
    def __call__(
        self, this: S_contra, session: AsyncSession, /, *arguments: P.args, **options: P.kwargs
    ) -> Coroutine[Any, Any, T_co]: ...
    @overload
    def __call__(self, this: S_contra, session: Session, /, *arguments: P.args, **options: P.kwargs) -> T_co: ...
    def __get__(self, instance: object, owner: Any = None) -> Either[P, T_co]: ...


def either(function: Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]]) -> Either[P, T]:
    """Let plain functions call an async function: with their synchronous session it returns its result."""
    return cast("Either[P, T]", with_faces(function))


def either_method(function: Callable[Concatenate[S, AsyncSession, P], Coroutine[Any, Any, T]]) -> EitherMethod[S, P, T]:
    """Let plain functions call an async method: with their synchronous session it returns its result."""
    return cast("EitherMethod[S, P, T]", with_faces(function))


def with_faces(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Do what :func:`either` does, for a function whose two signatures are written out."""
    place = list(inspect.signature(function).parameters).index("session")

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        session = options["session"] if "session" in options or place >= len(arguments) else arguments[place]
        if not isinstance(session, Session):
            return function(*arguments, **options)
        own = require_async(session)
        # What an author's generator does belongs into this thread.
        given = [list(one) if isinstance(one, Iterator) else one for one in arguments]
        named = {name: list(one) if isinstance(one, Iterator) else one for name, one in options.items()}
        if "session" in named:
            named["session"] = own
        else:
            given[place] = own
        return wait_for(function(*given, **named))

    return call


def require_async(session: Session) -> AsyncSession:
    """Return the async session of which this one is the synchronous face.

    Raises:
        TypeError: there is none: the session is not one that the engine has given to a step, form, predicate or callback.
    """
    found = async_session(session)
    if found is None:
        raise TypeError(f"{session!r} is not the session that the engine has given to this function")
    return found
