"""B34: forms of every style are walked page by page."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import ValidationError, field_validator, model_validator

from orchestrator.errors import DefinitionError, FormIncompleteError, InvalidInputError
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage, fill_form
from orchestrator.messages import Refused, encode
from orchestrator.types import State

ID = "6f1e0a52-93d4-4f2c-8e5e-0d8f7a3b1c9d"
WHAT = "the form of 'create_node'"


class Name(FormPage):
    name: str

    @field_validator("name")
    @classmethod
    def lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError("must be in lower case")
        return value


class Size(FormPage):
    size: int = 1
    site: UUID | None = None


def plain(greeting: str = "hello") -> FormGenerator:
    first = yield Name
    second = yield Size
    return {**first.model_dump(), **second.model_dump(), "greeting": greeting}


async def asynchronous(greeting: str = "hello") -> AsyncFormGenerator:
    first = yield Name
    await asyncio.sleep(0)
    second = yield Size
    yield {**first.model_dump(), **second.model_dump(), "greeting": greeting}


@functools.wraps(asynchronous)
def wrapped(**arguments: Any) -> Any:
    return asynchronous(**arguments)


class Made:
    """A form that is an object."""

    def __call__(self, greeting: str = "hello") -> AsyncFormGenerator:
        return asynchronous(greeting)


TWO_PAGES = pytest.mark.parametrize("form", [plain, asynchronous, functools.partial(asynchronous), wrapped, Made()])


async def fill(form: Callable[..., Any], *pages: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return await fill_form(form, arguments, pages, WHAT)


@TWO_PAGES
async def test_a_form_that_is_filled_in_gives_its_result(form: Callable[..., Any]) -> None:
    result = await fill(form, {"name": "ams-1"}, {"size": "5", "site": ID}, greeting="hi")

    assert result == {"name": "ams-1", "size": 5, "site": UUID(ID), "greeting": "hi"}


@TWO_PAGES
@pytest.mark.parametrize(("pages", "fields"), [([], {"name"}), ([{"name": "ams-1"}], {"size", "site"})])
async def test_an_unfinished_form_carries_the_schema_of_its_next_page(
    form: Callable[..., Any], pages: list[dict[str, Any]], fields: set[str]
) -> None:
    with pytest.raises(FormIncompleteError) as caught:
        await fill(form, *pages)

    assert isinstance(caught.value.form, dict)
    properties = caught.value.form["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == fields
    assert "the form is not complete: send the next page as well" in str(caught.value)


@TWO_PAGES
async def test_more_pages_than_the_form_has_are_refused(form: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="the form of 'create_node' has fewer pages than the 3 that were sent"):
        await fill(form, {"name": "a"}, {}, {})


@TWO_PAGES
async def test_a_wrong_page_names_each_field(form: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await fill(form, {"name": "a"}, {"size": "large", "site": "no"})

    assert str(caught.value).startswith("the form of 'create_node' was not filled in correctly: size: ")
    assert [reason["loc"] for reason in caught.value.reasons] == [["size"], ["site"]]
    assert {reason["key"] for reason in caught.value.reasons} == {"form.invalid"}


@TWO_PAGES
async def test_the_words_of_an_authors_validator_reach_whoever_fills_in(form: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="name: must be in lower case"):
        await fill(form, {"name": "AMS"})


@TWO_PAGES
async def test_a_field_that_the_page_does_not_have_is_refused(form: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="nmae: Extra inputs are not permitted"):
        await fill(form, {"name": "a", "nmae": "b"})


def one_page() -> type[FormPage]:
    return Size


async def one_page_later() -> type[FormPage]:
    return Size


@pytest.mark.parametrize("form", [one_page, one_page_later])
async def test_a_form_may_be_a_function_that_returns_one_page(form: Callable[..., Any]) -> None:
    assert await fill(form, {"size": 3}) == {"size": 3, "site": None}
    with pytest.raises(FormIncompleteError):
        await fill(form)
    with pytest.raises(InvalidInputError, match="has fewer pages than the 2"):
        await fill(form, {"size": 3}, {"size": 4})


async def test_a_page_may_depend_on_the_page_before() -> None:
    def form() -> Generator[type[FormPage], Any, dict[str, Any]]:
        first = yield Name

        class Confirm(FormPage):
            sure: Literal[first.name]  # type: ignore[name-defined]

        second = yield Confirm
        return dict(second.model_dump())

    assert await fill(form, {"name": "a"}, {"sure": "a"}) == {"sure": "a"}
    with pytest.raises(InvalidInputError, match="sure: "):
        await fill(form, {"name": "a"}, {"sure": "b"})


def plain_with_state(state: State) -> FormGenerator:
    yield Name
    before = dict(state)
    yield Size
    return {"before": before, "after": dict(state)}


async def asynchronous_with_state(state: State) -> AsyncFormGenerator:
    yield Name
    before = dict(state)
    yield Size
    yield {"before": before, "after": dict(state)}


@pytest.mark.parametrize("form", [plain_with_state, asynchronous_with_state])
async def test_the_state_of_a_form_has_the_answers_of_the_pages_before(form: Callable[..., Any]) -> None:
    state = {"customer": "Bakery", "name": "before the form"}

    result = await fill(form, {"name": "ams-1"}, {"size": 5, "site": ID}, state=state)

    assert result == {
        "before": {"customer": "Bakery", "name": "ams-1"},
        "after": {"customer": "Bakery", "name": "ams-1", "size": 5, "site": UUID(ID)},
    }


async def test_a_validator_of_the_whole_page_is_distinguished_from_its_fields() -> None:
    class Range(FormPage):
        low: int
        high: int

        @model_validator(mode="after")
        def ordered(self) -> Range:
            if self.low > self.high:
                raise ValueError("low must not be above high")
            return self

    with pytest.raises(InvalidInputError, match="__root__: low must not be above high"):
        await fill(lambda: Range, {"low": 2, "high": 1})


async def test_a_model_that_an_author_fills_in_the_form_itself_is_the_callers_mistake_too() -> None:
    def form() -> FormGenerator:
        page = yield Name
        return Size(size=page.model_dump()["name"]).model_dump()

    with pytest.raises(InvalidInputError, match="was not filled in correctly: size: Input should be a valid integer"):
        await fill(form, {"name": "large"})


@pytest.mark.parametrize("value", [None, Size(), "text", dict, {"size": 1}, [Size]])
async def test_what_is_no_form_is_the_authors_mistake(value: Any) -> None:
    with pytest.raises(DefinitionError, match="must be a generator of FormPage classes or return one, not "):
        await fill(lambda: value)


async def test_a_plain_form_that_ends_without_a_dict_is_the_authors_mistake() -> None:
    def form() -> Any:
        yield Name

    with pytest.raises(DefinitionError, match="must end with a dict, not None"):
        await fill(form, {"name": "a"})


async def test_an_async_form_that_ends_without_a_dict_is_the_authors_mistake() -> None:
    async def form() -> AsyncGenerator[type[FormPage], FormPage]:
        yield Name

    with pytest.raises(DefinitionError, match="ended without a result: an async form yields a dict last"):
        await fill(form, {"name": "a"})


async def test_a_form_without_pages_needs_no_input() -> None:
    async def form() -> AsyncFormGenerator:
        yield {"x": 1}

    assert await fill(form) == {"x": 1}
    with pytest.raises(InvalidInputError, match="has fewer pages than the 1"):
        await fill(form, {"name": "a"})


async def test_the_pages_of_the_caller_stay_as_they_were() -> None:
    pages: list[dict[str, Any]] = [{"name": "a"}, {"size": 5}]

    await fill(plain, *pages)

    assert pages == [{"name": "a"}, {"size": 5}]


class Never(FormPage):
    name: str

    @field_validator("name")
    @classmethod
    def judge(cls, value: str) -> str:
        raise ValueError(f"{value} is not the one")


async def test_what_a_pages_own_validator_says_can_be_sent_to_whoever_asked() -> None:
    """B39: the refusal's reasons, in a message."""
    with pytest.raises(InvalidInputError) as caught:
        await fill(lambda: Never, {"name": "x"})

    refused = encode(Refused(error="InvalidInputError", detail="…", reasons=caught.value.reasons))
    assert b"x is not the one" in refused


def looking_up() -> FormGenerator:
    threads.append(threading.get_ident())
    yield Size
    return {}


def looking_up_one_page() -> type[FormPage]:
    threads.append(threading.get_ident())
    return Size


threads: list[int] = []


@pytest.mark.parametrize("form", [looking_up, looking_up_one_page])
async def test_a_plain_form_does_not_block_the_event_loop(form: Callable[..., Any]) -> None:
    threads.clear()

    await fill(form, {"size": 1})

    assert threads
    assert threading.get_ident() not in threads


in_context = contextvars.ContextVar("in_context", default="nothing")


async def test_all_turns_of_a_plain_form_run_in_one_thread_and_one_context() -> None:
    kept = threading.local()
    seen: list[tuple[str, int, str]] = []

    def look(where: str) -> None:
        seen.append((where, threading.get_ident(), f"{getattr(kept, 'value', 'nothing')}, {in_context.get()}"))

    class Judged(FormPage):
        name: str

        @field_validator("name")
        @classmethod
        def judge(cls, value: str) -> str:
            look("validator")
            return value

    def inner() -> Generator[type[FormPage], Any, str]:
        look("inner form")
        return str((yield Judged).name)

    def form() -> Generator[type[FormPage], Any, dict[str, Any]]:
        kept.value, here = "thread-local", in_context.set("context")
        try:
            yield Name
            return {"name": (yield from inner())}
        finally:
            look("end")
            in_context.reset(here)

    assert await fill(form, {"name": "a"}, {"name": "b"}) == {"name": "b"}
    for pages in ([], [{"name": "a"}], [{"name": "A"}]):
        with pytest.raises((FormIncompleteError, InvalidInputError)):
            await fill(form, *pages)
    assert [where for where, *_ in seen] == ["inner form", "validator", "end", "end", "inner form", "end", "end"]
    assert {values for *_, values in seen} == {"thread-local, context"}
    assert threading.get_ident() not in {thread for _, thread, _ in seen}
    assert in_context.get() == "nothing"


async def test_an_async_form_that_is_not_completed_has_come_to_its_end_when_the_answer_is_there() -> None:
    ended: list[bool] = []

    async def form() -> AsyncFormGenerator:
        try:
            yield Name
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(FormIncompleteError):
        await fill(form)
    assert ended == [True]


async def test_a_form_that_goes_on_after_its_end_is_the_authors_mistake() -> None:
    def form() -> Any:
        try:
            yield Name
        finally:
            yield Size

    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        await fill(form)


async def test_an_error_of_the_form_itself_goes_through() -> None:
    def form() -> FormGenerator:
        yield Name
        raise LookupError("no such site")

    with pytest.raises(LookupError, match="no such site"):
        await fill(form, {"name": "a"})


def test_a_form_page_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        Name.model_validate({"name": "a", "other": 1})
