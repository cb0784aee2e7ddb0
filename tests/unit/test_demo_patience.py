"""The demo's patience: no limit on the whole run, one on the silence between two signs of life."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable

import pytest

from examples.demo.driver.errors import DemoError
from examples.demo.driver.patience import SILENCE, Patience


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop on which waiting takes no time: where it would sleep, its clock leaps."""

    def __init__(self) -> None:
        super().__init__(Leaping(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class Leaping(selectors.DefaultSelector):
    def __init__(self, loop: LeapingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.now += timeout or 0
        return super().select(0)


def run(story: Callable[[Patience], Awaitable[None]]) -> float:
    """Run a story under watch; return how long it took on its own clock."""

    async def watched() -> None:
        patience = Patience()
        async with patience.watch():
            await story(patience)

    loop = LeapingLoop()
    try:
        loop.run_until_complete(watched())
    finally:
        loop.close()
    return loop.now


def test_a_run_with_signs_of_life_may_take_any_time() -> None:
    async def lively(patience: Patience) -> None:
        for _ in range(100):
            await asyncio.sleep(SILENCE - 1)
            patience.sign()

    assert run(lively) >= 100 * (SILENCE - 1)


def test_a_silent_run_fails_and_names_what_was_awaited() -> None:
    async def silent(patience: Patience) -> None:
        patience.sign()
        with patience.awaiting("what comes"):
            await asyncio.sleep(1)
        with patience.awaiting("every process is completed"):
            await asyncio.sleep(SILENCE + 1)

    with pytest.raises(DemoError, match=r"^no sign of life for 60 s\. Awaited: every process is completed$"):
        run(silent)


def test_everything_that_was_awaited_at_the_same_time_is_named() -> None:
    async def await_one(patience: Patience, what: str) -> None:
        with patience.awaiting(what):
            await asyncio.Event().wait()

    async def silent(patience: Patience) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(await_one(patience, "one"))
            tasks.create_task(await_one(patience, "another"))

    with pytest.raises(DemoError, match="Awaited: one; another"):
        run(silent)


def test_a_timeout_inside_the_run_stays_what_it_is() -> None:
    async def impatient(_: Patience) -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(2)

    with pytest.raises(TimeoutError):
        run(impatient)


def test_a_sign_after_the_limit_does_not_hide_the_failure() -> None:
    async def late(patience: Patience) -> None:
        try:
            await asyncio.sleep(SILENCE + 1)
        finally:
            patience.sign()

    with pytest.raises(DemoError, match="no sign of life"):
        run(late)
