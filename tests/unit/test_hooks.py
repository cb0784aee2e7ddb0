"""Whatever a form, a run predicate or an authorization callback does ends in words for who asked, and nowhere else."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import field_validator
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from orchestrator import user_code
from orchestrator.authorization import Action, Attempted
from orchestrator.errors import (
    DefinitionError,
    ForbiddenError,
    FormIncompleteError,
    InvalidInputError,
    PredicateFailedError,
    WorkflowNotUsableError,
)
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.services.hooks import authorize, check_predicate, run_form
from orchestrator.threads import Threads
from orchestrator.workflow import RunPredicate, StepList, done, init, workflow
from tests.unit.models import FolderBlockInactive

ASKED = Attempted("ann", "create_node", None, Action.START)
DEADLINE = user_code.HOOK_TIMEOUT
WHAT = "the form of 'w'"


class StrangeError(BaseException):
    """Not an Exception."""


class MuteError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


ERRORS = [
    RuntimeError("gone"),
    KeyError("gone"),
    OSError("gone"),
    ConnectionRefusedError("gone"),
    TimeoutError("gone"),
    MuteError(),
    SystemExit(3),
    KeyboardInterrupt(),
    StopIteration("gone"),
    asyncio.CancelledError("gone"),
    StrangeError("gone"),
]


def plain(error: BaseException) -> Callable[[], Any]:
    def author() -> Any:
        raise error

    return author


def asynchronous(error: BaseException) -> Callable[[], Any]:
    async def author() -> Any:
        raise error

    return author


def generator(error: BaseException) -> Callable[[], Any]:
    def author() -> FormGenerator:
        yield FormPage
        raise error

    return author


def async_generator(error: BaseException) -> Callable[[], Any]:
    async def author() -> AsyncFormGenerator:
        yield FormPage
        raise error

    return author


def validator(error: BaseException) -> Callable[[], Any]:
    class Page(FormPage):
        name: str = "x"

        @field_validator("name")
        @classmethod
        def check(cls, _: str) -> str:
            raise error

    return lambda: Page


def named(error: BaseException) -> str:
    return type(error).__name__


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    began = time.monotonic()
    with capture_logs():  # with its default settings structlog takes a while to print a traceback
        yield
    assert time.monotonic() - began < DEADLINE, "it has waited for its deadline"


def guarded(predicate: RunPredicate) -> Any:
    @workflow("Guarded", run_predicate=predicate)
    def made() -> StepList:
        return init >> done

    return made


@pytest.mark.parametrize("kind", [plain, asynchronous])
@pytest.mark.parametrize("error", ERRORS, ids=named)
async def test_a_callback_that_raises_whatever_it_is_allows_nothing(kind: Any, error: BaseException) -> None:
    """B38."""
    with pytest.raises(
        ForbiddenError, match=r"could not be decided whether 'ann' may start the workflow 'create_node'"
    ):
        await authorize(kind(error), ASKED, AsyncSession())


@pytest.mark.parametrize("kind", [plain, asynchronous])
@pytest.mark.parametrize("error", ERRORS, ids=named)
async def test_a_predicate_that_raises_whatever_it_is_refuses_the_start(kind: Any, error: BaseException) -> None:
    with pytest.raises(PredicateFailedError, match=r"could not be decided whether the workflow 'made' may run now"):
        await check_predicate(AsyncSession(), guarded(kind(error)), "ann")


@pytest.mark.parametrize("kind", [plain, asynchronous, generator, async_generator, validator])
@pytest.mark.parametrize("error", ERRORS, ids=named)
async def test_a_form_that_raises_whatever_it_is_is_reported_as_broken(kind: Any, error: BaseException) -> None:
    with pytest.raises(DefinitionError, match=f"^{re.escape(WHAT)} ") as refused:
        await run_form(kind(error), {}, [{}], WHAT)
    if isinstance(error, RuntimeError | KeyError | OSError):
        assert type(error).__name__ in str(refused.value)
        assert "gone" in str(refused.value)


@pytest.mark.parametrize("refusal", [InvalidInputError("not like this"), WorkflowNotUsableError("not now")])
@pytest.mark.parametrize("kind", [plain, asynchronous, generator, async_generator])
async def test_a_form_may_refuse_with_a_text_of_its_own(kind: Any, refusal: Exception) -> None:
    with pytest.raises(type(refusal), match=f"^{refusal}$"):
        await run_form(kind(refusal), {}, [{}], WHAT)


async def test_a_form_that_yields_something_else_than_a_page_is_reported_as_broken() -> None:
    def wrong() -> Any:
        yield 42

    with pytest.raises(DefinitionError, match="the form of 'w' yielded 42: pages are classes derived from FormPage"):
        await run_form(wrong, {}, [], WHAT)


async def test_a_form_that_ends_with_a_model_that_it_has_made_is_reported_as_broken() -> None:
    """B32: only steps save; what a form has changed would be lost."""
    block = FolderBlockInactive.new(uuid4())

    async def form() -> AsyncFormGenerator:
        yield FormPage
        yield {"folder": [block]}

    with pytest.raises(DefinitionError, match="ended with a model"):
        await run_form(form, {}, [{}], WHAT)


@pytest.mark.parametrize("blocks", [False, True])
async def test_what_never_ends_is_given_up_after_its_time(blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for the answer, and a connection is held for it."""
    monkeypatch.setattr(user_code, "HOOK_TIMEOUT", 0.05)
    monkeypatch.setattr(user_code, "CANCEL_GRACE", 0.05)
    released = threading.Event()

    def blocking() -> FormGenerator:
        released.wait(10)
        yield FormPage
        return {}

    async def waiting() -> AsyncFormGenerator:
        await asyncio.Event().wait()
        yield FormPage

    try:
        with pytest.raises(DefinitionError, match=r"was cancelled: it ran longer than 0\.05 s"):
            await run_form(blocking if blocks else waiting, {}, [], WHAT)
    finally:
        released.set()


async def test_who_asks_may_be_cancelled_meanwhile() -> None:
    """A coordinator that is stopped does not wait for a form."""
    begun = asyncio.Event()

    async def form() -> AsyncFormGenerator:
        begun.set()
        await asyncio.Event().wait()
        yield FormPage

    asking = asyncio.create_task(run_form(form, {}, [], WHAT))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_plain_functions_are_asked_in_a_thread_of_their_own() -> None:
    """They may look things up over the network; the event loop serves everybody else."""
    here = threading.get_ident()
    seen: list[int] = []

    def callback() -> bool:
        seen.append(threading.get_ident())
        return True

    await authorize(callback, ASKED, AsyncSession())
    await check_predicate(AsyncSession(), guarded(callback), "ann")
    with pytest.raises(FormIncompleteError):
        await run_form(lambda: (callback(), FormPage)[1], {}, [], WHAT)
    assert len(seen) == 3
    assert here not in seen


async def test_a_hook_that_gets_no_thread_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that never end may have taken all, replacements included."""
    released = threading.Event()
    threads = Threads("hook", 1, spare=0, patience=0.05)
    monkeypatch.setattr(user_code.run_in_thread, "__defaults__", (threads,))
    monkeypatch.setattr(user_code.run, "__kwdefaults__", {"threads": threads})
    monkeypatch.setattr(user_code, "HOOK_TIMEOUT", 0.05)
    try:
        with capture_logs() as logged, pytest.raises(DefinitionError, match="ran longer than"):
            await user_code.call_hook(lambda: released.wait(60), "the first", is_async=False)
        assert "thread left behind" in logged[0]["event"]
        monkeypatch.setattr(user_code, "HOOK_TIMEOUT", 60)
        with pytest.raises(
            DefinitionError, match=r"^the second did not begin: .*; 1 of them run functions that should"
        ):
            await user_code.call_hook(lambda: True, "the second", is_async=False)
    finally:
        released.set()
    assert await user_code.call_hook(lambda: True, "the third", is_async=False) is True


async def test_a_predicate_without_words_gets_ours() -> None:
    with pytest.raises(PredicateFailedError, match="may not run now: its run predicate refuses it"):
        await check_predicate(AsyncSession(), guarded(lambda: ""), "ann")
