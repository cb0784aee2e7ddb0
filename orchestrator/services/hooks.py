"""Asking what authors have written for the doors: forms, run predicates and authorisation callbacks.

Whatever such a function does must reach who asked, in words, and must end there: the door serves everybody else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import Attempted, AuthCallback, given
from orchestrator.db.session import is_database_loss
from orchestrator.engine.arguments import is_async
from orchestrator.errors import DefinitionError, ForbiddenError, PredicateFailedError
from orchestrator.forms import fill_form
from orchestrator.services.injection import take_models
from orchestrator.types import State
from orchestrator.user_code import ask
from orchestrator.workflow import Workflow


async def require(callback: AuthCallback | None, attempted: Attempted) -> None:
    """Ask whether somebody may do something; without a callback everybody may.

    Raises:
        ForbiddenError: the callback says no, or cannot say: what cannot be decided is not allowed.
    """
    if callback is None:
        return
    place = f"the workflow {attempted.workflow!r}"
    if attempted.step is not None:
        place = f"the step {attempted.step!r} of {place}"
    known = {
        "user": attempted.user,
        "workflow": attempted.workflow,
        "step": attempted.step,
        "action": attempted.action.value,
    }
    try:
        # Its answer may be an object of the author's own, whose truth is a question as well.
        allowed = bool(await ask(given(callback, known), "its authorisation callback", is_async=is_async(callback)))
    except DefinitionError as error:
        raise ForbiddenError(
            f"it could not be decided whether {attempted.user!r} may {attempted.action.value} {place}: {error}"
        ) from error
    if not allowed:
        raise ForbiddenError(f"{attempted.user!r} may not {attempted.action.value} {place}")


async def require_predicate(session: AsyncSession, workflow: Workflow, user: str) -> None:
    """Ask a workflow's run predicate, if it has one, whether it may run now, whoever starts it.

    Raises:
        PredicateFailedError: it says no, or cannot say.
    """
    if workflow.run_predicate is None:
        return
    function = given(workflow.run_predicate, {"user": user, "workflow": workflow.name, "session": session})
    try:
        said = await ask(
            function, "its run predicate", is_async=is_async(workflow.run_predicate), is_outage=is_database_loss
        )
    except DefinitionError as error:
        raise PredicateFailedError(
            f"it could not be decided whether the workflow {workflow.name!r} may run now: {error}"
        ) from error
    if said is not True:
        reason = said if isinstance(said, str) and said else "its run predicate is against it"
        raise PredicateFailedError(f"the workflow {workflow.name!r} may not run now: {reason}")


async def fill(form: Callable[..., Any], arguments: Mapping[str, Any], pages: Sequence[State], what: str) -> State:
    """Fill in a form; see :func:`orchestrator.forms.fill_form`.

    Raises:
        InvalidInputError, FormIncompleteError: the pages do not fit.
        DefinitionError: the form is wrong as written: it raises, does not end, or ends with something else than values.
    """
    filling = functools.partial(fill_form, form, arguments, pages, what)
    filled = await ask(filling, what, is_async=True, is_outage=is_database_loss)
    assert isinstance(filled, Mapping)  # noqa: S101 - it is what fill_form returns
    if take_models(filled) is not None:
        raise DefinitionError(f"{what} ended with a model: a form changes nothing, so give its id to a step that does")
    return dict(filled)
