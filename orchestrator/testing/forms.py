"""Fill in a form without a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.errors import FormIncompleteError
from orchestrator.services.hooks import run_form
from orchestrator.testing.process import Pages, list_pages
from orchestrator.types import JSON, State
from orchestrator.workflow import FormFunction, Step

MOST_PAGES = 100
"""A form that asks for more pages has no end."""


async def run_form_generator(
    form: FormFunction | Step, pages: Pages = (), /, **arguments: Any
) -> tuple[Sequence[JSON], State]:
    """Fill in a form as production does, and return the JSON schema of each page, and the form's result.

    Args:
        form: a form function, or an input step.
        pages: what is sent for its pages, in order; an empty page for each that is missing, so that defaults apply.
        arguments: the parameters of the form: values, models, a ``session``.

    Raises:
        InvalidInputError: a page does not fit.
        DefinitionError: the function is not a form.
    """
    function = form.form if isinstance(form, Step) else form
    if function is None:
        raise TypeError(f"{form!r} has no form: it is no input step")
    sent, schemas = list_pages(pages), list[JSON]()
    while True:
        try:
            result = await run_form(function, arguments, sent[: len(schemas)], "the form")
        except FormIncompleteError as error:
            schemas.append(error.form)
            if len(schemas) > MOST_PAGES:
                raise
            sent += [{}] * (len(schemas) - len(sent))
        else:
            if len(sent) > len(schemas):
                await run_form(function, arguments, sent, "the form")
            return schemas, result
