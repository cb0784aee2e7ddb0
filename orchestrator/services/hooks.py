"""Call user-supplied hooks: forms, run predicates, authorization callbacks.

A hook that raises or hangs fails the request that called it, never the program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.activity import doing
from orchestrator.authorization import Attempted, AuthCallback, User, given
from orchestrator.db.hook_session import face, lend
from orchestrator.db.session import is_database_loss
from orchestrator.engine.arguments import is_async
from orchestrator.engine.state import canonical, check_size, store_and_read
from orchestrator.errors import (
    DefinitionError,
    ForbiddenError,
    InvalidInputError,
    InvalidResultError,
    ModelError,
    PredicateFailedError,
)
from orchestrator.fair_turns import calling_author
from orchestrator.forms import fill_form
from orchestrator.services.injection import refer_to_models, take_models
from orchestrator.settings import Limits
from orchestrator.types import State
from orchestrator.user_code import call_hook
from orchestrator.workflow import Workflow


async def authorize(callback: AuthCallback | None, attempted: Attempted, session: AsyncSession) -> None:
    """Check with the callback that a user may do something; without a callback every user may.

    Raises:
        ForbiddenError: the callback refuses, or fails: what cannot be decided is not allowed.
    """
    if callback is None:
        return
    place = f"the workflow {attempted.workflow!r}"
    if attempted.step is not None:
        place = f"the step {attempted.step!r} of {place}"
    user = User.of(attempted.user)
    known = {
        "user": attempted.user,
        "workflow": attempted.workflow,
        "step": attempted.step,
        "action": attempted.action.value,
        "roles": frozenset(role.value for role in user.roles),
        "claims": dict(user.claims),
    }
    what = "its authorization callback"
    try:
        # Its result may be an author's object, whose truth value is user code as well.
        with doing(f"the authorization callback of {place}"):
            async with lend(session, what) as lent:
                function = given(callback, {**known, "session": face(lent, callback)})
                answer = await _call(function, what, is_async=is_async(callback))
            allowed = bool(answer)
    except DefinitionError as error:
        raise ForbiddenError(
            f"it could not be decided whether {attempted.user!r} may {attempted.action.value} {place}: {error}"
        ) from error
    if not allowed:
        raise ForbiddenError(f"{attempted.user!r} may not {attempted.action.value} {place}")


async def check_predicate(session: AsyncSession, workflow: Workflow, user: str) -> None:
    """Check with a workflow's run predicate, if it has one, that the workflow may run now.

    Raises:
        PredicateFailedError: the predicate refuses, or fails.
    """
    if workflow.run_predicate is None:
        return
    predicate, what = workflow.run_predicate, "its run predicate"
    try:
        with doing(f"the run predicate of the workflow {workflow.name!r}"):
            async with lend(session, what) as lent:
                function = given(predicate, {"user": user, "workflow": workflow.name, "session": face(lent, predicate)})
                answer = await _call(function, what, is_async=is_async(predicate))
    except DefinitionError as error:
        raise PredicateFailedError(
            f"it could not be decided whether the workflow {workflow.name!r} may run now: {error}"
        ) from error
    if answer is not True:
        reason = answer if isinstance(answer, str) and answer else "its run predicate refuses it"
        raise PredicateFailedError(f"the workflow {workflow.name!r} may not run now: {reason}")


async def run_form(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Sequence[State], what: str) -> State:
    """Run a form generator with these pages; see :func:`orchestrator.forms.fill_form`.

    Args:
        arguments: a session among them is lent to the form, a plain form gets its synchronous face.

    Raises:
        InvalidInputError, FormIncompleteError: the pages do not fit.
        DefinitionError: the form is wrong as written: it raises, does not end, or ends with something other than values.
    """
    session = arguments.get("session")
    with doing(what):
        if isinstance(session, AsyncSession):
            async with lend(session, what) as lent:
                filled = await _fill(form, {**arguments, "session": face(lent, form)}, pages, what)
        else:
            filled = await _fill(form, arguments, pages, what)
    assert isinstance(filled, Mapping)  # noqa: S101 - fill_form returns one
    taken = take_models(filled)
    if taken is None:
        return dict(filled)
    try:
        return cast("State", refer_to_models(taken))
    except ModelError as error:
        raise DefinitionError(
            f"{what} ended with a model that is not as it is stored: a form changes nothing, so let a step do it: {error}"
        ) from error


async def _fill(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Sequence[State], what: str) -> object:
    filling = functools.partial(fill_form, form, arguments, pages, what)
    return await _call(filling, what, is_async=True)


async def _call(function: Callable[[], object], what: str, *, is_async: bool) -> object:
    with calling_author():
        return await call_hook(function, what, is_async=is_async, is_outage=is_database_loss)


def check_pages(pages: Sequence[State]) -> None:
    """Check that a caller's pages are what JSON can hold, before anything is done with them.

    Raises:
        InvalidInputError: one is not.
    """
    for number, page in enumerate(pages, start=1):
        try:
            store_and_read(page)
        except ValueError as error:
            raise InvalidInputError(f"page {number} of the input cannot be stored as JSON: {error}") from error


def check_input(value: Mapping[str, Any], what: str, limits: Limits, state: State | None = None) -> State:
    """Return what a caller sends as it enters a state.

    Args:
        what: names it in error texts.
        state: the state that it is merged into.

    Raises:
        InvalidInputError: it is not JSON, or the state would be too large.
    """
    try:
        delta = canonical(dict(value), what)
        check_size({**(state or {}), **delta}, soft=limits.state_soft_limit, hard=limits.state_hard_limit)
    except InvalidResultError as error:
        raise InvalidInputError(str(error)) from error
    return delta
