"""A step that calls an async function and does not await it fails: what it wanted to happen has not happened."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable

import pytest

from orchestrator.engine.events import StepSucceeded
from orchestrator.unawaited import collect_unawaited
from tests.unit.attempts import attempt, failure

Author = Callable[[], object]


async def save() -> None:
    """As the save of a model, or a statement."""


async def throws_away() -> dict[str, int]:
    save()  # type: ignore[unused-coroutine]
    return {"saved": 1}


def plain_throws_away() -> dict[str, int]:
    save()  # type: ignore[unused-coroutine]
    return {"saved": 1}


async def throws_away_below() -> dict[str, int]:
    plain_throws_away()
    return {"saved": 1}


async def returns_under_a_key() -> dict[str, object]:
    return {"saved": save()}


async def returns_it() -> object:
    return save()


@pytest.mark.parametrize(
    ("author", "says"),
    [
        (throws_away, "has not awaited save() (tests/unit/test_unawaited.py, line "),
        (plain_throws_away, "has not awaited save() (tests/unit/test_unawaited.py, line "),
        (throws_away_below, "has not awaited save() (tests/unit/test_unawaited.py, line "),
        (returns_under_a_key, "returned, under 'saved', a call that it has not awaited: write 'await' before save()"),
        (returns_it, "returned a call that it has not awaited: write 'await' before save()"),
    ],
)
async def test_a_step_that_does_not_await_what_it_calls_fails_and_says_which(author: Author, says: str) -> None:
    failed = await failure(author)
    assert failed.failure.type == "InvalidResultError"
    assert says in failed.failure.message
    assert "write 'await' before" in failed.failure.message


async def test_a_step_that_awaits_everything_succeeds() -> None:
    async def author() -> dict[str, int]:
        await save()
        await asyncio.gather(save(), save())
        return {"saved": 3}

    assert await attempt(author) == StepSucceeded(3, {"saved": 3})


@pytest.mark.filterwarnings("ignore:coroutine 'save' was never awaited")
async def test_what_goes_with_an_error_that_the_step_has_caught_is_not_its_fault() -> None:
    def library() -> None:
        waiting = save()
        raise ConnectionError(repr(waiting))

    async def author() -> dict[str, int]:
        try:
            library()
        except ConnectionError:
            return {"tried": 1}
        return {}

    assert await attempt(author) == StepSucceeded(3, {"tried": 1})


def test_what_a_garbage_collection_throws_away_is_nobodys_fault() -> None:
    circle: list[object] = [save()]
    circle.append(circle)
    with warnings.catch_warnings(record=True) as caught, collect_unawaited() as found:
        warnings.simplefilter("always")
        del circle
        gc.collect()
    assert found == []
    assert ["was never awaited" in str(one.message) for one in caught] == [True]


def test_outside_of_a_step_python_warns_at_the_line_as_ever() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save()  # type: ignore[unused-coroutine]
    assert [(one.filename, str(one.message)) for one in caught] == [(__file__, "coroutine 'save' was never awaited")]
