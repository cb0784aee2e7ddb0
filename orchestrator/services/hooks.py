"""Call user-supplied hooks: forms, run predicates, authorization callbacks.

A hook that raises or hangs fails the request that called it, never the program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.activity import doing
from orchestrator.authorization import Attempted, AuthCallback, User, given
from orchestrator.db.session import is_database_loss
from orchestrator.engine.arguments import is_async
from orchestrator.engine.state import canonical, check_size, store_and_read
from orchestrator.errors import (
    DefinitionError,
    ForbiddenError,
    InvalidInputError,
    InvalidResultError,
    PredicateFailedError,
)
from orchestrator.forms import fill_form
from orchestrator.services.injection import take_models
from orchestrator.settings import Limits
from orchestrator.types import State
from orchestrator.user_code import call_hook
from orchestrator.workflow import Workflow


async def authorize(callback: AuthCallback | None, attempted: Attempted) -> None:
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
    try:
        # Its result may be an author's object, whose truth value is user code as well.
        with doing(f"the authorization callback of {place}"):
            answer = await call_hook(given(callback, known), "its authorization callback", is_async=is_async(callback))
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
    function = given(workflow.run_predicate, {"user": user, "workflow": workflow.name, "session": session})
    try:
        with doing(f"the run predicate of the workflow {workflow.name!r}"):
            answer = await call_hook(
                function, "its run predicate", is_async=is_async(workflow.run_predicate), is_outage=is_database_loss
            )
    except DefinitionError as error:
        raise PredicateFailedError(
            f"it could not be decided whether the workflow {workflow.name!r} may run now: {error}"
        ) from error
    if answer is not True:
        reason = answer if isinstance(answer, str) and answer else "its run predicate refuses it"
        raise PredicateFailedError(f"the workflow {workflow.name!r} may not run now: {reason}")


async def run_form(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Sequence[State], what: str) -> State:
    """Run a form generator with these pages; see :func:`orchestrator.forms.fill_form`.

    Raises:
        InvalidInputError, FormIncompleteError: the pages do not fit.
        DefinitionError: the form is wrong as written: it raises, does not end, or ends with something other than values.
    """
    filling = functools.partial(fill_form, form, arguments, pages, what)
    with doing(what):
        filled = await call_hook(filling, what, is_async=True, is_outage=is_database_loss)
    assert isinstance(filled, Mapping)  # noqa: S101 - fill_form returns one
    if take_models(filled) is not None:
        raise DefinitionError(f"{what} ended with a model: a form changes nothing, so give its id to a step that does")
    return dict(filled)


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
