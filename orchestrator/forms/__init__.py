"""Forms: pages are ``pydantic-forms`` classes, so that its user interface components fit; filled in here in any style.

A form is a generator of pages (async or plain) that returns – an async one yields – the result, or simply a function that
returns one page class. All pages that were sent are known when it begins, so a plain form is one call in one thread: making
pages, the validators of pages, and what it does when it is not completed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError
from pydantic_forms.core import FormPage, page_schema
from pydantic_forms.core.shared import validation_error

from orchestrator.errors import DefinitionError, FormIncompleteError, InvalidInputError
from orchestrator.types import State
from orchestrator.user_code import run_in_thread, unwrap
from orchestrator.validation import Problems, find_problems, leave_out_unknown

__all__ = ["ComposedForm", "FormPage", "Pages", "SubmitFormPage", "continue_form", "fill_form"]


class SubmitFormPage(FormPage):
    """The last page of a form: user interfaces show "Start" instead of "Next"."""

    meta__ = {"hasNext": False}  # noqa: RUF012 - as its base declares it


FormGenerator = Generator[type[FormPage], FormPage, State]
"""The annotation of a plain form generator."""

AsyncFormGenerator = AsyncGenerator[type[FormPage] | State, FormPage]
"""The annotation of an async form generator; its last yield is the result."""


class Pages:
    """The pages that were sent for a form, in order. Forms that follow one another take theirs from the same.

    Args:
        what: names the form in error texts.
    """

    def __init__(self, sent: Sequence[State], what: str) -> None:
        self._sent = [dict(page) for page in sent]
        self._what = what
        self.taken = 0

    def fill(self, page: type[FormPage]) -> FormPage:
        """Fill a page with what was sent for it.

        Raises:
            FormIncompleteError: nothing was; the error carries the page's JSON schema.
            InvalidInputError: it does not fit.
        """
        if self.taken == len(self._sent):
            raise FormIncompleteError(page_schema(page), meta=page.form_meta())
        sent = self._sent[self.taken]
        self.taken += 1
        few, left_out = leave_out_unknown(page, sent)
        try:
            return page(**few)
        except ValidationError as error:
            problems = find_problems(error, lambda one: validation_error(page, one).errors, left_out)
            raise self.refuse(problems) from error

    def require_none_left(self) -> None:
        """Check that every page that was sent has been taken.

        Raises:
            InvalidInputError: some have not.
        """
        if self.taken < len(self._sent):
            raise InvalidInputError(f"{self._what} has fewer pages than the {len(self._sent)} that were sent")

    def refuse(self, problems: Problems) -> InvalidInputError:
        """Build the error for pages that were not filled in correctly."""
        wrong = problems.describe()
        return InvalidInputError(
            f"{self._what} was not filled in correctly: {wrong}", problems.first, left_out=problems.left_out
        )


@dataclass(frozen=True, slots=True)
class ComposedForm:
    """A form of the engine's own that other forms are part of. An async form function returns it instead of pages.

    Args:
        fill: takes the pages and returns the form's result.
    """

    fill: Callable[[Pages], Awaitable[State]]


async def fill_form(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Sequence[State], what: str) -> State:
    """Fill in a form and return its result.

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
    sent = Pages(pages, what)
    try:
        result = await continue_form(form, arguments, sent, what)
    except ValidationError as error:
        # Of a model that the author fills with the answers.
        raise sent.refuse(find_problems(error, lambda one: one.errors(include_url=False))) from error
    sent.require_none_left()
    return result


async def continue_form(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Pages, what: str) -> State:
    """Let a form of any style take its pages, and return its result, so that one form can continue where another ends.

    Args:
        form, arguments, what: as for :func:`fill_form`.

    Raises:
        FormIncompleteError, InvalidInputError: the pages do not fit.
        DefinitionError: the function is not a form, or ends without a result.
    """
    answered = functools.partial(_answer, arguments, pages, what)
    call = functools.partial(form, **arguments)
    if inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form):
        made = call()
    else:
        made = unwrap(await run_in_thread(functools.partial(_fill_plain, call, answered, what), what), "the form")
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, _Filled):
        return made.result
    if isinstance(made, ComposedForm):
        return await made.fill(pages)
    if _is_page(made):  # of an async function
        return answered(made).model_dump()
    if inspect.isasyncgen(made):
        return await _fill_async(cast("AsyncFormGenerator", made), answered, what)
    raise DefinitionError(f"{what} must be a generator of FormPage classes or return one, not {made!r}")


@dataclass(frozen=True, slots=True)
class _Filled:
    """What a plain form has ended with."""

    result: State


_Answer = Callable[[object], FormPage]


def _answer(arguments: Mapping[str, Any], pages: Pages, what: str, page: object) -> FormPage:
    """Fill a page; add the answers to the form's ``state``, if it has one: pydantic-forms does so before it goes on."""
    if not _is_page(page):
        raise DefinitionError(f"{what} yielded {page!r:.100}: pages are classes derived from FormPage")
    filled = pages.fill(cast("type[FormPage]", page))
    state = arguments.get("state")
    if isinstance(state, dict):
        state.update(filled.model_dump())
    return filled


def _fill_plain(call: Callable[[], object], answered: _Answer, what: str) -> object:
    """In a thread: fill in a form, if it is plain; else return what its function has returned."""
    made = call()
    if _is_page(made):
        return _Filled(answered(made).model_dump())
    if not inspect.isgenerator(made):
        return made
    # Closed here: what the form does at its end belongs into the thread in which it has begun.
    with closing(cast("FormGenerator", made)) as pages:
        send = functools.partial(next, pages)
        while True:
            try:
                page = send()
            except StopIteration as stop:
                return _Filled(_result(stop.value, what))
            send = functools.partial(pages.send, answered(page))


async def _fill_async(made: AsyncFormGenerator, answered: _Answer, what: str) -> State:
    async with aclosing(made):
        try:
            page = await anext(made)
            while not isinstance(page, Mapping):
                page = await made.asend(answered(page))
        except StopAsyncIteration as error:
            raise DefinitionError(f"{what} ended without a result: an async form yields a dict last") from error
    return _result(page, what)


def _is_page(made: object) -> bool:
    return isinstance(made, type) and issubclass(made, FormPage)


def _result(result: object, what: str) -> State:
    if not isinstance(result, Mapping):
        raise DefinitionError(f"{what} must end with a dict, not {result!r}")
    return dict(result)
