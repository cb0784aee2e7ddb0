"""Run a coroutine in a context that is not its task's own: what a task of its own would do, at a tenth of the cost."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class in_context(Generator[Any, Any, T]):  # noqa: N801 - it is awaited as a call of a coroutine function is
    """Await a coroutine in the present task; each part of it runs in the context, which the task's own part never sees.

    What it raises is raised, and a cancellation of the task is thrown into it. No generator function: it would throw while it
    handles the same error, which would then be the context of whatever the coroutine raises later.

    Attributes:
        cr_await: the coroutine, under the name by which a coroutine leads to what it awaits, for whoever reads where tasks wait.
    """

    __slots__ = ("_context", "cr_await")

    def __init__(self, coroutine: Coroutine[Any, Any, T], context: Context) -> None:
        self.cr_await = coroutine
        self._context = context

    def __await__(self) -> Generator[Any, Any, T]:
        """Return what the interpreter drives."""
        return self

    def __next__(self) -> Any:
        """Begin, or go on: what the interpreter drives most often, and the base class does by one more call."""
        return self._context.run(self.cr_await.send, None)

    def send(self, value: Any) -> Any:
        """Go on with the coroutine; its result is that of the ``StopIteration``."""
        return self._context.run(self.cr_await.send, value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        return self._context.run(self.cr_await.throw, *error)

    def close(self) -> None:
        """End the coroutine."""
        self._context.run(self.cr_await.close)
