"""The first pages of the workflow types' forms, and choices for authors' own pages.

The engine's page is followed by the pages of the author's form, which sees what was filled in so far: by name, like a step.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic_core import CoreSchema
from pydantic_core.core_schema import custom_error_schema, no_info_before_validator_function
from pydantic_forms.validators import Choice
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.hook_session import face
from orchestrator.db.subscriptions.candidates import list_product_types
from orchestrator.db.subscriptions.neighbours import Case
from orchestrator.db.subscriptions.queries import list_choices
from orchestrator.db.thread_session import either
from orchestrator.db.workflows import list_products
from orchestrator.engine.arguments import Arguments
from orchestrator.engine.references import SUBSCRIPTION_ID, SUBSCRIPTION_VERSION
from orchestrator.errors import (
    DefinitionError,
    InvalidInputError,
    StepError,
    WorkflowNotUsableError,
)
from orchestrator.forms import ComposedForm, FormPage, Pages, continue_form
from orchestrator.services.injection import load_arguments
from orchestrator.services.subscriptions import require_version
from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import FormFunction

_NAMED_CHOICES = 5
"""Choices that a refusal names: an example of what an id looks like, and most of a short list."""

MAX_CHOICES = 1000
"""A longer list of options is of no use to people, and its page would be a large message."""


class SubscriptionPage(FormPage):
    """Names the subscription."""

    model_config = ConfigDict(title="Subscription")

    subscription_id: UUID


class SubscriptionVersionPage(SubscriptionPage):
    """Names the subscription and, if the caller has looked at it, the version that was seen."""

    version: int | None = None


@either
async def product_choice(session: AsyncSession, workflow: str) -> type[Choice]:
    """Return the products that have a workflow, as a type for a field of a page; each is chosen by its id or its name.

    Raises:
        WorkflowNotUsableError: there is none.
    """
    found = await list_products(session, workflow)
    if not found:
        raise WorkflowNotUsableError(
            f"no product has the workflow {workflow!r}: link it in a migration (link_workflow)",
            [{"key": "workflow.no_products"}],
        )
    options = _choice("ProductChoice", {str(product_id): name for product_id, name in found})
    options.__named__ = {name: str(product_id) for product_id, name in found}
    return options


@either
async def product_type_choice(session: AsyncSession) -> type[Choice]:
    """Return the types of all products, as a type for a field of a page.

    Raises:
        InvalidInputError: there is none.
    """
    found = await list_product_types(session)
    if not found:
        raise InvalidInputError("the database has no product yet, so there is no type to choose")
    return _choice("ProductTypeChoice", {one: one for one in found})


@either
async def subscription_choice(
    session: AsyncSession,
    *,
    product_types: Sequence[str] = (),
    statuses: Sequence[SubscriptionLifecycle | str] = (SubscriptionLifecycle.ACTIVE,),
    only_in_sync: bool = True,
) -> type[Choice]:
    """Subscriptions to choose from, newest first, as a type for a field of a page.

    Of more than 1,000 the page offers the newest, says so, and takes the id of any other.

    Args:
        product_types: only of products of these types; default all.
        only_in_sync: leave out those that a process is changing now.

    Raises:
        InvalidInputError: there is none to choose from.
    """
    found, all_ids = await list_choices(
        session,
        product_types=list(product_types),
        statuses=[SubscriptionLifecycle(status).value for status in statuses],
        only_in_sync=only_in_sync,
        limit=MAX_CHOICES,
    )
    if not found:
        kinds = f" of the type {' or '.join(product_types)}" if product_types else ""
        raise InvalidInputError(f"there is no subscription{kinds} to choose from")
    return _choice("SubscriptionChoice", {str(subscription_id): text for subscription_id, text in found}, all_ids)


def product_first(workflow: str, form: FormFunction | None) -> FormFunction:
    """Return a form that asks for the product, by its id or its name, and continues with the author's form."""

    async def make(session: AsyncSession) -> type[FormPage]:
        options = await product_choice(session, workflow)
        return create_model("ProductPage", __base__=_ProductPage, product=(cast("Any", options), ...))

    async def read(_: AsyncSession, filled: FormPage) -> State:
        chosen = cast("Any", filled).product
        return {"product": chosen.value, "product_name": chosen.label}

    return _first_page(workflow, form, make, read, frozenset({"product", "product_name"}))


def subscription_first(
    workflow: str,
    form: FormFunction | None,
    check: Callable[[AsyncSession, UUID], Awaitable[Case]],
    *,
    takes_version: bool,
) -> FormFunction:
    """Return a form that asks for the subscription, checks that the workflow may run on it, and continues with the author's.

    Args:
        check: returns what is known of the subscription; raises if the workflow may not run on it. Called before the next
            page is shown, so that no form is filled in for nothing; the start calls it again.
    """

    async def make(_: AsyncSession) -> type[FormPage]:
        return SubscriptionVersionPage if takes_version else SubscriptionPage

    async def read(session: AsyncSession, filled: FormPage) -> State:
        assert isinstance(filled, SubscriptionPage)  # noqa: S101 - it is what was filled
        case = await check(session, filled.subscription_id)
        state: State = {
            SUBSCRIPTION_ID: str(filled.subscription_id),
            "product": str(case.facts.product_id),
            "customer_id": case.customer_id,
        }
        if isinstance(filled, SubscriptionVersionPage) and filled.version is not None:
            require_version(filled.subscription_id, filled.version, case.version)
            # For the locking step, which compares again: until it runs, another process may change the subscription.
            state[SUBSCRIPTION_VERSION] = filled.version
        return state

    return _first_page(workflow, form, make, read, frozenset({SUBSCRIPTION_ID, SUBSCRIPTION_VERSION}))


class _ProductPage(FormPage):
    """Asks for the product; the field is added with the products that there are."""

    model_config = ConfigDict(title="Product")


def _first_page(
    workflow: str,
    form: FormFunction | None,
    make: Callable[[AsyncSession], Awaitable[type[FormPage]]],
    read: Callable[[AsyncSession, FormPage], Awaitable[State]],
    fixed: frozenset[str],
) -> FormFunction:
    what = f"the form of {workflow!r}"

    async def ask(session: AsyncSession) -> ComposedForm:
        return ComposedForm(functools.partial(fill, session))

    async def fill(session: AsyncSession, pages: Pages) -> State:
        state = await read(session, pages.fill(await make(session)))
        if form is None:
            return state
        # Read only now: what the annotations name may stand below the form in the author's module.
        asked = Arguments.of(form, what)
        try:
            loaded = await load_arguments(session, asked, state)
            arguments = asked.fill(state, {"session": face(session, form), "state": state}, loaded)
        except StepError as error:
            # The workflow may run on this subscription; that its form cannot show it is no mistake of the caller's.
            raise DefinitionError(f"{what} cannot be made: {error}") from error
        result = await continue_form(form, arguments, pages, what)
        for key in fixed & state.keys() & result.keys():
            if str(result[key]) != str(state[key]):
                raise DefinitionError(
                    f"{what} ends with another {key!r} than the first page has: call it something else"
                )
        # The rest the form may ask for itself: a modify workflow may give the subscription to another customer.
        return {**state, **result, **{key: state[key] for key in fixed & state.keys()}}

    return ask


class _ById(Choice):
    """Choices whose values are ids. The error for any other value, a label for example, lists the ids with their labels.

    Of a long list some are offered; the ids of all are accepted. Where names are unique, these are accepted as well.
    """

    __accepted__: frozenset[UUID] = frozenset()
    __named__: Mapping[str, str] = {}

    @classmethod
    def _missing_(cls, value: object) -> _ById | None:
        """Return a choice for an id that is accepted though it is not offered."""
        try:
            accepted = UUID(str(value))
        except ValueError:
            return None
        if accepted not in cls.__accepted__:
            return None
        # Enum's own __new__ looks values up, and does not make any.
        made = str.__new__(cls, accepted)
        made._name_ = made._value_ = str(accepted)
        made.label = str(accepted)  # type: ignore[misc]
        return made

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        if not cls.__accepted__:
            return schema
        return schema | {
            "acceptsOthers": True,
            "description": f"The newest {len(cls)} of {len(cls.__accepted__)} are offered; the id of any other is accepted, and"
            " the list of subscriptions, which can be searched, has it.",
        }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        offered = [f"{one.label} ({one.value})" if cls.__named__ else f"{one.value} ({one.label})" for one in cls]
        left = max(len(offered), len(cls.__accepted__)) - _NAMED_CHOICES
        more = f" and {left} more" if left > 0 else ""
        made = handler(source)
        # The page's JSON schema refers to the choices by this name, whatever stands around them.
        name = made.get("ref")
        schema = cast("CoreSchema", {key: value for key, value in made.items() if key != "ref"})
        named = dict(cls.__named__)
        if named:
            schema = no_info_before_validator_function(
                lambda written: named.get(written, written) if isinstance(written, str) else written, schema
            )
        return custom_error_schema(
            schema,
            "choice",
            custom_error_message=f"choose one by its {'name or id' if named else 'id'}: {{offered}}",
            custom_error_context={"offered": f"{', '.join(offered[:_NAMED_CHOICES])}{more}"},
            ref=name,
        )


def _choice(name: str, options: Mapping[str, str], accepted: frozenset[UUID] = frozenset()) -> type[_ById]:
    # Two products or subscriptions may have one description, so the members are named by their values.
    made = cast("type[_ById]", _ById.__call__(name, {value: (value, label) for value, label in options.items()}))
    made.__accepted__ = accepted
    return made
