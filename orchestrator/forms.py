"""Forms: pages are ``pydantic-forms`` classes, so that its user interface components fit; walked here in any style.

A form is a generator of pages (async or plain) that returns – an async one yields – the result, or simply a function that
returns one page class.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError
from pydantic_forms.core import FormPage
from pydantic_forms.core import asynchronous as async_forms
from pydantic_forms.exceptions import FormNotCompleteError, FormOverflowError, FormValidationError

from orchestrator.errors import DefinitionError, FormIncompleteError, InvalidInputError
from orchestrator.text import format_problem
from orchestrator.types import State
from orchestrator.user_code import run_in_thread, unwrap

__all__ = ["FormPage", "SubmitFormPage", "fill_form", "walk"]


class SubmitFormPage(FormPage):
    """The last page of a form: user interfaces show "Start" instead of "Next"."""

    meta__ = {"hasNext": False}  # noqa: RUF012 - as its base declares it


FormGenerator = Generator[type[FormPage], FormPage, State]
"""The annotation of a plain form generator."""

AsyncFormGenerator = AsyncGenerator[type[FormPage] | State, FormPage]
"""The annotation of an async form generator; its last yield is the result."""


async def fill_form(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Sequence[State], what: str) -> State:
    """Walk a form with filled-in pages and return its result.

    Args:
        form: the author's form function.
        arguments: its keyword arguments.
        pages: the filled pages in order.
        what: names the form in error texts.

    Raises:
        InvalidInputError: a page does not fit, or there are more pages than the form has.
        FormIncompleteError: there is another page; it carries the page's JSON schema.
        DefinitionError: the function is not a form.
    """
    inputs = [dict(page) for page in pages]
    walked = walk(form, arguments, what)
    try:
        return _result(await async_forms.post_form(lambda _: walked, {}, inputs), what)
    except FormNotCompleteError as error:
        meta = error.meta if isinstance(error.meta, Mapping) else None
        raise FormIncompleteError(error.form, meta=meta) from error
    except FormOverflowError as error:
        raise InvalidInputError(f"{what} has fewer pages than the {len(inputs)} that were sent") from error
    except FormValidationError as error:
        raise _wrongly_filled(what, error.errors) from error
    except ValidationError as error:
        raise _wrongly_filled(what, error.errors(include_url=False)) from error
    finally:
        await walked.aclose()


def _wrongly_filled(what: str, problems: Sequence[Mapping[str, Any]]) -> InvalidInputError:
    wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {format_problem(one)}" for one in problems)
    return InvalidInputError(f"{what} was not filled in correctly: {wrong}", problems)


async def walk(form: Callable[..., Any], arguments: Mapping[str, Any], what: str) -> AsyncFormGenerator:
    """Yield the pages of a form of any style, and last its result, so that one form can continue where another ends.

    Args:
        form, arguments, what: as for :func:`fill_form`.

    Raises:
        DefinitionError: the function is not a form, or ends without a result.
    """
    # A plain form may look things up while it makes its pages: not on the event loop.
    call = functools.partial(form, **arguments)
    made = call() if inspect.iscoroutinefunction(form) else await _in_thread(call)
    if inspect.isawaitable(made):
        made = await made
    if inspect.isasyncgen(made):
        pages = cast("AsyncFormGenerator", made)
        page: type[FormPage] | State = await _asend(pages, None, what)
        while not isinstance(page, Mapping):
            filled = yield _page(page, what)
            _add_answers(arguments, filled)
            page = await _asend(pages, filled, what)
        yield _result(page, what)
    elif inspect.isgenerator(made):
        plain = cast("FormGenerator", made)
        turn = await _turn(plain, None)
        while not isinstance(turn, _Returned):
            filled = yield _page(turn, what)
            _add_answers(arguments, filled)
            turn = await _turn(plain, filled)
        yield _result(turn.value, what)
    elif isinstance(made, type) and issubclass(made, FormPage):
        filled = yield made
        yield filled.model_dump()
    else:
        raise DefinitionError(f"{what} must be a generator of FormPage classes or return one, not {made!r}")


def _add_answers(arguments: Mapping[str, Any], filled: FormPage) -> None:
    """Add the answers of a page to the form's ``state``, if it has one: pydantic-forms does so before it goes on."""
    state = arguments.get("state")
    if isinstance(state, dict):
        state.update(filled.model_dump())


@dataclass(frozen=True, slots=True)
class _Returned:
    """What a plain generator returned; StopIteration itself cannot leave a thread."""

    value: object


async def _in_thread(function: Callable[[], object]) -> object:
    return unwrap(await run_in_thread(function), "the form")


async def _turn(generator: FormGenerator, filled: FormPage | None) -> type[FormPage] | _Returned:
    return cast("type[FormPage] | _Returned", await _in_thread(functools.partial(_send, generator, filled)))


def _send(generator: FormGenerator, filled: FormPage | None) -> type[FormPage] | _Returned:
    try:
        # A generator that has not begun takes None only.
        return next(generator) if filled is None else generator.send(filled)
    except StopIteration as stop:
        return _Returned(stop.value)


async def _asend(generator: AsyncFormGenerator, filled: FormPage | None, what: str) -> type[FormPage] | State:
    try:
        return await (anext(generator) if filled is None else generator.asend(filled))
    except StopAsyncIteration as error:
        raise DefinitionError(f"{what} ended without a result: an async form yields a dict last") from error


def _page(page: object, what: str) -> type[FormPage]:
    if not (isinstance(page, type) and issubclass(page, FormPage)):
        raise DefinitionError(f"{what} yielded {page!r:.100}: pages are classes derived from FormPage")
    return page


def _result(result: object, what: str) -> State:
    if not isinstance(result, Mapping):
        raise DefinitionError(f"{what} must end with a dict, not {result!r}")
    return dict(result)
